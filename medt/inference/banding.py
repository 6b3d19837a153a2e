"""Parts of large images: which rows go through a network together, and resizing row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 1024  # of a band, about


@dataclass(frozen=True)
class Band:
    """Rows ``first`` to ``last`` (exclusive), which need the image's rows ``top`` to ``bottom``."""

    first: int
    last: int
    top: int
    bottom: int


def window_bands(height: int, window: int, overlap: float, rows: int = ROWS) -> Iterator[Band]:
    """Bands that give a sliding window's result on the whole image.

    Windows start at every multiple of their step, and the last one ends with the image, as in
    MONAI's `sliding_window_inference`. A band takes in every window that reaches its rows, and ends
    where one of them does, so that these are the windows of the whole image.

    Args:
        height: of the image, at least `window`.
        window: rows of a window.
        overlap: of neighbouring windows, a share of their size.
        rows: of a band, rounded to whole steps.
    """
    step = max(1, int(window * (1 - overlap)))
    tall = max(1, rows // step) * step
    for first in range(0, height, tall):
        last = min(first + tall, height)
        top = min(max(0, -(-(first - window + 1) // step)) * step, height - window)
        bottom = (last - 1) // step * step + window
        if last > height - window:  # the last window, moved up to fit, reaches them
            bottom = height
        yield Band(first, last, top, min(bottom, height))


def resized_columns(planes: Tensor, width: int) -> Tensor:
    """(N, h, w) -> (N, h, width), bilinearly between pixel centres."""
    return F.interpolate(
        planes[None], size=(planes.shape[1], width), mode="bilinear", align_corners=False
    )[0]


def resized_rows(planes: Tensor, height: int, first: int, last: int) -> Tensor:
    """Rows `first` to `last` (exclusive) of (N, h, w) resized to `height` rows: (N, rows, w).

    As `torch.nn.functional.interpolate` with mode "bilinear" and align_corners=False.
    """
    h = planes.shape[1]
    centres = torch.arange(first, last, dtype=torch.float64, device="cpu") + 0.5
    at = (centres * h / height - 0.5).clamp(min=0)
    above = at.long()
    below = (above + 1).clamp(max=h - 1)
    share = (at - above).float().to(planes.device)[:, None]
    above, below = above.to(planes.device), below.to(planes.device)
    return torch.lerp(planes[:, above], planes[:, below], share)
