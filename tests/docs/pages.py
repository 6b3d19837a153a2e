"""The fenced blocks of README and docs, and how a command in them runs in seconds."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from medt.cli.__main__ import COMMANDS
from medt.cli.run import run

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"```([a-z]*)(?: title=\"([^\"]+)\")?")
RUN = "<!-- run -->"
# What makes a training of a page one of seconds; values of the page are replaced by these.
SMALL_TRAINING = {"trainer.epochs": "1", "trainer.device": "cpu", "trainer.precise_norm_cases": "0"}
SMALL_NETWORK = "gated_axial_unet"
LARGE_NETWORKS = ("medt", "medt_plus", None)
SIZE = {"dataset.image_size": "32"}
DEPTHS = {"model.depths": "[1,1]"}
OWN = ("--config-dir",)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: its file.
        line: of its fence, from 1.
        section: the heading of the second level that it stands below.
        language: what follows the fence.
        title: the file that it is the text of; empty if it is none.
        text: without the fences.
        runs: whether it is marked to be run.
    """

    page: Path
    line: int
    section: str
    language: str
    title: str
    text: str
    runs: bool

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found: list[Block] = []
    section, marked, start, body = "", False, None, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if start is not None:
            if text != "```":
                body.append(line)
                continue
            (at, language, title), start = start, None
            found.append(Block(page, at, section, language, title, "\n".join(body) + "\n", marked))
            marked = False
        elif text.startswith("```"):
            match = FENCE.fullmatch(text)
            assert match, f"{page.name}:{number}: a fence says a language and perhaps a title"
            start, body = (number, match[1], match[2] or ""), []
        else:
            section = line[3:] if line.startswith("## ") else section
            marked = text == RUN or (marked and not text)
    assert start is None, f"{page.name}: a block does not end"
    return found


def lines_of(block: Block) -> Iterator[list[str]]:
    """The words of each command of a block; a line that ends with a backslash goes on."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def command_of(words: list[str]) -> tuple[str, list[str]] | None:
    """A command of medt and what is given to it; None for any other program."""
    if words[0] == "torchrun":
        words = [word for word in words[1:] if not word.startswith("--") and word != "-m"]
        words = words if words[0] != "medt.cli" else ["medt", *words[1:]]
        words = words if words[0] == "medt" else ["python", *words]
    if words[0] == "medt" and len(words) > 1 and words[1] in COMMANDS:
        return words[1], words[2:]
    if words[0] == "python" and len(words) > 1 and words[1].startswith("scripts/"):
        return Path(words[1]).stem, words[2:]
    return None


def small(command: str, given: list[str]) -> list[str]:
    """The same in seconds."""
    if command != "train":
        return given
    keys = {word.partition("=")[0]: word.partition("=")[2] for word in given}
    wanted = dict(SMALL_TRAINING)
    if not any(word.startswith(OWN) for word in given):
        wanted |= SIZE
    network = keys.get("model")
    if network in LARGE_NETWORKS and "resume" not in keys:
        wanted |= {"model": SMALL_NETWORK, **DEPTHS, **SIZE}
    elif network is not None and network.endswith("axial_unet"):
        wanted |= DEPTHS
    kept = [word for word in given if word.partition("=")[0] not in wanted]
    return [*kept, *(f"{key}={value}" for key, value in wanted.items())]


def start(words: list[str]) -> None:
    """Run a command of a page in this process, or another Python script in one of its own."""
    if found := command_of(words):
        command, given = found
        assert run(command, small(command, given)) == 0, words
    else:
        assert words[0] == "python", words
        subprocess.run([sys.executable, *words[1:]], check=True)


def draw_images(folder: Path, masks: str = "masks", images: str = "images") -> None:
    """Ten small images of discs with their masks, named as two patients to each split."""
    (folder / images).mkdir(parents=True)
    (folder / masks).mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(1, 13):
        mask = np.zeros((64, 64), np.uint8)
        for _ in range(3):
            x, y = (int(n) for n in random.integers(8, 56, 2))
            cv2.circle(mask, (x, y), int(random.integers(6, 12)), 255, -1)
        image = random.integers(0, 90, (64, 64, 3)).astype(np.uint8)
        image[mask > 0] += 120
        cv2.imwrite(str(folder / images / f"test_{number}.png"), image)
        cv2.imwrite(str(folder / masks / f"test_{number}.png"), mask)


def quick(real: Callable[..., Any]) -> Callable[..., Any]:
    """`medt.train` for one epoch."""
    return lambda *a, **k: real(*a, **{**k, "epochs": 1, "precise_norm_cases": 0, "device": "cpu"})
