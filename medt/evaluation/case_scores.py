"""What one case of an evaluation scores, as plain values and as sums that a split adds up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medt.data.dataset import SegmentationDataset, naming
from medt.data.layout import Case
from medt.evaluation.parts import USUAL, Part
from medt.inference.instances import components
from medt.io.images import read_mask
from medt.metrics.boundary import boundary_scores
from medt.metrics.calibration import (
    Calibration,
    brier_score,
    expected_calibration_error,
    measure_calibration,
)
from medt.metrics.centreline import centreline_scores
from medt.metrics.distances import UNSPACED
from medt.metrics.empty import DEFAULT_EMPTY, Empty, left_out
from medt.metrics.glands import GlandSums, gland_scores, gland_sums
from medt.metrics.lesions import LesionCounts, lesion_counts
from medt.metrics.nuclei import NucleiSums, nuclei_scores, nuclei_sums
from medt.metrics.pixel import (
    IGNORE_INDEX,
    PixelCounts,
    PixelScores,
    confusion_matrix,
    foreground,
    mean_of_present,
)
from medt.metrics.pixel_size import Spacing
from medt.metrics.ranking import average_precision, count_probabilities, roc_auc

Mask = NDArray[np.bool_]

COUNTS = ("tp", "fp", "fn", "tn")  # in the order of PixelCounts
BOUNDARIES = ("hd95", "nsd")
CENTRELINES = ("cldice", "centreline_precision", "centreline_recall")
# Scores of foreground classes alone, whose mean is the foreground's, by the part they belong to.
COUNTED = ("object_f1_iou50", "count_error")
OF_FOREGROUND: dict[Part, tuple[str, ...]] = {"boundary": BOUNDARIES, "topology": CENTRELINES}


@dataclass(frozen=True)
class Detail:
    """What is measured beside the pixel scores, and how; a case may lack any of it.

    Attributes:
        probabilities: (classes, H, W), 0..1.
        objects: (H, W), the object of each predicted pixel, 0 = none.
        true_objects: the same of the truth; None takes the components of each class.
        tolerance: of the normalised surface distance, in the unit of `spacing`.
        spacing: height and width of a pixel, in the unit that boundaries are measured in.
        object_spacing: the same for the objects.
        empty: the rule for a class that the truth does not have.
        parts: what to measure beside the pixels.
    """

    probabilities: NDArray[np.float32]
    objects: NDArray[np.int32]
    true_objects: NDArray[Any] | None
    tolerance: float
    spacing: Spacing = UNSPACED
    object_spacing: Spacing = UNSPACED
    empty: Empty = DEFAULT_EMPTY
    parts: tuple[Part, ...] = USUAL


@dataclass(frozen=True)
class CaseScores:
    """One case.

    Attributes:
        row: for the table of cases; see :class:`medt.evaluation.evaluate.Evaluation`.
        confusion: (classes, classes) pixels; row: truth, column: prediction.
        calibration, ranking, one_empty, glands, nuclei, lesions: of its detail, if asked for;
            `ranking`: of two classes, pixels by probability; the others by the name of each
            foreground class. `one_empty`: whether only one of the two masks has it, where this
            counts.
    """

    row: dict[str, Any]
    confusion: NDArray[np.int64]
    calibration: Calibration | None = None
    ranking: NDArray[Any] | None = None
    one_empty: dict[str, bool] = field(default_factory=dict)
    glands: dict[str, GlandSums] = field(default_factory=dict)
    nuclei: dict[str, NucleiSums] = field(default_factory=dict)
    lesions: dict[str, dict[str, LesionCounts]] = field(default_factory=dict)

    @property
    def counts(self) -> PixelCounts:
        return PixelCounts.of(self.confusion)


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


def objects_of_truth(
    truth: NDArray[np.uint8], class_id: int, numbered: NDArray[Any] | None
) -> NDArray[Any]:
    """(H, W) numbers of the true objects of a class: the dataset's, else its components."""
    true = truth == class_id
    return components(true) if numbered is None else numbered * true


