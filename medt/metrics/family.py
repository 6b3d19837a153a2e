"""What a metric family is: all that a score needs, from the masks of a case to its table.

A family measures a case, reduces a split, names its columns, tables and charts, and says its rules
in words. The evaluation, the terminal and the report loop over families and know none by name. A
new one is a file with a subclass of :class:`Family` and an entry in
:data:`medt.metrics.families.FAMILIES`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from medt.metrics.empty import DEFAULT_EMPTY, Empty, left_out
from medt.metrics.overlaps import Labels, objects_of
from medt.metrics.pixel_size import ABBREVIATIONS, PIXELS, PixelSize
from medt.metrics.resampling import Weights, percentile_interval, weighted_means
from medt.metrics.sums import mean_of_present

IGNORE_INDEX = 255

Mask = NDArray[np.bool_]
Summary = Mapping[str, Any]


@dataclass(frozen=True)
class How:
    """What holds for all cases of an evaluation.

    Attributes:
        classes: their names in the order of the class ids, background first.
        empty: the rule for a class that the truth of a case does not have.
        tolerance: of the normalised surface distance, in the unit of `pixel_size`.
        pixel_size: that boundaries are measured in.
        object_size: the same for the objects.
    """

    classes: tuple[str, ...]
    empty: Empty = DEFAULT_EMPTY
    tolerance: float = 2.0
    pixel_size: PixelSize = PIXELS
    object_size: PixelSize = PIXELS

    def leaves_out(self, predicted: Mask, true: Mask) -> bool:
        """Whether the rule leaves a class with these masks out of a case's scores."""
        return bool(left_out(self.empty, predicted.any(), true.any()))


@dataclass(frozen=True)
class Masks:
    """One case, as the families measure it.

    Attributes:
        how: what holds for all cases.
        prediction: (H, W) class ids.
        truth: (H, W) class ids, or 255 = ignore.
        probabilities: (classes, H, W), 0..1; only a detailed evaluation has them.
        objects: (H, W), the object of each predicted pixel, 0 = none; only a detailed one, too.
        true_objects: the same of the truth; None takes the components of each class.
    """

    how: How
    prediction: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    probabilities: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), "f4"))
    objects: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    true_objects: NDArray[Any] | None = None

    def foreground(self) -> Iterator[tuple[str, Mask, Mask]]:
        """Of each foreground class its name, predicted mask without what is ignored, true mask."""
        known = self.truth != IGNORE_INDEX
        for class_id, name in enumerate(self.how.classes[1:], start=1):
            yield name, (self.prediction == class_id) & known, self.truth == class_id

    def foreground_objects(self) -> Iterator[tuple[str, Labels, Labels]]:
        """Of each foreground class its name, the numbers of its predicted objects, of the true."""
        for name, predicted, true in self.foreground():
            yield name, self.objects * predicted, objects_of(true, self.true_objects)


@dataclass(frozen=True)
class Measured:
    """What a family measures of a case.

    Attributes:
        sums: what a split adds up, of the family's own kind; it can be pickled.
        case: columns of the case as a whole.
        foreground: columns of the foreground beside the family's `means`.
        classes: columns of each class.
    """

    sums: Any = None
    case: Mapping[str, float] = field(default_factory=dict)
    foreground: Mapping[str, float] = field(default_factory=dict)
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Split:
    """All cases of an evaluation, as a family reduces them.

    Attributes:
        how: what holds for all of them.
        rows: of each case its columns, those of all families.
        sums: of each case what the family measured.
        weights: of the resamples (see `medt.metrics.resampling`); None: no intervals.
        sections: of each case the part of the split that a challenge scores by itself.
    """

    how: How
    rows: Sequence[Mapping[str, Any]]
    sums: Sequence[Any]
    weights: Weights | None = None
    sections: Sequence[str] = ()

    def column(self, key: str, name: str | None = None) -> NDArray[np.float64]:
        """A score of all cases: of one class, or of the foreground."""
        rows = [row["foreground"] if name is None else row["classes"][name] for row in self.rows]
        return np.array([row[key] for row in rows], np.float64)

    def means(self, keys: Iterable[str]) -> dict[str, Any]:
        """Means over cases of scores that the foreground classes alone have."""
        return {
            key: {
                "foreground": mean_of_present(self.column(key)),
                "classes": {
                    name: mean_of_present(self.column(key, name)) for name in self.how.classes[1:]
                },
            }
            for key in keys
        }

    def interval(self, key: str, name: str | None = None) -> list[float]:
        """Of the mean over cases; see `column`."""
        assert self.weights is not None
        return percentile_interval(weighted_means(self.column(key, name), self.weights))


