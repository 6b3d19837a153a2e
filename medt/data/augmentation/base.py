"""What augmentations share: one random state a call, geometry first, and the crop in between."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from medt.errors import UserError

Pair = tuple[NDArray[Any], NDArray[np.uint8]]


class Augmentation:
    """Leaves image and mask as they are; what other augmentations derive from."""

    def __init__(self) -> None:
        self._pipelines: dict[tuple[int, ...], Any] = {}

    def __call__(
        self,
        image: NDArray[Any],
        mask: NDArray[np.uint8],
        seed: int,
        size: tuple[int, int] | None = None,
    ) -> Pair:
        """Change image and mask alike; the arguments are not written to.

        Args:
            image: (H, W, C) uint8, or float32 in 0..1.
            mask: (H, W) uint8 class ids, 255 = ignored.
            seed: non-negative; the same seed gives the same result in any process.
            size: (h, w) of the result, cut from the middle after the changes of geometry, which
                so draw from what surrounds it; None keeps (H, W).

        Returns:
            New contiguous arrays of the same types, (h, w, C) and (h, w).
        """
        height, width, channels = image.shape
        size = (height, width) if size is None else size
        key = (height, width, channels, *size)
        pipeline = self._pipelines.get(key)
        if pipeline is None:
            cut = [A.CenterCrop(*size)] if size != (height, width) else []
            changes = [*self.geometry(*size), *cut, *self.appearance(*size, channels)]
            pipeline = self._pipelines[key] = A.Compose(changes)
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        changed = pipeline(image=image.copy(), mask=mask.copy())
        return (
            np.ascontiguousarray(changed["image"]).reshape(*size, channels),
            np.ascontiguousarray(changed["mask"]),
        )

    def geometry(self, height: int, width: int) -> list[Any]:
        """The transforms that move pixels, of image and mask, for results of this size."""
        return []

    def appearance(self, height: int, width: int, channels: int) -> list[Any]:
        """The transforms that follow: of the image's values only."""
        return []

    def margin(self, height: int, width: int) -> tuple[int, int]:
        """Pixels above and below, left and right of a result that its geometry draws from."""
        return 0, 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pipelines": {}}


class Flip(Augmentation):
    """Mirrors left to right and top to bottom, each with ``probability``."""

    def __init__(self, probability: float = 0.5) -> None:
        super().__init__()
        self.probability = as_probability(probability, "probability")

    def geometry(self, height: int, width: int) -> list[Any]:
        return [A.HorizontalFlip(p=self.probability), A.VerticalFlip(p=self.probability)]


class Deformation(Augmentation):
    """Flips and quarter turns, an affine change, a smooth deformation; of values nothing.

    Flips have a probability of 0.5; quarter turns need a square image.

    Args:
        affine_probability: of a turn, zoom and shift.
        rotation: largest turn in degrees, to either side.
        zoom: smallest and largest factor.
        shift: largest shift, as a fraction of the side.
        elastic_probability: of a smooth deformation.
        elastic_strength: standard deviation of its displacements, as a fraction of the shorter
            side.
        upright: whether up and down differ, so that only left and right are mirrored.
        border: of OpenCV, what lies beyond the edge: the mirror image, or the edge repeated.

    Raises:
        UserError: a probability outside 0..1, a negative strength, or a zoom that is no range.
    """

    def __init__(
        self,
        affine_probability: float,
        rotation: float,
        zoom: tuple[float, float],
        shift: float,
        elastic_probability: float,
        elastic_strength: float,
        upright: bool = False,
        border: int = cv2.BORDER_REFLECT_101,
    ) -> None:
        super().__init__()
        self.affine_probability = as_probability(affine_probability, "affine_probability")
        self.rotation = as_strength(rotation, "rotation")
        self.zoom = as_range(zoom, "zoom")
        self.shift = as_strength(shift, "shift")
        self.elastic_probability = as_probability(elastic_probability, "elastic_probability")
        self.elastic_strength = as_strength(elastic_strength, "elastic_strength")
        self.upright = bool(upright)
        self.border = border

    def geometry(self, height: int, width: int) -> list[Any]:
        side = min(height, width)
        smoothness = max(side / 16, 1.0)  # the least that albumentations takes
        flips = [A.HorizontalFlip(p=0.5)]
        if not self.upright:
            flips.append(A.VerticalFlip(p=0.5))
            if height == width:
                flips.append(A.RandomRotate90(p=0.75))  # 3 of 4 turns are one
        return [
            *flips,
            A.Affine(
                scale=self.zoom,
                rotate=(-self.rotation, self.rotation),
                translate_percent=(-self.shift, self.shift),
                keep_ratio=True,
                balanced_scale=self.zoom[0] < 1 < self.zoom[1],
                border_mode=self.border,
                p=self.affine_probability,
            ),
            A.ElasticTransform(
                # smoothing by sigma leaves 1 / (2 sqrt(pi) sigma) of the noise's deviation
                alpha=self.elastic_strength * side * 2 * np.sqrt(np.pi) * smoothness,
                sigma=smoothness,
                border_mode=self.border,
                p=self.elastic_probability,
            ),
        ]

    def margin(self, height: int, width: int) -> tuple[int, int]:
        """What the largest turn at the smallest zoom needs; a shift on top may show the mirror."""
        if not self.affine_probability:
            return 0, 0
        steepest = math.radians(min(self.rotation, 90))
        turned = math.atan2(width, height), math.atan2(height, width)  # where each side is longest
        tall = _turned(height, width, min(steepest, turned[0])) / self.zoom[0]
        wide = _turned(width, height, min(steepest, turned[1])) / self.zoom[0]
        return _half(tall - height), _half(wide - width)


def as_probability(value: float, name: str) -> float:
    """The number, or a UserError that names the setting where it is outside 0..1."""
    if not 0 <= value <= 1:
        raise UserError(
            f"augmentation.{name}={value} is no probability", "use a number from 0 to 1"
        )
    return float(value)


def as_range(values: Sequence[float], name: str) -> tuple[float, float]:
    """The two numbers, or a UserError that names the setting where they are no range above 0."""
    if len(values) != 2 or not 0 < values[0] <= values[1] < math.inf:
        raise UserError(f"augmentation.{name}={list(values)} is no range", "e.g. [0.8, 1.25]")
    return float(values[0]), float(values[1])


def as_strength(value: float, name: str) -> float:
    """The number, or a UserError that names the setting where it is negative or not finite."""
    if not 0 <= value < math.inf:
        raise UserError(f"augmentation.{name}={value} is out of range", "give at least 0")
    return float(value)


def _turned(side: float, other: float, angle: float) -> float:
    """The extent along ``side`` of the rectangle side x other, turned."""
    return side * math.cos(angle) + other * math.sin(angle)


def _half(excess: float) -> int:
    return max(0, math.ceil(excess / 2))
