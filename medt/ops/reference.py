"""Axial attention and its norms in plain PyTorch: any floating type, any device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medt.ops.chunked_attention import chunked_attention
from medt.ops.parameters import AttentionParameters, AttentionStatistics, Moments, Pool
from medt.ops.similarity import similarity_moments
from medt.ops.tables import PositionTables, position_tables


def reference_attention(
    x: Tensor,
    parameters: AttentionParameters,
    given: AttentionStatistics,
    along_width: bool,
    epsilon: float,
    pool: Pool | None = None,
) -> tuple[Tensor, AttentionStatistics]:
    """See `medt.ops.axial_attention`."""
    if along_width:
        x = x.transpose(2, 3)
    d = parameters.head_channels
    normed, qkv = _batch_norm(
        x, parameters.qkv_weight, parameters.qkv_bias, given.qkv, epsilon, pool
    )
    by_head = normed.reshape(x.shape[0], parameters.heads, 4 * d, *x.shape[2:])
    q, k, v = torch.split(by_head, [d, d, 2 * d], dim=2)
    tables = None
    if parameters.relative is not None:
        tables = position_tables(parameters.relative, x.shape[2])
    scales, similarity = _scales(q, k, tables, parameters, given.similarity, epsilon, pool)
    value_term, position_term = chunked_attention(q, k, v, scales, tables)
    gates = parameters.gates
    if gates is not None:
        value_term = gates[2] * value_term
    out, value = _batch_norm(
        value_term.flatten(1, 2),
        parameters.value_weight,
        parameters.value_bias,
        given.value,
        epsilon,
        pool,
    )
    position = None
    if position_term is not None:
        if gates is not None:
            position_term = gates[3] * position_term
        normed, position = _batch_norm(
            position_term.flatten(1, 2),
            parameters.position_weight,
            parameters.position_bias,
            given.position,
            epsilon,
            pool,
        )
        out = out + normed
    if along_width:
        out = out.transpose(2, 3)
    return out, AttentionStatistics(qkv, similarity, value, position)


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    given: Moments | None,
    epsilon: float,
    pool: Pool | None,
) -> tuple[Tensor, Moments | None]:
    """Normalised by the given moments, or by the batch's, which are then returned."""
    if given is not None:
        return F.batch_norm(x, *given, weight, bias, eps=epsilon), None
    if pool is not None:
        return pooled_batch_norm(x, weight, bias, epsilon, pool)
    # With an axis of length 1 and permuted strides its gradients are wrong (PyTorch 2.9 to 2.15).
    x = x.clone(memory_format=torch.contiguous_format)
    out, mean, inverse = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, epsilon)
    return out, Moments(mean.detach(), (inverse.detach() ** -2 - epsilon).clamp_min(0))


def pooled_batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float, pool: Pool
) -> tuple[Tensor, Moments]:
    """A batch norm of (N, C, ...) whose moments are those of several processes' batches."""
    others = [dim for dim in range(x.dim()) if dim != 1]
    variance, mean = torch.var_mean(x, dim=others, correction=0)
    moments = pool(Moments(mean, variance))
    shape = [1, -1] + [1] * (x.dim() - 2)
    scale = torch.rsqrt(moments.variance + epsilon)
    out = (x - moments.mean.view(shape)) * scale.view(shape)
    if weight is not None and bias is not None:
        out = out * weight.view(shape) + bias.view(shape)
    return out, Moments(*(part.detach() for part in moments))


def _scales(
    q: Tensor,
    k: Tensor,
    tables: PositionTables | None,
    parameters: AttentionParameters,
    given: Moments | None,
    epsilon: float,
    pool: Pool | None,
) -> tuple[Tensor, Moments | None]:
    """The factors (terms, heads) of the similarity terms, and their moments if the batch's."""
    weight = parameters.similarity_weight
    if parameters.gates is not None:
        gates = torch.cat([torch.ones_like(parameters.gates[:1]), parameters.gates[:2]])[:, None]
        weight = weight * gates
    if given is not None:
        return weight * torch.rsqrt(given.variance + epsilon), None
    mean, variance = similarity_moments(q, k, tables)
    if pool is not None:
        mean, variance = pool(Moments(mean, variance))
    if parameters.gates is not None:
        mean, variance = gates * mean, gates**2 * variance
    scales = weight * torch.rsqrt(variance + epsilon)
    return scales, Moments(mean.detach(), variance.detach())
