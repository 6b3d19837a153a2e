"""Tables of numbers as plain texts, for the terminal and for the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: the heading of the first column, which holds names.
        columns: the headings of the others, which hold numbers.
        rows: a cell for each column; a cell may have a second line, such as an interval.
        note: what to say beneath.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def number(value: float, digits: int = 4) -> str:
    """A score in so many digits after the point, or a dash for NaN, which was left out."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def between(interval: Sequence[float], digits: int = 3, to: str = " to ") -> str:
    """An interval in so many digits, or a dash where there is none."""
    low, high = interval
    return "-" if math.isnan(low) else f"{low:.{digits}f}{to}{high:.{digits}f}"


def with_interval(value: float, interval: Sequence[float] | None, digits: int = 4) -> str:
    """A score of 0 or above and beneath it, in half the digits, its interval, if there is one."""
    shown = number(value, digits)
    if interval is None or math.isnan(interval[0]):
        return shown
    return f"{shown}\n{between(interval, digits // 2, '-')}"
