"""Confidence intervals by the bootstrap over cases, or over patients where they are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medt.metrics.sums import quotient

LEVEL = 0.95
RESAMPLES = 2000

Weights = NDArray[np.float64]


def case_weights(groups: Sequence[str], resamples: int = RESAMPLES, seed: int = 0) -> Weights:
    """How often each resample holds each case, when whole groups are drawn with replacement.

    Cases of one patient are alike; drawn one by one they would make an interval too narrow. A mean
    over the cases of a resample is a mean weighted by its row, a pooled score comes from sums
    weighted by it: no case is touched twice.

    Args:
        groups: of each case; a case whose group is "" is a group of its own.
        resamples: how many.
        seed: of the draws.

    Returns:
        float64 (resamples, cases) whole numbers; of a single group (0, cases), since nothing is
        known then of what other groups would change.
    """
    keys = [(group, -1) if group else ("", i) for i, group in enumerate(groups)]
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    member = np.array([numbers[key] for key in keys], np.intp)
    count = len(numbers)
    if count < 2:
        return np.zeros((0, len(groups)))
    drawn = np.random.default_rng(seed).multinomial(
        count, np.full(count, 1 / count), size=resamples
    )
    return drawn[:, member].astype(np.float64)


def group_count(groups: Sequence[str]) -> int:
    """The number of groups that `case_weights` draws from."""
    return len({group for group in groups if group}) + sum(not group for group in groups)


def weighted_means(values: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """The mean over the cases of each resample, without those that are NaN.

    Args:
        values: (cases,), NaN = left out.
        weights: (resamples, cases).

    Returns:
        (resamples,), NaN where a resample holds only cases that are left out.
    """
    known = ~np.isnan(values)
    return quotient(weights[:, known] @ values[known], weights[:, known].sum(axis=1))


def percentile_interval(values: NDArray[np.float64]) -> list[float]:
    """The interval that holds the middle `LEVEL` of the resamples' values.

    Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 13. It stays in a score's
    range and needs no symmetry; with few groups it is somewhat too narrow, as every bootstrap is.

    Args:
        values: (resamples,); NaN is left out.

    Returns:
        [low, high]; NaN if nothing is left.
    """
    known = values[~np.isnan(values)]
    if not known.size:
        return [float("nan"), float("nan")]
    return [float(x) for x in np.quantile(known, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))]
