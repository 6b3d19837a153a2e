"""HD95 and normalised surface distance: brute force from the definition, MONAI, cases by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from medt.metrics.boundary import BOUNDARY_RULES, boundary, boundary_scores

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))
SPACINGS = [(1.0, 1.0), (0.5, 0.5), (2.0, 2.0), (0.5, 2.0), (3.0, 1.0)]  # height, width of a pixel
PAIRS = SIZES.flatmap(lambda size: st.tuples(*2 * [arrays(bool, size)]))


def outline_by_hand(mask):
    """(row, column) of each pixel with a 4-neighbour that is not in the mask."""
    inside = {(y, x) for y, x in np.argwhere(mask).tolist()}
    around = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    edge = [p for p in sorted(inside) if any((p[0] + v, p[1] + h) not in inside for v, h in around)]
    return np.array(edge, float)


def by_hand(prediction, truth, tolerance, spacing):
    a, b = outline_by_hand(prediction) * spacing, outline_by_hand(truth) * spacing
    between = np.linalg.norm(a[:, None] - b[None], axis=2)
    forth, back = between.min(axis=1), between.min(axis=0)
    hd95 = max(np.percentile(forth, 95), np.percentile(back, 95))
    near = (forth <= tolerance).sum() + (back <= tolerance).sum()
    return hd95, near / (len(forth) + len(back))


@given(PAIRS, st.sampled_from([0.0, 1.0, 2.0, 3.5]), st.sampled_from(SPACINGS))
def test_both_are_their_definition(pair, tolerance, spacing):
    prediction, truth = pair
    scores = boundary_scores(prediction, truth, tolerance, spacing)
    if prediction.any() and truth.any():
        hd95, nsd = by_hand(prediction, truth, tolerance, spacing)
        assert scores.hd95 == pytest.approx(hd95)
        assert scores.nsd == pytest.approx(nsd)
        assert scores.empty == 0
    else:
        assert scores.empty == 2 - prediction.any() - truth.any()


def blobs(rng, size=(40, 50)):
    noise = rng.normal(size=size)
    for _ in range(3):
        for axis in (0, 1):
            noise = noise + np.roll(noise, 1, axis) + np.roll(noise, -1, axis)
    mask = noise > np.quantile(noise, rng.uniform(0.3, 0.9))
    mask[[0, -1]] = mask[:, [0, -1]] = False  # at the image's edge MONAI sees no boundary
    return mask


def test_both_agree_with_monai():
    rng = np.random.default_rng(0)
    for _ in range(100):
        prediction, truth = blobs(rng), blobs(rng)
        pair = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth)]
        scores = boundary_scores(prediction, truth, tolerance=2)
        hd95 = compute_hausdorff_distance(*pair, include_background=True, percentile=95)
        nsd = compute_surface_dice(*pair, [2.0], include_background=True)
        assert scores.hd95 == pytest.approx(float(hd95), abs=1e-4)
        assert scores.nsd == pytest.approx(float(nsd), abs=1e-6)


class TestByHand:
    def test_a_line_moved_by_three_pixels(self):
        prediction, truth = np.zeros((2, 10, 20), bool)
        prediction[2, 5:15] = truth[5, 5:15] = True
        scores = boundary_scores(prediction, truth, tolerance=2.9)
        assert (scores.hd95, scores.nsd) == (3, 0)
        assert boundary_scores(prediction, truth, tolerance=3).nsd == 1

    def test_micrometres(self):
        prediction, truth = np.zeros((2, 10, 20), bool)
        prediction[2, 5:15] = truth[5, 5:15] = True
        assert boundary_scores(prediction, truth, 2, spacing=(0.5, 0.5)).hd95 == 1.5
        assert boundary_scores(prediction, truth, 2, spacing=(0.5, 0.5)).nsd == 1

    def test_pixels_that_are_taller_than_wide(self):
        truth = np.zeros((20, 20), bool)
        truth[5, 5] = True
        for shift, distance in (((3, 0), 0.6), ((0, 3), 0.3), ((4, 6), 1.0)):
            prediction = np.roll(truth, shift, axis=(0, 1))
            scores = boundary_scores(prediction, truth, distance, spacing=(0.2, 0.1))
            assert scores.hd95 == pytest.approx(distance)
            assert scores.nsd == 1
            less = boundary_scores(prediction, truth, 0.99 * distance, spacing=(0.2, 0.1))
            assert less.nsd == 0

    def test_three_pixels_of_a_tenth_lie_within_three_tenths(self):
        prediction, truth = np.zeros((2, 10, 20), bool)
        prediction[2, 5:15] = truth[5, 5:15] = True
        assert 3 * 0.1 > 0.3  # in binary
        assert boundary_scores(prediction, truth, 0.3, spacing=(0.1, 0.1)).nsd == 1

    def test_a_speck_far_away_moves_hd95_only_beyond_5_percent(self):
        truth = np.zeros((100, 100), bool)
        truth[10:40, 10:40] = True  # 116 boundary pixels
        prediction = truth.copy()
        prediction[90, 90:95] = True
        assert boundary_scores(prediction, truth, 1).hd95 == 0
        prediction[92, 90:95] = True
        assert boundary_scores(prediction, truth, 1).hd95 > 60

    def test_an_object_that_fills_the_image_ends_at_its_edge(self):
        assert boundary(np.ones((4, 4), bool)).sum() == 12


class TestEmpty:
    empty, full = np.zeros((3, 4), bool), np.ones((3, 4), bool)

    def test_both(self):
        scores = boundary_scores(self.empty, self.empty, 2)
        assert (scores.hd95, scores.nsd, scores.empty) == (0, 1, 2)

    def test_one_is_the_diagonal(self):
        for pair in ((self.empty, self.full), (self.full, self.empty)):
            scores = boundary_scores(*pair, 2, spacing=(2, 2))
            assert (scores.hd95, scores.nsd, scores.empty) == (10, 0, 1)

    def test_the_diagonal_is_that_of_the_pixels(self):
        scores = boundary_scores(self.empty, self.full, 2, spacing=(4, 1.25))
        assert scores.hd95 == pytest.approx(13)  # 3 rows of 4, 4 columns of 1.25


@given(PAIRS)
def test_exchanging_or_flipping_the_masks_changes_nothing(pair):
    scores = boundary_scores(*pair, 1)
    assert boundary_scores(*pair[::-1], 1) == scores
    assert boundary_scores(*(mask[::-1].copy() for mask in pair), 1) == scores
    assert boundary_scores(*(mask.T for mask in pair), 1) == scores


@given(arrays(bool, SIZES))
def test_the_same_mask_is_perfect(mask):
    scores = boundary_scores(mask, mask, 0)
    assert (scores.hd95, scores.nsd) == (0, 1)


def test_masks_of_different_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2\), truth \(2, 3\)"):
        boundary_scores(np.ones((2, 2), bool), np.ones((2, 3), bool), 1)


def test_the_rules_say_what_happens_to_empty_masks():
    for words in ("95th percentile", "larger of the two", "image's diagonal", "tolerance"):
        assert words in BOUNDARY_RULES
