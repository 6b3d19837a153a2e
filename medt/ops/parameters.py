"""What the axial attention operation takes beside its input, and the moments it measures."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor


class AttentionParameters(NamedTuple):
    """What an axial attention layer learns, but for its 1x1 convolution.

    Channels are head-major: within a head [q (d), k (d), v (2d)] of the input, 2d of the output.

    qkv_weight, qkv_bias: (4 heads d), of the norm of the input.
    similarity_weight: (terms, heads), of the norm of q.k and, with positions, q.Rq and k.Rk.
    value_weight, value_bias: (2 heads d), of the norm of the value term.
    position_weight, position_bias: (2 heads d), of the position term's; None without positions.
    relative: (4d, 2T - 1) for axes of up to T positions, see `position_tables`; None without.
    gates: (4), the factors of q.Rq, k.Rk, value and position before their norms; None for 1.
    """

    qkv_weight: Tensor
    qkv_bias: Tensor
    similarity_weight: Tensor
    value_weight: Tensor
    value_bias: Tensor
    position_weight: Tensor | None = None
    position_bias: Tensor | None = None
    relative: Tensor | None = None
    gates: Tensor | None = None

    @property
    def heads(self) -> int:
        return self.similarity_weight.shape[1]

    @property
    def head_channels(self) -> int:
        """d, the channels of a head's queries and of its keys."""
        return self.qkv_weight.shape[0] // (4 * self.heads)

    def map(self, function: Callable[[Tensor], Tensor]) -> AttentionParameters:
        """`function` of each that there is."""
        return AttentionParameters._make(None if p is None else function(p) for p in self)


class Moments(NamedTuple):
    """Mean and biased variance, each of the shape of the norm's weight."""

    mean: Tensor
    variance: Tensor


class Pool(Protocol):
    """Makes the moments of a batch those of several processes' batches together."""

    def __call__(self, moments: Moments) -> Moments:
        """The moments of all batches, of those of this process's; differentiable."""

    def images(self, own: int) -> int:
        """The images of all batches, of those of this process's."""


class AttentionStatistics(NamedTuple):
    """The moments of what each norm of the operation sees, gates included.

    As an argument, None stands for a norm that takes the batch's; as a result, for one that did
    not (or that does not exist).
    """

    qkv: Moments | None = None
    similarity: Moments | None = None
    value: Moments | None = None
    position: Moments | None = None
