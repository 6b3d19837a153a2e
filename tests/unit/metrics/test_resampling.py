"""Bootstrap intervals: scipy as oracle, whole groups, and what is left out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from medt.metrics.resampling import (
    case_weights,
    group_count,
    percentile_interval,
    weighted_means,
)


def test_a_resample_holds_as_many_cases_as_there_are():
    weights = case_weights([""] * 7, resamples=50)
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == weights.astype(int)).all()


def test_cases_of_a_patient_come_and_go_together():
    groups = ["a", "", "b", "a", ""]
    weights = case_weights(groups, resamples=200)
    assert (weights[:, 0] == weights[:, 3]).all()
    assert not (weights[:, 1] == weights[:, 4]).all()
    assert group_count(groups) == 4
    assert (weights[:, [0, 1, 2, 4]].sum(axis=1) == 4).all()


@pytest.mark.parametrize("groups", [["a", "a", "a"], [""]])
def test_a_single_patient_has_no_interval(groups):
    means = weighted_means(np.array([0.5, 0.7, 0.9])[: len(groups)], case_weights(groups))
    assert all(math.isnan(end) for end in percentile_interval(means))


def test_the_seed_decides():
    assert (case_weights("abc", seed=1) == case_weights("abc", seed=1)).all()
    assert not (case_weights("abc", seed=1) == case_weights("abc", seed=2)).all()


def test_the_interval_of_a_mean_is_scipys():
    values = np.random.default_rng(0).beta(5, 2, 60)
    weights = case_weights([""] * 60, resamples=20_000)
    ours = percentile_interval(weighted_means(values, weights))
    theirs = bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours == pytest.approx(list(theirs), abs=0.003)


def test_alike_cases_of_few_patients_widen_the_interval():
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(6), 10)
    values = rng.normal(size=6)[patients] + 0.1 * rng.normal(size=60)
    widths = [
        np.ptp(percentile_interval(weighted_means(values, case_weights(groups))))
        for groups in ([""] * 60, [str(p) for p in patients])
    ]
    assert widths[1] > 2 * widths[0]


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    weights = case_weights([""] * 40, resamples=500)
    covered = 0
    for _ in range(200):
        low, high = percentile_interval(weighted_means(rng.normal(size=40), weights))
        covered += low <= 0 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_a_case_that_is_left_out_counts_in_no_resample():
    values = np.array([0.25, np.nan, 0.75])
    means = weighted_means(values, np.array([[1.0, 5, 1], [0, 3, 0], [3, 0, 1]]))
    assert means[0] == 0.5
    assert math.isnan(means[1])
    assert means[2] == pytest.approx((0.75 + 0.75) / 4)


def test_an_interval_of_nothing_is_no_number():
    assert all(map(math.isnan, percentile_interval(np.array([np.nan, np.nan]))))
