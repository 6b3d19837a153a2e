"""The first screen of a result: one table, what was found, what was missed, what was made up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medt.metrics.family import Table, with_interval
from medt.metrics.pixel_size import ABBREVIATIONS
from medt.metrics.resampling import Weights, case_weights, percentile_interval, weighted_means
from medt.metrics.sums import mean_of_present

if TYPE_CHECKING:
    from medt.evaluation.evaluate import Evaluation

# Scores of a case that the first table shows as far as they were measured, and their digits.
# Centrelines stand in the place of objects: a net is one object.
SCORES = {
    "dice": ("Dice", 4),
    "iou": ("IoU", 4),
    "hd95": ("HD95", 2),
    "object_f1_iou50": ("object F1", 4),
    "count_error": ("count error", 2),
}
OF_NETS = {"cldice": ("clDice", 4)}


def first_table(evaluation: Evaluation) -> Table:
    """What an evaluation is about: the foreground and each of its classes, with 95 % intervals.

    A challenge's protocol has the challenge's own scores. It fits 80 columns.
    """
    summary, rows = evaluation.summary, evaluation.rows
    if summary["protocol"] == "glas_challenge":
        return _challenge_table(summary["objects"])
    known = rows[0]["foreground"]
    scores = {key: what for key, what in SCORES.items() if key in known}
    if "object_f1_iou50" not in known and "cldice" in known:
        scores |= OF_NETS
    weights = case_weights([row["group"] for row in rows]) if "intervals" in summary else None
    names = evaluation.class_names[1:]
    parts = {"foreground": [row["foreground"] for row in rows]}
    if len(names) > 1:  # the foreground is a single class otherwise
        parts |= {name: [row["classes"][name] for row in rows] for name in names}
    unit = ABBREVIATIONS[summary["boundary"]["unit"]] if "hd95" in known else ""
    titles = [f"{title} ({unit})" if key == "hd95" else title for key, (title, _) in scores.items()]
    return Table(
        "mean over cases",
        titles,
        [
            [name, *(_cell(part, key, digits, weights) for key, (_, digits) in scores.items())]
            for name, part in parts.items()
        ],
    )


def first_lines(evaluation: Evaluation, every: bool) -> Iterator[str]:
    """What one has to know to read the first table.

    Args:
        evaluation: whose table it is.
        every: also that of a set in which all cases have foreground.
    """
    summary, rows = evaluation.summary, evaluation.rows
    if "intervals" in summary:
        intervals = summary["intervals"]
        groups, over = intervals["groups"], intervals["over"]
        if groups > 1:
            yield f"below each score its {intervals['level']:.0%} interval, over {groups} {over}"
        elif len(rows) > 1:
            group = rows[0]["group"]
            yield f"no intervals: all {len(rows)} cases are of one group, {group} ({over})"
        else:
            yield "no intervals: there is one case"
    lines = list(headline(summary))
    yield from lines if every or summary["false_alarms"]["foreground"]["without"] else lines[:1]


def headline(summary: Mapping[str, Any]) -> Iterator[str]:
    """Foreground Dice, false alarms where there is nothing to find, and whole objects.

    Args:
        summary: of an evaluation.
    """
    yield dice_line(summary)
    alarms = summary["false_alarms"]
    yield _alarm_line("foreground", alarms["foreground"])
    if len(alarms["classes"]) > 1:
        yield from (_alarm_line(name, part) for name, part in alarms["classes"].items())
    for name, limits in summary.get("lesions", {}).items():
        texts = [
            f"{counts['found']} found, {counts['missed']} missed, {counts['false']} false at "
            f"IoU {limit}"
            for limit, counts in limits.items()
        ]
        yield f"objects of {name}: {'; '.join(texts)}"


def dice_line(summary: Mapping[str, Any]) -> str:
    """The mean Dice of the foreground, and which cases it is the mean of."""
    part = summary["mean_over_cases"]["dice"]
    counted = summary["cases"] - part["left_out"]["foreground"]
    if math.isnan(part["foreground"]):
        return f"no Dice: none of the {summary['cases']} cases has foreground in the truth"
    cases = "case" if counted == 1 else "cases"
    which = {
        "skip": f"{counted} {cases} with foreground",
        "alarms": f"{counted} {cases} with foreground or false alarms",
        "one": f"{counted} {cases}, an empty mask predicted empty counting 1",
    }[summary["empty"]]
    return f"foreground Dice {part['foreground']:.4f}, mean over {which} (empty={summary['empty']})"


def _alarm_line(name: str, part: Mapping[str, int]) -> str:
    """How often, and how large, a class was predicted where the truth does not have it."""
    without = part["without"]
    if not without:
        return f"no case without {name}"
    cases = "case" if without == 1 else "cases"
    return (
        f"{without} {cases} without {name}: false alarms in {part['alarms']} "
        f"({part['alarms'] / without:.2f} an image), {part['pixels'] / without:.1f} pixels an image"
    )


def _cell(
    scores: Sequence[Mapping[str, float]], key: str, digits: int, weights: Weights | None
) -> str:
    """The mean of a score and, where resamples are given, its interval beneath."""
    values = np.array([one[key] for one in scores], np.float64)
    means = None if weights is None else weighted_means(values, weights)
    interval = None if means is None else percentile_interval(means)
    return with_interval(mean_of_present(values), interval, digits)


def _challenge_table(objects: Mapping[str, Any]) -> Table:
    """The GlaS challenge's three scores of each part of its test."""
    scores = {"f1": 4, "object_dice": 4, "object_hausdorff": 2}
    rows = [
        [part, *(with_interval(found[key], found["intervals"][key], scores[key]) for key in scores)]
        for glands in objects.values()
        for part, found in glands["glas"].items()
    ]
    return Table("challenge", ["object F1", "object Dice", "object Hausdorff (px)"], rows)
