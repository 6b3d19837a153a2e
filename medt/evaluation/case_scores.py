"""What one case of an evaluation scores, as plain values and as sums that a split adds up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medt.data.dataset import SegmentationDataset, naming
from medt.data.layout import Case
from medt.io.images import read_mask
from medt.metrics.family import Family, Masks
from medt.metrics.sums import mean_of_present


@dataclass(frozen=True)
class CaseScores:
    """One case.

    Attributes:
        row: for the table of cases; see :class:`medt.evaluation.evaluate.Evaluation`.
        sums: what each family adds up, by its name.
    """

    row: dict[str, Any]
    sums: dict[str, Any]


def read_truth(
    dataset: SegmentationDataset, case: Case
) -> tuple[NDArray[np.uint8], NDArray[Any] | None]:
    """The truth of a case at its own size: class ids, and the numbers of its objects if it has any.

    Raises:
        UserError: a file cannot be read; the message names the case.
    """
    page = dataset.preprocessing.page
    assert case.mask is not None  # the dataset refuses such cases
    with naming(case):
        numbered = None if case.instances is None else read_mask(case.instances, page)
        return dataset.labels.read(case.mask, page), numbered


def score_case(case: Case, masks: Masks, families: Sequence[Family]) -> CaseScores:
    """Compare a prediction with the truth.

    Args:
        case: whose they are.
        masks: what to compare.
        families: what to measure.

    Raises:
        ValueError: the shapes differ, or a mask holds an id that is no class.
    """
    foreground: dict[str, float] = {}
    classes: dict[str, dict[str, float]] = {name: {} for name in masks.how.classes}
    height, width = masks.truth.shape
    row: dict[str, Any] = {"case": case.name, "group": case.group, "split": case.split}
    row |= {"height": height, "width": width}
    sums = {}
    for family in families:
        measured = family.measure(masks)
        sums[family.name] = measured.sums
        row |= measured.case
        for name, scores in measured.classes.items():
            classes[name] |= scores
        for key in family.means:
            values = [classes[name][key] for name in masks.how.classes[1:]]
            foreground[key] = mean_of_present(np.array(values, np.float64))
        foreground |= measured.foreground
    return CaseScores({**row, "foreground": foreground, "classes": classes}, sums)
