"""Paired comparisons: enumeration by hand, scipy and Monte Carlo as oracles."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from medt.metrics.paired import compare_pairs, holm


def by_enumeration(sums):
    """The share of all sign flips whose sum is at least as far from 0."""
    observed = abs(sum(sums))
    flips = [
        abs(sum(sign * value for sign, value in zip(signs, sums, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(sums))
    ]
    return np.mean([flip >= observed * (1 - 1e-12) - 1e-12 for flip in flips])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=2, max_size=9))
def test_p_of_few_cases_is_that_of_all_flips(values):
    differences = np.array(values) / 16  # exact in binary, so that equal sums are equal
    found = compare_pairs(differences, [""] * len(values))
    assert found.p == pytest.approx(by_enumeration(list(differences)))
    assert found.difference == pytest.approx(differences.mean())


def test_by_hand():
    # Of 8 sign flips of 1, 2, 3 only +++ and --- reach a sum of 6.
    assert compare_pairs(np.array([1.0, 2.0, 3.0]), ["", "", ""]).p == pytest.approx(0.25)


def test_the_cases_of_a_patient_flip_together():
    differences = np.array([1, 1, 1, 1, -2.0, 3])
    groups = ["a", "a", "a", "a", "b", "c"]
    assert compare_pairs(differences, groups).p == pytest.approx(by_enumeration([4, -2, 3]))


def test_of_many_cases_p_is_close_to_the_t_tests():
    rng = np.random.default_rng(0)
    first = rng.normal(0.8, 0.1, 80)
    second = first + rng.normal(0.006, 0.03, 80)
    found = compare_pairs(second - first, [""] * 80)
    assert found.p == pytest.approx(ttest_rel(second, first).pvalue, abs=0.01)
    low, high = found.interval
    assert low < found.difference < high


def test_a_single_patient_tells_nothing():
    found = compare_pairs(np.array([0.1, 0.2]), ["a", "a"])
    assert found.difference == pytest.approx(0.15)
    assert math.isnan(found.p)
    assert all(math.isnan(end) for end in found.interval)


def test_no_difference_at_all():
    assert compare_pairs(np.zeros(20), [""] * 20).p == 1


def test_chance_is_below_a_twentieth_in_a_twentieth_of_cases():
    rng = np.random.default_rng(3)
    p = [compare_pairs(rng.normal(size=10), [""] * 10).p for _ in range(200)]
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.09


class TestHolm:
    def test_by_hand(self):
        # Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1: 0.04, 0.06, 0.06 (not less), 0.5.
        assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])

    def test_one_stays_what_it_is_and_nothing_exceeds_one(self):
        assert holm([0.3]) == [0.3]
        assert holm([0.9, 0.8]) == [1.0, 1.0]

    def test_what_is_not_known_counts_for_nothing(self):
        first, second = holm([float("nan"), 0.2])
        assert math.isnan(first)
        assert second == 0.2

    @given(st.lists(st.floats(0, 1), max_size=8))
    def test_never_smaller_and_in_the_same_order(self, values):
        corrected = holm(values)
        assert all(after >= before for before, after in zip(values, corrected, strict=True))
        order = np.argsort(values, kind="stable")
        assert all(np.diff(np.array(corrected)[order]) >= 0)
