"""Scores of many small objects: AJI, panoptic quality, F1 at IoU 0.5 and counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
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
    number,
    with_interval,
)
from medt.metrics.overlaps import Labels, find_overlaps
from medt.metrics.sums import add, mean_of_present, quotient

MATCH = 0.5  # of IoU; above it a match is unique

NUCLEI_RULES = """\
Objects match where their IoU is above 0.5, which makes a match unique. F1, precision and recall \
count matches; DQ is the same as F1, SQ the mean IoU of the matches, PQ = DQ x SQ (Kirillov 2019).
AJI (Kumar 2017): pairs are made from the largest IoU down, each object used once; the sum of \
their intersections over the sum of their unions and of the areas of all objects without a pair.
Objects, mean over cases: an image without any object in truth and prediction is left out, one \
with objects on one side only scores 0 (SQ is left out where nothing matches).
Objects, pooled: sums over all images, then one score. Count error: the mean over all images of \
|predicted - true| objects."""

SCORE_NAMES = ("aji", "pq", "dq", "sq", "f1", "precision", "recall")
Value = float | NDArray[np.float64]


@dataclass(frozen=True)
class NucleiSums:
    """What an image contributes to pooled scores; sums of several images are sums of each.

    Attributes:
        tp, fp, fn: matched, further predicted and further true objects.
        iou: of the matches, added up.
        intersection, union: of the aggregated Jaccard index, in pixels.
    """

    tp: Value
    fp: Value
    fn: Value
    iou: Value
    intersection: Value
    union: Value

    @property
    def true(self) -> Value:
        """Objects of the truth."""
        return self.tp + self.fn

    @property
    def predicted(self) -> Value:
        """Objects of the prediction."""
        return self.tp + self.fp


def nuclei_sums(prediction: Labels, truth: Labels) -> NucleiSums:
    """Compare the objects of one image.

    Args:
        prediction: (H, W) object numbers, 0 = none.
        truth: the same.

    Raises:
        ValueError: the shapes differ, or an object number is negative.
    """
    overlaps = find_overlaps(prediction, truth)
    iou = overlaps.iou
    matched = iou > MATCH
    tp = int(matched.sum())
    intersection = int(overlaps.shared[overlaps.matched()].sum())
    # The union of a pair is both areas without what they share; an object alone adds its area.
    union = int(overlaps.predicted_area.sum() + overlaps.true_area.sum()) - intersection
    return NucleiSums(
        tp=tp,
        fp=len(overlaps.predicted_area) - tp,
        fn=len(overlaps.true_area) - tp,
        iou=float(iou[matched].sum()),
        intersection=intersection,
        union=union,
    )


def nuclei_scores(sums: NucleiSums) -> dict[str, NDArray[np.float64]]:
    """The scores of :data:`SCORE_NAMES`, 0..1, of an image or of added images.

    The sums may be arrays, one entry for each of several additions; so are the scores then. NaN
    where there is no object at all, and in ``sq`` where nothing matches.
    """
    tp, fp, fn = (np.asarray(n, np.float64) for n in (sums.tp, sums.fp, sums.fn))
    some = tp + fp + fn > 0
    f1 = quotient(2 * tp, 2 * tp + fp + fn)
    sq = quotient(sums.iou, tp)
    precision = quotient(tp, tp + fp)
    recall = quotient(tp, tp + fn)
    return {
        "aji": quotient(sums.intersection, sums.union),
        "pq": np.where(some & (tp == 0), 0.0, f1 * sq),
        "dq": f1,
        "sq": sq,
        "f1": f1,
        "precision": np.where(some & (tp + fp == 0), 0.0, precision),
        "recall": np.where(some & (tp + fn == 0), 0.0, recall),
    }


def summarize_nuclei(images: Sequence[NucleiSums]) -> Mapping[str, dict[str, float]]:
    """The scores of a split.

    Returns:
        ``mean`` and ``pooled``: score -> value, NaN if every image is left out; ``left_out``:
        score -> images without it; ``counts``: ``true`` and ``predicted`` objects, and
        ``count_error``.
    """
    table = nuclei_scores(NucleiSums(*np.array([astuple(image) for image in images]).T))
    errors = [abs(float(image.fp) - float(image.fn)) for image in images]
    total = add(images)
    return {
        "mean": {
            name: float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
            for name, values in table.items()
        },
        "pooled": {name: float(value) for name, value in nuclei_scores(total).items()},
        "left_out": {name: int(np.isnan(values).sum()) for name, values in table.items()},
        "counts": {
            "true": int(total.true),
            "predicted": int(total.predicted),
            "count_error": float(np.mean(errors)),
        },
    }


# Of the scores that are shown: their titles, and their columns in the table of cases.
SHOWN = {"aji": "AJI", "pq": "PQ", "dq": "DQ", "sq": "SQ", "f1": "F1@0.5"}
COLUMNS = {"f1": "object_f1_iou50", **{key: key for key in ("aji", "pq", "dq", "sq")}}


class NucleiFamily(Family):
    """AJI, panoptic quality, F1 and counts of the objects of each class."""

    name = "nuclei"
    part = "objects"
    rules = NUCLEI_RULES

    def measure(self, masks: Masks) -> Measured:
        sums = {name: nuclei_sums(*pair) for name, *pair in masks.foreground_objects()}
        classes = {name: _columns(one) for name, one in sums.items()}
        foreground = {
            key: mean_of_present(np.array([one[key] for one in classes.values()], np.float64))
            for key in ("object_f1_iou50", "count_error")
        }
        return Measured(sums, foreground=foreground, classes=classes)

    def summarize(self, split: Split) -> dict[str, Any]:
        objects = {}
        for name in split.how.classes[1:]:
            intervals = {key: split.interval(column, name) for key, column in COLUMNS.items()}
            summary = summarize_nuclei([case[name] for case in split.sums])
            objects[name] = {**summary, "intervals": intervals}
        return {"objects": objects}

    def columns(self, summary: Summary) -> Iterable[Column]:
        yield Column("object_f1_iou50", "object F1")
        yield Column("count_error", "count error", 2)

    def tables(self, summary: Summary) -> Iterable[Table]:
        for name, part in summary["objects"].items():
            counts, drawn = part["counts"], part["intervals"]
            means = [with_interval(part["mean"][key], drawn[key]) for key in SHOWN]
            pooled = [number(part["pooled"][key]) for key in SHOWN]
            yield Table(
                f"objects of {name}",
                list(SHOWN.values()),
                [["mean over cases", *means], ["pooled", *pooled]],
                f"{counts['true']} true and {counts['predicted']} predicted objects, mean count "
                f"error {counts['count_error']:.2f} a case, {part['left_out']['f1']} cases without "
                "any",
            )


def _columns(sums: NucleiSums) -> dict[str, float]:
    scores = nuclei_scores(sums)
    true, predicted = int(np.asarray(sums.true)), int(np.asarray(sums.predicted))
    counts = {"objects_true": true, "objects_predicted": predicted}
    return {
        **counts,
        "count_error": abs(predicted - true),
        **{column: float(scores[key]) for key, column in COLUMNS.items()},
    }


NUCLEI = NucleiFamily()
