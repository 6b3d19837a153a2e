"""The pieces that the one-branch and two-branch networks share (MedT, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from medt.models.axial_attention import AxialAttention, GateOrder, Position

# The middle of the stem and the base of the inner widths: both 128 in the official code.
STEM_CHANNELS = 128
BASE_WIDTH = 128

Size = tuple[int, int]


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
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return F.relu(self.bn3(self.conv3(x)), inplace=True)


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
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.down_norm(self.down(x)))
        y = F.relu(self.width(self.height(y)))
        return F.relu(self.up_norm(self.up(y)) + self.shortcut(x))


class Encoder(nn.Module):
    """A stem and stages of axial blocks; every stage but the first halves the size.

    Maps (N, in_channels, H, W) to one feature map a stage: stage i (from 0) has 2 * widths[i]
    channels at 1 / 2 ** (i + 1) of the input's size.
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
    ) -> None:
        super().__init__()
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
            x = stage(x)
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
