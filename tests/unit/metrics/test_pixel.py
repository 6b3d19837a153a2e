"""Pixel scores: their formulas, their zero denominators, and both ways to reduce them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchmetrics.functional.classification import (
    binary_matthews_corrcoef,
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_jaccard_index,
    multiclass_precision,
    multiclass_recall,
    multiclass_specificity,
)

from medt.metrics.empty import EMPTY_RULES
from medt.metrics.paper import official_f1, official_prediction
from medt.metrics.pixel import (
    RULES,
    SCORES,
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    count_pixels,
    dice,
    foreground,
    iou,
    mcc,
    precision,
    recall,
    scores_by,
    specificity,
    summarize,
)
from medt.metrics.sums import add


def masks(classes, size=(6, 5)):
    return hnp.arrays(np.uint8, size, elements=st.integers(0, classes - 1))


def mask(*rows):
    return np.array(rows, dtype=np.uint8)


OVERLAPS = {"dice": dice, "iou": iou, "precision": precision, "recall": recall}
EMPTY, FULL = np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8)


def test_counts_and_scores_of_a_case_worked_by_hand():
    truth = mask([1, 1, 1, 0], [0, 0, 0, 0])
    prediction = mask([1, 1, 0, 1], [1, 0, 0, 0])
    counts = count_pixels(prediction, truth, 2)
    assert (counts.tp[1], counts.fp[1], counts.fn[1]) == (2, 2, 1)
    assert counts.tp.dtype == np.int64
    assert dice(counts)[1] == pytest.approx(4 / 7)
    assert iou(counts)[1] == pytest.approx(2 / 5)
    assert precision(counts)[1] == pytest.approx(2 / 4)
    assert recall(counts)[1] == pytest.approx(2 / 3)


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_agree_with_torchmetrics(classes):
    rng = np.random.default_rng(classes)
    truth = rng.integers(0, classes, (31, 17))
    prediction = np.where(
        rng.random(truth.shape) < 0.6, truth, rng.integers(0, classes, truth.shape)
    )
    truth[rng.random(truth.shape) < 0.1] = 255
    oracles = {
        dice: multiclass_f1_score,
        iou: multiclass_jaccard_index,
        precision: multiclass_precision,
        recall: multiclass_recall,
    }
    counts = count_pixels(prediction, truth, classes)
    for score, oracle in oracles.items():
        expected = oracle(
            torch.from_numpy(prediction),
            torch.from_numpy(truth),
            num_classes=classes,
            average="none",
            ignore_index=255,
        )
        np.testing.assert_allclose(score(counts), expected.numpy(), atol=1e-6)


def test_scores_with_true_negatives_worked_by_hand():
    truth = mask([1, 1, 1, 0], [0, 0, 0, 0])
    prediction = mask([1, 1, 0, 1], [1, 0, 0, 0])
    counts = count_pixels(prediction, truth, 2)
    assert counts.tn.tolist() == [2, 3]
    assert confusion_matrix(prediction, truth, 2).tolist() == [[3, 2], [1, 2]]
    assert specificity(counts)[1] == pytest.approx(3 / 5)
    assert accuracy(counts)[1] == pytest.approx(5 / 8)
    assert balanced_accuracy(counts)[1] == pytest.approx((2 / 3 + 3 / 5) / 2)
    assert mcc(counts)[1] == pytest.approx((2 * 3 - 2 * 1) / math.sqrt(4 * 3 * 5 * 4))


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_with_true_negatives_agree_with_torchmetrics(classes):
    rng = np.random.default_rng(classes)
    for _ in range(50):
        truth, prediction = rng.integers(0, classes, (2, 9, 11))
        prediction = np.where(rng.random(truth.shape) < rng.random(), truth, prediction)
        truth[rng.random(truth.shape) < 0.1] = 255
        counts = count_pixels(prediction, truth, classes)
        pair = torch.from_numpy(prediction), torch.from_numpy(truth)
        how = {"num_classes": classes, "average": "none", "ignore_index": 255}
        expected = multiclass_specificity(*pair, **how).numpy()
        np.testing.assert_allclose(specificity(counts), expected, atol=1e-6)
        found = multiclass_accuracy(*pair, **how).numpy()  # of one class: its recall
        np.testing.assert_allclose(balanced_accuracy(counts), (expected + found) / 2, atol=1e-6)
        known = truth != 255
        for i in range(classes):
            sides = (torch.from_numpy(m[known] == i).long() for m in (prediction, truth))
            assert mcc(counts)[i] == pytest.approx(
                float(binary_matthews_corrcoef(*sides)), abs=1e-5
            )
            right = (prediction[known] == i) == (truth[known] == i)
            assert accuracy(counts)[i] == pytest.approx(right.mean())


class TestZeroDenominatorsWithTrueNegatives:
    def test_a_class_that_fills_the_truth_has_no_specificity(self):
        for prediction in (FULL, EMPTY):
            counts = count_pixels(prediction, FULL, 2)
            assert math.isnan(specificity(counts)[1])
            assert math.isnan(balanced_accuracy(counts)[1])

    def test_a_class_that_is_predicted_but_not_there_has_no_balanced_accuracy(self):
        counts = count_pixels(FULL, EMPTY, 2)
        assert specificity(counts, "one")[1] == specificity(counts, "alarms")[1] == 0
        assert math.isnan(balanced_accuracy(counts, "one")[1])

    def test_mcc_is_1_if_all_is_right_and_minus_1_if_nothing_is(self):
        assert mcc(count_pixels(FULL, FULL, 2))[1] == 1
        assert mcc(count_pixels(FULL, EMPTY, 2), "one")[1] == -1
        assert mcc(count_pixels(EMPTY, FULL, 2))[1] == -1

    def test_mcc_is_0_if_one_mask_is_of_one_class(self):
        half = mask([1, 1], [0, 0])
        for pair in ((FULL, half), (EMPTY, half), (half, FULL), (half, EMPTY)):
            assert mcc(count_pixels(*pair, 2), "one")[1] == 0

    @pytest.mark.parametrize("score", [specificity, accuracy, balanced_accuracy, mcc])
    def test_a_class_absent_from_both_is_left_out_or_1(self, score):
        for classes in (2, 3):
            counts = count_pixels(EMPTY, EMPTY, classes)
            assert math.isnan(score(counts)[1])
            assert math.isnan(score(counts, "alarms")[1])
            assert score(counts, "one")[1] == 1
        assert np.isnan(score(count_pixels(FULL, np.full((2, 2), 255), 2))).all()


@pytest.mark.parametrize("score", OVERLAPS.values(), ids=OVERLAPS)
class TestZeroDenominators:
    """Of two classes and of more alike."""

    @pytest.mark.parametrize("classes", [2, 3])
    @pytest.mark.parametrize(
        ("empty", "silent", "alarm"),
        [("skip", math.nan, math.nan), ("alarms", math.nan, 0), ("one", 1, 0)],
    )
    def test_a_class_absent_from_the_truth_scores_as_the_rule_says(
        self, score, classes, empty, silent, alarm
    ):
        both = count_pixels(EMPTY, EMPTY, classes), count_pixels(FULL, EMPTY, classes)
        found = [score(counts, empty)[1] for counts in both]
        np.testing.assert_array_equal(found, [silent, alarm])

    @pytest.mark.parametrize("empty", EMPTY_RULES)
    def test_a_class_absent_from_the_prediction_alone_is_0(self, score, empty):
        for classes in (2, 3):
            assert score(count_pixels(EMPTY, FULL, classes), empty)[1] == 0

    @pytest.mark.parametrize("empty", EMPTY_RULES)
    def test_a_case_that_is_ignored_wholly_is_left_out(self, score, empty):
        ignored = np.full((2, 2), 255)
        assert np.isnan(score(count_pixels(FULL, ignored, 2), empty)).all()


def test_ignored_pixels_change_nothing():
    truth = mask([1, 0, 255, 255])
    for guess in (0, 1):
        counts = count_pixels(mask([1, 1, guess, guess]), truth, 2)
        assert (counts.tp[1], counts.fp[1], counts.fn[1]) == (1, 1, 0)


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2\), truth \(2, 3\)"):
        count_pixels(EMPTY, np.zeros((2, 3), np.uint8), 2)
    with pytest.raises(ValueError, match=r"truth holds ids \[2\]"):
        count_pixels(EMPTY, 2 * FULL, 2)
    with pytest.raises(ValueError, match=r"prediction holds ids \[255\]"):
        count_pixels(255 * FULL, EMPTY, 2)


@given(masks(2), masks(2))
def test_dice_is_a_function_of_iou(prediction, truth):
    counts = count_pixels(prediction, truth, 2)
    np.testing.assert_allclose(dice(counts), 2 * iou(counts) / (1 + iou(counts)))


@given(masks(3), masks(3))
def test_exchanging_the_masks_exchanges_precision_and_recall_only(a, b):
    there, back = count_pixels(a, b, 3), count_pixels(b, a, 3)
    np.testing.assert_array_equal(dice(there, "one"), dice(back, "one"))
    np.testing.assert_array_equal(iou(there, "one"), iou(back, "one"))
    np.testing.assert_array_equal(precision(there, "one"), recall(back, "one"))


@given(masks(3), masks(3), st.randoms())
def test_the_order_of_pixels_does_not_matter(prediction, truth, random):
    order = list(range(truth.size))
    random.shuffle(order)
    shuffled = count_pixels(prediction.ravel()[order], truth.ravel()[order], 3)
    np.testing.assert_array_equal(dice(shuffled), dice(count_pixels(prediction, truth, 3)))


@given(masks(3))
def test_a_perfect_prediction_scores_1(truth):
    for score in SCORES.values():
        values = score(count_pixels(truth, truth, 3))
        assert np.all((values == 1) | np.isnan(values))


@settings(max_examples=30)
@given(st.lists(st.tuples(masks(3), masks(3)), min_size=1, max_size=4))
def test_pooling_equals_scoring_one_large_image(pairs):
    counts = [count_pixels(p, t, 3) for p, t in pairs]
    mosaic = [np.concatenate(side) for side in zip(*pairs, strict=True)]
    np.testing.assert_array_equal(dice(add(counts)), dice(count_pixels(*mosaic, 3)))


class TestSummary:
    NAMES = ("background", "gland")

    def cases(self):
        half = mask([1, 1], [0, 0])
        return [count_pixels(FULL, half, 2), count_pixels(EMPTY, EMPTY, 2)]

    @pytest.mark.parametrize(
        # case 1: tp 2, fp 2, fn 0 -> Dice 2/3; case 2: both empty -> left out, or 1
        ("empty", "mean", "left_out"),
        [("skip", 2 / 3, 1), ("alarms", 2 / 3, 1), ("one", 5 / 6, 0)],
    )
    def test_mean_over_cases_and_pooled(self, empty, mean, left_out):
        summary = summarize(self.cases(), self.NAMES, scores_by(empty))
        assert summary["cases"] == 2
        part = summary["mean_over_cases"]["dice"]
        assert part["classes"]["gland"] == part["foreground"] == pytest.approx(mean)
        assert part["left_out"]["foreground"] == left_out
        assert summary["pooled"]["dice"]["classes"]["gland"] == pytest.approx(2 / 3)

    def test_the_headline_leaves_the_background_out(self):
        summary = summarize(self.cases(), self.NAMES, scores_by("one"))
        for reduction in ("mean_over_cases", "pooled"):
            part = summary[reduction]["iou"]
            assert part["foreground"] == part["classes"]["gland"] != part["classes"]["background"]

    @pytest.mark.parametrize(
        ("empty", "b", "of_first", "left_out"),
        [
            ("skip", math.nan, 2 / 3, {"background": 2, "a": 1, "b": 3}),
            ("alarms", 0, 1 / 3, {"background": 2, "a": 1, "b": 2}),
        ],
    )
    def test_classes_absent_from_a_case_are_left_out_of_its_mean_and_counted(
        self, empty, b, of_first, left_out
    ):
        names = ("background", "a", "b")
        both = count_pixels(mask([1, 2]), mask([1, 1]), 3)  # a: Dice 2/3, b: a false alarm
        only_a = count_pixels(mask([1, 1]), mask([1, 1]), 3)  # a: Dice 1
        nothing = count_pixels(mask([0, 0]), mask([0, 0]), 3)
        summary = summarize([both, only_a, nothing], names, scores_by(empty))
        part = summary["mean_over_cases"]["dice"]
        assert part["classes"]["a"] == pytest.approx((2 / 3 + 1) / 2)
        assert part["classes"]["b"] == pytest.approx(b, nan_ok=True)
        assert part["foreground"] == pytest.approx((of_first + 1) / 2)
        assert part["left_out"]["classes"] == left_out
        assert part["left_out"]["foreground"] == 1

    def test_without_cases_there_is_nothing_to_summarize(self):
        with pytest.raises(ValueError, match="no cases"):
            summarize([], self.NAMES, scores_by("skip"))


def test_the_headline_of_nothing_is_nan():
    assert math.isnan(foreground(np.array([1.0, np.nan, np.nan])))


@pytest.mark.parametrize("empty", EMPTY_RULES)
def test_every_zero_denominator_is_stated(empty):
    rules = f"{EMPTY_RULES[empty]}\n{RULES}"
    assert f"empty={empty}: a class absent from" in rules
    for words in ("zero denominator", "left out", "not scores 0", "marks as ignored", "Pooled"):
        assert words in rules


class TestPaperOfficial:
    def test_channel_1_decides_whatever_channel_0_says(self):
        logits = np.array([[[9.0, -9.0]], [[0.5, 0.49]]])
        assert official_prediction(logits).tolist() == [[1, 0]]

    def test_f1_is_1_where_nothing_was_found_right(self):
        worst = count_pixels(EMPTY, FULL, 2)
        assert official_f1(worst)[1] == 1
        assert dice(worst)[1] == 0

    def test_f1_is_dice_elsewhere(self):
        counts = count_pixels(mask([1, 1, 0]), mask([1, 0, 1]), 2)
        assert official_f1(counts)[1] == dice(counts)[1] == 0.5

    def test_more_classes_are_refused(self):
        with pytest.raises(ValueError, match="2 classes"):
            official_prediction(np.zeros((3, 1, 1)))
