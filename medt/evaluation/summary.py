"""From the scores of the cases to those of the split, with intervals and the rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medt.data.published.glas import challenge_part
from medt.evaluation.case_scores import BOUNDARIES, CENTRELINES, COUNTS, OF_FOREGROUND, CaseScores
from medt.evaluation.parts import Part
from medt.metrics.boundary import BOUNDARY_RULES
from medt.metrics.calibration import (
    CALIBRATION_RULES,
    add_calibrations,
    brier_score,
    expected_calibration_error,
    reliability,
    threshold_curve,
)
from medt.metrics.centreline import CENTRELINE_RULES
from medt.metrics.empty import Empty, false_alarms
from medt.metrics.glands import GLAND_RULES, GlandSums, gland_scores
from medt.metrics.lesions import LESION_IOUS, LESION_RULES, LesionCounts
from medt.metrics.nuclei import NUCLEI_RULES, summarize_nuclei
from medt.metrics.pixel import (
    PixelCounts,
    PixelScores,
    mean_of_present,
    means_of_present,
    rules_of,
    summarize,
)
from medt.metrics.pixel_size import PIXELS, UNITS, PixelSize
from medt.metrics.ranking import RANKING_RULES, average_precision, roc_auc
from medt.metrics.resampling import (
    LEVEL,
    RESAMPLES,
    Weights,
    case_weights,
    group_count,
    percentile_interval,
    weighted_means,
)
from medt.metrics.sums import add

INTERVAL_RULES = f"""\
Intervals: {LEVEL:.0%}, percentile bootstrap of {RESAMPLES} resamples; whole groups (patients, \
slides, videos) are drawn where the dataset names them, else cases; of a single one there is none. \
They say what other cases would change, not what another training would."""
PART_RULES: dict[Part, tuple[str, ...]] = {
    "pixel": (CALIBRATION_RULES, RANKING_RULES),
    "boundary": (BOUNDARY_RULES,),
    "objects": (LESION_RULES, GLAND_RULES, NUCLEI_RULES),
    "topology": (CENTRELINE_RULES,),
}


def summarize_cases(
    cases: Sequence[CaseScores], names: Sequence[str], scores: PixelScores, empty: Empty
) -> dict[str, Any]:
    """The pixel scores of a split, its false alarms, confusion matrix and their rules."""
    return {
        **summarize([case.counts for case in cases], names, scores),
        "empty": empty,
        "false_alarms": false_alarms([case.confusion for case in cases], names),
        "confusion": np.sum([case.confusion for case in cases], axis=0).tolist(),
        "rules": rules_of(empty),
    }


def summarize_detail(
    cases: Sequence[CaseScores],
    names: Sequence[str],
    scores: PixelScores,
    tolerance: float,
    pixel_size: PixelSize | None,
    parts: Sequence[Part],
    grouped_by: str = "groups",
    object_size: PixelSize = PIXELS,
) -> dict[str, Any]:
    """What a detailed evaluation adds to `summarize_cases`; see `Evaluation.summary`.

    Args:
        pixel_size: that distances of boundaries are measured in; None is pixels.
        object_size: the same for distances of objects.
    """
    weights = case_weights([case.row["group"] for case in cases])
    summary: dict[str, Any] = {"scores": list(parts), "calibration": _calibration(cases)}
    if len(names) == 2:
        summary["ranking"] = _ranking(cases)
    if "boundary" in parts:
        summary["boundary"] = _boundary(cases, names, tolerance, PixelSize.of(pixel_size))
    if "objects" in parts:
        summary["lesions"] = {name: _lesions(cases, name) for name in names[1:]}
        summary["objects"] = {
            name: {**_objects(cases, name, weights), "unit": UNITS[object_size.unit]}
            for name in names[1:]
        }
    if "topology" in parts:
        summary["topology"] = _means(cases, names, CENTRELINES)
    more = [key for part, keys in OF_FOREGROUND.items() if part in parts for key in keys]
    return {**summary, "intervals": _intervals(cases, names, scores, more, weights, grouped_by)}


def detail_rules(parts: Sequence[Part]) -> list[str]:
    """What the scores of a detailed evaluation mean, a paragraph each."""
    rules = [rule for part in parts for rule in PART_RULES[part]]
    return "\n".join([*rules, INTERVAL_RULES]).split("\n")


def _calibration(cases: Sequence[CaseScores]) -> dict[str, Any]:
    sums = add_calibrations([case.calibration for case in cases if case.calibration is not None])
    return {
        "ece": expected_calibration_error(sums),
        "brier": brier_score(sums),
        "reliability": reliability(sums),
        "thresholds": threshold_curve(sums),
    }


def _ranking(cases: Sequence[CaseScores]) -> dict[str, dict[str, float]]:
    """ROC and PR AUC: the mean over the cases that have them, and over all pixels."""
    total = np.sum([case.ranking for case in cases if case.ranking is not None], axis=0)
    rows = {key: np.array([case.row[key] for case in cases]) for key in ("roc_auc", "pr_auc")}
    return {
        "mean_over_cases": {key: mean_of_present(values) for key, values in rows.items()},
        "pooled": {"roc_auc": roc_auc(total), "pr_auc": average_precision(total)},
    }


def _means(
    cases: Sequence[CaseScores], names: Sequence[str], keys: Sequence[str]
) -> dict[str, Any]:
    """Means over cases of scores that the foreground classes alone have."""
    return {
        key: {
            "foreground": mean_of_present(_column(cases, key)),
            "classes": {name: mean_of_present(_column(cases, key, name)) for name in names[1:]},
        }
        for key in keys
    }


def _lesions(cases: Sequence[CaseScores], name: str) -> dict[str, dict[str, int]]:
    """By IoU: the objects of a class that are found, missed and false."""
    limits = map(str, LESION_IOUS)
    return {
        limit: {
            kind.name: sum(getattr(case.lesions[name][limit], kind.name) for case in cases)
            for kind in fields(LesionCounts)
        }
        for limit in limits
    }


def _boundary(
    cases: Sequence[CaseScores], names: Sequence[str], tolerance: float, pixel_size: PixelSize
) -> dict[str, Any]:
    return {
        "unit": UNITS[pixel_size.unit],
        "pixel_size": pixel_size.plain,
        "tolerance": tolerance,
        "mean_over_cases": _means(cases, names, BOUNDARIES),
        "one_empty": {name: sum(case.one_empty[name] for case in cases) for name in names[1:]},
    }


def _objects(cases: Sequence[CaseScores], name: str, weights: Weights) -> dict[str, Any]:
    """The scores of a class's objects; the GlaS trio of each part of its test by itself."""
    parts: dict[str, list[int]] = {}
    for index, case in enumerate(cases):
        parts.setdefault(challenge_part(case.row["case"], case.row["split"]), []).append(index)
    glands = {}
    for part, members in parts.items():
        sums = [cases[i].glands[name] for i in members]
        total = add(sums)
        drawn = GlandSums(*(weights[:, members] @ np.array([astuple(one) for one in sums])).T)
        glands[part] = {
            "cases": len(members),
            "undefined": int(total.undefined),
            **{key: float(value) for key, value in gland_scores(total).items()},
            "intervals": {
                key: percentile_interval(values) for key, values in gland_scores(drawn).items()
            },
        }
    columns = {"f1": "object_f1_iou50", **{key: key for key in ("aji", "pq", "dq", "sq")}}
    return {
        **summarize_nuclei([case.nuclei[name] for case in cases]),
        "intervals": {
            key: percentile_interval(weighted_means(_column(cases, column, name), weights))
            for key, column in columns.items()
        },
        "glas": glands,
    }


