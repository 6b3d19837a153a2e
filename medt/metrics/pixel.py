"""Scores that count pixels: Dice, intersection over union, precision, recall and the like.

Everything starts from one count of pixels per case, so a score per case and a score pooled over a
split are the same function of different counts:

    Dice = 2 tp / (2 tp + fp + fn)        IoU = tp / (tp + fp + fn)
    precision = tp / (tp + fp)            recall = tp / (tp + fn)
    specificity = tn / (tn + fp)          accuracy = (tp + tn) / (tp + tn + fp + fn)
    balanced accuracy = (recall + specificity) / 2
    MCC = (tp tn - fp fn) / sqrt((tp + fp) (tp + fn) (tn + fp) (tn + fn))

Each is of one class against all others.
Definitions: Taha and Hanbury 2015, "Metrics for evaluating 3D medical image segmentation",
https://doi.org/10.1186/s12880-015-0068-x (there: Dice, Jaccard, precision, sensitivity); of the
Matthews correlation coefficient Chicco and Jurman 2020, https://doi.org/10.1186/s12864-019-6413-7.
What happens at a zero denominator is stated in :data:`RULES`, and what a class scores that the
truth does not have in :mod:`medt.metrics.empty`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medt.metrics.empty import DEFAULT_EMPTY, Empty, false_alarms, left_out
from medt.metrics.family import IGNORE_INDEX as IGNORE_INDEX
from medt.metrics.family import (
    Column,
    Family,
    Masks,
    Measured,
    Split,
    Summary,
    Table,
    of_class,
    with_interval,
)
from medt.metrics.resampling import percentile_interval
from medt.metrics.sums import add, mean_of_present, means_of_present, quotient

RULES = """\
Foreground: the mean over all classes but the first (the background).
A class that the truth of a case has and the prediction has not scores 0. These rules decide every \
zero denominator of Dice, IoU, precision and recall.
Specificity, accuracy, balanced accuracy and MCC are of a class against all others, true negatives \
included; a class that is left out, or absent from truth and prediction, is treated as above. \
Specificity: 0 / 0, where the truth is the class everywhere, is left out, and so is balanced \
accuracy wherever recall or specificity has no denominator. MCC with a zero denominator: 1 if \
every pixel is right, -1 if none is, else 0.
Pixels that the dataset marks as ignored count nowhere; a case of nothing else is left out.
Mean over cases: each case is scored by itself, then the scores are averaged.
Pooled: pixels are counted over all cases, then scored once."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class PixelCounts:
    """How many pixels of each class a prediction got right and wrong; (..., classes) is taken, too.

    Attributes:
        tp: int64 (classes,), pixels of the class in truth and prediction.
        fp: int64 (classes,), pixels of the class in the prediction only.
        fn: int64 (classes,), pixels of the class in the truth only.
        tn: int64 (classes,), pixels of the class in neither.
    """

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    tn: NDArray[np.int64]

    @classmethod
    def of(cls, confusion: NDArray[np.int64]) -> PixelCounts:
        """The counts of a confusion matrix, as `confusion_matrix` returns it."""
        tp = np.diag(confusion)
        fp, fn = confusion.sum(axis=0) - tp, confusion.sum(axis=1) - tp
        return cls(tp, fp, fn, confusion.sum() - tp - fp - fn)


