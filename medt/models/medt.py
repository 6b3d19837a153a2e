"""The networks of the paper: axial blocks, the U-Nets of them, LoGo and MedT (section 3)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from medt.models.attention import AttentionNorm, AxialAttention, GateOrder, Position
from medt.models.recorded import Recorded
from medt.models.sizes import as_size, check_size
from medt.signatures import COUNT, POSITIVE

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


class AxialUNet(Recorded):
    """Encoder of axial blocks and a decoder of 3x3 convolutions.

    Maps an image (N, channels, H, W) to logits (N, classes, H, W).

    Args:
        channels: channels of the image.
        classes: classes, background included.
        image_size: the largest size (or height and width) in pixels to be given to the network;
            it sets the position tables. Height and width must be multiples of
            2 ** (stages + 1): 32 for four stages.
        width_factor: scales the channels; 0.125 is the paper's.
        depths: blocks in each stage.
        heads: attention heads.
        position: "none", "plain" or "gated".
        gate: see `AxialAttention`.
        checkpointing: spend time to save memory in training, see `Encoder`.

    Raises:
        UserError: for a size that the strides do not divide, here and in `forward`.
        ValueError: for channels that the heads do not divide, and in `forward` for an image larger
            than `image_size`.
    """

    def __init__(
        self,
        channels: int = 3,
        classes: int = 2,
        image_size: int | Sequence[int] = 128,
        width_factor: Annotated[float, POSITIVE] = 0.125,
        depths: Annotated[Sequence[int], COUNT] = (1, 2, 4, 1),
        heads: Annotated[int, COUNT] = 8,
        position: Position = "plain",
        gate: GateOrder = "before_norm",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        size = as_size(image_size)
        self.multiples = (2 ** (len(depths) + 1),) * 2
        check_size(size, self.multiples, type(self).__name__)
        widths = stage_widths(width_factor, len(depths))
        stem_channels = round(64 * width_factor)
        self.branch = Encoder(
            channels, stem_channels, widths, depths, size, heads, position, gate, checkpointing
        )
        self.decoder = Decoder(2 * widths[-1], decoder_channels(widths), bottleneck=True)
        self.head = nn.Conv2d(widths[0], classes, 1)
        # Convolutions with few channels are faster so, and their outputs follow their weights.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        check_size((x.shape[2], x.shape[3]), self.multiples, type(self).__name__)
        # The official code has a relu here, on a relu's output.
        logits: Tensor = self.head(self.decoder(self.branch(x)))
        return logits


class GatedAxialUNet(AxialUNet):
    """`AxialUNet` with gated positions, the paper's "Gated Axial Attention U-Net".

    Takes the arguments of `AxialUNet`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"position": "gated"} | kwargs)


def stage_widths(width_factor: float, stages: int) -> list[int]:
    """Inner widths of the stages: 128 s, doubled from stage to stage.

    Raises:
        ValueError: there would be no channel.
    """
    if round(64 * width_factor) < 1:
        raise ValueError(f"width_factor={width_factor} leaves no channel")
    return [round(BASE_WIDTH * width_factor) * 2**stage for stage in range(stages)]


def decoder_channels(widths: Sequence[int]) -> list[int]:
    """Output channels of a decoder with a bottleneck: the stages' outputs and, last, widths[0]."""
    return [2 * width for width in reversed(widths)] + [widths[0]]


# Ends the local stem in the official code whatever the width; its weights depend on it.
LOCAL_STEM_CHANNELS = 64


