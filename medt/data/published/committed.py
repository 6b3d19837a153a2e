"""Splits that belong to the name of a published dataset, wherever its images lie."""

from __future__ import annotations

from pathlib import Path

from medt.data.splits import SplitRow, read_splits
from medt.shipped import shipped

COMMITTED = shipped("splits")


def committed_rows(name: str, splits_file: Path) -> list[SplitRow]:
    """The splits that belong to a dataset's name, where its split file is yet to be written.

    Only for the place where it is looked for by default: another path is the user's own split.
    """
    committed = COMMITTED / f"{name}.csv"
    by_default = splits_file.parts[-2:] == ("splits", committed.name)
    if splits_file.exists() or not by_default or not committed.exists():
        return []
    return read_splits(committed)
