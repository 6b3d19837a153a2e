"""The naive networks that benchmark.py times must compute what ours compute."""

from __future__ import annotations

import pytest
import torch

from medt.benchmark.naive import NaiveAxialAttention, naive_network, naive_state
from medt.models import AxialAttention, AxialUNet, MedT
from medt.models.weights import layer_state

LAYERS = [
    (position, axis, stride)
    for position in ("none", "plain", "gated")
    for axis, stride in (("height", 1), ("width", 2))
]


def randomised(network):
    """``network`` with weights, gates and norm statistics that hide nothing behind 0 or 1."""
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            positive = "running_var" in name or "norm.weight" in name or "gates" in name
            noise = torch.rand_like(value)
            value.copy_(0.5 + noise if positive else value + 0.2 * (noise - 0.5))
    return network


def make_layer(position, axis="height", stride=1):
    torch.manual_seed(0)
    layer = AxialAttention(6, 16, 4, 8, axis, stride, position)
    return randomised(layer)


def outputs_and_gradient(network, x):
    x = x.clone().requires_grad_()
    out = network(x)
    torch.manual_seed(1)
    out.backward(torch.randn(out.shape, dtype=out.dtype))
    return out.detach(), x.grad


def assert_close(actual, expected, tolerance=1e-5):
    error = torch.linalg.vector_norm(actual - expected) / torch.linalg.vector_norm(expected)
    assert float(error) < tolerance


def assert_same_result(network, naive, x):
    expected = outputs_and_gradient(network, x)
    for actual, wanted in zip(outputs_and_gradient(naive, x), expected, strict=True):
        assert_close(actual, wanted)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("position", "axis", "stride"), LAYERS)
def test_layer(position, axis, stride, training):
    layer = make_layer(position, axis, stride).train(training)
    naive = NaiveAxialAttention(layer).train(training)
    assert_same_result(layer, naive, torch.randn(3, 6, 8, 8))
    if position != "none":
        assert_close(naive.relative.grad, layer.relative.grad)


@pytest.mark.parametrize("position", ["none", "plain", "gated"])
def test_state_there_and_back(position):
    layer = make_layer(position)
    state = layer.state_dict()
    back = layer_state(naive_state(state))
    assert back.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(back[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("position", ["none", "plain", "gated"])
def test_both_track_the_same_statistics(position):
    layer = make_layer(position)
    naive = NaiveAxialAttention(layer)
    x = torch.randn(3, 6, 8, 8)
    layer(x), naive(x)
    after = layer_state(naive.state_dict())
    for name, value in layer.state_dict().items():
        torch.testing.assert_close(after[name], value, rtol=1e-4, atol=1e-5)


def test_gates_behind_the_norm_are_refused():
    with pytest.raises(ValueError, match="before_norm"):
        NaiveAxialAttention(AxialAttention(8, 8, 2, 4, gate="after_norm"))


@pytest.mark.parametrize("position", ["plain", "gated"])
def test_axial_unet_in_training_mode(position):
    torch.manual_seed(0)
    network = AxialUNet(image_size=64, depths=(1, 2), position=position).double()
    # In float32 rounding grows from norm to norm, so the comparison needs float64.
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert_same_result(network, naive_network(network), x)


def test_medt_in_evaluation_mode():
    torch.manual_seed(0)
    network = MedT(image_size=(128, 256)).eval()
    naive = naive_network(network)
    assert not naive.training
    x = torch.randn(1, 3, 128, 256)
    with torch.inference_mode():
        assert_close(naive(x), network(x))


def test_naive_network_leaves_the_original_alone():
    network = MedT(image_size=128)
    naive = naive_network(network)
    ours = {parameter.data_ptr() for parameter in network.parameters()}
    assert not any(isinstance(module, AxialAttention) for module in naive.modules())
    assert not ours & {parameter.data_ptr() for parameter in naive.parameters()}
