"""What one case of an evaluation scores, as plain values and as sums that a split adds up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medt.data.layout import Case
from medt.metrics.calibration import (
    Calibration,
    brier_score,
    expected_calibration_error,
    measure_calibration,
)
from medt.metrics.pixel import PixelCounts, Scores, confusion_matrix, foreground

COUNTS = ("tp", "fp", "fn", "tn")


@dataclass(frozen=True)
class CaseScores:
    """One case.

    Attributes:
        row: for the table of cases; see :class:`medt.evaluation.evaluate.Evaluation`.
        confusion: (classes, classes) pixels; row: truth, column: prediction.
        calibration: None where probabilities were not looked at.
    """

    row: dict[str, Any]
    confusion: NDArray[np.int64]
    calibration: Calibration | None

    @property
    def counts(self) -> PixelCounts:
        return PixelCounts.of(self.confusion)


def score_case(
    case: Case,
    prediction: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    names: tuple[str, ...],
    scores: Mapping[str, Callable[[PixelCounts], Scores]],
    probabilities: NDArray[np.float32] | None = None,
) -> CaseScores:
    """Compare a prediction with the truth.

    Args:
        case: whose they are.
        prediction: (H, W) class ids.
        truth: (H, W) class ids, or 255 = ignore.
        names: of the classes, background first.
        scores: name -> function of the pixel counts.
        probabilities: (classes, H, W), 0..1, for the calibration; None leaves it out.

    Raises:
        ValueError: the shapes differ, or a mask holds an id that is no class.
    """
    confusion = confusion_matrix(prediction, truth, len(names))
    counts = PixelCounts.of(confusion)
    per_class = {name: score(counts) for name, score in scores.items()}
    row: dict[str, Any] = {
        "case": case.name,
        "group": case.group,
        "split": case.split,
        "height": truth.shape[0],
        "width": truth.shape[1],
        "foreground": {name: foreground(values) for name, values in per_class.items()},
        "classes": {
            class_name: {
                **{name: float(values[i]) for name, values in per_class.items()},
                **{name: int(getattr(counts, name)[i]) for name in COUNTS},
            }
            for i, class_name in enumerate(names)
        },
    }
    calibration = None
    if probabilities is not None:
        calibration = measure_calibration(probabilities, truth)
        row["ece"] = expected_calibration_error(calibration)
        row["brier"] = brier_score(calibration)
    return CaseScores(row, confusion, calibration)
