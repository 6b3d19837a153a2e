"""AJI, panoptic quality, F1 and counts: brute force, cellseg-metrics, cases by hand."""

from __future__ import annotations

import math

import cellseg_metrics
import numpy as np
import pytest
from hypothesis import given
from object_cases import PAIRS, adversarial, disks, moved, objects_of

from medt.metrics.nuclei import (
    NUCLEI_RULES,
    SCORE_NAMES,
    nuclei_scores,
    nuclei_sums,
    summarize_nuclei,
)
from medt.metrics.sums import add


def scores_of(prediction, truth):
    return {k: float(v) for k, v in nuclei_scores(nuclei_sums(prediction, truth)).items()}


def by_hand(prediction, truth):
    """From the definitions, mask by mask."""
    predicted, true = objects_of(prediction), objects_of(truth)
    if not predicted and not true:
        return dict.fromkeys(SCORE_NAMES, math.nan)
    iou = {
        (i, j): (p & t).sum() / (p | t).sum()
        for i, p in enumerate(predicted)
        for j, t in enumerate(true)
    }
    matches = [value for value in iou.values() if value > 0.5]
    tp = len(matches)
    f1 = 2 * tp / (len(predicted) + len(true))
    sq = sum(matches) / tp if tp else math.nan
    free = set(range(len(predicted))), set(range(len(true)))
    intersection = union = 0
    for (i, j), value in sorted(iou.items(), key=lambda item: -item[1]):
        if value > 0 and i in free[0] and j in free[1]:
            free[0].remove(i)
            free[1].remove(j)
            intersection += (predicted[i] & true[j]).sum()
            union += (predicted[i] | true[j]).sum()
    union += sum(predicted[i].sum() for i in free[0]) + sum(true[j].sum() for j in free[1])
    return {
        "aji": intersection / union,
        "pq": f1 * sq if tp else 0,
        "dq": f1,
        "sq": sq,
        "f1": f1,
        "precision": tp / len(predicted) if predicted else 0,
        "recall": tp / len(true) if true else 0,
    }


def unambiguous(prediction, truth):
    """Whether pairs by IoU, one use each, and pairs by shared area, any use, are the same."""
    choice = []
    for t in objects_of(truth):
        shares = [((p & t).sum(), (p & t).sum() / (p | t).sum()) for p in objects_of(prediction)]
        best = [max(range(len(shares)), key=lambda i: shares[i][k]) for k in (0, 1)]
        if not max(s[0] for s in shares):
            continue
        if best[0] != best[1] or sum(s[0] == max(shares)[0] for s in shares) > 1:
            return False
        choice.append(best[0])
    return len(set(choice)) == len(choice)


@given(PAIRS)
def test_scores_are_their_definitions(pair):
    assert scores_of(*pair) == pytest.approx(by_hand(*pair), nan_ok=True)


@pytest.mark.parametrize(("prediction", "truth"), [c[1:] for c in adversarial()])
def test_scores_are_their_definitions_where_it_is_hard(prediction, truth):
    assert scores_of(prediction, truth) == pytest.approx(by_hand(prediction, truth), nan_ok=True)


def test_scores_agree_with_cellseg_metrics():
    """Its AJI may use an object twice and pairs by area: the same where no object is contested."""
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(200):
        truth = disks(rng)
        prediction = moved(rng, truth)
        if not prediction.any():
            continue
        ours, theirs = (
            scores_of(prediction, truth),
            cellseg_metrics.panoptic_quality(truth, prediction),
        )
        for name in ("pq", "dq", "sq"):
            assert np.nan_to_num(ours[name]) == pytest.approx(theirs[name], abs=1e-6)
        precision = cellseg_metrics.average_precision(truth, prediction)
        assert ours["precision"] == pytest.approx(precision, abs=1e-6)
        if unambiguous(prediction, truth):
            compared += 1
            aji = cellseg_metrics.aggregated_jaccard_index(truth, prediction)
            assert ours["aji"] == pytest.approx(aji, abs=1e-6)
    assert compared > 50


