"""Gated axial attention (MedT, arXiv 2102.10662, section 3.2), a layer for any PyTorch network.

The arithmetic of the layer and of the norms inside it is in `medt.ops`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from medt.ops import AttentionParameters, AttentionStatistics, Moments, Pool, axial_attention

Position = Literal["none", "plain", "gated"]
Axis = Literal["height", "width"]
GateOrder = Literal["before_norm", "after_norm"]

# Gates in the order q.Rq, k.Rk, value, position: positions start faded, the value does not.
INITIAL_GATES = (0.1, 0.1, 1.0, 0.1)


class AxialAttention(nn.Module):
    """Multi-head self-attention along one axis of an image, with relative positions.

    Maps (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, a multiple of 2 * heads.
        heads: attention heads; each has d = out_channels / heads / 2 query and key channels
            and 2d value channels.
        length: the longest axis that the position tables serve; shorter ones use their middle.
            Without positions any length goes.
        axis: "height" attends within columns, "width" within rows.
        stride: average pooling over both axes behind the attention.
        position: "none", "plain" (axial attention) or "gated" (MedT).
        gate: "before_norm" multiplies a term before its batch norm, as the official code does;
            the norm divides most of it out again. "after_norm" is the paper's equation: the gate
            scales its normalised term, and a gate of 0 removes it.

    Raises:
        ValueError: for arguments outside these choices, and in `forward` for an axis that is
            longer than `length`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 8,
        length: int = 56,
        axis: Axis = "height",
        stride: int = 1,
        position: Position = "gated",
        gate: GateOrder = "before_norm",
    ) -> None:
        super().__init__()
        _check_choice("axis", axis, ("height", "width"))
        _check_choice("position", position, ("none", "plain", "gated"))
        _check_choice("gate", gate, ("before_norm", "after_norm"))
        if out_channels % (2 * heads):
            raise ValueError(
                f"out_channels={out_channels} is not a multiple of 2 x heads = {2 * heads}"
            )
        self.heads = heads
        self.length = length
        self.axis = axis
        self.stride = stride
        self.position = position
        self.gate = gate
        self.head_channels = out_channels // heads // 2
        self.pool: Pool | None = None  # see `medt.models.synced_norms`

        self.qkv = nn.Conv2d(in_channels, 2 * out_channels, kernel_size=1, bias=False)
        self.qkv_norm = AttentionNorm(2 * out_channels)
        terms = 1 if position == "none" else 3
        self.similarity_norm = AttentionNorm(terms, heads, learned_bias=False)
        self.value_norm = AttentionNorm(out_channels)
        self.qkv.weight = _normal(in_channels**-0.5, self.qkv.weight.shape)
        if position != "none":
            self.position_norm = AttentionNorm(out_channels)
            std = (2 * self.head_channels) ** -0.5
            self.relative = _normal(std, (4 * self.head_channels, 2 * length - 1))
        if position == "gated":
            self.gates = nn.Parameter(torch.tensor(INITIAL_GATES))

    def forward(self, x: Tensor) -> Tensor:
        along_width = self.axis == "width"
        length = x.shape[3] if along_width else x.shape[2]
        if self.position != "none" and length > self.length:
            raise ValueError(
                f"the {self.axis} of the input is {length}, but the position tables of this layer "
                f"serve at most {self.length}: build it with length={length}"
            )
        out = self._attend(self.qkv(x), length)
        if self.stride > 1:
            out = nn.functional.avg_pool2d(out, self.stride)
        return out

    def extra_repr(self) -> str:
        return (
            f"axis={self.axis}, position={self.position}, heads={self.heads}, "
            f"length={self.length}, stride={self.stride}, gate={self.gate}"
        )

    def _attend(self, qkv: Tensor, length: int) -> Tensor:
        """(N, 2 * out_channels, H, W) to (N, out_channels, H, W)."""
        norms = [self.qkv_norm, self.similarity_norm, self.value_norm]
        if self.position != "none":
            norms.append(self.position_norm)
        given = AttentionStatistics(*(norm.given() for norm in norms))
        with torch.autocast(qkv.device.type, enabled=False):
            qkv = qkv.to(self.qkv_norm.weight.dtype)
            out, measured = axial_attention(
                qkv, self._learned(), given, along_width=self.axis == "width", pool=self.pool
            )
        images = qkv.shape[0] if self.pool is None else self.pool.images(qkv.shape[0])
        count = images * qkv.shape[2] * qkv.shape[3]
        for norm, moments in zip(norms, measured, strict=False):
            if moments is not None:
                per_pair = length if norm is self.similarity_norm else 1
                norm.track(moments, count * per_pair)
        return out

    def _learned(self) -> AttentionParameters:
        """What the operation takes; gates behind the norms become part of their weights."""
        qkv, similarity, value = self.qkv_norm, self.similarity_norm, self.value_norm
        parameters = AttentionParameters(
            qkv.weight, qkv.bias, similarity.weight, value.weight, value.bias
        )
        if self.position == "none":
            return parameters
        position = self.position_norm
        parameters = parameters._replace(
            position_weight=position.weight, position_bias=position.bias, relative=self.relative
        )
        if self.position == "plain":
            return parameters
        gates = self.gates
        if self.gate == "before_norm":
            return parameters._replace(gates=gates)
        by_term = torch.cat([torch.ones_like(gates[:1]), gates[:2]])[:, None]
        return parameters._replace(
            similarity_weight=by_term * similarity.weight,
            value_weight=gates[2] * value.weight,
            value_bias=gates[2] * value.bias,
            position_weight=gates[3] * position.weight,
            position_bias=gates[3] * position.bias,
        )


def _normal(std: float, size: Sequence[int]) -> nn.Parameter:
    """Normally distributed; not by `nn.init.normal_`, which on the meta device, where a checkpoint
    is checked, imports PyTorch's compiler for seconds."""
    return nn.Parameter(torch.randn(size).mul_(std))


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is none of {', '.join(choices)}")


class AttentionNorm(nn.Module):
    """Weight, bias and running moments of a batch norm that `axial_attention` computes.

    Like torch's norms it takes `momentum=None` (cumulative average) and has
    `reset_running_stats`; in training mode the batch's moments count, else the running ones.

    Args:
        shape: of the weight: the channels, or (terms, heads) of the similarity terms.
        learned_bias: whether the bias is a parameter. That of the similarity terms is not, since a
            shift cancels in the softmax; as a buffer it keeps weights of the official code.
    """

    weight: nn.Parameter
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self, *shape: int, learned_bias: bool = True, momentum: float | None = 0.1
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(shape))
        if learned_bias:
            self.bias = nn.Parameter(torch.zeros(shape))
        else:
            self.register_buffer("bias", torch.zeros(shape))
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_var", torch.ones(shape))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))

    def given(self) -> Moments | None:
        """The running moments where these count, None where the batch's do."""
        return None if self.training else Moments(self.running_mean, self.running_var)

    def reset_running_stats(self) -> None:
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()

    @torch.no_grad()
    def track(self, moments: Moments, count: int) -> None:
        """Move the running moments towards a batch's, of `count` elements each."""
        self.num_batches_tracked.add_(1)
        factor = self.momentum
        if factor is None:
            factor = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(moments.mean, factor)
        self.running_var.lerp_(moments.variance * (count / max(count - 1, 1)), factor)

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.weight.shape))
