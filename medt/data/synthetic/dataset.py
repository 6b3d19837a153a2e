"""The synthetic gland images as a dataset on disk: each set in a folder that its numbers name."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medt.data.layout import (
    CARD,
    DatasetCard,
    DatasetIndex,
    default_classes,
    listed,
    open_prepared,
    read_card,
    write_card,
)
from medt.data.splits import SPLITS, SplitRow, write_splits
from medt.data.synthetic.images import synthetic_case
from medt.errors import UserError
from medt.io.files import atomic_folder, remove_abandoned, write_png
from medt.io.links import check_link
from medt.io.locks import HeldError, locked_beside
from medt.shipped import typed

SPLITS_FILE = "splits.csv"
GENERATOR = (
    1  # raise it when medt/data/synthetic/images.py draws other images from the same numbers
)
BYTES_PER_PIXEL = 2.2  # of image, mask and instances together, as PNG


class Bound(NamedTuple):
    """What a set may have at most to be drawn."""

    images: int
    pixels: int

    def __str__(self) -> str:
        return f"at most {self.images:,} images and {self.pixels:,} pixels"


OWN_COMMAND = Bound(images=100_000, pixels=2**31)


@dataclass(frozen=True)
class SyntheticSet:
    """All that a set is drawn from; the same numbers give the same images.

    Attributes:
        train, val, test: numbers of cases.
        size: height and width in pixels.
    """

    seed: int = 0
    train: int = 160
    val: int = 16
    test: int = 32
    size: int = 256

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> SyntheticSet:
        """The set that dataset settings name, which `check_settings` has passed."""
        names = [one.name for one in fields(cls)]
        return cls(**{name: settings[name] for name in names if settings.get(name) is not None})

    def folder(self, root: Path) -> Path:
        """Where it lies below the root of all sets."""
        counts = f"{self.train}-{self.val}-{self.test}"
        return root / f"seed{self.seed}-{counts}-{self.size}px-g{GENERATOR}"

    @property
    def images(self) -> int:
        return self.train + self.val + self.test

    @property
    def pixels(self) -> int:
        return self.images * self.size**2

    def within(self, bound: Bound) -> bool:
        return self.images <= bound.images and self.pixels <= bound.pixels

    def __str__(self) -> str:
        return f"{self.images:,} synthetic images of {self.size} x {self.size} pixels"


def open_synthetic(root: Path, drawn: SyntheticSet) -> DatasetIndex:
    """Index a set that lies below ``root``.

    Raises:
        UserError: it is not there, a file of it is missing, or its folder holds something else.
    """
    folder = drawn.folder(root)
    if not folder.exists():
        raise UserError(
            f"there is no {folder}", f"draw it: {typed('prepare_data')} dataset=synthetic"
        )
    card = read_card(folder) if (folder / CARD).is_file() else None
    anew = "delete that folder to draw it anew, or give another dataset.root"
    if card is None or (card.name, dict(card.prepared)) != ("synthetic", _prepared(drawn)):
        raise UserError(f"{folder} does not hold the synthetic set that its name says", anew)
    missing = [file for file in card.checksums if not (folder / file).is_file()]
    if missing:
        raise UserError(f"{folder} is not whole, it lacks {listed(missing)}", anew)
    check_link(folder / SPLITS_FILE, folder)
    return open_prepared(folder, folder / SPLITS_FILE)


def draw_synthetic(root: Path, drawn: SyntheticSet, bound: Bound = OWN_COMMAND) -> None:
    """Draw a set below ``root`` unless there is a folder of its name; that is left as it is.

    Of several processes that want one set at once the first draws it, and the others wait.

    Raises:
        UserError: it has more images or pixels than ``bound`` allows, or cannot be written.
    """
    folder = drawn.folder(root)
    if folder.exists():
        return
    if not drawn.within(bound):
        raise UserError(
            f"{drawn} have {drawn.pixels:,} pixels", f"{bound} are drawn: give lower numbers"
        )
    try:
        _draw(folder, drawn, wait=False)
    except HeldError as error:
        print(f"{error.message}: waiting for it", file=sys.stderr, flush=True)
        _draw(folder, drawn, wait=True)


def _draw(folder: Path, drawn: SyntheticSet, wait: bool) -> None:
    with locked_beside(folder, "another command", "dataset.root=...", wait) as alone:
        if alone:
            remove_abandoned(folder)
        if folder.exists():
            return
        megabytes = max(1, round(drawn.pixels * BYTES_PER_PIXEL / 1e6))
        print(f"Drawing {drawn}, about {megabytes:,} MB, in {folder}", file=sys.stderr, flush=True)
        with atomic_folder(folder, replace=False) as temporary:
            _write(temporary, drawn)


def _prepared(drawn: SyntheticSet) -> dict[str, int]:
    return {**asdict(drawn), "generator": GENERATOR}


def _write(folder: Path, drawn: SyntheticSet) -> None:
    counts = {split: getattr(drawn, split) for split in SPLITS}
    names = [(f"{split}_{i + 1}", split) for split, count in counts.items() for i in range(count)]
    for index, (name, _) in enumerate(names):
        case = synthetic_case(drawn.seed, index, drawn.size)
        write_png(folder / "images" / f"{name}.png", case.image)
        write_png(folder / "masks" / f"{name}.png", (case.instances > 0).astype(np.uint8))
        write_png(folder / "instances" / f"{name}.png", case.instances)
    write_splits(folder / SPLITS_FILE, [SplitRow(name, name, split) for name, split in names])
    write_card(
        folder,
        DatasetCard(
            name="synthetic",
            classes=default_classes(("background", "gland")),
            channels=3,
            licence="None needed: generated by medt",
            source="medt/data/synthetic/images.py",
            citation="",
            prepared=_prepared(drawn),
        ),
    )
