"""Batch norms whose moments are those of several processes' batches together.

`torch.nn.SyncBatchNorm` needs a GPU and does not know the norms inside axial attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medt.models.axial_attention import AxialAttention
from medt.ops import Moments, Pool
from medt.ops.reference import pooled_batch_norm


class SyncedBatchNorm(nn.BatchNorm2d):
    """A batch norm of torch that pools its moments while `pool` is set and it trains."""

    pool: Pool | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is None or not self.training:
            return super().forward(x)
        out, moments = pooled_batch_norm(x, self.weight, self.bias, self.eps, self.pool)
        self._track(moments, self.pool.images(x.shape[0]) * x[0, 0].numel())
        return out

    @torch.no_grad()
    def _track(self, moments: Moments, count: int) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(moments.mean, factor)
        self.running_var.lerp_(moments.variance * (count / max(count - 1, 1)), factor)


def synchronise_norms(model: nn.Module, pool: Pool | None) -> None:
    """Let all batch norms of a model, ours included, pool their moments; None ends that.

    Torch's 2D batch norms become `SyncedBatchNorm`, with the same state dict.

    Raises:
        ValueError: the model has batch norms of other dimensions.
    """
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm
        if isinstance(module, (AxialAttention, SyncedBatchNorm)):
            module.pool = pool
        elif isinstance(module, _BatchNorm):
            raise ValueError(f"{type(module).__name__} cannot be synchronised")
