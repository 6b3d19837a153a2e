"""The one-branch networks: axial attention U-Net, plain and gated (MedT, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from medt.models.axial_attention import GateOrder, Position
from medt.models.blocks import BASE_WIDTH, Decoder, Encoder
from medt.models.recorded import Recorded
from medt.models.sizes import as_size, check_size
from medt.signatures import COUNT, POSITIVE


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
