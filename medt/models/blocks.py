"""The pieces that the one-branch and two-branch networks share (MedT, section 3.3)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from medt.models.attention_norm import AttentionNorm
from medt.models.axial_attention import AxialAttention, GateOrder, Position

# The middle of the stem and the base of the inner widths: both 128 in the official code.
STEM_CHANNELS = 128
BASE_WIDTH = 128

Size = tuple[int, int]


def normed_conv(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """A convolution without bias and its norm; without gradients, as one convolution."""
    if norm.training or torch.is_grad_enabled():
        normed: Tensor = norm(conv(x))
        return normed
    assert norm.running_var is not None
    assert norm.running_mean is not None
    factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    bias = norm.bias - norm.running_mean * factor
    weight = conv.weight * factor[:, None, None, None]
    return F.conv2d(x, weight, bias, conv.stride, conv.padding)


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """A block's output, whose inner values are computed again in the backward pass."""
    contexts = (contextlib.nullcontext(), _untracked(block))
    out: Tensor = checkpoint(block, x, use_reentrant=False, context_fn=lambda: contexts)
    return out


@contextlib.contextmanager
def _untracked(module: nn.Module) -> Iterator[None]:
    """The norms see their batch a second time here and must not track it again."""
    norms = [m for m in module.modules() if isinstance(m, (nn.BatchNorm2d, AttentionNorm))]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = norm.num_batches_tracked.clone()  # type: ignore[union-attr]
    try:
        yield
    finally:  # the recomputation ends by an exception, as soon as it has what is needed
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


class Stem(nn.Module):
    """Three convolutions that halve the image: (N, in, H, W) to (N, out, H / 2, W / 2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, STEM_CHANNELS, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(STEM_CHANNELS)
        self.conv3 = nn.Conv2d(STEM_CHANNELS, out_channels, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(normed_conv(self.conv1, self.bn1, x), inplace=True)
        x = F.relu(normed_conv(self.conv2, self.bn2, x), inplace=True)
        return F.relu(normed_conv(self.conv3, self.bn3, x), inplace=True)


class AxialBlock(nn.Module):
    """Residual bottleneck: 1x1 down, attention over height and then width, 1x1 up.

    Maps (N, in_channels, H, W) to (N, 2 * width, H / stride, W / stride); `size` is the (H, W)
    that the position tables serve.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        size: Size,
        heads: int,
        position: Position,
        gate: GateOrder,
    ) -> None:
        super().__init__()
        out_channels = 2 * width
        self.down = nn.Conv2d(in_channels, width, 1, bias=False)
        self.down_norm = nn.BatchNorm2d(width)
        self.height = AxialAttention(
            width, width, heads, size[0], "height", position=position, gate=gate
        )
        self.width = AxialAttention(
            width, width, heads, size[1], "width", stride, position=position, gate=gate
        )
        self.up = nn.Conv2d(width, out_channels, 1, bias=False)
        self.up_norm = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.ModuleList | None = None
        if stride != 1 or in_channels != out_channels:
            conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.shortcut = nn.ModuleList([conv, nn.BatchNorm2d(out_channels)])

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(normed_conv(self.down, self.down_norm, x), inplace=True)
        y = F.relu(self.width(self.height(y)), inplace=True)
        y = normed_conv(self.up, self.up_norm, y)
        if self.shortcut is not None:
            conv, norm = self.shortcut
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            x = normed_conv(conv, norm, x)
        y += x
        return F.relu(y, inplace=True)


class Encoder(nn.Module):
    """A stem and stages of axial blocks; every stage but the first halves the size.

    Maps (N, in_channels, H, W) to one feature map a stage: stage i (from 0) has 2 * widths[i]
    channels at 1 / 2 ** (i + 1) of the input's size. With `checkpointing` a training step keeps
    only the blocks' inputs and computes the rest again: less memory, a forward pass more.
    """

    def __init__(
        self,
        in_channels: int,
        stem_channels: int,
        widths: Sequence[int],
        depths: Sequence[int],
        size: Size,
        heads: int,
        position: Position,
        gate: GateOrder,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.stem = Stem(in_channels, stem_channels)
        self.stages = nn.ModuleList()
        height, width = size[0] // 2, size[1] // 2
        channels = stem_channels
        for stage, (inner, depth) in enumerate(zip(widths, depths, strict=True)):
            blocks = []
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(
                    AxialBlock(channels, inner, stride, (height, width), heads, position, gate)
                )
                height, width = height // stride, width // stride
                channels = 2 * inner
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        features = []
        for stage in self.stages:
            assert isinstance(stage, nn.Sequential)
            for block in stage:
                if self.checkpointing and torch.is_grad_enabled():
                    x = recomputed(block, x)
                else:
                    x = block(x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """3x3 convolutions, each doubling the size, with the stages' outputs added.

    Maps the encoder's feature maps to (N, channels[-1], H, W) at the size of the network's input.

    Args:
        in_channels: channels of the last stage.
        channels: output channels of each convolution.
        bottleneck: whether the first convolution halves the size of the last stage before its
            output is doubled and the last stage itself is added.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], bottleneck: bool) -> None:
        super().__init__()
        self.bottleneck = bottleneck
        inputs = [in_channels, *channels[:-1]]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2 if bottleneck and i == 0 else 1, padding=1)
            for i, (before, after) in enumerate(zip(inputs, channels, strict=True))
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        x = features[-1]
        skips = features if self.bottleneck else features[:-1]
        for conv in self.convs:
            x = F.relu(F.interpolate(conv(x), scale_factor=2, mode="bilinear", align_corners=False))
            if skips:
                x = x + skips[-1]
                skips = skips[:-1]
        return x
