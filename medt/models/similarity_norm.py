"""Batch norm of the similarity terms from their closed-form statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SimilarityNorm(nn.Module):
    """The scales that a batch norm per head and term gives the attention logits.

    The norm's shift cancels in the softmax, so only the scale weight / sqrt(variance + eps)
    leaves the module; the bias is kept as a buffer for weights of the official code, and the
    running mean is tracked for the same reason. Like torch's norms it takes `momentum=None`
    (cumulative average) and has `reset_running_stats`.
    """

    weight: nn.Parameter
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self, terms: int, heads: int, eps: float = 1e-5, momentum: float | None = 0.1
    ) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(terms, heads))
        self.register_buffer("bias", torch.zeros(terms, heads))
        self.register_buffer("running_mean", torch.zeros(terms, heads))
        self.register_buffer("running_var", torch.ones(terms, heads))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))

    def reset_running_stats(self) -> None:
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()

    @torch.no_grad()
    def track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics towards a batch's, of `count` elements per head and term."""
        self.num_batches_tracked += 1
        factor = self.momentum
        if factor is None:
            factor = 1.0 / float(self.num_batches_tracked)
        unbiased = variance * (count / max(count - 1, 1))
        self.running_mean.lerp_(mean, factor)
        self.running_var.lerp_(unbiased, factor)

    def scale(self, variance: Tensor) -> Tensor:
        """The scales (terms, heads) for a variance (terms, heads)."""
        return self.weight * torch.rsqrt(variance + self.eps)
