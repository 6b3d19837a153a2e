"""Axial attention with relative positions, in plain PyTorch.

Per lane (one position of the other axis), with Rq, Rk, Rv the position tables (section 3.2 of
the MedT paper, arXiv 2102.10662):

    logit(i, j) = s_qk q_i . k_j + s_qr q_i . Rq_ij + s_kr k_j . Rk_ji
    value(i)    = sum_j softmax_j(logit)_ij v_j
    position(i) = sum_j softmax_j(logit)_ij Rv_ij

The lanes are worked off in chunks whose L x L logits stay in the processor's cache, and the
backward pass recomputes the probabilities from the saved log-sum-exp, as flash attention does
(arXiv 2205.14135): memory grows with L, not with L x L.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from medt.ops.tables import PositionTables

# Elements of one chunk of logits: 2 MB in float32 on a CPU; a GPU wants fewer, larger launches.
_CHUNK_ELEMENTS_CPU = 1 << 19
_CHUNK_ELEMENTS_GPU = 1 << 26


def chunked_attention(
    q: Tensor, k: Tensor, v: Tensor, scales: Tensor, tables: PositionTables | None
) -> tuple[Tensor, Tensor | None]:
    """Attend over the axis of length L, apart for each head and each lane of the other axis.

    Args:
        q, k: (N, heads, d, L, M), M the length of the other axis.
        v: (N, heads, 2d, L, M).
        scales: (terms, heads), the factors of q.k and, with positions, of q.Rq and k.Rk.
        tables: None for attention without positions (then one term), else three terms.

    Returns:
        The value term and the position term (None without positions), each (N, heads, 2d, L, M).
    """
    n, heads, lanes = q.shape[0], q.shape[1], q.shape[4]
    factors = scales.view(-1, heads, 1, 1, 1)
    # A shift of all logits of a query cancels in the softmax, and without the common part of the
    # keys the gradient of the scale, sum(dlogit * q.k), does not cancel in float32.
    centred_k = k - k.mean(dim=3, keepdim=True)
    if torch.compiler.is_exporting():
        return _whole_attention(q, centred_k, k, v, factors, tables)
    content = (_lanes_first(q * factors[0]), _lanes_first(centred_k), _lanes_first(v))
    if tables is None:
        value, _ = _ChunkedAttention.apply(*content, None, None, None, None, None)
        return _lanes_last(value, n, heads, lanes), None
    value, position = _ChunkedAttention.apply(
        *content,
        _lanes_first(q * factors[1]),
        _lanes_first(k * factors[2]),
        tables.query.transpose(0, 1).contiguous(),
        tables.key.permute(1, 2, 0).contiguous(),
        tables.value.transpose(0, 1).contiguous(),
    )
    return _lanes_last(value, n, heads, lanes), _lanes_last(position, n, heads, lanes)


def _whole_attention(
    q: Tensor,
    centred_k: Tensor,
    k: Tensor,
    v: Tensor,
    factors: Tensor,
    tables: PositionTables | None,
) -> tuple[Tensor, Tensor | None]:
    """The same in few operations, with L x L tensors, for a graph that others can read."""
    logits = torch.einsum("nhcim,nhcjm->nhmij", q * factors[0], centred_k)
    if tables is not None:
        logits = logits + torch.einsum("nhcim,icj->nhmij", q * factors[1], tables.query)
        logits = logits + torch.einsum("nhcjm,jci->nhmij", k * factors[2], tables.key)
    weights = logits.softmax(dim=4)
    value = torch.einsum("nhmij,nhcjm->nhcim", weights, v)
    if tables is None:
        return value, None
    return value, torch.einsum("nhmij,icj->nhcim", weights, tables.value)


def _lanes_first(x: Tensor) -> Tensor:
    """(N, heads, c, L, M) to contiguous (N * heads * M, c, L)."""
    return x.permute(0, 1, 4, 2, 3).reshape(-1, x.shape[2], x.shape[3])


def _lanes_last(x: Tensor, n: int, heads: int, lanes: int) -> Tensor:
    """(N * heads * M, c, L) to (N, heads, c, L, M)."""
    return x.view(n, heads, lanes, x.shape[1], x.shape[2]).permute(0, 1, 3, 4, 2)


class _ChunkedAttention(torch.autograd.Function):
    """Attention with the lanes first: q, k, q_pos, k_pos (B, d, L), v (B, 2d, L).

    `q`, `q_pos` and `k_pos` carry their scales. The tables are (d, L, L), the value's (2d, L, L),
    indexed [c, i, j], and a chunk of logits is [lane, i, j]. With so few channels a pass over the
    chunk per channel beats a matrix product that would have to sum over j or copy the chunk.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_pos: Tensor | None,
        k_pos: Tensor | None,
        table_q: Tensor | None,
        table_k: Tensor | None,
        table_v: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        inputs = (q, k, v, q_pos, k_pos, table_q, table_k, table_v)
        value = torch.empty_like(v)
        position = None if table_v is None else torch.empty_like(v)
        log_sum = v.new_empty(v.shape[0], v.shape[2], 1)
        for lanes in _chunks(q):
            logits = _logits(lanes, *inputs)
            peak = logits.amax(dim=2, keepdim=True)
            weights = logits.sub_(peak).exp_()
            total = weights.sum(dim=2, keepdim=True)
            weights.div_(total)
            log_sum[lanes] = peak.add_(total.log_())
            _sum_over_keys(weights, v[lanes].unsqueeze(2), out=value[lanes])
            if position is not None and table_v is not None:
                _sum_over_keys(weights, table_v, out=position[lanes])
        ctx.save_for_backward(*inputs, value, position, log_sum)
        return value, position

    @staticmethod
    def backward(ctx: Any, d_value: Tensor, d_position: Tensor | None) -> tuple[Any, ...]:
        *inputs, value, position, log_sum = ctx.saved_tensors
        q, k, v, q_pos, k_pos, table_q, table_k, table_v = inputs
        d_q, d_k, d_v, d_q_pos, d_k_pos = _like(torch.empty_like, *inputs[:5])
        # These gradients are summed over chunks as [i, c, j], which suits a product per query.
        by_query_q, by_query_v = _like(_zeros_by_query, table_q, table_v)
        (d_table_k,) = _like(torch.zeros_like, table_k)
        d_value = d_value.contiguous()
        # The softmax's backward needs sum_j p_ij dp_ij, which is out_i . dout_i.
        shared = (d_value * value).sum(dim=1)
        if d_position is not None:
            d_position = d_position.contiguous()
            shared += (d_position * position).sum(dim=1)
        for lanes in _chunks(q):
            weights = _logits(lanes, *inputs).sub_(log_sum[lanes]).exp_()
            torch.bmm(d_value[lanes], weights, out=d_v[lanes])
            gradient = torch.bmm(d_value[lanes].transpose(1, 2), v[lanes])
            if d_position is not None:
                for c in range(v.shape[1]):
                    gradient.addcmul_(d_position[lanes, c, :, None], table_v[c])
                per_query = d_position[lanes].permute(2, 1, 0).contiguous()
                by_query_v.baddbmm_(per_query, weights.transpose(0, 1))
            gradient.sub_(shared[lanes].unsqueeze(2)).mul_(weights)
            _sum_over_keys(gradient, k[lanes].unsqueeze(2), out=d_q[lanes])
            torch.bmm(q[lanes], gradient, out=d_k[lanes])
            if d_position is not None:
                _sum_over_keys(gradient, table_q, out=d_q_pos[lanes])
                per_query = q_pos[lanes].permute(2, 1, 0).contiguous()
                by_query_q.baddbmm_(per_query, gradient.transpose(0, 1))
                for c in range(k.shape[1]):
                    torch.sum(gradient * table_k[c], dim=1, out=d_k_pos[lanes, c])
                    d_table_k[c] += (gradient * k_pos[lanes, c, None]).sum(dim=0)
        d_table_q, d_table_v = _like(lambda t: t.transpose(0, 1), by_query_q, by_query_v)
        return d_q, d_k, d_v, d_q_pos, d_k_pos, d_table_q, d_table_k, d_table_v


