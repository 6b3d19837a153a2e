"""Networks that were tried for `docs/experiments.md`, with a switch for each part."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medt.models.attention import GateOrder
from medt.models.medt_plus import AttentionBlock


class HalfNorm(nn.Module):
    """The norm of each image for the first half of the channels, that of the batch for the others.

    Pan et al. 2018 (arXiv 1807.09441, section 3.2), there in the first stages only.
    """

    def __init__(self, channels: int, affine: bool) -> None:
        super().__init__()
        self.split = channels // 2
        self.instance = nn.InstanceNorm2d(self.split, affine=affine)
        self.batch = nn.BatchNorm2d(channels - self.split, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x[:, : self.split], x[:, self.split :]
        return torch.cat([self.instance(first), self.batch(second)], 1)


def norm_of(kind: str, channels: int) -> nn.Module:
    norms = {"instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d, "half": HalfNorm}
    return norms[kind](channels, affine=True)


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, each with a norm: (N, before, H, W) to (N, after, H, W)."""

    def __init__(self, before: int, after: int, residual: bool, norm: str) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.first_norm = norm_of(norm, after)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.second_norm = norm_of(norm, after)
        self.shortcut = nn.Conv2d(before, after, 1, bias=False) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.first_norm(self.first(x)), 0.1)
        y = self.second_norm(self.second(y))
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return F.leaky_relu(y, 0.1)


class Candidate(nn.Module):
    """A U-Net: (N, channels, H, W) to (N, classes, H, W).

    Args:
        widths: channels at strides 1, 2, 4, ...
        residual: whether a block of convolutions adds its input.
        norm: "instance", "batch", or "half" of each, of the convolutions.
        attention: strides whose encoder block is followed by gated axial attention.
        scales: strides of the decoder that have a head of their own; the logits are their sum
            (Kayalibay et al. 2017, arXiv 1701.03056).
        decoder_attention: strides whose decoder block is followed by it.
    """

    def __init__(
        self,
        channels: int = 3,
        classes: int = 2,
        image_size: int | Sequence[int] = 128,
        widths: Sequence[int] = (24, 32, 64, 128, 256),
        residual: bool = True,
        norm: str = "instance",
        attention: Sequence[int] = (8, 16),
        decoder_attention: Sequence[int] = (),
        scales: Sequence[int] = (1, 2, 4, 8),
        heads: int = 8,
        gate: GateOrder = "after_norm",
    ) -> None:
        super().__init__()
        size = image_size if isinstance(image_size, int) else max(image_size)
        strides = [2**level for level in range(len(widths))]
        inputs = [channels, *widths[:-1]]
        self.encoder = nn.ModuleList(
            ConvBlock(before, after, residual, norm)
            for before, after in zip(inputs, widths, strict=True)
        )
        self.ups, self.decoder, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleDict()
        for fine, coarse in pairwise(widths):
            self.ups.append(nn.ConvTranspose2d(coarse, fine, 2, stride=2))
            self.decoder.append(ConvBlock(2 * fine, fine, residual, norm))
        for stride in scales:
            self.heads[str(stride)] = nn.Conv2d(widths[strides.index(stride)], classes, 1)

        def attends(stride: int) -> AttentionBlock:
            sides = (size // stride,) * 2
            return AttentionBlock(widths[strides.index(stride)], sides, heads, gate)

        self.attention = nn.ModuleDict({str(stride): attends(stride) for stride in attention})
        self.above = nn.ModuleDict({str(stride): attends(stride) for stride in decoder_attention})

    def forward(self, x: Tensor) -> Tensor:
        features = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            if (stride := str(2**level)) in self.attention:
                x = self.attention[stride](x)
            features.append(x)
        logits: Tensor | None = None
        for level in reversed(range(len(self.decoder))):
            x = self.decoder[level](torch.cat([features[level], self.ups[level](x)], 1))
            if (stride := str(2**level)) in self.above:
                x = self.above[stride](x)
            if logits is not None:
                logits = F.interpolate(logits, scale_factor=2.0, mode="bilinear")
            if stride in self.heads:
                here = self.heads[stride](x)
                logits = here if logits is None else logits + here
        assert logits is not None
        return logits
