"""The cases of past evaluations: pooled over seeds and folds, and compared pair by pair."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from medt.compare.past_run import Run
from medt.metrics.paired import compare_pairs, holm

PAIRED_RULE = (
    "Differences: of a row's foreground Dice to the first row's, on the cases that both scored, "
    "each case's Dice being the mean over a row's runs. p: the signs of the differences flipped at "
    "random, a patient's together; Holm: corrected for the comparisons of a table. They say "
    "whether these networks differ on such cases, not whether other seeds would."
)


def case_dice(runs: Iterable[Run], evaluation: str) -> tuple[dict[str, float], dict[str, str]]:
    """The Dice of each case of an evaluation, its mean over the runs that scored it; its group."""
    found: dict[str, list[float]] = {}
    groups: dict[str, str] = {}
    for run in runs:
        if result := run.evaluations.get(evaluation):
            for case, dice in result.by_case.items():
                found.setdefault(case, []).append(dice)
            groups |= result.groups
    return {case: statistics.mean(values) for case, values in found.items()}, groups


def pair_rows(rows: Sequence[tuple[str, Sequence[Run]]], evaluation: str) -> list[dict[str, Any]]:
    """Each row of runs against the first one that has cases of this evaluation.

    Returns:
        Per later row with cases in common: ``name``, ``reference`` (the first row's), ``cases``
        (in common), ``reference_dice`` and ``dice`` (means over these), ``difference``,
        ``interval``, ``p`` and ``p_holm``; None for what a single group cannot tell.
    """
    scored = [(name, *case_dice(runs, evaluation)) for name, runs in rows]
    scored = [row for row in scored if row[1]]
    pairs: list[dict[str, Any]] = []
    for name, dice, _ in scored[1:]:
        reference, first, groups = scored[0]
        if common := [case for case in first if case in dice]:
            before, after = (np.array([of[case] for case in common]) for of in (first, dice))
            test = compare_pairs(after - before, [groups[case] for case in common])
            pairs.append(
                {
                    "name": name,
                    "reference": reference,
                    "cases": len(common),
                    "reference_dice": float(before.mean()),
                    "dice": float(after.mean()),
                    "difference": test.difference,
                    "interval": None if math.isnan(test.interval[0]) else test.interval,
                    "p": test.p,
                }
            )
    for pair, corrected in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        known = not math.isnan(corrected)
        pair |= {"p": pair["p"] if known else None, "p_holm": corrected if known else None}
    return pairs


def fold_report(runs: Sequence[Run], evaluations: Sequence[str]) -> dict[str, Any]:
    """A cross-validation as a whole: its folds by seed, and the scores of all their cases."""
    pooled: dict[str, Any] = {}
    for name in evaluations:
        if dice := case_dice(runs, name)[0]:
            pooled[name] = {"cases": len(dice), "dice": statistics.mean(dice.values())}
    return {
        "of": runs[0].folds,
        "present": {str(seed): folds for seed, folds in _folds_by_seed(runs).items()},
        "evaluations": pooled,
    }


def fold_notes(name: str, folds: Mapping[str, Any]) -> list[str]:
    """What to say of a row's cross-validation: its pooled scores, and what it lacks."""
    lines = [
        f"{name}: {evaluation} over the {pooled['cases']} cases of its folds: "
        f"Dice {pooled['dice']:.4f}"
        for evaluation, pooled in folds["evaluations"].items()
    ]
    for seed, present in folds["present"].items():
        if missing := sorted(set(range(folds["of"])) - set(present)):
            which = ", ".join(map(str, missing))
            lines.append(
                f"warning: {name} lacks fold {which} of {folds['of']} (seed {seed}): "
                "a mean without it is no cross-validation"
            )
    return lines


def _folds_by_seed(runs: Iterable[Run]) -> dict[int, list[int]]:
    folds: dict[int, list[int]] = {}
    for run in runs:
        if run.fold is not None:
            folds.setdefault(run.seed, []).append(run.fold)
    return folds
