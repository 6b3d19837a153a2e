"""Batch norms whose moments are those of several processes' batches together.

`torch.nn.SyncBatchNorm` needs a GPU and does not know the norms inside axial attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medt.errors import UserError
from medt.models.attention import AttentionNorm, AxialAttention
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


class SyncedBatchNormAct(SyncedBatchNorm):
    """The same for timm's batch norm, which an activation follows."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.drop(super().forward(x)))
        return out


def synchronise_norms(model: nn.Module, pool: Pool | None) -> None:
    """Let all batch norms of a model, ours included, pool their moments; None ends that.

    Torch's and timm's 2D batch norms become `SyncedBatchNorm`, with the same state dict.

    Raises:
        UserError: there is a pool, and the model has other norms with running statistics.
    """
    for module in model.modules():
        if pool is not None and (synced := _synced(module)) is not None:
            module.__class__ = synced
        if isinstance(module, (AxialAttention, SyncedBatchNorm)):
            module.pool = pool
        elif (
            pool is not None
            and getattr(module, "running_var", None) is not None
            and not isinstance(module, AttentionNorm)  # its layer does it
        ):
            raise UserError(
                f"{type(module).__name__} of this network cannot be synchronised",
                "give trainer.sync_norms=false, or train with one process",
            )


def _synced(module: nn.Module) -> type[SyncedBatchNorm] | None:
    """What a norm becomes; None for all others, and for one that already is."""
    kind = type(module)
    if kind is nn.BatchNorm2d:
        return SyncedBatchNorm
    # By its name, since timm may not be installed.
    if kind.__name__ == "BatchNormAct2d" and kind.__module__.startswith("timm."):
        return SyncedBatchNormAct
    return None
