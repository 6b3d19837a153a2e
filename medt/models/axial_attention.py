"""Gated axial attention (MedT, arXiv 2102.10662, section 3.2), a layer for any PyTorch network."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from medt.models.similarity_norm import SimilarityNorm
from medt.ops import PositionTables, axial_attention, position_tables, similarity_moments

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

        self.qkv = nn.Conv2d(in_channels, 2 * out_channels, kernel_size=1, bias=False)
        self.qkv_norm = nn.BatchNorm2d(2 * out_channels)
        self.similarity_norm = SimilarityNorm(1 if position == "none" else 3, heads)
        self.value_norm = nn.BatchNorm2d(out_channels)
        nn.init.normal_(self.qkv.weight, std=in_channels**-0.5)
        if position != "none":
            self.position_norm = nn.BatchNorm2d(out_channels)
            self.relative = nn.Parameter(torch.empty(4 * self.head_channels, 2 * length - 1))
            nn.init.normal_(self.relative, std=(2 * self.head_channels) ** -0.5)
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
        qkv = self.qkv_norm(self.qkv(x))
        if along_width:
            qkv = qkv.transpose(2, 3)
        out = self._attend(qkv, length)
        if along_width:
            out = out.transpose(2, 3)
        if self.stride > 1:
            out = nn.functional.avg_pool2d(out, self.stride)
        return out

    def extra_repr(self) -> str:
        return (
            f"axis={self.axis}, position={self.position}, heads={self.heads}, "
            f"length={self.length}, stride={self.stride}, gate={self.gate}"
        )

    def _attend(self, qkv: Tensor, length: int) -> Tensor:
        """(N, 2 * out_channels, L, M), the attended axis first, to (N, out_channels, L, M)."""
        d = self.head_channels
        by_head = qkv.reshape(qkv.shape[0], self.heads, 4 * d, *qkv.shape[2:])
        with torch.autocast(qkv.device.type, enabled=False):
            by_head = by_head.to(self.similarity_norm.weight.dtype)
            q, k, v = torch.split(by_head, [d, d, 2 * d], dim=2)
            if self.position == "none":
                scales = self._scales(q, k, None)
                value, _ = axial_attention(q, k, v, scales, None)
                return _normalized(self.value_norm, value)
            tables = position_tables(self.relative, length)
            scales = self._scales(q, k, tables)
            value, position = axial_attention(q, k, v, scales, tables)
            assert position is not None
            return self._combine(value, position)

    def _scales(self, q: Tensor, k: Tensor, tables: PositionTables | None) -> Tensor:
        """The factors (terms, heads) of the similarity terms: their norm and, if gated, gates."""
        norm = self.similarity_norm
        gates = torch.ones_like(norm.weight[:, :1])
        if self.position == "gated":
            gates = torch.cat([gates[:1], self.gates[:2, None]])
        inner = gates if self.gate == "before_norm" else torch.ones_like(gates)
        if not norm.training:
            return gates * norm.scale(norm.running_var)
        mean, variance = similarity_moments(q, k, tables)
        mean, variance = inner * mean, inner**2 * variance
        norm.track(mean, variance, count=q.shape[0] * q.shape[3] ** 2 * q.shape[4])
        return gates * norm.scale(variance)

    def _combine(self, value: Tensor, position: Tensor) -> Tensor:
        """Sum of the normalised terms (N, heads, 2d, L, M), as (N, out_channels, L, M)."""
        if self.position == "plain":
            return _normalized(self.value_norm, value) + _normalized(self.position_norm, position)
        gate_value, gate_position = self.gates[2], self.gates[3]
        if self.gate == "before_norm":
            value_term = _normalized(self.value_norm, gate_value * value)
            return value_term + _normalized(self.position_norm, gate_position * position)
        value_term = gate_value * _normalized(self.value_norm, value)
        return value_term + gate_position * _normalized(self.position_norm, position)


def _normalized(norm: nn.Module, term: Tensor) -> Tensor:
    """`norm` over the heads' channels: (N, heads, 2d, L, M) to (N, out_channels, L, M)."""
    out: Tensor = norm(term.flatten(1, 2))
    return out


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is none of {', '.join(choices)}")
