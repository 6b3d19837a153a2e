"""Inputs of the operation with its norms, and what a pass of it computes."""

from __future__ import annotations

import pytest
import torch

from medt.ops import (
    AttentionParameters,
    AttentionStatistics,
    Moments,
    library,
)

EPSILON = 1e-5
# What a norm of a constant makes of a rounding error.
CONSTANT = 3e-6 * EPSILON**-0.5
POSITIONS = ("none", "plain", "gated")
needs_kernel = pytest.mark.skipif(
    not library.available(), reason="the fused kernel is not installed"
)
each_position = pytest.mark.parametrize("position", POSITIONS)


def parameters(heads, d, length, position, seed=0, spare=0):
    """Random ones in float64; the tables serve `spare` positions more than `length`."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, center=0.0):
        return center + 0.4 * torch.randn(*shape, generator=generator, dtype=torch.float64)

    terms = 1 if position == "none" else 3
    result = AttentionParameters(
        draw(4 * heads * d, center=1),
        draw(4 * heads * d),
        draw(terms, heads, center=1),
        draw(2 * heads * d, center=1),
        draw(2 * heads * d),
    )
    if position != "none":
        result = result._replace(
            position_weight=draw(2 * heads * d, center=1),
            position_bias=draw(2 * heads * d),
            relative=draw(4 * d, 2 * (length + spare) - 1),
        )
    if position == "gated":
        result = result._replace(gates=torch.tensor([0.4, -0.7, 1.3, 0.2]).double())
    return result


def random(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def passes(attention, x, learned, cotangent, dtype, along_width=False):
    """Output, input gradient, gradients by name, and the batch's moments."""
    x = x.to(dtype).detach().clone().requires_grad_()
    learned = learned.map(lambda p: p.to(dtype).detach().clone().requires_grad_())
    out, measured = attention(x, learned, AttentionStatistics(), along_width, EPSILON)
    out.backward(cotangent.to(dtype))
    gradients = {
        name: p.grad for name, p in learned._asdict().items() if p is not None and name != "gates"
    }
    moments = {
        f"{norm}.{name}": value
        for norm, pair in measured._asdict().items()
        if pair is not None
        for name, value in pair._asdict().items()
    }
    gates = None if learned.gates is None else learned.gates.grad
    return out.detach(), x.grad, gradients, moments, gates


def flat(results):
    """Output, input gradient, gradients and moments by name."""
    out, d_x, gradients, moments, _ = results
    return {"output": out, "input": d_x, **gradients, **moments}


def assert_close(actual, expected, tolerance, name="", spare=0.0):
    """Differs by at most `tolerance` of the largest value, `spare` or CONSTANT."""
    allowed = max(tolerance * expected.abs().max().item(), spare, CONSTANT)
    assert (actual.double() - expected).abs().max().item() <= allowed, name


def running(learned, seed=5):
    """Moments to be given, for each norm."""

    def pair(weight):
        shape = weight.shape
        return Moments(0.3 * random(*shape, seed=seed), 0.5 + random(*shape, seed=seed + 1) ** 2)

    return AttentionStatistics(
        pair(learned.qkv_weight),
        pair(learned.similarity_weight),
        pair(learned.value_weight),
        None if learned.position_weight is None else pair(learned.position_weight),
    )