@dataclass(frozen=True)
class Column:
    """How people read a column of the table of cases; the others are in the CSV file alone.

    Attributes:
        key: of the row.
        title: of the column.
        digits: after the point.
        unit: of a length, as `UNITS` spells it out; empty for other numbers.
    """

    key: str
    title: str
    digits: int = 4
    unit: str = ""

    @property
    def name(self) -> str:
        """In the CSV file, where it ends with a unit that is not pixels."""
        short = ABBREVIATIONS.get(self.unit, "px")
        return self.key if short == "px" else f"{self.key}_{short}"

    @property
    def heading(self) -> str:
        """The title with its unit."""
        return f"{self.title} ({ABBREVIATIONS[self.unit]})" if self.unit else self.title


@dataclass(frozen=True)
class Table:
    """A table of texts, for the terminal and the report.

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


@dataclass(frozen=True)
class Chart:
    """Lines in the unit square, for the report.

    Attributes:
        title, x, y: what it shows, and what its axes are.
        lines: x and y of each by name.
        bars: shares of equal bins of 0..1.
        dashed: x and y of a line to compare with.
    """

    title: str
    x: str
    y: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    bars: Sequence[float] = ()
    dashed: tuple[Sequence[float], Sequence[float]] = ((), ())


class Family(ABC):
    """One kind of score; a family has `measure`, and of the other methods what it needs.

    Attributes:
        name: of the family, unlike all others.
        part: what asks for it in `scores=[...]`.
        means: scores of the classes that `measure` gives, of which the foreground gets the mean of
            its classes, and which get intervals.
        rules: what its scores mean, a paragraph a line.
        detailed: whether it needs what only a detailed evaluation has.
    """

    name: ClassVar[str]
    part: ClassVar[str]
    means: Collection[str] = ()
    rules: ClassVar[str] = ""
    detailed: ClassVar[bool] = True

    def suits(self, how: How) -> bool:
        """Whether it is defined for these classes."""
        return True

    @abstractmethod
    def measure(self, masks: Masks) -> Measured:
        """Measure one case."""

    def summarize(self, split: Split) -> dict[str, Any]:
        """What it adds to the summary and metrics.json: plain values, pooled ones included."""
        return {}

    def columns(self, summary: Summary) -> Iterable[Column]:
        """How its columns of the table of cases are called."""
        return ()

    def tables(self, summary: Summary) -> Iterable[Table]:
        """What of the summary is shown; of a table the first column and some more fit 80."""
        return ()

    def charts(self, summary: Summary) -> Iterable[Chart]:
        """What of the summary the report draws."""
        return ()


def number(value: float, digits: int = 4) -> str:
    """A score in so many digits after the point, or a dash for NaN, which was left out."""
    return "-" if math.isnan(value) else f"{value:,.{digits}f}"


def between(interval: Sequence[float], digits: int = 3, to: str = " to ") -> str:
    """An interval in so many digits, or a dash where there is none."""
    low, high = interval
    return "-" if math.isnan(low) else f"{low:.{digits}f}{to}{high:.{digits}f}"


def with_interval(value: float, interval: Sequence[float] | None, digits: int = 4) -> str:
    """A score and beneath it, in half the digits, its interval, if there is one."""
    shown = number(value, digits)
    if interval is None or math.isnan(interval[0]):
        return shown
    return f"{shown}\n{between(interval, digits // 2, ' to ' if interval[0] < 0 else '-')}"


def foreground_rows(means: Summary, summary: Summary, digits: Mapping[str, int]) -> list[list[str]]:
    """Rows of a table: each foreground class and their mean, of what `Split.means` gave."""
    drawn = summary["intervals"]["mean_over_cases"]

    def cells(name: str | None) -> list[str]:
        parts = [
            (of_class(means[key], name), of_class(drawn[key], name), digits[key]) for key in digits
        ]
        return [with_interval(*part) for part in parts]

    names = [*next(iter(means.values()))["classes"], None]
    return [[name or "foreground mean", *cells(name)] for name in names]


def of_class(part: Summary, name: str | None) -> Any:
    """What a part of a summary says of a class, or of the foreground."""
    return part["foreground"] if name is None else part["classes"][name]
