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


def axial_attention(
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
    lane_first = [
        _lanes_first(q * factors[0]),
        _lanes_first(centred_k),
        _lanes_first(v),
    ]
    if tables is None:
        value, _ = _ChunkedAttention.apply(*lane_first, None, None, None, None, None)
        return _lanes_last(value, n, heads, lanes), None
    value, position = _ChunkedAttention.apply(
        *lane_first,
        _lanes_first(q * factors[1]),
        _lanes_first(k * factors[2]),
        tables.query.contiguous(),
        tables.key.contiguous(),
        tables.value.contiguous(),
    )
    return _lanes_last(value, n, heads, lanes), _lanes_last(position, n, heads, lanes)


def _lanes_first(x: Tensor) -> Tensor:
    """(N, heads, c, L, M) to contiguous (N * heads * M, L, c)."""
    return x.permute(0, 1, 4, 3, 2).reshape(-1, x.shape[3], x.shape[2])


def _lanes_last(x: Tensor, n: int, heads: int, lanes: int) -> Tensor:
    """(N * heads * M, L, c) to (N, heads, c, L, M)."""
    return x.view(n, heads, lanes, x.shape[1], x.shape[2]).permute(0, 1, 4, 3, 2)


class _ChunkedAttention(torch.autograd.Function):
    """Lanes first: q, k (B, L, d), v (B, L, 2d); tables (L, d, L), (L, d, L), (L, 2d, L).

    `q`, `q_pos`, `k_pos` carry their scales. Matrix products run per lane for the content terms
    and per position for the position terms, so that none needs a copy of the logits, except the
    key table's, whose position is the logits' last axis.
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
        value = torch.empty_like(v)
        position = None if table_v is None else torch.empty_like(v)
        log_sum = v.new_empty(*v.shape[:2], 1)
        for lanes in _chunks(q):
            logits = _logits(lanes, q, k, q_pos, k_pos, table_q, table_k)
            peak = logits.amax(dim=2, keepdim=True)
            probabilities = logits.sub_(peak).exp_()
            total = probabilities.sum(dim=2, keepdim=True)
            probabilities.div_(total)
            log_sum[lanes] = peak.add_(total.log_())
            torch.bmm(probabilities, v[lanes], out=value[lanes])
            if position is not None and table_v is not None:
                out = position[lanes].transpose(0, 1)
                torch.bmm(probabilities.transpose(0, 1), table_v.transpose(1, 2), out=out)
        ctx.save_for_backward(
            q, k, v, q_pos, k_pos, table_q, table_k, table_v, value, position, log_sum
        )
        return value, position

    @staticmethod
    def backward(ctx: Any, d_value: Tensor, d_position: Tensor | None) -> tuple[Any, ...]:
        q, k, v, q_pos, k_pos, table_q, table_k, table_v, value, position, log_sum = (
            ctx.saved_tensors
        )
        d_value = d_value.contiguous()
        # The softmax's backward needs sum_j p_ij dp_ij, which is out_i . dout_i.
        shared = (d_value * value).sum(dim=2, keepdim=True)
        if d_position is not None and position is not None:
            d_position = d_position.contiguous()
            shared += (d_position * position).sum(dim=2, keepdim=True)
        d_q, d_k, d_v, d_q_pos, d_k_pos = _like(torch.empty_like, q, k, v, q_pos, k_pos)
        d_table_q, d_table_k, d_table_v = _like(torch.zeros_like, table_q, table_k, table_v)
        for lanes in _chunks(q):
            probabilities = _logits(lanes, q, k, q_pos, k_pos, table_q, table_k)
            probabilities.sub_(log_sum[lanes]).exp_()
            torch.bmm(probabilities.transpose(1, 2), d_value[lanes], out=d_v[lanes])
            gradient = torch.bmm(d_value[lanes], v[lanes].transpose(1, 2))
            if d_position is not None:
                by_query = d_position[lanes].transpose(0, 1)
                d_table_v.baddbmm_(by_query.transpose(1, 2), probabilities.transpose(0, 1))
                rows = gradient.transpose(0, 1)
                torch.baddbmm(rows, by_query, table_v, out=rows)
            gradient.sub_(shared[lanes]).mul_(probabilities)
            torch.bmm(gradient, k[lanes], out=d_q[lanes])
            torch.bmm(gradient.transpose(1, 2), q[lanes], out=d_k[lanes])
            if q_pos is not None:
                rows = gradient.transpose(0, 1)
                out = d_q_pos[lanes].transpose(0, 1)
                torch.bmm(rows, table_q.transpose(1, 2), out=out)
                d_table_q.baddbmm_(q_pos[lanes].permute(1, 2, 0), rows)
                columns = gradient.permute(2, 0, 1).contiguous()
                out = d_k_pos[lanes].transpose(0, 1)
                torch.bmm(columns, table_k.transpose(1, 2), out=out)
                d_table_k.baddbmm_(k_pos[lanes].permute(1, 2, 0), columns)
        return d_q, d_k, d_v, d_q_pos, d_k_pos, d_table_q, d_table_k, d_table_v


def _like(make: Callable[[Tensor], Tensor], *tensors: Tensor | None) -> list[Any]:
    """A new tensor for each that is given, None for each that is not."""
    return [None if tensor is None else make(tensor) for tensor in tensors]


def _chunks(q: Tensor) -> list[slice]:
    """Slices of the lanes whose logits together have at most the chunk's elements."""
    elements = _CHUNK_ELEMENTS_CPU if q.device.type == "cpu" else _CHUNK_ELEMENTS_GPU
    size = max(1, elements // q.shape[1] ** 2)
    return [slice(start, start + size) for start in range(0, q.shape[0], size)]


def _logits(
    lanes: slice,
    q: Tensor,
    k: Tensor,
    q_pos: Tensor | None,
    k_pos: Tensor | None,
    table_q: Tensor | None,
    table_k: Tensor | None,
) -> Tensor:
    """The logits (chunk, L, L) of some lanes."""
    logits = torch.bmm(q[lanes], k[lanes].transpose(1, 2))
    if q_pos is not None and k_pos is not None and table_q is not None and table_k is not None:
        rows = logits.transpose(0, 1)
        torch.baddbmm(rows, q_pos[lanes].transpose(0, 1), table_q, out=rows)
        columns = torch.bmm(k_pos[lanes].transpose(0, 1), table_k)
        logits.add_(columns.permute(1, 2, 0))
    return logits
