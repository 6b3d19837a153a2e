"""The norms inside a layer: what they track, and that they behave as torch's norms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medt.models.attention import AttentionNorm
from medt.ops import Moments

TERMS, HEADS = 3, 2


def batches(count=3, elements=20):
    torch.manual_seed(0)
    return [5 + 3 * torch.randn(elements, TERMS * HEADS) for _ in range(count)]


def track(norm, batch):
    """Show the norm the biased moments of (elements, TERMS * HEADS) values."""
    variance, mean = torch.var_mean(batch, dim=0, correction=0)
    moments = Moments(mean.view(TERMS, HEADS), variance.view(TERMS, HEADS))
    norm.track(moments, count=batch.shape[0])


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
def test_running_statistics_are_those_of_a_batch_norm(momentum):
    ours = AttentionNorm(TERMS, HEADS, momentum=momentum)
    reference = nn.BatchNorm1d(TERMS * HEADS, momentum=momentum)
    for batch in batches():
        track(ours, batch)
        reference(batch)
    torch.testing.assert_close(ours.running_mean.flatten(), reference.running_mean)
    torch.testing.assert_close(ours.running_var.flatten(), reference.running_var)
    assert ours.num_batches_tracked == reference.num_batches_tracked == 3


def test_momentum_none_is_the_average_over_all_batches():
    norm = AttentionNorm(TERMS, HEADS, momentum=None)
    for batch in batches():
        track(norm, batch)
    mean = torch.stack([batch.mean(0) for batch in batches()]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean.view(TERMS, HEADS))


def test_the_unbiased_variance_is_stored():
    norm = AttentionNorm(TERMS, HEADS, momentum=1.0)
    (batch,) = batches(1, elements=4)
    track(norm, batch)
    torch.testing.assert_close(norm.running_var, batch.var(0, correction=1).view(TERMS, HEADS))


def test_a_single_element_does_not_divide_by_zero():
    norm = AttentionNorm(TERMS, HEADS)
    track(norm, batches(1, elements=1)[0])
    assert norm.running_var.isfinite().all()


def test_reset_makes_the_statistics_those_of_a_new_norm():
    norm = AttentionNorm(TERMS, HEADS)
    for batch in batches():
        track(norm, batch)
    norm.reset_running_stats()
    torch.testing.assert_close(norm.state_dict(), AttentionNorm(TERMS, HEADS).state_dict())


def test_the_bias_is_a_parameter_unless_it_is_not_learned():
    assert {name for name, _ in AttentionNorm(4).named_parameters()} == {"weight", "bias"}
    norm = AttentionNorm(TERMS, HEADS, learned_bias=False)
    assert [name for name, _ in norm.named_parameters()] == ["weight"]
    assert "bias" in dict(norm.named_buffers())


def test_the_state_has_the_names_of_a_batch_norm():
    assert set(AttentionNorm(TERMS, HEADS).state_dict()) == set(nn.BatchNorm1d(1).state_dict())


def test_the_running_moments_count_in_evaluation_only():
    norm = AttentionNorm(TERMS, HEADS)
    assert norm.given() is None
    mean, variance = norm.eval().given()
    assert mean is norm.running_mean
    assert variance is norm.running_var