def _intervals(
    cases: Sequence[CaseScores],
    names: Sequence[str],
    scores: PixelScores,
    more: Sequence[str],
    weights: Weights,
    grouped_by: str,
) -> dict[str, Any]:
    """Of the pixel scores, and of the means of `more`, which foreground classes alone have."""
    groups = [case.row["group"] for case in cases]

    def of_mean(values: NDArray[np.float64]) -> list[float]:
        return percentile_interval(weighted_means(values, weights))

    means = {
        key: {
            "foreground": of_mean(_column(cases, key)),
            "classes": {
                name: of_mean(_column(cases, key, name))
                for name in (names[1:] if key in more else names)
            },
        }
        for key in (*scores, *more)
    }
    sums = [weights @ np.array([vars(case.counts)[key] for case in cases]) for key in COUNTS]
    drawn = PixelCounts(*sums)
    pooled = {}
    for key, score in scores.items():
        table = score(drawn)
        pooled[key] = {
            "foreground": percentile_interval(means_of_present(table[:, 1:])),
            "classes": {n: percentile_interval(table[:, i]) for i, n in enumerate(names)},
        }
    return {
        "level": LEVEL,
        "resamples": RESAMPLES,
        "groups": group_count(groups),
        "over": grouped_by if group_count(groups) < len(groups) else "cases",
        "mean_over_cases": means,
        "pooled": pooled,
    }


def _column(cases: Sequence[CaseScores], key: str, name: str | None = None) -> NDArray[np.float64]:
    """A score of all cases: of one class, or of the foreground."""
    rows = [case.row["foreground"] if name is None else case.row["classes"][name] for case in cases]
    return np.array([row[key] for row in rows], np.float64)
