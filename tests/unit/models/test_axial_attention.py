"""The attention layer: its choices, its gates, and its use in other networks."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torchvision
from torch import nn

from medt.models import AxialAttention
from medt.training.precise_norm import tracked_norms

POSITIONS = ("none", "plain", "gated")
AXES = ("height", "width")
GATE_ORDERS = ("before_norm", "after_norm")
each_gate_order = pytest.mark.parametrize("gate", GATE_ORDERS)
each_mode = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
NEW_GATES = (0.5, -0.7, 1.5, 2.0)


def make(gates=None, seed=0, **arguments):
    """A small layer, the same for the same seed, with every affine weight of its norms random."""
    torch.manual_seed(seed)
    layer = AxialAttention(6, 8, **{"heads": 2, "length": 8} | arguments)
    for norm in tracked_norms(layer):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    if gates is not None:
        layer.gates.data.copy_(torch.tensor(gates))
    return layer


def image(*shape, seed=1, dtype=torch.float32):
    shape = shape or (2, 6, 8, 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def change(a, b):
    return ((a - b).norm() / b.norm()).item()


def running_statistics(layer):
    return {name: value for name, value in layer.state_dict().items() if ".running_" in name}


def test_is_built_from_four_arguments():
    layer = AxialAttention(512, 512, heads=8, length=7)
    assert layer(torch.randn(4, 512, 7, 7)).shape == (4, 512, 7, 7)


@pytest.mark.parametrize(
    ("position", "axis", "stride", "gate"),
    list(itertools.product(POSITIONS, AXES, (1, 2), GATE_ORDERS)),
)
def test_every_combination_runs_forward_and_backward(position, axis, stride, gate):
    layer = make(position=position, axis=axis, stride=stride, gate=gate)
    x = image(2, 6, 8, 4).requires_grad_()
    out = layer(x)
    out.square().sum().backward()
    assert out.shape == (2, 8, 8 // stride, 4 // stride)
    for tensor in (x, *layer.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert layer.eval()(x).isfinite().all()


@pytest.mark.parametrize("position", POSITIONS)
@each_mode
def test_width_is_height_of_the_transposed_image(position, training):
    over_height = make(position=position, axis="height").train(training)
    over_width = make(position=position, axis="width").train(training)
    x = image(2, 6, 8, 5)
    torch.testing.assert_close(
        over_width(x.transpose(2, 3)), over_height(x).transpose(2, 3), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("axis", AXES)
def test_lines_across_the_axis_do_not_see_each_other(axis):
    layer = make(axis=axis).eval()
    x = image()
    other = x.clone()
    line = (..., slice(3, 4), slice(None)) if axis == "width" else (..., slice(3, 4))
    other[line] += 1
    differs = (layer(x) - layer(other)).abs().sum((0, 1)) > 1e-5
    assert differs[line].all()
    assert differs.sum() == 8


def test_a_stride_is_average_pooling_of_the_same_output():
    out = make(stride=1).eval()(image())
    strided = make(stride=2).eval()(image())
    torch.testing.assert_close(strided, nn.functional.avg_pool2d(out, 2))


class TestLength:
    @each_mode
    @pytest.mark.parametrize("position", ["plain", "gated"])
    def test_a_shorter_axis_uses_the_middle_of_the_table(self, position, training):
        long = make(position=position, length=8).train(training)
        short = make(position=position, length=5).train(training)
        state = long.state_dict()
        short.load_state_dict(state | {"relative": state["relative"][:, 3:-3]})
        x = image(2, 6, 5, 8)
        torch.testing.assert_close(long(x), short(x))

    @pytest.mark.parametrize(("axis", "shape"), [("height", (9, 4)), ("width", (4, 9))])
    def test_too_long_an_axis_is_an_error_that_names_the_length(self, axis, shape):
        layer = make(axis=axis, length=8)
        with pytest.raises(ValueError, match=rf"{axis} of the input is 9.*at most 8.*length=9"):
            layer(image(2, 6, *shape))
        layer(image(2, 6, *reversed(shape)))

    def test_without_positions_any_length_goes(self):
        assert make(position="none", length=1)(image(2, 6, 20, 4)).shape == (2, 8, 20, 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"axis": "depth"}, "axis='depth'.*height, width"),
        ({"position": "absolute"}, "position='absolute'.*none, plain, gated"),
        ({"gate": "never"}, "gate='never'.*before_norm, after_norm"),
        ({"heads": 3}, "out_channels=8 is not a multiple of 2 x heads = 6"),
    ],
)
def test_a_wrong_choice_is_an_error_that_names_it(wrong, message):
    with pytest.raises(ValueError, match=message):
        make(**wrong)


class TestGates:
    def test_start_faded_but_for_the_value(self):
        assert AxialAttention(8, 8, heads=2).gates.tolist() == pytest.approx([0.1, 0.1, 1.0, 0.1])

    @pytest.mark.parametrize("position", ["none", "plain"])
    def test_exist_only_in_gated_attention(self, position):
        assert not hasattr(make(position=position), "gates")

    @each_mode
    def test_after_norm_a_gate_of_zero_removes_its_term_bias_included(self, training):
        gated = make(gates=(0, 0, 1, 0), gate="after_norm").train(training)
        bare = make(position="none").train(training)
        state = gated.state_dict()
        kept = {name: state[name] for name in bare.state_dict()}
        similarity = {name: v[:1] for name, v in kept.items() if "similarity" in name and v.dim()}
        bare.load_state_dict(kept | similarity)
        torch.testing.assert_close(gated(image()), bare(image()), rtol=1e-4, atol=1e-5)

    @each_mode
    def test_after_norm_the_value_gate_of_zero_leaves_the_position_term(self, training):
        layer = make(gates=(1, 1, 0, 1), gate="after_norm").train(training)
        before = layer(image())
        nn.init.normal_(layer.value_norm.weight)
        nn.init.normal_(layer.value_norm.bias)
        assert torch.equal(layer(image()), before)
        assert before.std() > 0.1

    @each_mode
    def test_after_norm_gates_of_one_are_no_gates(self, training):
        gated = make(gates=(1, 1, 1, 1), gate="after_norm").train(training)
        plain = make(position="plain").train(training)
        plain.load_state_dict({n: v for n, v in gated.state_dict().items() if n != "gates"})
        torch.testing.assert_close(gated(image()), plain(image()))

    def test_after_norm_running_statistics_never_see_the_gate(self):
        """The gates of the logits do act on the outputs, and so on the two later norms."""
        first, second = (make(gates=gates, gate="after_norm") for gates in ((1,) * 4, NEW_GATES))
        outer = make(gates=(1, 1, *NEW_GATES[2:]), gate="after_norm")
        for layer in (first, second, outer):
            layer(image())
        torch.testing.assert_close(running_statistics(outer), running_statistics(first))
        for name in ("running_mean", "running_var"):
            actual, expected = (getattr(x.similarity_norm, name) for x in (second, first))
            assert torch.equal(actual, expected)

    def test_before_norm_running_statistics_are_those_of_the_gated_terms(self):
        plain, gated = (make(gates=gates) for gates in ((1,) * 4, NEW_GATES))
        for layer in (plain, gated):
            layer.similarity_norm.momentum = 1.0
            layer(image())
        factor = torch.tensor([1, *NEW_GATES[:2]])[:, None]
        ours, reference = gated.similarity_norm, plain.similarity_norm
        torch.testing.assert_close(ours.running_mean, factor * reference.running_mean)
        torch.testing.assert_close(ours.running_var, factor**2 * reference.running_var)

    @each_gate_order
    @pytest.mark.parametrize("position", POSITIONS)
    def test_evaluation_equals_training_given_the_statistics_of_the_batch(self, gate, position):
        gates = NEW_GATES if position == "gated" else None
        layer = make(gates=gates, gate=gate, position=position).double()
        x = image(3, 6, 7, 5, dtype=torch.float64)
        for norm in tracked_norms(layer):
            norm.momentum = 1.0
        trained = layer(x)
        for norm in tracked_norms(layer):
            count = 3 * 7 * 5 * (7 if norm is layer.similarity_norm else 1)
            norm.running_var *= (count - 1) / count  # what is stored is unbiased
        torch.testing.assert_close(layer.eval()(x), trained, rtol=1e-9, atol=1e-9)

    def test_before_norm_the_norm_divides_a_gate_out_and_after_norm_it_acts(self):
        changes = {
            gate: change(
                make(gates=(10,) * 4, gate=gate)(image()), make((1,) * 4, gate=gate)(image())
            )
            for gate in GATE_ORDERS
        }
        assert changes["before_norm"] < 0.01
        assert changes["after_norm"] > 1


class TestModes:
    def test_evaluation_changes_no_statistics_and_treats_images_apart(self):
        layer = make().eval()
        before = copy.deepcopy(layer.state_dict())
        torch.testing.assert_close(layer(image())[:1], layer(image()[:1]))
        torch.testing.assert_close(layer.state_dict(), before)

    def test_training_updates_the_statistics_of_every_norm(self):
        layer = make()
        layer(image())
        assert [int(norm.num_batches_tracked) for norm in tracked_norms(layer)] == [1] * 4

    def test_autocast_reaches_the_projection_and_no_further(self):
        layer = make()
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(image()).dtype == torch.float32
        layer.qkv = nn.Identity()
        x = image(2, 16, 8, 8)
        expected = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer(x), expected)


def axial_pair(conv, length):
    """Attention over height and then width in place of a 3x3 convolution."""
    channels = conv.out_channels
    return nn.Sequential(
        AxialAttention(conv.in_channels, channels, axis="height", length=length),
        AxialAttention(channels, channels, axis="width", length=length, stride=conv.stride[0]),
    )


def test_replaces_the_convolutions_of_a_resnet_stage():
    torch.manual_seed(0)
    resnet = torchvision.models.resnet18(weights=None, num_classes=5)
    for block in resnet.layer4:
        block.conv1 = axial_pair(block.conv1, length=4)  # 4 = image size / 16
        block.conv2 = axial_pair(block.conv2, length=4)
    logits = resnet(torch.randn(2, 3, 64, 64))
    logits.square().sum().backward()
    assert logits.shape == (2, 5)
    for name, weight in resnet.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
