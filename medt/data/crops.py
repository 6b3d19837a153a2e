"""Where crops are taken, and cutting them out: all at the image's own resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medt.errors import UserError
from medt.metrics.pixel import IGNORE_INDEX


class Sample(NamedTuple):
    """An image and what is known of it, pixel by pixel.

    Attributes:
        image: (H, W, C), uint8 or float32.
        mask: (H, W) class ids, 255 = ignored.
        instances: (H, W) object numbers, 0 = none; None where they are not asked for.
    """

    image: NDArray[Any]
    mask: NDArray[np.uint8]
    instances: NDArray[Any] | None = None


@dataclass(frozen=True)
class Crops:
    """How a training takes crops.

    Attributes:
        foreground: the share of crops that are centred on a pixel of foreground, 0..1, of a class
            that is drawn among those the image shows; the others lie anywhere.
        per_case: crops of each image in an epoch.
    """

    foreground: float = 0.5
    per_case: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.foreground <= 1 or self.per_case < 1:
            raise UserError(
                f"{self.per_case} crops a case, a share of {self.foreground} on foreground",
                "give at least one crop, and a share from 0 to 1",
            )

    def place(
        self, mask: NDArray[np.uint8], size: tuple[int, int], rng: np.random.Generator
    ) -> tuple[int, int]:
        """Draw the upper left corner of a crop that lies inside the image.

        Args:
            mask: (H, W) class ids, 255 = ignored; at least `size`.
            size: (h, w) of the crop.
            rng: decides everything.
        """
        room = mask.shape[0] - size[0], mask.shape[1] - size[1]
        wanted = rng.random() < self.foreground
        centre = _foreground_pixel(mask, rng) if wanted else None
        if centre is None:
            return int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1))
        top, left = (c - n // 2 for c, n in zip(centre, size, strict=True))
        return min(max(top, 0), room[0]), min(max(left, 0), room[1])


def cut(
    sample: Sample,
    corner: tuple[int, int],
    size: tuple[int, int],
    margin: tuple[int, int] = (0, 0),
) -> Sample:
    """A crop with a margin around it; beyond the image lies its mirror image, ignored in the mask.

    Args:
        sample: a whole image.
        corner: row and column of the crop's upper left pixel.
        size: (h, w) of the crop.
        margin: pixels added above and below, left and right.

    Returns:
        Copies (h + 2 margin[0], w + 2 margin[1], C) and without C.
    """
    image, mask, instances = sample
    spans = [(c - m, c + n + m) for c, n, m in zip(corner, size, margin, strict=True)]
    rows, columns = (mirrored(*span, n) for span, n in zip(spans, mask.shape, strict=True))
    labels = mask[rows][:, columns]
    for axis, (span, n) in enumerate(zip(spans, mask.shape, strict=True)):
        beyond = [not 0 <= i < n for i in range(*span)]
        labels[(slice(None),) * axis + (beyond,)] = IGNORE_INDEX
    numbers = None if instances is None else instances[rows][:, columns]
    return Sample(image[rows][:, columns], labels, numbers)


def mirrored(start: int, stop: int, length: int) -> NDArray[np.intp]:
    """The indices start..stop - 1 of an axis that is continued by its mirror image on both sides.

    The first and last element are not repeated; an axis of one element repeats it.
    """
    if length == 1:
        return np.zeros(stop - start, np.intp)
    turn = length - 1
    return np.abs((np.arange(start, stop) + turn) % (2 * turn) - turn)


def _foreground_pixel(mask: NDArray[np.uint8], rng: np.random.Generator) -> tuple[int, int] | None:
    """Row and column of a pixel of a class drawn among those present; None where there is none."""
    counts = np.bincount(mask.ravel(), minlength=IGNORE_INDEX + 1)[1:IGNORE_INDEX]
    present = np.flatnonzero(counts) + 1
    if not len(present):
        return None
    pixels = np.flatnonzero(mask == rng.choice(present))
    row, column = divmod(int(rng.choice(pixels)), mask.shape[1])
    return row, column