def score_case(
    case: Case,
    prediction: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    names: tuple[str, ...],
    scores: PixelScores,
    detail: Detail | None = None,
) -> CaseScores:
    """Compare a prediction with the truth.

    Args:
        case: whose they are.
        prediction: (H, W) class ids.
        truth: (H, W) class ids, or 255 = ignore.
        names: of the classes, background first.
        scores: name -> function of the pixel counts.
        detail: what else to measure; None leaves it out.

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
        "true_foreground": int(confusion[1:].sum()),
        "predicted_foreground": int(confusion[:, 1:].sum()),
        "foreground": {name: foreground(values) for name, values in per_class.items()},
        "classes": {
            class_name: {
                **{name: float(values[i]) for name, values in per_class.items()},
                **{name: int(getattr(counts, name)[i]) for name in COUNTS},
            }
            for i, class_name in enumerate(names)
        },
    }
    case_scores = CaseScores(row, confusion)
    return case_scores if detail is None else _with_detail(case_scores, prediction, truth, detail)


def _with_detail(
    case: CaseScores, prediction: NDArray[np.uint8], truth: NDArray[np.uint8], detail: Detail
) -> CaseScores:
    row = case.row
    calibration = measure_calibration(detail.probabilities, truth)
    row["ece"], row["brier"] = expected_calibration_error(calibration), brier_score(calibration)
    ranking = None
    if len(row["classes"]) == 2:
        ranking = count_probabilities(detail.probabilities, truth)
        row["roc_auc"], row["pr_auc"] = roc_auc(ranking), average_precision(ranking)
    case = replace(case, calibration=calibration, ranking=ranking)
    names = list(row["classes"])[1:]
    for class_id, name in enumerate(names, start=1):
        predicted, true = (prediction == class_id) & (truth != IGNORE_INDEX), truth == class_id
        if "boundary" in detail.parts:
            _add_boundaries(case, name, predicted, true, detail)
        if "objects" in detail.parts:
            true_objects = objects_of_truth(truth, class_id, detail.true_objects)
            objects = detail.objects * predicted
            _add_objects(case, name, objects, true_objects, detail.object_spacing)
        if "topology" in detail.parts:
            _add_centrelines(case, name, predicted, true, detail)
    averaged = {**OF_FOREGROUND, "objects": COUNTED}
    for part, keys in averaged.items():
        for key in keys if part in detail.parts else ():
            values = [row["classes"][name][key] for name in names]
            row["foreground"][key] = mean_of_present(np.array(values))
    return case


def _add_boundaries(case: CaseScores, name: str, predicted: Mask, true: Mask, how: Detail) -> None:
    boundaries = boundary_scores(predicted, true, how.tolerance, how.spacing)
    out = bool(left_out(how.empty, predicted.any(), true.any()))
    case.one_empty[name] = boundaries.empty == 1 and not out
    case.row["classes"][name] |= {
        key: math.nan if out else getattr(boundaries, key) for key in BOUNDARIES
    }


def _add_objects(
    case: CaseScores,
    name: str,
    predicted: NDArray[np.int32],
    true: NDArray[Any],
    spacing: Spacing,
) -> None:
    case.glands[name] = gland_sums(predicted, true, spacing)
    case.nuclei[name] = nuclei_sums(predicted, true)
    case.lesions[name] = lesion_counts(predicted, true)
    parts = case.glands[name], case.nuclei[name], case.lesions[name]
    case.row["classes"][name] |= _object_columns(*parts)


def _add_centrelines(case: CaseScores, name: str, predicted: Mask, true: Mask, how: Detail) -> None:
    out = bool(left_out(how.empty, predicted.any(), true.any()))
    scores = vars(centreline_scores(predicted, true))
    case.row["classes"][name] |= {key: math.nan if out else scores[key] for key in CENTRELINES}


def _object_columns(
    glands: GlandSums, nuclei: NucleiSums, lesions: dict[str, LesionCounts]
) -> dict[str, float]:
    """The objects' scores of one case under the names of the table of cases."""
    of_nuclei, of_glands = nuclei_scores(nuclei), gland_scores(glands)
    return {
        "objects_true": int(np.asarray(nuclei.true)),
        "objects_predicted": int(np.asarray(nuclei.predicted)),
        "count_error": abs(int(np.asarray(nuclei.predicted)) - int(np.asarray(nuclei.true))),
        **{key: float(of_nuclei[key]) for key in ("aji", "pq", "dq", "sq")},
        "object_f1_iou50": float(of_nuclei["f1"]),
        "object_f1_glas": float(of_glands["f1"]),
        "object_dice": float(of_glands["object_dice"]),
        "object_hausdorff": float(of_glands["object_hausdorff"]),
        **{
            f"{kind}_iou{round(100 * float(limit))}": number
            for limit, counts in lesions.items()
            for kind, number in vars(counts).items()
        },
    }