class TestByHand:
    def test_an_iou_of_exactly_one_half_is_no_match(self):
        truth = np.array([[1, 1, 0, 0]])
        assert scores_of(np.array([[1, 0, 0, 0]]), truth)["f1"] == 0
        assert scores_of(np.array([[1, 1, 1, 0]]), truth)["f1"] == 1

    def test_two_objects_of_which_one_is_found(self):
        truth = np.array([[1, 1, 1, 0, 2, 2, 0, 0]])
        prediction = np.array([[5, 5, 0, 0, 0, 0, 0, 6]])
        scores = scores_of(prediction, truth)
        assert scores["aji"] == pytest.approx(2 / (3 + 2 + 1))
        assert scores["sq"] == pytest.approx(2 / 3)
        assert scores["dq"] == scores["precision"] == scores["recall"] == 0.5
        assert scores["pq"] == pytest.approx(1 / 3)


class TestSummary:
    def images(self):
        nothing, one, two = np.array([[[0, 0, 0, 0]], [[1, 1, 0, 0]], [[1, 1, 0, 2]]])
        return [nuclei_sums(nothing, nothing), nuclei_sums(one, one), nuclei_sums(nothing, two)]

    def test_an_image_without_objects_is_left_out_of_the_mean_and_counted(self):
        summary = summarize_nuclei(self.images())
        assert summary["mean"]["f1"] == 0.5
        assert summary["left_out"]["f1"] == 1
        assert summary["left_out"]["sq"] == 2

    def test_pooled_adds_objects_before_it_scores(self):
        pooled = summarize_nuclei(self.images())["pooled"]
        assert pooled["f1"] == pytest.approx(2 / (2 + 2))
        assert pooled["aji"] == pytest.approx(2 / 5)
        assert pooled["recall"] == pytest.approx(1 / 3)
        assert pooled["precision"] == 1

    def test_counts(self):
        counts = summarize_nuclei(self.images())["counts"]
        assert counts == {"true": 3, "predicted": 1, "count_error": pytest.approx(2 / 3)}

    def test_no_object_anywhere_is_no_number(self):
        summary = summarize_nuclei(self.images()[:1])
        assert all(map(math.isnan, summary["mean"].values()))
        assert all(map(math.isnan, summary["pooled"].values()))

    def test_pooled_over_images_is_one_wide_image(self):
        rng = np.random.default_rng(3)
        truths = [disks(rng) for _ in range(4)]
        pairs = [(moved(rng, truth), truth) for truth in truths]
        wide = [
            np.concatenate([m + (m > 0) * 10_000 * i for i, m in enumerate(side)], axis=1)
            for side in zip(*[(p.astype(int), t.astype(int)) for p, t in pairs], strict=True)
        ]
        added = nuclei_scores(add([nuclei_sums(*pair) for pair in pairs]))
        assert {k: float(v) for k, v in added.items()} == pytest.approx(scores_of(*wide))


@given(PAIRS)
def test_numbers_and_flips_do_not_matter_and_sides_exchange(pair):
    scores = scores_of(*pair)
    again = scores_of(*((99 - m) * (m > 0) for m in pair))
    for name in ("pq", "dq", "sq", "f1", "precision", "recall"):
        assert again[name] == pytest.approx(scores[name], nan_ok=True)
    assert scores_of(*(m[::-1] for m in pair)) == pytest.approx(scores, nan_ok=True)
    back = scores_of(*pair[::-1])
    assert (back["precision"], back["pq"]) == pytest.approx(
        (scores["recall"], scores["pq"]), nan_ok=True
    )


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2\), truth \(2, 3\)"):
        nuclei_sums(np.ones((2, 2), int), np.ones((2, 3), int))
    with pytest.raises(ValueError, match="negative, such as -3"):
        nuclei_sums(np.array([[-3, 1]]), np.array([[0, 1]]))


def test_the_rules_state_the_threshold_and_the_empty_cases():
    for words in ("above 0.5", "left out", "each object used once", "pooled"):
        assert words in NUCLEI_RULES
