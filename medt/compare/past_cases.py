"""Scores of single cases, counted from the pixels that a per_case.csv holds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from medt.metrics.pixel import COUNTS

Cells = Mapping[str, str]


def counts_pixels(rows: Sequence[Cells], classes: Sequence[str]) -> bool:
    """Whether a table has the pixels of all these foreground classes."""
    columns = [f"{kind}_{name}" for name in classes for kind in COUNTS]
    return bool(rows and columns) and all(column in rows[0] for column in columns)


def case_dice(row: Cells, classes: Sequence[str]) -> float | None:
    """The mean Dice of the classes that the truth of the case has; None where it has none.

    Raises:
        ValueError: a cell is no whole number.
    """
    counts = [_counts(row, name) for name in classes]
    scores = [2 * tp / (2 * tp + fp + fn) for tp, fp, fn, _ in counts if tp + fn]
    return statistics.mean(scores) if scores else None


def false_alarm_share(rows: Sequence[Cells], classes: Sequence[str]) -> float | None:
    """Of the cases without foreground the share in which some was predicted; None of no such case.

    Raises:
        ValueError: a cell is no whole number.
    """
    cases = [[_counts(row, name) for name in classes] for row in rows]
    without = [
        any(fp for _, fp, _, _ in counts)
        for counts in cases
        if not any(tp + fn for tp, _, fn, _ in counts)
        and any(map(sum, counts))  # else all of it is ignored
    ]
    return statistics.mean(without) if without else None


def _counts(row: Cells, name: str) -> list[int]:
    return [int(row[f"{kind}_{name}"]) for kind in COUNTS]
