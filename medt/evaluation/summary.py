"""From the scores of the cases to those of the split, with intervals and the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medt.data.published.glas import challenge_part
from medt.evaluation.case_scores import CaseScores
from medt.metrics.empty import EMPTY_RULES
from medt.metrics.family import Family, How, Split
from medt.metrics.resampling import LEVEL, RESAMPLES, case_weights, group_count

INTERVAL_RULES = f"""\
Intervals: {LEVEL:.0%}, percentile bootstrap of {RESAMPLES} resamples; whole groups (patients, \
slides, videos) are drawn where the dataset names them, else cases; of a single one there is none. \
They say what other cases would change, not what another training would."""


def summarize_split(
    cases: Sequence[CaseScores],
    families: Sequence[Family],
    how: How,
    detail: bool,
    grouped_by: str = "groups",
) -> dict[str, Any]:
    """The part of `Evaluation.summary` that families fill, the rules of their scores included.

    Args:
        cases: all of the split.
        families: those that measured them.
        how: they did.
        detail: whether there are intervals.
        grouped_by: what the groups of the cases are, and who says so.
    """
    rows = [case.row for case in cases]
    groups = [row["group"] for row in rows]
    weights = case_weights(groups) if detail else None
    sections = [challenge_part(row["case"], row["split"]) for row in rows]
    summary: dict[str, Any] = {}
    drawn: dict[str, Any] = {}
    for family in families:
        split = Split(how, rows, [case.sums[family.name] for case in cases], weights, sections)
        _merge(summary, family.summarize(split))
        if detail:
            drawn |= {key: _intervals(split, key) for key in family.means}
    rules = [EMPTY_RULES[how.empty], *(family.rules for family in families)]
    if detail:
        summary["scores"] = list(dict.fromkeys(family.part for family in families))
        rules.append(INTERVAL_RULES)
        intervals = {
            "level": LEVEL,
            "resamples": RESAMPLES,
            "groups": group_count(groups),
            "over": grouped_by if group_count(groups) < len(groups) else "cases",
            "mean_over_cases": drawn,
        }
        _merge(summary, {"intervals": intervals})
    return {**summary, "rules": "\n".join(filter(None, rules)).split("\n")}


def _intervals(split: Split, key: str) -> dict[str, Any]:
    """Of the foreground's mean, and of each class that has the score."""
    names = [name for name in split.how.classes if key in split.rows[0]["classes"][name]]
    of_classes = {name: split.interval(key, name) for name in names}
    return {"foreground": split.interval(key), "classes": of_classes}


def _merge(summary: dict[str, Any], more: dict[str, Any]) -> None:
    """Add to a summary; two families may fill one of its parts."""
    for key, value in more.items():
        if isinstance(value, dict) and key in summary:
            _merge(summary[key], value)
        else:
            summary[key] = value
