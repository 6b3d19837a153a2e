"""What a release says of itself in several places is the same."""

from __future__ import annotations

import re

import yaml
from pages import ROOT

import medt


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_everywhere_the_same() -> None:
    assert str(yaml.safe_load(read("CITATION.cff"))["version"]) == medt.__version__
    first = re.search(r"^## (\S+)", read("CHANGELOG.md"), flags=re.MULTILINE)
    assert first
    assert first[1] == medt.__version__


def test_ci_tries_each_python_that_is_announced() -> None:
    announced = re.findall(r"Python :: (3\.\d+)", read("pyproject.toml"))
    jobs = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]
    assert jobs["linux"]["strategy"]["matrix"]["python"] == announced
    low, high = re.findall(r"3\.(\d+)", read("pyproject.toml").split("requires-python")[1][:40])
    assert announced == [f"3.{minor}" for minor in range(int(low), int(high))]


def test_the_sections_of_the_changelog_are_the_four() -> None:
    assert set(re.findall(r"^### (.+)$", read("CHANGELOG.md"), flags=re.MULTILINE)) <= {
        "Added",
        "Changed",
        "Fixed",
        "Removed",
    }