def _logits(
    lanes: slice,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_pos: Tensor | None,
    k_pos: Tensor | None,
    table_q: Tensor | None,
    table_k: Tensor | None,
    table_v: Tensor | None,
) -> Tensor:
    """The logits [lane, i, j] of some lanes, from the inputs of `_ChunkedAttention`."""
    logits = q[lanes, 0, :, None] * k[lanes, 0, None]
    for c in range(1, q.shape[1]):
        logits.addcmul_(q[lanes, c, :, None], k[lanes, c, None])
    if q_pos is not None and k_pos is not None and table_q is not None and table_k is not None:
        for c in range(q.shape[1]):
            logits.addcmul_(q_pos[lanes, c, :, None], table_q[c])
            logits.addcmul_(k_pos[lanes, c, None], table_k[c])
    return logits


def _sum_over_keys(weights: Tensor, x: Tensor, out: Tensor) -> None:
    """out[b, c, i] = sum_j weights[b, i, j] x[b, c, i, j]; x may lack b, and have 1 for i."""
    for c in range(out.shape[1]):
        torch.sum(weights * x.select(-3, c), dim=2, out=out[:, c])


def _zeros_by_query(table: Tensor) -> Tensor:
    """Zeros [i, c, j] for a table [c, i, j]."""
    return torch.zeros_like(table.transpose(0, 1), memory_format=torch.contiguous_format)


def _like(make: Callable[[Tensor], Tensor], *tensors: Tensor | None) -> list[Any]:
    """A new tensor for each that is given, None for each that is not."""
    return [None if tensor is None else make(tensor) for tensor in tensors]


def _chunks(q: Tensor) -> list[slice]:
    """Slices of the lanes whose logits together have at most the chunk's elements."""
    elements = _CHUNK_ELEMENTS_CPU if q.device.type == "cpu" else _CHUNK_ELEMENTS_GPU
    size = max(1, elements // q.shape[2] ** 2)
    return [slice(start, start + size) for start in range(0, q.shape[0], size)]