class LocalGlobalNet(Recorded):
    """A shallow global branch on the image and a deep local one on its patches, added.

    Maps an image (N, channels, H, W) to logits (N, classes, H, W). The defaults are MedT's. The
    patches of all images are one batch for the local branch, so that its norms see all of them.

    Args:
        channels: channels of the image.
        classes: classes, background included.
        image_size: the largest size (or height and width) in pixels to be given to the network;
            it sets the position tables. Multiples of grid x 2 ** (local stages + 1): 128 for a
            4 x 4 grid and four stages.
        width_factor: scales the channels; 0.125 is the paper's.
        global_depths, local_depths: blocks in each stage of a branch.
        heads: attention heads.
        grid: patches down and across.
        global_position, local_position: "none", "plain" or "gated".
        gate: see `AxialAttention`.
        checkpointing: spend time to save memory in training, see `Encoder`.

    Raises:
        UserError: for a size that the strides and the grid do not divide, here and in `forward`.
        ValueError: for channels that the heads do not divide, and in `forward` for an image larger
            than `image_size`.
    """

    def __init__(
        self,
        channels: int = 3,
        classes: int = 2,
        image_size: int | Sequence[int] = 128,
        width_factor: Annotated[float, POSITIVE] = 0.125,
        global_depths: Annotated[Sequence[int], COUNT] = (1, 2),
        local_depths: Annotated[Sequence[int], COUNT] = (1, 2, 4, 1),
        heads: Annotated[int, COUNT] = 8,
        grid: Sequence[int] = (4, 4),
        global_position: Position = "gated",
        local_position: Position = "none",
        gate: GateOrder = "before_norm",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        size = as_size(image_size)
        self.grid = as_size(grid)
        patch = max(2 ** (len(local_depths) + 1), 2 ** len(global_depths))
        self.multiples = (self.grid[0] * patch, self.grid[1] * patch)
        check_size(size, self.multiples, type(self).__name__)
        patch_size = (size[0] // self.grid[0], size[1] // self.grid[1])

        widths = stage_widths(width_factor, len(global_depths))
        stem_channels = round(64 * width_factor)
        self.branch = Encoder(
            channels,
            stem_channels,
            widths,
            global_depths,
            size,
            heads,
            global_position,
            gate,
            checkpointing,
        )
        self.decoder = Decoder(2 * widths[-1], decoder_channels(widths)[1:], bottleneck=False)

        widths = stage_widths(width_factor, len(local_depths))
        self.local_branch = Encoder(
            channels,
            LOCAL_STEM_CHANNELS,
            widths,
            local_depths,
            patch_size,
            heads,
            local_position,
            gate,
            checkpointing,
        )
        self.local_decoder = Decoder(2 * widths[-1], decoder_channels(widths), bottleneck=True)
        self.fuse = nn.Conv2d(widths[0], widths[0], 3, padding=1)
        self.head = nn.Conv2d(widths[0], classes, 1)
        # Convolutions with few channels are faster so, and their outputs follow their weights.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        check_size((x.shape[2], x.shape[3]), self.multiples, type(self).__name__)
        whole = self.decoder(self.branch(x))
        patches = self.local_decoder(self.local_branch(split_patches(x, self.grid)))
        fused = self.fuse(whole + join_patches(patches, self.grid))
        # The official code's relu on a relu's output, so one suffices.
        logits: Tensor = self.head(F.relu(fused, inplace=True))
        return logits


class LoGo(LocalGlobalNet):
    """Local-global training (MedT, section 4.2): plain positions in both branches.

    Takes the arguments of `LocalGlobalNet`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        plain = {"global_position": "plain", "local_position": "plain"}
        super().__init__(*args, **plain | kwargs)


class MedT(LocalGlobalNet):
    """The Medical Transformer: gated positions in the global branch, none in the local one.

    Takes the arguments of `LocalGlobalNet`.
    """


def split_patches(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """(N, C, H, W) to (N * rows * columns, C, H / rows, W / columns), in row-major order."""
    n, channels, height, width = x.shape
    rows, columns = grid
    x = x.view(n, channels, rows, height // rows, columns, width // columns)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def join_patches(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """The inverse of `split_patches`."""
    rows, columns = grid
    _, channels, height, width = x.shape
    x = x.view(-1, rows, columns, channels, height, width)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, rows * height, columns * width)
