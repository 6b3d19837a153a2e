"""Whether two results on the same cases differ by more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medt.metrics.resampling import case_weights, group_count, percentile_interval, weighted_means

FLIPS = 9999


@dataclass(frozen=True)
class Paired:
    """Of the differences of paired scores, one a case.

    Attributes:
        difference: their mean.
        interval: of the mean, by the bootstrap over groups; NaN of a single group.
        p: two-sided, of a mean at least as far from 0 if the two were the same: the signs of the
            differences are flipped at random, those of a group together (Fisher 1935, "The design
            of experiments", section 21). Exact where there are fewer than 14 groups, else of 9,999
            draws. NaN of a single group.
    """

    difference: float
    interval: list[float]
    p: float


def compare_pairs(differences: NDArray[np.float64], groups: Sequence[str]) -> Paired:
    """Test the mean of paired differences.

    Args:
        differences: (cases,), finite, at least one.
        groups: of each case, such as its patient; a case whose group is "" is one of its own.
    """
    from scipy.stats import permutation_test

    interval = percentile_interval(weighted_means(differences, case_weights(groups)))
    if group_count(groups) < 2:
        return Paired(float(differences.mean()), interval, float("nan"))
    keys = [group or i for i, group in enumerate(groups)]
    totals = dict.fromkeys(keys, 0.0)
    for key, difference in zip(keys, differences, strict=True):
        totals[key] += float(difference)
    # Flipping a group's sum flips its cases; the sum of all is the mean but for a constant.
    test = permutation_test(
        (np.array(list(totals.values())),),
        np.sum,
        permutation_type="samples",
        n_resamples=FLIPS,
        rng=np.random.default_rng(0),
    )
    return Paired(float(differences.mean()), interval, float(test.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979, Scandinavian Journal of Statistics 6).

    NaN stays NaN and counts for nothing.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if not np.isnan(p))
    corrected = [float("nan")] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[index] = largest
    return corrected
