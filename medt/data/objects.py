"""Objects as a target: what a network learns beside the classes, so that touching ones are parted.

A network with this target gives one output more than there are classes, which says for each pixel
how near the edge of its object lies: as the border of the object, or as the distance to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medt.data.layout import Case
from medt.errors import UserError
from medt.io.images import read_mask
from medt.metrics.pixel import IGNORE_INDEX

KINDS = ("none", "borders", "distance")
FULL = 250  # of the target's byte stands for 1
# However thin an object is, so much of its greatest depth stays interior.
INTERIOR = 0.5
LOOKED_AT = 100  # cases that tell how large objects are


@dataclass(frozen=True)
class ObjectTarget:
    """How numbered objects become a target for a network.

    Attributes:
        kind: "borders": 1 within `width` of the edge of an object, twice as wide where another
            object is as near, and on the background between them; 0 elsewhere. "distance": the
            distance to the object's edge relative to the object's greatest, 0 on the background.
        width: of borders, in pixels of the network's input.

    Raises:
        UserError: the kind is not known, or the width below 1.
    """

    kind: str
    width: int = 2

    def __post_init__(self) -> None:
        if self.kind not in KINDS[1:]:
            raise UserError(
                f"dataset.objects={self.kind} is not known", f"choose one of {', '.join(KINDS)}"
            )
        if self.width < 1:
            raise UserError(f"dataset.border_width={self.width} is out of range", "give at least 1")

    def of(self, instances: NDArray[Any], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The target of one image.

        Args:
            instances: (H, W) object numbers, 0 = none, at most 2**24. What is in several pieces
                counts as several objects; the image's edge is no edge of an object.
            mask: (H, W) class ids, 255 = ignored.

        Returns:
            (H, W) uint8: 0 to `FULL` stand for 0 to 1, 255 = ignored.
        """
        numbers = np.where(mask == IGNORE_INDEX, 0, instances)
        target = np.zeros(mask.shape, np.float32)
        near = _near_another(numbers, self.width) if self.kind == "borders" else None
        for place, depth, deepest in _depths(numbers):
            inside = depth > 0
            if near is None:
                np.copyto(target[place], depth / deepest, where=inside)
            else:
                reach = np.where(near[place], 2 * self.width, self.width)
                border = inside & (depth <= np.minimum(reach, INTERIOR * deepest))
                np.copyto(target[place], 1, where=border)
        if near is not None:
            target[near & (numbers == 0)] = 1
        found = np.rint(FULL * target).astype(np.uint8)
        found[mask == IGNORE_INDEX] = IGNORE_INDEX
        return found


def typical_area(cases: Sequence[Case], page: int | None) -> int | None:
    """Pixels of the median object of cases, at their own size; None if there is no object.

    Args:
        cases: of which at most `LOOKED_AT`, evenly spread, are looked at.
        page: which image of a stack, from 0.

    Raises:
        UserError: a file of numbered objects cannot be read.
    """
    files = [case.instances for case in cases if case.instances is not None]
    step = -(-len(files) // LOOKED_AT) or 1
    counted = [np.unique(read_mask(file, page), return_counts=True) for file in files[::step]]
    found = [count[number > 0] for number, count in counted]
    pixels = np.concatenate(found) if found else np.zeros(0)
    return max(1, round(float(np.median(pixels)))) if pixels.size else None


def _depths(
    numbers: NDArray[Any],
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.float32], NDArray[np.float32]]]:
    """For each object its box, its pixels' distance to its edge (0 outside of it), and the greatest
    distance in the pixel's piece of it."""
    around = np.pad(numbers, 1, mode="edge")
    for number, box in enumerate(ndimage.find_objects(numbers.astype(np.int64)), start=1):
        if box is None:
            continue
        rows, columns = (slice(one.start, one.stop + 2) for one in box)
        alone = (around[rows, columns] == number).astype(np.uint8)
        depth = cv2.distanceTransform(alone, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        if alone.all():  # no edge in sight
            depth = np.full(alone.shape, max(alone.shape), np.float32)
        _, pieces = cv2.connectedComponents(alone, connectivity=8)
        depth, pieces = depth[1:-1, 1:-1], pieces[1:-1, 1:-1]
        deepest = np.ones(int(pieces.max()) + 1, np.float32)
        np.maximum.at(deepest, pieces, depth)
        yield box, depth, deepest[pieces]


def _near_another(numbers: NDArray[Any], width: int) -> NDArray[np.bool_]:
    """Where at least two objects lie within `width`."""
    window = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))
    found = numbers.astype(np.float32)
    largest = cv2.dilate(found, window)
    far = np.float32(2**25)
    smallest = cv2.erode(np.where(found > 0, found, far), window)
    near: NDArray[np.bool_] = (smallest < far) & (smallest != largest)
    return near
