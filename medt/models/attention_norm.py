"""The norms inside an axial attention layer, whose arithmetic is in `medt.ops`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medt.ops import Moments


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
