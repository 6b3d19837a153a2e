"""Calibration: against torchmetrics, brute force, and cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from medt.metrics.calibration import (
    BINS,
    CALIBRATION_RULES,
    THRESHOLDS,
    brier_score,
    expected_calibration_error,
    measure_calibration,
    reliability,
    threshold_curve,
)
from medt.metrics.pixel import count_pixels, dice, precision, recall
from medt.metrics.sums import add


def random_case(rng, classes, size=(7, 9)):
    logits = rng.normal(scale=2, size=(classes, *size))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=0)
    truth = rng.integers(0, classes, size)
    truth[rng.random(size) < 0.1] = 255
    return probabilities.astype(np.float32), truth


def test_worked_by_hand():
    """Two pixels at 0.8 of which one is right, one at 0.6 that is right."""
    foreground = np.array([[0.8, 0.2, 0.6]], np.float32)
    sums = measure_calibration(np.stack([1 - foreground, foreground]), np.array([[1, 1, 1]]))
    assert expected_calibration_error(sums) == pytest.approx((2 * 0.3 + 1 * 0.4) / 3)
    assert brier_score(sums) == pytest.approx((0.2**2 + 0.8**2 + 0.4**2) / 3)
    curve = threshold_curve(sums)
    assert curve["recall"][20] == 1
    assert curve["recall"][21] == pytest.approx(2 / 3)
    assert curve["dice"][70] == pytest.approx(0.5)
    assert math.isnan(curve["precision"][100])
    bins = reliability(sums)
    assert bins["pixels"][12] == 2
    assert bins["right"][12] == 0.5
    assert math.isnan(bins["confidence"][0])


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_the_error_agrees_with_torchmetrics(classes):
    rng = np.random.default_rng(classes)
    for _ in range(60):
        probabilities, truth = random_case(rng, classes)
        known = truth != 255
        expected = multiclass_calibration_error(
            torch.from_numpy(probabilities[:, known].T),
            torch.from_numpy(truth[known]),
            num_classes=classes,
            n_bins=BINS,
        )
        error = expected_calibration_error(measure_calibration(probabilities, truth))
        assert error == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_brier_score_is_its_definition(classes):
    probabilities, truth = random_case(np.random.default_rng(0), classes)
    known = truth != 255
    wanted = np.eye(classes)[truth[known]].T
    expected = (np.square(probabilities[:, known] - wanted).sum(axis=0) / 2).mean()
    sums = measure_calibration(probabilities, truth)
    assert brier_score(sums) == pytest.approx(expected, rel=1e-5)
    if classes == 2:
        binary = np.square(probabilities[1, known] - truth[known]).mean()
        assert brier_score(sums) == pytest.approx(binary, rel=1e-5)


def test_the_curve_is_the_scores_at_every_threshold():
    rng = np.random.default_rng(1)
    for _ in range(20):
        probabilities, truth = random_case(rng, 2)
        probabilities[1] = np.round(probabilities[1], 2)  # many lie on a threshold
        curve = threshold_curve(measure_calibration(probabilities, truth))
        for i, threshold in enumerate(THRESHOLDS.astype(np.float32)):
            counts = count_pixels((probabilities[1] >= threshold).astype(int), truth, 2)
            for name, score in {"dice": dice, "precision": precision, "recall": recall}.items():
                value = curve[name][i]
                assert value == pytest.approx(score(counts)[1]) or (
                    name == "precision" and math.isnan(value) and not (counts.tp + counts.fp)[1]
                )


def test_cases_together_are_one_large_image():
    rng = np.random.default_rng(2)
    cases = [random_case(rng, 2) for _ in range(4)]
    together = measure_calibration(
        np.concatenate([p for p, _ in cases], axis=1), np.concatenate([t for _, t in cases])
    )
    added = add([measure_calibration(*case) for case in cases])
    assert expected_calibration_error(added) == pytest.approx(expected_calibration_error(together))
    assert brier_score(added) == pytest.approx(brier_score(together))
    np.testing.assert_array_equal(added.above, together.above)


def test_certain_and_right_is_perfect():
    truth = np.array([[0, 1, 2]])
    certain = np.eye(3, dtype=np.float32)[truth].transpose(2, 0, 1)
    sums = measure_calibration(certain, truth)
    assert expected_calibration_error(sums) == brier_score(sums) == 0
    assert threshold_curve(sums)["dice"] == []


def test_no_pixel_is_no_number():
    sums = measure_calibration(np.full((2, 1, 1), 0.5, np.float32), np.array([[255]]))
    assert math.isnan(expected_calibration_error(sums))
    assert math.isnan(brier_score(sums))
    assert all(map(math.isnan, threshold_curve(sums)["dice"]))


def test_the_rules_name_the_definitions():
    for words in ("15 equal bins", "half the squared distance", "at least the threshold"):
        assert words in CALIBRATION_RULES
