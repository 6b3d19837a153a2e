"""The two-branch networks: LoGo and MedT (section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medt.models.axial_attention import GateOrder, Position
from medt.models.axial_unet import decoder_channels, stage_widths
from medt.models.blocks import Decoder, Encoder
from medt.models.recorded import Recorded
from medt.models.sizes import as_size, check_size
from medt.signatures import COUNT, POSITIVE

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
