"""What else runs a network: torch.compile, autocast, export, and recomputation."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from medt.models import AxialAttention, GatedAxialUNet, MedT
from medt.ops import library
from medt.training.memory import estimate_memory

pytestmark = pytest.mark.seconds

SMALL = {"image_size": 32, "depths": (1,)}
# bf16 has 8 bits: errors of 2^-9 of each product, and norms that pass them on.
BF16_TOLERANCE = 0.1


def network(**arguments):
    torch.manual_seed(0)
    return GatedAxialUNet(**SMALL | arguments)


def images(size=32):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def trained(model, x):
    """Logits and gradients of a training step."""
    logits = model(x)
    F.cross_entropy(logits.float(), (x.mean(1) > 0).long()).backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters()}


def difference(actual, expected):
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.mark.skipif(not library.available(), reason="the fused kernel is not installed")
class TestCompile:
    @pytest.mark.parametrize("training", [True, False])
    def test_there_is_no_graph_break_and_each_attention_is_one_operation(self, training):
        operations = []

        def backend(graph, inputs):
            operations.extend(str(node.target) for node in graph.graph.nodes)
            return graph.forward

        model = network().train(training)
        torch._dynamo.reset()
        with torch.set_grad_enabled(training):
            torch.compile(model, backend=backend, fullgraph=True)(images())
        name = "axial_attention_training" if training else "axial_attention_inference"
        assert sum(name in operation for operation in operations) == 2

    def test_gradients_are_those_without(self):
        model = network()
        torch._dynamo.reset()
        compiled = torch.compile(copy.deepcopy(model), backend="aot_eager", fullgraph=True)
        actual, expected = trained(compiled, images()), trained(model, images())
        torch.testing.assert_close(actual[0], expected[0])
        for name, gradient in expected[1].items():
            torch.testing.assert_close(actual[1][f"_orig_mod.{name}"], gradient, msg=name)

    def test_another_batch_size_does_not_fail(self):
        torch._dynamo.reset()
        layer = AxialAttention(8, 8, heads=2, length=6)
        compiled = torch.compile(layer, backend="aot_eager", dynamic=True)
        for n in (2, 3, 5):
            assert compiled(torch.randn(n, 8, 6, 6)).shape == (n, 8, 6, 6)


def test_an_exported_network_does_not_depend_on_the_kernel():
    model = network().eval()
    with torch.no_grad():
        exported = torch.export.export(model, (images(),))
        expected = model(images())
    assert "medt." not in exported.graph_module.code
    torch.testing.assert_close(exported.module()(images()), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("backend")
def test_bf16_autocast_stays_within_a_tenth_and_keeps_attention_in_float32():
    model = network()
    seen = []
    layer = model.branch.stages[0][0].height
    layer.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
    expected, _ = trained(copy.deepcopy(model), images())
    with torch.autocast("cpu", torch.bfloat16):
        actual = model(images())
    assert difference(actual.float(), expected) < BF16_TOLERANCE
    assert seen[-1] == torch.float32


class TestCheckpointing:
    def test_gradients_and_statistics_are_those_without(self):
        plain, checkpointing = network(), network(checkpointing=True)
        (expected, gradients), (actual, recomputed) = (
            trained(model, images()) for model in (plain, checkpointing)
        )
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(recomputed, gradients)
        torch.testing.assert_close(checkpointing.state_dict(), plain.state_dict())

    def test_takes_less_memory(self):
        tensors = [
            estimate_memory(
                MedT(image_size=128, checkpointing=checkpointing),
                lambda logits, masks: F.cross_entropy(logits, masks),
                (3, 128, 128),
                2,
                2,
                2,
                0,
                torch.device("cpu"),
            ).tensors
            for checkpointing in (False, True)
        ]
        assert tensors[1] < 0.7 * tensors[0]
