"""Norm statistics re-estimated on training images before a network is used.

With small batches the running statistics lag behind the weights, and evaluation mode differs from
what was trained (arXiv 2105.07576, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medt.data.dataset import SegmentationDataset
from medt.models.attention import AttentionNorm

BATCH = 8


def tracked_norms(model: nn.Module) -> list[_BatchNorm | AttentionNorm]:
    """The norms that normalise with running statistics in evaluation mode."""
    return [
        module
        for module in model.modules()
        if isinstance(module, (_BatchNorm, AttentionNorm)) and module.running_var is not None
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


def image_batches(
    dataset: SegmentationDataset, epoch: int, indices: Sequence[int], device: torch.device
) -> Iterator[Tensor]:
    """The images of these items of an epoch, not augmented, as batches (N, C, H, W) of up to 8."""
    for start in range(0, len(indices), BATCH):
        images = [dataset.sample(epoch, index)[0] for index in indices[start : start + BATCH]]
        yield torch.stack([dataset.preprocessing.tensor(image) for image in images]).to(device)
