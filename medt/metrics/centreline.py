"""Centreline Dice: whether thin, branching things are connected as they should be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

CENTRELINE_RULES = """\
Centreline Dice (clDice, Shit et al. 2021): centreline precision is the share of the prediction's \
skeleton that lies in the true mask, centreline recall the share of the truth's skeleton that lies \
in the predicted one, clDice their harmonic mean. Skeletons are Zhang and Suen's, of the pixels \
that are not ignored. One mask empty: 0; both: 1; a class that the rule empty=... leaves out of a \
case's Dice is left out, too."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class CentrelineScores:
    """Of one class in one case; all 0..1."""

    cldice: float
    centreline_precision: float
    centreline_recall: float


def centreline_scores(prediction: Mask, truth: Mask) -> CentrelineScores:
    """Compare the skeletons of two masks (H, W), as :data:`CENTRELINE_RULES` says.

    Shit et al., "clDice: a novel topology-preserving loss function for tubular structure
    segmentation", CVPR 2021, https://arxiv.org/abs/2003.07311, equations 1 and 2.

    Raises:
        ValueError: the shapes differ.
    """
    from skimage.morphology import skeletonize

    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, truth {truth.shape}")
    there = bool(prediction.any()), bool(truth.any())
    if not all(there):
        score = 0.0 if any(there) else 1.0
        return CentrelineScores(score, score, score)
    skeletons = [skeletonize(mask) for mask in (prediction, truth)]  # type: ignore[no-untyped-call]
    precision = _share_within(skeletons[0], truth)
    recall = _share_within(skeletons[1], prediction)
    both = precision + recall
    return CentrelineScores(2 * precision * recall / both if both else 0.0, precision, recall)


def _share_within(skeleton: Mask, mask: Mask) -> float:
    return float((skeleton & mask).sum() / skeleton.sum())


class CentrelineFamily(Family):
    """Centreline Dice, precision and recall."""

    name = part = "topology"
    rules = CENTRELINE_RULES
    means = ("cldice", "centreline_precision", "centreline_recall")

    def measure(self, masks: Masks) -> Measured:
        classes = {}
        for name, predicted, true in masks.foreground():
            scores = vars(centreline_scores(predicted, true))
            out = masks.how.leaves_out(predicted, true)
            classes[name] = {key: math.nan if out else scores[key] for key in self.means}
        return Measured(classes=classes)

    def summarize(self, split: Split) -> dict[str, Any]:
        return {"topology": split.means(self.means)}

    def columns(self, summary: Summary) -> Iterable[Column]:
        yield Column("cldice", "clDice")

    def tables(self, summary: Summary) -> Iterable[Table]:
        rows = foreground_rows(summary["topology"], summary, dict.fromkeys(self.means, 4))
        yield Table("centrelines (mean)", ["clDice", "precision", "recall"], rows)


CENTRELINE = CentrelineFamily()
