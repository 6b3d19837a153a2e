"""Norm statistics re-estimated on training images before a network is used.

With small batches the running statistics lag behind the weights, and evaluation mode differs from
what was trained (arXiv 2105.07576, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medt.models.similarity_norm import SimilarityNorm


def tracked_norms(model: nn.Module) -> list[_BatchNorm | SimilarityNorm]:
    """The norms that normalise with running statistics in evaluation mode."""
    return [
        module
        for module in model.modules()
        if isinstance(module, (_BatchNorm, SimilarityNorm)) and module.running_var is not None
    ]


@torch.no_grad()
def reestimate_norms(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics by their average over `batches`, in place.

    Args:
        model: left in evaluation mode; its weights stay as they are.
        batches: images (N, C, H, W) on the model's device; without any nothing changes.
    """
    norms = tracked_norms(model)
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for index, images in enumerate(batches):
        if index == 0:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None
                norm.train()
        model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
