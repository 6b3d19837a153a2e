"""pyproject.toml, the files of constraints and docs/dependencies.md agree; imports stay offline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GROUPS = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
WRITTEN = [text for group in GROUPS for text in group if not text.startswith("medt[")]
DIRECT = [Requirement(text) for text in WRITTEN]


def pins(name):
    lines = (ROOT / "constraints" / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def pinned(requirement):
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    return Version(specifier.version)


def lower_bound(requirement):
    (version,) = (s.version for s in requirement.specifier if s.operator in (">=", "=="))
    return Version(version)


def key(requirement):
    return canonicalize_name(requirement.name), str(requirement.marker)


def test_the_lowest_versions_are_the_lower_bounds():
    expected = {key(requirement): lower_bound(requirement) for requirement in DIRECT}
    assert {key(pin): pinned(pin) for pin in pins("lowest.txt")} == expected


def test_the_tested_versions_lie_within_the_ranges():
    tested = {canonicalize_name(pin.name): pinned(pin) for pin in pins("tested.txt")}
    for requirement in DIRECT:
        if requirement.marker is None or requirement.marker.evaluate({"python_version": "3.11"}):
            assert tested[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_tested_versions_can_be_had_on_every_platform():
    for pin in pins("tested.txt"):
        assert not pin.name.startswith(("cuda", "nvidia", "triton")), pin
        assert pinned(pin).local is None, pin


@pytest.mark.parametrize("written", WRITTEN)
def test_each_dependency_and_its_range_stand_in_the_table(written):
    name = Requirement(written).name
    table = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8").splitlines()
    (row,) = (line for line in table if line.startswith(f"| {name} |"))
    assert f"`{written.split(';')[0].removeprefix(name)}`" in row.split("|")[2]


OFFLINE = """
import os, socket
socket.getaddrinfo = socket.create_connection = lambda *a, **k: os._exit(3)
import {module}
"""


def code_of_import(module):
    environment = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    code = OFFLINE.format(module=module)
    return subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode


def test_the_augmentation_asks_nobody_for_updates():
    assert code_of_import("medt.data.augmentation") == 0


@pytest.mark.slow
def test_the_test_would_notice():
    assert code_of_import("albumentations") == 3
