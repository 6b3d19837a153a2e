"""Axial attention with its norms: one operation with two backends (MedT, section 3.2).

Per lane (one position of the other axis), with norms N, gates G and position tables Rq, Rk, Rv:

    q, k, v     = N(x)
    logit(i, j) = N(q_i . k_j) + N(G1 q_i . Rq_ij) + N(G2 k_j . Rk_ji)
    out(i)      = N(G3 sum_j p_ij v_j) + N(G4 sum_j p_ij Rv_ij),  p = softmax over j of logit
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from medt.ops import fused, library
from medt.ops.parameters import AttentionParameters, AttentionStatistics, Pool
from medt.ops.reference import reference_attention

Backend = Literal["auto", "torch", "fused"]

_backend: Backend = "auto"


def set_backend(backend: Backend) -> None:
    """Choose what computes axial attention in this process.

    "torch" is plain PyTorch, "fused" the C++ kernel, and "auto" the kernel wherever it can run:
    float32 on a CPU, in training or without gradients.

    Raises:
        ValueError: for another name.
        RuntimeError: "fused", and the kernel is not installed.
    """
    global _backend
    if backend not in get_args(Backend):
        raise ValueError(f"backend={backend!r} is none of {', '.join(get_args(Backend))}")
    if backend == "fused":
        library.instruction_set()
    _backend = backend


def axial_attention(
    x: Tensor,
    parameters: AttentionParameters,
    given: AttentionStatistics = AttentionStatistics(),  # noqa: B008 - immutable
    along_width: bool = False,
    epsilon: float = 1e-5,
    pool: Pool | None = None,
) -> tuple[Tensor, AttentionStatistics]:
    """Attend along one axis of an image, apart for each head and each lane of the other axis.

    Args:
        x: (N, 4 heads d, H, W), the queries, keys and values before their norm.
        parameters: of `x`'s type and device.
        given: running moments, for norms that do not take the batch's.
        along_width: attend within rows instead of within columns.
        epsilon: of every norm.
        pool: makes the batch's moments those of several processes' batches; plain PyTorch then.

    Returns:
        (N, 2 heads d, H, W), and the batch's moments for the norms that took them (detached).

    Raises:
        RuntimeError: the backend is "fused", and it cannot compute this.
    """
    if _backend != "torch":
        obstacle = _obstacle(x, parameters, given)
        if pool is not None:
            obstacle = "norms are synchronised over processes"
        if obstacle is None:
            return fused.fused_attention(x, parameters, given, along_width, epsilon)
        if _backend == "fused":
            raise RuntimeError(f"the fused kernel cannot be used: {obstacle}")
    return reference_attention(x, parameters, given, along_width, epsilon, pool)


def _obstacle(x: Tensor, parameters: AttentionParameters, given: AttentionStatistics) -> str | None:
    """Why the kernel cannot compute this, or None."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return f"the input is {x.dtype} on {x.device.type}, not float32 on a CPU"
    if x.numel() == 0:
        return "the input is empty"
    if torch.compiler.is_exporting():
        return "an exported network must not depend on it"
    if not library.available():
        return "it is not installed"
    trained = given == AttentionStatistics()
    moments = [given.qkv, given.similarity, given.value]
    if parameters.relative is not None:
        moments.append(given.position)
    if not trained and any(moment is None for moment in moments):
        return "some norms take the batch's moments and others do not"
    wanted = [x, *(p for p in parameters if p is not None)]
    if not trained and torch.is_grad_enabled() and any(t.requires_grad for t in wanted):
        return "gradients are wanted with running moments"
    return None
