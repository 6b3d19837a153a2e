"""Training cases as the network gets them: beside the image, what the augmentation makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from medt.data.dataset import SegmentationDataset
from medt.data.labels import Labels
from medt.data.layout import Case
from medt.data.preprocessing import Preprocessing
from medt.drawing import Color, Picture, contact_sheet, outlined, strip
from medt.errors import UserError
from medt.io.images import read_samples

Item = TypeVar("Item")


class Tiles(NamedTuple):
    """How images are drawn: the height of each in pixels, and of the outlines of its mask."""

    height: int
    thickness: int

    def fitting(self, *sizes: tuple[int, ...]) -> int:
        """The height, or less where a picture of one of these (H, W) would get too wide."""
        return max(16, min(self.height, *(round(2 * self.height * h / w) for h, w in sizes)))


LARGE_OBJECTS = Tiles(256, 2)
SMALL_OBJECTS = Tiles(448, 1)
SMALL = 1 / 25  # of the image's height


def tiles_for(across: float) -> Tiles:
    """How to draw objects that measure this share of their image's height."""
    return SMALL_OBJECTS if across < SMALL else LARGE_OBJECTS


def draw_preview(
    dataset: SegmentationDataset,
    versions: int,
    colors: Sequence[Color],
    tiles: Tiles = LARGE_OBJECTS,
) -> Picture:
    """A row a case: the file, then the case as epochs 1 to ``versions`` of a training give it.

    Args:
        dataset: the cases to draw, loaded as in the training.
        colors: RGB per class id.
        tiles: how to draw them.

    Raises:
        UserError: a case cannot be loaded.
    """
    rows = []
    for index, case in enumerate(dataset.cases):
        pixels, ids = read_pair(case, dataset.labels, dataset.preprocessing.page)
        loaded = [dataset[epoch, index] for epoch in range(1, versions + 1)]
        pictures = [picture_of(item["image"], dataset.preprocessing) for item in loaded]
        height = tiles.fitting(*(p.shape[:2] for p in (pixels, *pictures)))
        row = [("the file", outlined(pixels, ids, colors, height, tiles.thickness))]
        for epoch, (item, picture) in enumerate(zip(loaded, pictures, strict=True), start=1):
            mask = item["mask"].numpy()
            row.append((f"epoch {epoch}", outlined(picture, mask, colors, height, tiles.thickness)))
        rows.append(strip(row, case.name))
    return contact_sheet(rows)


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of the items, evenly spread."""
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def read_pair(
    case: Case, labels: Labels, page: int | None = None
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """A case's image as its file stores it, without alpha, and its mask (H, W) as class ids.

    Args:
        page: which image of a stack, from 0.

    Raises:
        UserError: a file is missing or unreadable, or the mask holds what is no class.
    """
    if case.mask is None:
        raise UserError(f"Case {case.name} has no mask", "only pairs can be shown")
    return read_samples(case.image, page).opaque(), labels.read(case.mask, page)


def picture_of(image: torch.Tensor, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The image (H, W, C) that became this tensor (C, H, W)."""
    pixels = image.permute(1, 2, 0).numpy() * preprocessing.std + preprocessing.mean
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