def confusion_matrix(
    prediction: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]], classes: int
) -> NDArray[np.int64]:
    """Compare two masks pixel by pixel; pixels whose truth is 255 are left out.

    Args:
        prediction: (H, W) class ids, 0..classes-1.
        truth: (H, W) class ids, 0..classes-1, or 255 = ignore.
        classes: number of classes, background included.

    Returns:
        (classes, classes) pixels; row: class in the truth, column: in the prediction.

    Raises:
        ValueError: if the shapes differ or a mask holds an id that is no class.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, truth {truth.shape}")
    counted = truth != IGNORE_INDEX
    predicted = prediction[counted].astype(np.int64)
    true = truth[counted].astype(np.int64)
    for name, ids in (("prediction", predicted), ("truth", true)):
        if ids.size and (ids.min() < 0 or ids.max() >= classes):
            strange = [int(i) for i in np.unique(ids) if not 0 <= i < classes]
            raise ValueError(f"{name} holds ids {strange}, which are none of 0..{classes - 1}")
    pairs = np.bincount(true * classes + predicted, minlength=classes * classes)
    return pairs.reshape(classes, classes).astype(np.int64)


def count_pixels(
    prediction: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]], classes: int
) -> PixelCounts:
    """The counts of `confusion_matrix`; same arguments and errors."""
    return PixelCounts.of(confusion_matrix(prediction, truth, classes))


def dice(counts: PixelCounts, empty: Empty = DEFAULT_EMPTY) -> Scores:
    """2 tp / (2 tp + fp + fn) per class, 0..1; NaN for a class that is left out."""
    return _score(counts, empty, 2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def iou(counts: PixelCounts, empty: Empty = DEFAULT_EMPTY) -> Scores:
    """tp / (tp + fp + fn) per class, 0..1; NaN for a class that is left out."""
    return _score(counts, empty, counts.tp, counts.tp + counts.fp + counts.fn)


def precision(counts: PixelCounts, empty: Empty = DEFAULT_EMPTY) -> Scores:
    """tp / (tp + fp) per class, 0..1; NaN for a class that is left out.

    Nothing predicted: 0 if the truth has the class, else as the rule says of a class absent from
    both.
    """
    return _score(counts, empty, counts.tp, counts.tp + counts.fp)


def recall(counts: PixelCounts, empty: Empty = DEFAULT_EMPTY) -> Scores:
    """tp / (tp + fn) per class, 0..1; NaN for a class that is left out.

    Nothing to find: as the rule says.
    """
    return _score(counts, empty, counts.tp, counts.tp + counts.fn)


def specificity(counts: PixelCounts, empty: Empty = DEFAULT_EMPTY) -> Scores:
    """tn / (tn + fp) per class, 0..1; NaN for a class that is left out."""
    return _score(counts, empty, counts.tn, counts.tn + counts.fp, otherwise=np.nan)


def accuracy(counts: PixelCounts, empty: Empty = DEFAULT_EMPTY) -> Scores:
    """(tp + tn) / all pixels per class, 0..1; NaN for a class that is left out."""
    right = counts.tp + counts.tn
    return _score(counts, empty, right, right + counts.fp + counts.fn)


def balanced_accuracy(counts: PixelCounts, empty: Empty = DEFAULT_EMPTY) -> Scores:
    """Mean of recall and specificity per class, 0..1; NaN for a class that is left out."""
    found = _score(counts, empty, counts.tp, counts.tp + counts.fn, otherwise=np.nan)
    return np.asarray((found + specificity(counts, empty)) / 2)


def mcc(counts: PixelCounts, empty: Empty = DEFAULT_EMPTY) -> Scores:
    """Matthews correlation coefficient per class, -1..1; NaN for a class that is left out."""
    tp, fp, fn, tn = (n.astype(np.float64) for n in (counts.tp, counts.fp, counts.fn, counts.tn))
    denominator = np.sqrt((tp + fp) * (tp + fn)) * np.sqrt((tn + fp) * (tn + fn))
    alike = np.sign(tp + tn) - np.sign(fp + fn)  # 1 if all pixels are right, -1 if none is
    scores = np.divide(tp * tn - fp * fn, denominator, out=alike, where=denominator > 0)
    return _by_rule(counts, empty, scores)


def _score(
    counts: PixelCounts,
    empty: Empty,
    numerator: NDArray[np.int64],
    denominator: NDArray[np.int64],
    otherwise: float = 0.0,
) -> Scores:
    return _by_rule(counts, empty, quotient(numerator, denominator, otherwise))


def _by_rule(counts: PixelCounts, empty: Empty, scores: Scores) -> Scores:
    """The scores, where classes absent from the truth get what the rule says."""
    true, predicted = counts.tp + counts.fn > 0, counts.tp + counts.fp > 0
    nothing = counts.tp + counts.fp + counts.fn + counts.tn == 0  # all of the case is ignored
    out = nothing | left_out(empty, predicted, true)
    return np.where(out, np.nan, np.where(~true & ~predicted, 1.0, scores))


PixelScores = Mapping[str, Callable[[PixelCounts], Scores]]  # by name

# A score in here is in metrics.json, per_case.csv, the tables and the report.
SCORES: Mapping[str, Callable[..., Scores]] = {
    "dice": dice,
    "iou": iou,
    "precision": precision,
    "recall": recall,
    "specificity": specificity,
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "mcc": mcc,
}


TITLES = {"iou": "IoU", "balanced_accuracy": "Bal. acc.", "mcc": "MCC"}  # others: of the name
COUNTS = ("tp", "fp", "fn", "tn")  # in the order of PixelCounts


def scores_by(empty: Empty) -> PixelScores:
    """All scores, by this rule for a class that the truth of a case does not have."""
    return {name: partial(score, empty=empty) for name, score in SCORES.items()}


def foreground(scores: Scores) -> float:
    """Mean over all classes but the first, without those left out; NaN if none remains."""
    return mean_of_present(scores[1:])


def summarize(
    counts: Sequence[PixelCounts],
    class_names: Sequence[str],
    scores: PixelScores,
) -> dict[str, Any]:
    """Reduce the counts of all cases to plain values, in both ways.

    Args:
        counts: one per case.
        class_names: in the order of the class ids, background first.
        scores: name -> function of the counts.

    Returns:
        ``{"cases": n, "mean_over_cases": {score: part}, "pooled": {score: part}}`` where a part is
        ``{"foreground": x, "classes": {name: x}, "left_out": {"foreground": n, "classes": {name:
        n}}}``; scores are 0..1, or NaN where everything was left out; ``left_out`` counts cases
        (pooled: 0 or 1). The mean over cases of "foreground" averages each case's own foreground
        mean.
    """
    if not counts:
        raise ValueError("there are no cases to summarize")
    return {
        "cases": len(counts),
        "mean_over_cases": {
            name: _part(np.stack([score(c) for c in counts]), class_names)
            for name, score in scores.items()
        },
        "pooled": {
            name: _part(score(add(counts))[None], class_names) for name, score in scores.items()
        },
    }


def _part(table: Scores, class_names: Sequence[str]) -> dict[str, Any]:
    headline = np.array([foreground(row) for row in table])
    return {
        "foreground": mean_of_present(headline),
        "classes": {n: mean_of_present(table[:, i]) for i, n in enumerate(class_names)},
        "left_out": {
            "foreground": int(np.isnan(headline).sum()),
            "classes": {n: int(np.isnan(table[:, i]).sum()) for i, n in enumerate(class_names)},
        },
    }


class PixelFamily(Family):
    """The pixel scores, the false alarms and the confusion matrix."""

    name = part = "pixel"
    means = SCORES
    rules = RULES
    detailed = False

    def scores(self, empty: Empty) -> PixelScores:
        """By name, each a function of the counts."""
        return scores_by(empty)

    def measure(self, masks: Masks) -> Measured:
        names = masks.how.classes
        confusion = confusion_matrix(masks.prediction, masks.truth, len(names))
        counts = PixelCounts.of(confusion)
        table = {key: score(counts) for key, score in self.scores(masks.how.empty).items()}
        areas = int(confusion[1:].sum()), int(confusion[:, 1:].sum())
        return Measured(
            confusion,
            case=dict(zip(("true_foreground", "predicted_foreground"), areas, strict=True)),
            classes={
                name: {
                    **{key: float(values[i]) for key, values in table.items()},
                    **{key: int(getattr(counts, key)[i]) for key in COUNTS},
                }
                for i, name in enumerate(names)
            },
        )

    def summarize(self, split: Split) -> dict[str, Any]:
        names, empty = split.how.classes, split.how.empty
        scores = self.scores(empty)
        counts = [PixelCounts.of(confusion) for confusion in split.sums]
        summary = {
            **summarize(counts, names, scores),
            "empty": empty,
            "false_alarms": false_alarms(split.sums, names),
            "confusion": np.sum(split.sums, axis=0).tolist(),
        }
        if split.weights is None:
            return summary
        sums = [split.weights @ np.array([vars(one)[key] for one in counts]) for key in COUNTS]
        pooled = {}
        for key, score in scores.items():
            table = score(PixelCounts(*sums))
            pooled[key] = {
                "foreground": percentile_interval(means_of_present(table[:, 1:])),
                "classes": {n: percentile_interval(table[:, i]) for i, n in enumerate(names)},
            }
        return {**summary, "intervals": {"pooled": pooled}}

    def columns(self, summary: Summary) -> Iterable[Column]:
        yield Column("true_foreground", "Foreground (px)", 0)
        yield Column("predicted_foreground", "predicted (px)", 0)
        yield from (Column(key, _title(key)) for key in summary["pooled"])

    def tables(self, summary: Summary) -> Iterable[Table]:
        for reduction, title in {"mean_over_cases": "mean", "pooled": "pooled"}.items():
            parts = summary[reduction]
            drawn = summary.get("intervals", {}).get(reduction)
            rows = []
            for name in (*parts["dice"]["classes"], None):
                cells = [
                    with_interval(
                        of_class(part, name), None if drawn is None else of_class(drawn[key], name)
                    )
                    for key, part in parts.items()
                ]
                missing = max(of_class(part["left_out"], name) for part in parts.values())
                rows.append([name or "foreground mean", *cells, str(missing)])
            heads = [*map(_title, parts), "left out"]
            yield Table(f"pixels ({title})", heads, rows)


def _title(key: str) -> str:
    return TITLES.get(key, key.replace("_", " ").capitalize())


PIXEL = PixelFamily()
