"""Whole objects found, missed and false."""

from __future__ import annotations

import numpy as np
import pytest

from medt.metrics.lesions import LESION_RULES, LesionCounts, lesion_counts

NOTHING = np.zeros((12, 40), np.uint8)


def bars(*spans, number=0):
    """Objects 10 pixels high, each from one column to another."""
    labels = NOTHING.copy()
    for i, (first, last) in enumerate(spans, start=1):
        labels[1:11, first:last] = i + number
    return labels


def test_a_part_of_a_lesion_finds_it_at_the_lower_limit_only():
    truth = bars((0, 10), (20, 30))
    prediction = bars((0, 8), (20, 23), (35, 38))  # IoU 0.8, 0.3, none
    assert lesion_counts(prediction, truth) == {
        "0.1": LesionCounts(found=2, missed=0, false=1),
        "0.5": LesionCounts(found=1, missed=1, false=2),
    }


@pytest.mark.parametrize(
    ("width", "low", "high"),
    [(1, 0, 0), (2, 1, 0), (5, 1, 0), (6, 1, 1)],  # of 10: IoU 0.1 and 0.5 themselves are not above
)
def test_the_limits_themselves_are_too_little(width, low, high):
    counts = lesion_counts(bars((0, width)), bars((0, 10)))
    assert [counts[limit].found for limit in ("0.1", "0.5")] == [low, high]


def test_an_object_finds_one_lesion_and_a_lesion_is_found_once():
    one, two = bars((0, 20)), bars((0, 9), (11, 20))
    assert lesion_counts(one, two)["0.1"] == LesionCounts(found=1, missed=1, false=0)
    assert lesion_counts(two, one)["0.1"] == LesionCounts(found=1, missed=0, false=1)


def test_the_largest_overlap_decides_first():
    truth = bars((0, 10), (10, 14))
    prediction = bars((2, 14), (0, 2))  # the first: IoU 8/14 and 4/12; the second: 2/10
    assert lesion_counts(prediction, truth)["0.1"] == LesionCounts(found=1, missed=1, false=1)


def test_without_lesions_all_that_is_predicted_is_false():
    for counts in lesion_counts(bars((0, 3), (5, 9), number=7), NOTHING).values():
        assert counts == LesionCounts(found=0, missed=0, false=2)
    for counts in lesion_counts(NOTHING, bars((0, 3))).values():
        assert counts == LesionCounts(found=0, missed=1, false=0)


def test_the_limits_stand_in_the_rule():
    assert "(0.1 and 0.5)" in LESION_RULES
