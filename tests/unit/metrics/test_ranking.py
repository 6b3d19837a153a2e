"""ROC and PR AUC from counts, against torchmetrics on the probabilities themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from medt.metrics.ranking import BINS, average_precision, count_probabilities, roc_auc


def counted(foreground, truth):
    foreground = np.asarray(foreground, np.float32)
    pair = np.stack([1 - foreground, foreground])[:, None]
    return count_probabilities(pair, np.asarray(truth)[None])


def test_worked_by_hand():
    counts = counted([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    assert roc_auc(counts) == 3 / 4  # of four pairs one is the wrong way round
    # thresholds 0.8, 0.4, 0.35: precision 1, 1/2, 2/3; recall 1/2, 1/2, 1
    assert average_precision(counts) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


def test_equal_probabilities_count_half():
    counts = counted([0.5] * 5, [0, 0, 1, 1, 1])
    assert roc_auc(counts) == 0.5
    assert average_precision(counts) == pytest.approx(3 / 5)


@pytest.mark.parametrize("sharpness", [1, 4, 8])
def test_agree_with_torchmetrics(sharpness):
    """From hardly told apart to nearly all within a millionth of 0 or 1."""
    rng = np.random.default_rng(sharpness)
    truth = (rng.random(20_000) < 0.1).astype(np.uint8)
    logits = sharpness * (truth - 0.5 + rng.normal(size=truth.size))
    low = 1 / (1 + np.exp(np.abs(logits)))
    background, foreground = (np.where(side, low, 1 - low) for side in (logits > 0, logits <= 0))
    pair = np.stack([background, foreground]).astype(np.float32)[:, None]
    counts = count_probabilities(pair, truth[None])
    # The logits: probabilities in float32 would all be 1 there.
    scores, target = torch.from_numpy(logits / 100), torch.from_numpy(truth).long()
    scores = scores.sigmoid()
    assert roc_auc(counts) == pytest.approx(float(binary_auroc(scores, target)), abs=2e-4)
    expected = float(binary_average_precision(scores, target))
    assert average_precision(counts) == pytest.approx(expected, abs=1e-3)


def test_counts_of_cases_add_up_and_ignored_pixels_count_nowhere():
    rng = np.random.default_rng(0)
    parts = [(rng.random(50), rng.integers(0, 2, 50)) for _ in range(3)]
    whole = counted(*(np.concatenate(side) for side in zip(*parts, strict=True)))
    np.testing.assert_array_equal(sum(counted(*part) for part in parts), whole)
    assert whole.shape == (2, BINS)
    np.testing.assert_array_equal(
        counted([0.2, 0.9, 0.7], [0, 1, 255]), counted([0.2, 0.9], [0, 1])
    )


def test_certain_pixels_lie_at_the_ends():
    counts = counted([0, 1, 1], [0, 1, 1])
    assert (counts[0, 0], counts[1, -1]) == (1, 2)
    assert roc_auc(counts) == average_precision(counts) == 1


@pytest.mark.parametrize("truth", [[0, 0], [1, 1], [255, 255]])
def test_without_one_side_there_is_none(truth):
    counts = counted([0.3, 0.6], truth)
    assert math.isnan(roc_auc(counts))
    assert math.isnan(average_precision(counts))
