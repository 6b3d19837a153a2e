"""Norm statistics re-estimated on given images."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from medt.models import AxialAttention
from medt.models.attention import AttentionNorm
from medt.training.precise_norm import reestimate_norms, tracked_norms

NORMS = {"batch_norm": nn.BatchNorm2d, "attention_norm": AttentionNorm}
each_norm = pytest.mark.parametrize("kind", NORMS.values(), ids=NORMS)


@pytest.fixture
def model():
    """Attention behind dropout and plain layers; its running statistics are far from any data's."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8, momentum=0.3),
        nn.Dropout(0.5),
        AxialAttention(8, 8, heads=2, length=6, axis="height"),
        AxialAttention(8, 8, heads=2, length=6, axis="width", gate="after_norm"),
    )
    for norm in tracked_norms(model):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(3, 4)
        norm.num_batches_tracked.fill_(7)
    return model


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    return [scale * torch.randn(4, 3, 6, 6, generator=generator) for scale in (1.0, 2.0, 5.0)]


def without_dropout(model):
    model = copy.deepcopy(model)
    model[2] = nn.Identity()
    return model


def statistics(model, kind=(nn.BatchNorm2d, AttentionNorm)):
    return {
        f"{name}.{which}": getattr(norm, which).clone()
        for name, norm in model.named_modules()
        if isinstance(norm, kind)
        for which in ("running_mean", "running_var")
    }


def batch_statistics(model, batch, kind):
    """What training mode normalises one batch with (the variance unbiased, as it is stored)."""
    model = without_dropout(model).train()
    for norm in tracked_norms(model):
        norm.momentum = 1.0
    model(batch)
    return statistics(model, kind)


@each_norm
def test_statistics_become_the_average_of_the_batches(model, batches, kind):
    by_batch = [batch_statistics(model, batch, kind) for batch in batches]
    expected = {name: torch.stack([s[name] for s in by_batch]).mean(0) for name in by_batch[0]}
    reestimate_norms(model, batches)
    torch.testing.assert_close(statistics(model, kind), expected)


def test_evaluation_then_agrees_with_training_on_the_same_batch(model):
    batch = torch.randn(32, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    expected = without_dropout(model).train()(batch)
    before = model.eval()(batch)
    reestimate_norms(model, [batch])
    after = model(batch)
    # What is left is the n / (n - 1) of the stored variances.
    assert (after - expected).norm() < 0.01 * expected.norm()
    assert (before - expected).norm() > 0.2 * expected.norm()


def test_old_statistics_do_not_matter(model, batches):
    other = copy.deepcopy(model)
    for norm in tracked_norms(other):
        norm.running_var.mul_(2)
    reestimate_norms(model, batches)
    reestimate_norms(other, batches)
    torch.testing.assert_close(statistics(model), statistics(other))


def test_weights_and_gradients_are_untouched(model, batches):
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    reestimate_norms(model, batches)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert all(weight.grad is None for weight in model.parameters())


def test_momentum_is_restored(model, batches):
    before = [norm.momentum for norm in tracked_norms(model)]
    assert set(before) == {0.1, 0.3}
    reestimate_norms(model, batches)
    assert [norm.momentum for norm in tracked_norms(model)] == before


def test_the_whole_model_is_left_in_evaluation_mode(model, batches):
    reestimate_norms(model.train(), batches)
    assert not any(module.training for module in model.modules())


def test_without_images_nothing_changes(model):
    before = copy.deepcopy(model.state_dict())
    reestimate_norms(model, iter(()))
    torch.testing.assert_close(model.state_dict(), before)


def test_every_norm_of_the_layer_is_found():
    layer = AxialAttention(8, 8, heads=2, length=6)
    kinds = [type(norm) for norm in tracked_norms(layer)]
    assert kinds == [AttentionNorm] * 4  # qkv, similarity, value, position
    assert tracked_norms(nn.BatchNorm2d(3, track_running_stats=False)) == []
