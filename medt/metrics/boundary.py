"""How far the outlines of two masks lie apart: HD95 and normalised surface distance."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from medt.metrics.distances import UNSPACED, distances_between
from medt.metrics.family import (
    Column,
    Family,
    Masks,
    Measured,
    Split,
    Summary,
    Table,
    foreground_rows,
)
from medt.metrics.pixel_size import ABBREVIATIONS, UNITS, Spacing, distance_of_offset

PERCENTILE = 95
ROUNDING = 1e-9  # so that three pixels of 0.1 are within 0.3

BOUNDARY_RULES = f"""\
Boundary: the pixels of a mask of which one of the four neighbours is not in it; beyond the \
image's edge nothing is.
HD95: for each boundary pixel of one mask the distance to the nearest boundary pixel of the other; \
the {PERCENTILE}th percentile of each direction, and the larger of the two. One mask empty: the \
image's diagonal, and counted; both: 0.
NSD, normalised surface distance: the share of the boundary pixels of both masks that lie within \
the tolerance of the other's boundary (Nikolov et al. 2021). One mask empty: 0; both: 1.
Of both, a class that the rule empty=... leaves out of a case's Dice is left out, too."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class BoundaryScores:
    """Of one class in one case.

    Attributes:
        hd95: in pixels, or the unit of ``spacing``.
        nsd: 0..1.
        empty: how many of the two masks are.
    """

    hd95: float
    nsd: float
    empty: Literal[0, 1, 2]


def boundary_scores(
    prediction: Mask, truth: Mask, tolerance: float, spacing: Spacing = UNSPACED
) -> BoundaryScores:
    """Compare the boundaries of two masks, as :data:`BOUNDARY_RULES` says.

    Huttenlocher et al. 1993, https://doi.org/10.1109/34.232073 (Hausdorff distance), and Nikolov
    et al. 2021, https://doi.org/10.2196/26151 (normalised surface distance, there by surface area).

    Args:
        prediction: (H, W) bool.
        truth: (H, W) bool.
        tolerance: of the normalised surface distance, in the unit of ``spacing``.
        spacing: height and width of a pixel: 1 and 1 measure in pixels, others in e.g. micrometres.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, truth {truth.shape}")
    there = prediction.any(), truth.any()
    if not all(there):
        if any(there):
            rows, columns = truth.shape
            return BoundaryScores(distance_of_offset(rows, columns, spacing), 0.0, 1)
        return BoundaryScores(0.0, 1.0, 2)
    outlines = [boundary(mask) for mask in _boxed(prediction, truth)]
    forth, back = (
        distances_between(first, second, spacing) for first, second in (outlines, outlines[::-1])
    )
    hd95 = max(float(np.percentile(d, PERCENTILE)) for d in (forth, back))
    near = sum(int((d <= tolerance * (1 + ROUNDING)).sum()) for d in (forth, back))
    return BoundaryScores(hd95, near / (len(forth) + len(back)), 0)


def boundary(mask: Mask) -> Mask:
    """The pixels of a mask (H, W) of which a 4-neighbour is outside of it, or of the image."""
    inner = cv2.erode(
        mask.astype(np.uint8),
        cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)),
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    outline: Mask = mask & (inner == 0)
    return outline


def _boxed(first: Mask, second: Mask) -> tuple[Mask, Mask]:
    """Both masks in the smallest box that holds them."""
    union = first | second
    rows, columns = (np.flatnonzero(union.any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return first[box], second[box]


class BoundaryFamily(Family):
    """HD95 and normalised surface distance."""

    name = part = "boundary"
    rules = BOUNDARY_RULES
    means = ("hd95", "nsd")

    def measure(self, masks: Masks) -> Measured:
        how, classes, one_empty = masks.how, {}, {}
        for name, predicted, true in masks.foreground():
            scores = boundary_scores(predicted, true, how.tolerance, how.pixel_size.spacing)
            out = how.leaves_out(predicted, true)
            one_empty[name] = scores.empty == 1 and not out
            classes[name] = {key: math.nan if out else getattr(scores, key) for key in self.means}
        return Measured(one_empty, classes=classes)

    def summarize(self, split: Split) -> dict[str, Any]:
        how = split.how
        one_empty = {name: sum(case[name] for case in split.sums) for name in how.classes[1:]}
        summary = {
            "unit": UNITS[how.pixel_size.unit],
            "pixel_size": how.pixel_size.plain,
            "tolerance": how.tolerance,
            "mean_over_cases": split.means(self.means),
            "one_empty": one_empty,
        }
        return {"boundary": summary}

    def columns(self, summary: Summary) -> Iterable[Column]:
        part = summary["boundary"]
        yield Column("hd95", "HD95", 2, part["unit"])
        yield Column("nsd", f"NSD at {part['tolerance']:g} {ABBREVIATIONS[part['unit']]}")

    def tables(self, summary: Summary) -> Iterable[Table]:
        part = summary["boundary"]
        rows = foreground_rows(part["mean_over_cases"], summary, {"hd95": 2, "nsd": 4})
        empty = [*map(str, part["one_empty"].values()), ""]
        heads = [*(column.heading for column in self.columns(summary)), "one mask empty"]
        cells = [[*row, count] for row, count in zip(rows, empty, strict=True)]
        yield Table("boundaries (mean)", heads, cells)


BOUNDARY = BoundaryFamily()
