"""The GlaS trio: brute force from the paper's definitions, and cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from object_cases import PAIRS, adversarial, disks, moved, objects_of
from scipy.spatial.distance import cdist

from medt.metrics.glands import GLAND_RULES, gland_scores, gland_sums
from medt.metrics.sums import add


def scores_of(*pairs, spacing=(1.0, 1.0)):
    sums = add([gland_sums(*pair, spacing) for pair in pairs])
    return {name: float(value) for name, value in gland_scores(sums).items()}


def hausdorff(a, b, spacing=(1, 1)):
    between = cdist(np.argwhere(a) * spacing, np.argwhere(b) * spacing)
    return max(between.min(axis=0).max(), between.min(axis=1).max())


def by_hand(*pairs, spacing=(1, 1)):
    """From the definitions, mask by mask, over all images together."""
    tp = predicted_count = true_count = 0
    dice, distance = {0: [], 1: []}, {0: [], 1: []}  # side -> (area, value)
    for pair in pairs:
        sides = [objects_of(labels) for labels in pair]
        predicted_count, true_count = predicted_count + len(sides[0]), true_count + len(sides[1])
        for side in (0, 1):
            others = sides[1 - side]
            for own in sides[side]:
                shared = [(own & other).sum() for other in others]
                rank = [(s, -other.sum()) for s, other in zip(shared, others, strict=True)]
                best = rank.index(max(rank)) if rank else None
                if best is None or not shared[best]:
                    dice[side].append((own.sum(), 0.0))
                    if others:
                        distance[side].append(
                            (own.sum(), min(hausdorff(own, o, spacing) for o in others))
                        )
                    continue
                partner = others[best]
                dice[side].append((own.sum(), 2 * shared[best] / (own.sum() + partner.sum())))
                distance[side].append((own.sum(), hausdorff(own, partner, spacing)))
                tp += side == 0 and shared[best] > partner.sum() / 2
    if not predicted_count + true_count:
        return {"f1": 1, "object_dice": 1, "object_hausdorff": 0}

    def mean(parts, otherwise):
        total = sum(area for area, _ in parts)
        return sum(area * value for area, value in parts) / total if total else otherwise

    return {
        "f1": 2 * tp / (predicted_count + true_count),
        "object_dice": (mean(dice[0], 0) + mean(dice[1], 0)) / 2,
        "object_hausdorff": (mean(distance[0], math.nan) + mean(distance[1], math.nan)) / 2,
    }


@given(PAIRS)
def test_all_three_are_their_definitions(pair):
    prediction, truth = pair
    ours, expected = scores_of(pair), by_hand(pair)
    if tie_of_equals(prediction, truth):
        del ours["object_hausdorff"], expected["object_hausdorff"]  # either of the equals will do
    assert ours == pytest.approx(expected, nan_ok=True)


def tie_of_equals(prediction, truth):
    """Whether some object overlaps two others by the same area that are of the same size."""
    for one, other in ((prediction, truth), (truth, prediction)):
        for own in objects_of(one):
            sizes = [((own & o).sum(), o.sum()) for o in objects_of(other)]
            if len(set(sizes)) < len(sizes):
                return True
    return False


def test_all_three_are_their_definitions_on_disks():
    rng = np.random.default_rng(0)
    for _ in range(100):
        truth = disks(rng)
        pair = moved(rng, truth), truth
        assert scores_of(pair) == pytest.approx(by_hand(pair), nan_ok=True)
        for spacing in ((0.25, 0.25), (2.0, 0.5)):
            ours = scores_of(pair, spacing=spacing)
            assert ours == pytest.approx(by_hand(pair, spacing=spacing), nan_ok=True)


def test_several_images_are_pooled():
    rng = np.random.default_rng(1)
    pairs = [(moved(rng, truth), truth) for truth in (disks(rng) for _ in range(5))]
    pairs.append((np.zeros((9, 9), int), np.ones((9, 9), int)))
    assert scores_of(*pairs) == pytest.approx(by_hand(*pairs))
    each = [scores_of(pair)["object_dice"] for pair in pairs]
    assert scores_of(*pairs)["object_dice"] != pytest.approx(np.mean(each))


@pytest.mark.parametrize(("prediction", "truth"), [c[1:] for c in adversarial()])
def test_all_three_are_their_definitions_where_it_is_hard(prediction, truth):
    pair = prediction, truth
    assert scores_of(pair) == pytest.approx(by_hand(pair), nan_ok=True)


class TestByHand:
    def test_exactly_half_of_the_true_object_is_not_enough(self):
        truth = np.array([[1, 1, 1, 1]])
        assert scores_of((np.array([[1, 1, 0, 0]]), truth))["f1"] == 0
        assert scores_of((np.array([[1, 1, 1, 0]]), truth))["f1"] == 1

    def test_a_true_object_is_found_once(self):
        truth = np.array([[1, 1, 1, 1, 1]])
        scores = scores_of((np.array([[1, 1, 1, 2, 2]]), truth))
        assert scores["f1"] == pytest.approx(2 / 3)
        # predicted side: (3 * 6/8 + 2 * 4/7) / 5, true side: 6/8
        assert scores["object_dice"] == pytest.approx(((3 * 0.75 + 2 * 4 / 7) / 5 + 0.75) / 2)
        # predicted side: (3 * 2 + 2 * 3) / 5, true side: 2
        assert scores["object_hausdorff"] == pytest.approx((12 / 5 + 2) / 2)

    def test_an_object_without_overlap_has_the_nearest_ones_distance(self):
        truth = np.array([[1, 0, 0, 0, 0, 0, 0, 2]])
        prediction = np.array([[0, 0, 3, 0, 0, 0, 0, 0]])
        scores = scores_of((prediction, truth))
        assert scores["object_dice"] == 0
        # predicted: 2; true: 2 and 5
        assert scores["object_hausdorff"] == pytest.approx((2 + 3.5) / 2)

    def test_an_image_whose_other_side_is_empty_is_undefined_and_left_out(self):
        full, empty = np.ones((4, 4), int), np.zeros((4, 4), int)
        assert math.isnan(scores_of((full, empty))["object_hausdorff"])
        sums = add([gland_sums(full, full), gland_sums(empty, full)])
        assert sums.undefined == 1
        scores = gland_scores(sums)
        assert scores["object_hausdorff"] == 0
        assert scores["object_dice"] == pytest.approx((1 + 0.5) / 2)

    def test_the_middle_of_a_ring_is_farthest_from_it(self):
        ring = np.ones((9, 9), int)
        ring[2:7, 2:7] = 0
        square = np.zeros((9, 9), int)
        square[2:7, 2:7] = 1
        assert scores_of((square, ring))["object_hausdorff"] == pytest.approx(
            hausdorff(square == 1, ring == 1)
        )


@given(PAIRS)
def test_flips_do_not_matter_and_a_perfect_prediction_is_perfect(pair):
    assert gland_sums(pair[1], pair[1]).undefined == 0
    assert scores_of((pair[1], pair[1])) == {"f1": 1, "object_dice": 1, "object_hausdorff": 0}
    flipped = scores_of(tuple(m[:, ::-1] for m in pair))
    assert flipped == pytest.approx(scores_of(pair), nan_ok=True)


def test_the_rules_state_partners_and_empty_images():
    for words in ("more than half", "overlaps most", "smaller object", "undefined"):
        assert words in GLAND_RULES
