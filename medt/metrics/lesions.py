"""Lesions found, missed and false: whole objects, however large they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medt.metrics.family import Family, Masks, Measured, Split
from medt.metrics.overlaps import Labels, find_overlaps
from medt.metrics.sums import add

LESION_IOUS = (0.1, 0.5)

LESION_RULES = f"""\
Lesions are objects. One is found if its IoU with a predicted object is above the limit \
({" and ".join(map(str, LESION_IOUS))}), else missed; a predicted object that finds none is false. \
Pairs are made from the largest IoU down, each object used once."""


@dataclass(frozen=True)
class LesionCounts:
    """Objects of one image, or added over several.

    Attributes:
        found, missed: true objects.
        false: predicted ones.
    """

    found: int
    missed: int
    false: int


def lesion_counts(prediction: Labels, truth: Labels) -> dict[str, LesionCounts]:
    """Which objects of one image are found, as :data:`LESION_RULES` says.

    Args:
        prediction: (H, W) object numbers, 0 = none.
        truth: the same.

    Returns:
        By each of :data:`LESION_IOUS`, as text.

    Raises:
        ValueError: the shapes differ, or an object number is negative.
    """
    overlaps = find_overlaps(prediction, truth)
    iou = overlaps.iou[overlaps.matched()]
    objects = len(overlaps.true_area), len(overlaps.predicted_area)
    found = {limit: int((iou > limit).sum()) for limit in LESION_IOUS}
    return {
        str(limit): LesionCounts(count, objects[0] - count, objects[1] - count)
        for limit, count in found.items()
    }


class LesionFamily(Family):
    """How many objects are found, missed and false; the first lines of a result show them."""

    name = "lesions"
    part = "objects"
    rules = LESION_RULES

    def measure(self, masks: Masks) -> Measured:
        found = {name: lesion_counts(*pair) for name, *pair in masks.foreground_objects()}
        columns = {
            name: {
                f"{kind}_iou{round(100 * float(limit))}": count
                for limit, counts in limits.items()
                for kind, count in vars(counts).items()
            }
            for name, limits in found.items()
        }
        return Measured(found, classes=columns)

    def summarize(self, split: Split) -> dict[str, Any]:
        """By class and IoU."""
        lesions = {
            name: {
                str(limit): vars(add([case[name][str(limit)] for case in split.sums]))
                for limit in LESION_IOUS
            }
            for name in split.how.classes[1:]
        }
        return {"lesions": lesions}


LESIONS = LesionFamily()
