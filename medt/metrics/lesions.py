"""Lesions found, missed and false: whole objects, however large they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medt.metrics.overlaps import Labels, Overlaps, find_overlaps

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
    return {str(limit): _counts(overlaps, limit) for limit in LESION_IOUS}


def _counts(overlaps: Overlaps, limit: float) -> LesionCounts:
    iou = overlaps.iou
    predicted: set[int] = set()
    true: set[int] = set()
    for index in np.argsort(-iou, kind="stable"):
        one, other = (int(number) for number in overlaps.pairs[index])
        if iou[index] > limit and one not in predicted and other not in true:
            predicted.add(one)
            true.add(other)
    return LesionCounts(
        found=len(true),
        missed=len(overlaps.true_area) - len(true),
        false=len(overlaps.predicted_area) - len(predicted),
    )
