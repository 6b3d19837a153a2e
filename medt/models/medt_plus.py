"""Gated axial attention where a U-Net can use it: at coarse strides, beside convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medt.errors import UserError
from medt.models.attention import AxialAttention, GateOrder
from medt.models.recorded import Recorded
from medt.models.sizes import as_size, check_size
from medt.signatures import COUNT

SLOPE = 0.1  # of the leaky relus


class ConvBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 one: (N, before, H, W) to (N, after, H, W).

    Its norms are those of each image, so that nothing depends on the batch.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.first_norm = nn.InstanceNorm2d(after, affine=True)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.second_norm = nn.InstanceNorm2d(after, affine=True)
        self.shortcut = nn.Conv2d(before, after, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.first_norm(self.first(x)), SLOPE)
        y = self.second_norm(self.second(y)) + self.shortcut(x)
        return F.leaky_relu(y, SLOPE)


class AttentionBlock(nn.Module):
    """Gated axial attention over columns, then rows, added to its input (N, channels, H, W).

    It starts as nothing: the weight of its last norm is 0. `size` is the (H, W) that the position
    tables serve.
    """

    def __init__(self, channels: int, size: tuple[int, int], heads: int, gate: GateOrder) -> None:
        super().__init__()
        inner = channels // 2
        self.down = nn.Conv2d(channels, inner, 1, bias=False)
        self.down_norm = nn.BatchNorm2d(inner)
        self.height = AxialAttention(inner, inner, heads, size[0], "height", gate=gate)
        self.width = AxialAttention(inner, inner, heads, size[1], "width", gate=gate)
        self.up = nn.Conv2d(inner, channels, 1, bias=False)
        self.up_norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.up_norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.down_norm(self.down(x)))
        y = F.relu(self.width(self.height(y)))
        out: Tensor = x + self.up_norm(self.up(y))
        return out


class MedTPlus(Recorded):
    """A U-Net of residual blocks, with gated axial attention in its encoder's coarse stages.

    Maps an image (N, channels, H, W) to logits (N, classes, H, W).

    What differs from MedT: convolutions at the image's own resolution in place of a stem that
    halves it; skips that are concatenated; instance norms; no branch on patches; attention with
    the paper's gates (`gate="after_norm"`) only where a feature sees much of the image; a head over
    the features of all strides of the decoder (Kayalibay et al. 2017, arXiv 1701.03056, section
    3.2), so that each of them learns from the loss. On the training cases of GlaS (128 px, five
    folds, one seed) it is ahead of `model=unet` by 0.0103 Dice (95 % interval 0.0036 to 0.0194).
    Its parts were measured in a candidate of 30 epochs, one seed: on folds 2 and 3 the 1x1
    convolutions beside the others bring 0.0217 (0.0054 to 0.0492, p = 0.08), the heads at all
    strides 0.0089 (-0.0130 to 0.0556); over all folds instance norms bring nothing over batch norms
    (-0.0034; -0.0227 to 0.0134). Attention has shown no gain: without it (`attention=[]`) Dice on
    GlaS was higher by 0.0036 (-0.0010 to 0.0104) at 128 px and 0.0166 (-0.0114 to 0.0409) at 256
    px, and on one stack of ISBI 2012 lower by 0.0028, less than seeds differ by. See
    docs/experiments.md.

    Args:
        channels: channels of the image.
        classes: classes, background included.
        image_size: the largest size (or height and width) in pixels to be given to the network;
            it sets the position tables. Height and width must be multiples of
            2 ** (stages - 1), 16 for five stages, and twice that at least.
        widths: channels of each stage, at strides 1, 2, 4, ...
        attention: strides whose stage of the encoder ends with attention. Their widths must be
            multiples of 4 * heads.
        heads: attention heads.
        gate: see `AxialAttention`.

    Raises:
        UserError: for fewer than two widths, for strides without a stage, for widths that the heads
            do not divide, and for a size that the strides do not divide, the last in `forward`,
            too.
        ValueError: for an unknown gate; in `forward`, where there is attention, for an image larger
            than `image_size`.
    """

    def __init__(
        self,
        channels: int = 3,
        classes: int = 2,
        image_size: int | Sequence[int] = 128,
        widths: Annotated[Sequence[int], COUNT] = (24, 32, 64, 128, 256),
        attention: Sequence[int] = (8, 16),
        heads: Annotated[int, COUNT] = 8,
        gate: GateOrder = "after_norm",
    ) -> None:
        super().__init__()
        height, width = as_size(image_size)
        if len(widths) < 2:
            raise UserError(f"widths={list(widths)} are too few", "give two at least")
        strides = [2**stage for stage in range(len(widths))]
        self.multiple = strides[-1]
        self._check((height, width))
        _check_attention(attention, dict(zip(strides, widths, strict=True)), heads)

        self.encoder, self.attention = nn.ModuleList(), nn.ModuleDict()
        inputs = [channels, *widths[:-1]]
        for stride, before, after in zip(strides, inputs, widths, strict=True):
            self.encoder.append(ConvBlock(before, after))
            if stride in attention:
                size = height // stride, width // stride
                self.attention[str(stride)] = AttentionBlock(after, size, heads, gate)
        self.ups, self.decoder = nn.ModuleList(), nn.ModuleList()
        for fine, coarse in pairwise(widths):
            self.ups.append(nn.ConvTranspose2d(coarse, fine, 2, stride=2))
            self.decoder.append(ConvBlock(2 * fine, fine))
        self.head = nn.Conv2d(sum(widths[:-1]), classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        self._check((x.shape[2], x.shape[3]))
        skips: list[Tensor] = []
        for stage, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if stage else x)
            if (stride := str(2**stage)) in self.attention:
                x = self.attention[stride](x)
            skips.append(x)
        features = []
        stages = list(zip(self.ups, self.decoder, skips[:-1], strict=True))
        for up, block, skip in reversed(stages):
            x = block(torch.cat([skip, up(x)], 1))
            features.append(x)
        return self._logits(features)

    def _logits(self, features: list[Tensor]) -> Tensor:
        """The head over features of all strides, the coarsest first.

        A 1x1 convolution commutes with the interpolation, so each stride computes its own part.
        """
        widths = [feature.shape[1] for feature in reversed(features)]
        weights = torch.split(self.head.weight, widths, dim=1)
        logits = F.conv2d(features[0], weights[-1], self.head.bias)
        for feature, weight in zip(features[1:], reversed(weights[:-1]), strict=True):
            logits = F.interpolate(logits, scale_factor=2.0, mode="bilinear")
            logits = logits + F.conv2d(feature, weight)
        return logits

    def _check(self, size: tuple[int, int]) -> None:
        # An instance norm needs more than one pixel at the coarsest stride.
        check_size(size, (self.multiple,) * 2, type(self).__name__, smallest=2 * self.multiple)


def _check_attention(attention: Sequence[int], widths: dict[int, int], heads: int) -> None:
    """Raises UserError unless each stride is one of `widths`, and the heads divide its channels."""
    for stride in attention:
        if stride not in widths:
            raise UserError(
                f"attention={list(attention)} names a stride of {stride}",
                f"the {len(widths)} widths are those of strides {', '.join(map(str, widths))}",
            )
        if widths[stride] % (4 * heads):
            raise UserError(
                f"{widths[stride]} channels at stride {stride} cannot be dealt to {heads} heads",
                f"give a multiple of 4 x heads = {4 * heads}",
            )
