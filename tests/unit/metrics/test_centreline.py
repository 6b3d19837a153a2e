"""Centreline Dice: values by hand, and what plain Dice does not see."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.morphology import skeletonize

from medt.metrics.centreline import CENTRELINE_RULES, centreline_scores
from medt.metrics.pixel import count_pixels, dice

NOTHING = np.zeros((30, 60), bool)


def bar(rows, columns, mask=NOTHING):
    mask = mask.copy()
    mask[slice(*rows), slice(*columns)] = True
    return mask


def test_lines_of_one_pixel_are_their_own_skeletons():
    truth = bar((10, 11), (10, 50))  # 40 pixels
    prediction = bar((10, 11), (20, 54), bar((20, 21), (0, 6)))  # 34 and 6, of which 30 in it
    scores = centreline_scores(prediction, truth)
    assert scores.centreline_precision == 30 / 40
    assert scores.centreline_recall == 30 / 40
    assert scores.cldice == pytest.approx(0.75)


def test_precision_and_recall_are_of_each_sides_own_skeleton():
    truth = bar((10, 11), (10, 50))
    half = bar((10, 11), (10, 30))
    scores = centreline_scores(half, truth)
    assert (scores.centreline_precision, scores.centreline_recall) == (1, 1 / 2)
    assert scores.cldice == pytest.approx(2 / 3)


def test_a_thinner_vessel_is_whole_and_a_gap_is_not():
    truth = bar((10, 15), (5, 55))
    thin = bar((11, 14), (5, 55))
    gap = truth & ~bar((10, 15), (25, 35))
    whole, torn = (centreline_scores(one, truth).cldice for one in (thin, gap))
    assert whole == 1
    assert torn < 0.95
    by_pixels = [
        dice(count_pixels(one.astype(int), truth.astype(int), 2))[1] for one in (thin, gap)
    ]
    assert by_pixels[0] < by_pixels[1]  # Dice prefers the torn one


def test_agrees_with_the_sets_of_pixels_of_the_paper():
    """Topology precision |S_P and V_L| / |S_P|, sensitivity |S_L and V_P| / |S_L|."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        noise = rng.random((2, 10, 20)) < 0.6
        masks = [np.kron(one, np.ones((3, 3), bool)) for one in noise]
        pixels = [set(zip(*np.nonzero(one), strict=True)) for one in masks]
        lines = [set(zip(*np.nonzero(skeletonize(one)), strict=True)) for one in masks]
        precision = len(lines[0] & pixels[1]) / len(lines[0])
        sensitivity = len(lines[1] & pixels[0]) / len(lines[1])
        expected = 2 * precision * sensitivity / (precision + sensitivity)
        assert centreline_scores(*masks).cldice == pytest.approx(expected)


def test_empty_masks():
    line = bar((10, 11), (10, 50))
    assert centreline_scores(NOTHING, NOTHING).cldice == 1
    for pair in ((line, NOTHING), (NOTHING, line), (line, bar((20, 21), (10, 50)))):
        assert centreline_scores(*pair).cldice == 0
    assert "One mask empty: 0; both: 1" in CENTRELINE_RULES


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\(30, 60\), truth \(30, 59\)"):
        centreline_scores(NOTHING, NOTHING[:, 1:])
