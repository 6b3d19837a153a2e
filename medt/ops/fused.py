"""Axial attention and its norms in one C++ kernel: float32 on a CPU.

Its three operations are registered with `torch.library`, so that `torch.compile` takes each as one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from medt.ops import library
from medt.ops.parameters import AttentionParameters, AttentionStatistics, Moments


def fused_attention(
    x: Tensor,
    parameters: AttentionParameters,
    given: AttentionStatistics,
    along_width: bool,
    epsilon: float,
) -> tuple[Tensor, AttentionStatistics]:
    """See `medt.ops.axial_attention`; `given` has all moments or none."""
    # The registered operations would import PyTorch's compiler, for seconds.
    compiling = torch.compiler.is_compiling()
    if given.qkv is not None:
        folded, moments = _fold_gates(parameters, given, epsilon)
        if compiling:
            return _inference(x, *folded, moments, along_width, epsilon), AttentionStatistics()
        return library.inference(x, folded, moments, along_width, epsilon), AttentionStatistics()
    if compiling:
        out, moments, _ = _training(x, *parameters, along_width, epsilon)
    else:
        out, moments = _Attention.apply(x, along_width, epsilon, *parameters)
    return out, _measured(moments.detach(), parameters)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, along_width: bool, epsilon: float, *parameters: Any
    ) -> tuple[Tensor, Tensor]:
        out, moments, saved = library.forward(
            x, AttentionParameters(*parameters), along_width, epsilon
        )
        ctx.settings = (along_width, library.is_channels_last(x), epsilon)
        ctx.save_for_backward(*parameters, moments, saved)
        ctx.mark_non_differentiable(moments)
        return out, moments

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor, unused: Tensor) -> tuple[Tensor | None, ...]:
        *parameters, moments, saved = ctx.saved_tensors
        d_x, gradients = library.backward(
            d_out, AttentionParameters(*parameters), moments, saved, *ctx.settings
        )
        return d_x, None, None, *gradients


def _measured(moments: Tensor, parameters: AttentionParameters) -> AttentionStatistics:
    """What the norms saw, from the moments of the terms before their gates (flat)."""
    sizes = library.moment_sizes(parameters)
    parts = torch.split(moments, [size for size in sizes for _ in range(2)])
    qkv, similarity, value, *position = (
        Moments(*parts[i : i + 2]) for i in range(0, len(parts), 2)
    )
    terms = parameters.similarity_weight
    similarity = Moments(*(part.view_as(terms) for part in similarity))
    if parameters.gates is None:
        return AttentionStatistics(qkv, similarity, value, *position)
    gates = parameters.gates.detach()
    by_term = torch.cat([torch.ones_like(gates[:1]), gates[:2]])[:, None]
    return AttentionStatistics(
        qkv,
        _gated(similarity, by_term),
        _gated(value, gates[2]),
        _gated(position[0], gates[3]),
    )


def _gated(moments: Moments, gate: Tensor) -> Moments:
    return Moments(gate * moments.mean, gate**2 * moments.variance)


def _fold_gates(
    parameters: AttentionParameters, given: AttentionStatistics, epsilon: float
) -> tuple[AttentionParameters, Tensor]:
    """Parameters without gates that do the same, and the moments that go with them (flat).

    A norm of a gated term, w (g x - mean) r + b, is a norm of the term itself with the weight w g,
    the mean 0 and the bias b - w mean r.
    """
    moments = given._asdict()
    gates = parameters.gates
    if gates is not None:
        by_term = torch.cat([torch.ones_like(gates[:1]), gates[:2]])[:, None]
        folded = {"similarity_weight": parameters.similarity_weight * by_term}
        for norm, gate in (("value", gates[2]), ("position", gates[3])):
            mean, variance = moments[norm]
            weight = getattr(parameters, f"{norm}_weight")
            bias = getattr(parameters, f"{norm}_bias")
            folded[f"{norm}_weight"] = weight * gate
            folded[f"{norm}_bias"] = bias - weight * mean * torch.rsqrt(variance + epsilon)
            moments[norm] = Moments(torch.zeros_like(mean), variance)
        parameters = parameters._replace(gates=None, **folded)
    flat = [part.flatten() for pair in moments.values() if pair is not None for part in pair]
    return parameters, torch.cat(flat)


# The parameters are spelt out because an operation's schema knows no named tuples; their order is
# that of AttentionParameters.
_PARAMETERS = (
    "Tensor qkv_weight, Tensor qkv_bias, Tensor similarity_weight, Tensor value_weight, "
    "Tensor value_bias, Tensor? position_weight, Tensor? position_bias, Tensor? relative, "
    "Tensor? gates"
)
_COUNT = len(AttentionParameters._fields)


@torch.library.custom_op(
    "medt::axial_attention_training",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor x, {_PARAMETERS}, bool along_width, float epsilon) "
    "-> (Tensor, Tensor, Tensor)",
)
def _training(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    return library.forward(x, AttentionParameters(*arguments[:_COUNT]), *arguments[_COUNT:])


@_training.register_fake
def _(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    parameters = AttentionParameters(*arguments[:_COUNT])
    moments = x.new_empty(2 * sum(library.moment_sizes(parameters)))
    saved = x.new_empty(library.saved_size(x.shape, parameters, arguments[_COUNT]))
    return library.output_like(x), moments, saved


@torch.library.custom_op(
    "medt::axial_attention_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor d_out, {_PARAMETERS}, Tensor moments, Tensor saved, bool along_width, "
    "bool channels_last, float epsilon) -> Tensor[]",
)
def _backward(d_out: Tensor, *arguments: Any) -> list[Tensor]:
    parameters = AttentionParameters(*arguments[:_COUNT])
    d_x, gradients = library.backward(d_out, parameters, *arguments[_COUNT:])
    return [d_x, *(gradient for gradient in gradients if gradient is not None)]


@_backward.register_fake
def _(d_out: Tensor, *arguments: Any) -> list[Tensor]:
    parameters = AttentionParameters(*arguments[:_COUNT])
    channels_last = arguments[_COUNT + 3]
    d_x = library.input_like(d_out, channels_last)
    return [d_x, *(torch.empty_like(p) for p in parameters if p is not None)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, *parameters = inputs[: 1 + _COUNT]
    along_width, epsilon = inputs[1 + _COUNT :]
    ctx.settings = (along_width, library.is_channels_last(x), epsilon)
    ctx.save_for_backward(*parameters, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, d_out: Tensor, *unused: None) -> tuple[Tensor | None, ...]:
    *parameters, moments, saved = ctx.saved_tensors
    d_x, *gradients = _backward(d_out, *parameters, moments, saved, *ctx.settings)
    of_each = iter(gradients)
    return d_x, *(None if p is None else next(of_each) for p in parameters), None, None


_training.register_autograd(_differentiate, setup_context=_save)


@torch.library.custom_op(
    "medt::axial_attention_inference",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor x, {_PARAMETERS}, Tensor moments, bool along_width, float epsilon) -> Tensor",
)
def _inference(x: Tensor, *arguments: Any) -> Tensor:
    return library.inference(x, AttentionParameters(*arguments[:_COUNT]), *arguments[_COUNT:])


@_inference.register_fake
def _(x: Tensor, *arguments: Any) -> Tensor:
    return library.output_like(x)
