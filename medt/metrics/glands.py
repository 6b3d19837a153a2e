"""The three scores of the GlaS challenge: object F1, object Dice, object Hausdorff distance.

Sirinukunwattana et al. 2017, "Gland segmentation in colon histology images: The GlaS challenge
contest", Medical Image Analysis 35, section 5, https://doi.org/10.1016/j.media.2016.08.008
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medt.metrics.distances import UNSPACED, distance_map, distances_between
from medt.metrics.family import (
    Column,
    Family,
    Masks,
    Measured,
    Split,
    Summary,
    Table,
    with_interval,
)
from medt.metrics.overlaps import Integers, Labels, Overlaps, find_overlaps
from medt.metrics.pixel_size import UNITS, Spacing
from medt.metrics.resampling import percentile_interval
from medt.metrics.sums import add, quotient

GLAND_RULES = """\
Object F1: a predicted object is right if it covers more than half of the true object that it \
overlaps most. Nothing true and nothing predicted: 1.
Object Dice and object Hausdorff distance: half of the predicted side and the true side; each side \
is the mean over its objects, weighted by their areas over all images together, of the Dice, or \
the Hausdorff distance, to the object of the other side that it overlaps most (of equal \
overlaps the smaller object). Without such an object Dice is 0, and the distance that to the \
object of this image with the smallest one.
An object in an image whose other side is empty has no distance: it is left out of the object \
Hausdorff distance, and the image counted as undefined."""

# The scores' columns in the table of cases.
COLUMNS = {
    "f1": "object_f1_glas",
    "object_dice": "object_dice",
    "object_hausdorff": "object_hausdorff",
}
Value = float | NDArray[np.float64]


@dataclass(frozen=True)
class GlandSums:
    """What an image contributes; sums of several images are sums of each.

    Attributes:
        tp, fp, fn: objects.
        predicted_area, true_area: pixels of all objects of a side.
        predicted_dice, true_dice: the sum over a side's objects of area times Dice.
        predicted_measured, true_measured: pixels of the objects that have a Hausdorff distance.
        predicted_distance, true_distance: the sum over these of area times distance.
        undefined: 1 if objects have no distance.
    """

    tp: Value
    fp: Value
    fn: Value
    predicted_area: Value
    true_area: Value
    predicted_dice: Value
    true_dice: Value
    predicted_measured: Value
    true_measured: Value
    predicted_distance: Value
    true_distance: Value
    undefined: Value


def gland_sums(prediction: Labels, truth: Labels, spacing: Spacing = UNSPACED) -> GlandSums:
    """Compare the objects of one image.

    Args:
        prediction: (H, W) object numbers, 0 = none.
        truth: the same.
        spacing: height and width of a pixel, in whose unit the distances are; the challenge's are
            in pixels.

    Raises:
        ValueError: the shapes differ, or an object number is negative.
    """
    overlaps = find_overlaps(prediction, truth)
    areas = overlaps.predicted_area, overlaps.true_area
    partners, shared = zip(*(_partners(overlaps, side) for side in (0, 1)), strict=True)
    found = partners[0] >= 0
    covered = shared[0][found] / areas[1][partners[0][found]]
    tp = int((covered > 0.5).sum())
    both = all(map(len, areas))
    distances = _Distances(overlaps, spacing)
    dice = [
        float((area * _dice(area, areas[1 - side], partners[side], shared[side])).sum())
        for side, area in enumerate(areas)
    ]
    distance = [
        float((area * distances.of_side(side, partners[side])).sum()) if both else 0.0
        for side, area in enumerate(areas)
    ]
    measured = [int(area.sum()) if both else 0 for area in areas]
    return GlandSums(
        tp=tp,
        fp=len(areas[0]) - tp,
        fn=len(areas[1]) - tp,
        predicted_area=int(areas[0].sum()),
        true_area=int(areas[1].sum()),
        predicted_dice=dice[0],
        true_dice=dice[1],
        predicted_measured=measured[0],
        true_measured=measured[1],
        predicted_distance=distance[0],
        true_distance=distance[1],
        undefined=int(any(map(len, areas)) and not both),
    )


def gland_scores(sums: GlandSums) -> dict[str, NDArray[np.float64]]:
    """``f1``, ``object_dice`` (0..1) and ``object_hausdorff`` (in the unit of the sums' spacing).

    The sums may be arrays, one entry for each of several additions; so are the scores then. Object
    Dice is 1 where there is no object at all; the Hausdorff distance is 0 there, and NaN where no
    object has one.
    """
    tp, fp, fn = (np.asarray(n, np.float64) for n in (sums.tp, sums.fp, sums.fn))
    nothing = tp + fp + fn == 0
    f1 = quotient(2 * tp, 2 * tp + fp + fn, 1.0)
    sides = [
        quotient(sums.predicted_dice, sums.predicted_area, 0.0),
        quotient(sums.true_dice, sums.true_area, 0.0),
    ]
    distances = [
        quotient(sums.predicted_distance, sums.predicted_measured),
        quotient(sums.true_distance, sums.true_measured),
    ]
    return {
        "f1": f1,
        "object_dice": np.where(nothing, 1.0, (sides[0] + sides[1]) / 2),
        "object_hausdorff": np.where(nothing, 0.0, (distances[0] + distances[1]) / 2),
    }


def _partners(overlaps: Overlaps, side: int) -> tuple[Integers, Integers]:
    """Of each object of a side (0 predicted, 1 true) the one it overlaps most, and how much.

    -1 and 0 where it overlaps none; of equal overlaps the smaller object.
    """
    areas = overlaps.predicted_area, overlaps.true_area
    own, other = overlaps.pairs[:, side], overlaps.pairs[:, 1 - side]
    order = np.lexsort((-areas[1 - side][other], overlaps.shared))  # the best is last
    partners = np.full(len(areas[side]), -1, np.int64)
    shared = np.zeros(len(areas[side]), np.int64)
    partners[own[order]] = other[order]
    shared[own[order]] = overlaps.shared[order]
    return partners, shared


def _dice(
    area: Integers, other_area: Integers, partners: Integers, shared: Integers
) -> NDArray[np.float64]:
    """Of each object with its partner; 0 without one."""
    partner_area = np.zeros(len(partners), np.int64)
    found = partners >= 0
    partner_area[found] = other_area[partners[found]]
    return np.asarray(2 * shared / (area + partner_area), np.float64)


class _Distances:
    """Hausdorff distances between the pixels of the objects of an image."""

    def __init__(self, overlaps: Overlaps, spacing: Spacing) -> None:
        self.spacing = spacing
        self.maps = overlaps.predicted, overlaps.true
        self.boxes = tuple(ndimage.find_objects(labels) for labels in self.maps)
        self.known: dict[tuple[int, int], float] = {}

    def of_side(self, side: int, partners: Integers) -> NDArray[np.float64]:
        """Of each object of a side to its partner, or to the nearest object of the other side."""
        distances = [
            self._between(side, own, partner) if partner >= 0 else self._nearest(side, own)
            for own, partner in enumerate(partners.tolist())
        ]
        return np.array(distances, np.float64)

    def _between(self, side: int, own: int, other: int) -> float:
        key = (own, other) if side == 0 else (other, own)
        if key not in self.known:
            pair = [
                labels[_hull(self.boxes[0][key[0]], self.boxes[1][key[1]])] == number + 1
                for labels, number in zip(self.maps, key, strict=True)
            ]
            ways = pair, pair[::-1]
            forth, back = (distances_between(one, two, self.spacing) for one, two in ways)
            self.known[key] = max(float(forth.max()), float(back.max()))
        return self.known[key]

    def _nearest(self, side: int, own: int) -> float:
        """The smallest distance to an object of the other side.

        The way from the others to this one bounds each from below, and is known for all at once.
        """
        others = self.maps[1 - side]
        away = distance_map(self.maps[side] == own + 1, self.spacing)
        present = others > 0
        bounds = np.zeros(len(self.boxes[1 - side]), np.float32)
        np.maximum.at(bounds, others[present] - 1, away[present])
        best = np.inf
        for other in np.argsort(bounds).tolist():
            if bounds[other] > best:  # rounded, and a bound may be reached
                break
            best = min(best, self._between(side, own, other))
        return float(best)


def _hull(first: tuple[slice, ...], second: tuple[slice, ...]) -> tuple[slice, ...]:
    """The smallest box around two."""
    return tuple(
        slice(min(a.start, b.start), max(a.stop, b.stop))
        for a, b in zip(first, second, strict=True)
    )


class GlandFamily(Family):
    """The challenge's scores of each part of its test by itself."""

    name = "glas"
    part = "objects"
    rules = GLAND_RULES

    def measure(self, masks: Masks) -> Measured:
        spacing = masks.how.object_size.spacing
        sums = {
            name: gland_sums(predicted, true, spacing)
            for name, predicted, true in masks.foreground_objects()
        }
        classes = {
            name: {COLUMNS[key]: float(score) for key, score in gland_scores(one).items()}
            for name, one in sums.items()
        }
        return Measured(sums, classes=classes)

    def summarize(self, split: Split) -> dict[str, Any]:
        unit = UNITS[split.how.object_size.unit]
        sections: dict[str, list[int]] = {}
        for index, section in enumerate(split.sections):
            sections.setdefault(section, []).append(index)
        objects = {
            name: {
                "glas": {key: _of_section(split, name, own) for key, own in sections.items()},
                "unit": unit,
            }
            for name in split.how.classes[1:]
        }
        return {"objects": objects}

    def columns(self, summary: Summary) -> Iterable[Column]:
        unit = next(iter(summary["objects"].values()))["unit"]
        yield Column("object_hausdorff", "Hausdorff", 2, unit)

    def tables(self, summary: Summary) -> Iterable[Table]:
        (distance,) = self.columns(summary)
        digits = {"f1": 4, "object_dice": 4, "object_hausdorff": 2}
        heads = ["object F1", "object Dice", distance.heading, "undefined"]
        for name, objects in summary["objects"].items():
            rows = []
            for section, found in objects["glas"].items():
                drawn = found["intervals"]
                cells = [with_interval(found[key], drawn[key], digits[key]) for key in digits]
                rows.append([f"{section} ({found['cases']})", *cells, str(found["undefined"])])
            yield Table(f"GlaS scores of {name}", heads, rows)


def _of_section(split: Split, name: str, members: list[int]) -> dict[str, Any]:
    assert split.weights is not None
    sums = [split.sums[i][name] for i in members]
    total = add(sums)
    drawn = GlandSums(*(split.weights[:, members] @ np.array([astuple(one) for one in sums])).T)
    return {
        "cases": len(members),
        "undefined": int(total.undefined),
        **{key: float(value) for key, value in gland_scores(total).items()},
        "intervals": {
            key: percentile_interval(values) for key, values in gland_scores(drawn).items()
        },
    }


GLAS = GlandFamily()
