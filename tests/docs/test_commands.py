"""Each block of README and docs: commands are composed, those marked are run, Python is run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import (
    PAGES,
    ROOT,
    Block,
    blocks_of,
    command_of,
    draw_images,
    lines_of,
    quick,
    start,
)

import medt
from medt.cli.run import run
from medt.io.plain import read_yaml

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
LANGUAGES = {"bash", "python", "yaml", "text"}
# The walks of this page need the files that they write, see test_extend.py.
WALKS = "extend.md"
CONF = "--config-dir=conf"
FLAGS = ("-m", "--multirun")
OTHERS = ("pip", "make", "git", "cd", "medt", "python", ".", "tensorboard", "pre-commit")


def of(language: str) -> list[Any]:
    chosen = [b for b in BLOCKS if b.language == language and not b.title]
    return [pytest.param(block, id=str(block)) for block in chosen]


def one_of_each(word: str) -> str:
    """Of the values of a sweep the first."""
    key, equals, value = word.partition("=")
    if re.match(r"(tag|interval|range|choice)\(", value):
        return f"{key}={re.findall(r'[0-9][0-9.e-]*', value)[0]}"
    if "," in value and value[0] not in "[{":
        return f"{key}={value.split(',')[0]}"
    return f"{key}{equals}{value}"


def composed(command: str, given: list[str]) -> int:
    """Compose what a command is given, of a sweep one run; returns the exit code."""
    swept = any(flag in given for flag in FLAGS)
    texts = [one_of_each(word) if swept else word for word in given if word not in FLAGS]
    return run(command, texts if "--help" in texts else [*texts, "--cfg", "job"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page: Path) -> None:
    strange = {str(block) for block in blocks_of(page) if block.language not in LANGUAGES}
    assert strange == set()


@pytest.mark.parametrize("block", of("bash"))
def test_a_command_is_composed(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["medt"])
    for walk in (other for other in BLOCKS if other.title.startswith("conf")):
        file = tmp_path / walk.title.replace("configs/", "conf/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(walk.text)
    for words in lines_of(block):
        found = command_of(words)
        if found is None:
            assert words[0] in OTHERS, words
            continue
        command, given = found
        own = [] if block.page.name != WALKS or CONF in given else [CONF]
        code = composed(command, [*given, *own])
        assert code == 0, (words, capsys.readouterr().err)


def shown(block: Block) -> Iterator[list[str]]:
    """The words of the commands that stand before shown output, but for those that are refused."""
    lines = block.text.replace("\\\n", " ").splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("$ ") and not after.startswith("error: "):
            yield shlex.split(line[2:].replace("<time>", "time"))


@pytest.mark.parametrize("block", of("text"))
def test_a_command_before_shown_output_is_composed(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["medt"])
    for words in shown(block):
        if found := command_of(words):
            assert composed(*found) == 0, (words, capsys.readouterr().err)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder of a user, with images and masks."""
    draw_images(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["medt"])
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path


MARKED = [page for page in PAGES if any(block.runs for block in blocks_of(page))]


@pytest.mark.parametrize("page", MARKED, ids=lambda page: page.name)
def test_what_is_marked_runs(page: Path, here: Path, capsys: Any) -> None:
    for block in blocks_of(page):
        for words in lines_of(block) if block.runs else ():
            if command_of(words):
                start(words)
    assert list(here.glob("runs/*/checkpoints/best.pt"))


def test_something_is_marked() -> None:
    assert ROOT / "README.md" in MARKED


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the images that `here` has."""
    folder = tmp_path_factory.mktemp("trained")
    draw_images(folder)
    data = medt.open_folder(folder / "images", folder / "masks", image_size=32)
    network = medt.AxialUNet(image_size=32, depths=[1, 1])
    run_folder = medt.train(network, data, epochs=1, run_dir=folder / "run", device="cpu")
    return run_folder.root


@pytest.mark.slow
@pytest.mark.parametrize("block", [p for p in of("python") if WALKS not in str(p.id)])
def test_python_runs(
    block: Block, here: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (here / "runs").mkdir()
    (here / "runs/mine").symlink_to(trained)
    monkeypatch.setenv("MEDT_ALLOW_LINKS", "1")
    monkeypatch.setattr(medt, "train", quick(medt.train), raising=False)
    exec(compile(block.text, str(block), "exec"), {"__name__": "example"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_keys_that_are_named_exist(page: Path) -> None:
    known = {
        f"{group}.{key}"
        for group in ("dataset", "trainer", "paths", "model", "loss", "optimizer", "scheduler")
        for file in (ROOT / "configs" / group).glob("*.yaml")
        for key in read_yaml(file)
    }
    groups = "|".join({key.partition(".")[0] for key in known})
    text = page.read_text(encoding="utf-8").replace("dataset.yaml", "")
    named = re.findall(rf"[`' \n]((?:{groups})\.[a-z]\w*)(?=[=`| '\n])", text)
    own = {"model.width", "trainer.epoch"}  # of the network that is added; misspelt
    assert set(named) - known - own == set()


def test_the_files_of_the_spine_are_there() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(medt/\S+\.py)` \| (\d+) \|", page, flags=re.MULTILINE)
    assert len(named) > 10
    lines = {name: len((ROOT / name).read_text().splitlines()) for name, _ in named}
    assert 3000 < sum(lines.values()) < 5000


def test_the_pictures_are_there() -> None:
    for page in PAGES:
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in (*PAGES, ROOT / "data/README.md", ROOT / "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_pages_are_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for file in tmp_path.rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r'<(script|link)[^>]+(src|rel="stylesheet" href)="https?:', text)
