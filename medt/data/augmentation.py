"""Random changes of training images, each a pure function of the image, its mask and a seed.

The only file that imports albumentations 2.0.8. Two of its habits are dealt with here: it asks the
package index for updates at import, and ``Compose.set_random_seed`` gives every transform a
generator with the *same* seed, so that two flips always happen together. ``set_random_state``
shares one generator instead.
"""

from __future__ import annotations

import os
import random
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medt.errors import UserError

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


class Augmentation:
    """Leaves image and mask as they are; what other augmentations derive from."""

    def __init__(self) -> None:
        self._pipelines: dict[tuple[int, ...], Any] = {}

    def __call__(self, image: NDArray[np.uint8], mask: NDArray[np.uint8], seed: int) -> Pair:
        """Change image and mask alike; the arguments are not written to.

        Args:
            image: (H, W, C) uint8.
            mask: (H, W) uint8 class ids, 255 = ignored.
            seed: non-negative; the same seed gives the same result in any process.

        Returns:
            New contiguous arrays of the same shapes and types.
        """
        pipeline = self._pipelines.get(image.shape)
        if pipeline is None:
            pipeline = self._pipelines[image.shape] = A.Compose(self.transforms(*image.shape))
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        changed = pipeline(image=image.copy(), mask=mask.copy())
        return (
            np.ascontiguousarray(changed["image"]).reshape(image.shape),
            np.ascontiguousarray(changed["mask"]),
        )

    def transforms(self, height: int, width: int, channels: int) -> list[Any]:
        """The transforms for images of this shape, in the order of their application."""
        return []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pipelines": {}}


class Flip(Augmentation):
    """Mirrors left to right and top to bottom, each with ``probability``."""

    def __init__(self, probability: float = 0.5) -> None:
        super().__init__()
        self.probability = _probability(probability, "probability")

    def transforms(self, height: int, width: int, channels: int) -> list[Any]:
        return [A.HorizontalFlip(p=self.probability), A.VerticalFlip(p=self.probability)]


class Histology(Augmentation):
    """For tissue, which has no up and down, in varying stain and sharpness.

    Flips always; quarter turns where images are square. Beyond an image's edge lies its mirror
    image, in the mask too.

    Args:
        affine_probability: of a turn, zoom and shift.
        rotation: largest turn in degrees, to either side.
        zoom: smallest and largest factor.
        shift: largest shift, as a fraction of the side.
        elastic_probability: of a smooth deformation.
        elastic_strength: standard deviation of its displacements, as a fraction of the shorter
            side.
        color_probability: of a change of colours: with 3 channels each its own, else all alike.
        color_gain: standard deviation of the factor, around the channel's mean.
        color_shift: standard deviation of the shift, in standard deviations of the channel.
        blur_probability: of a Gaussian blur of 0.3 to 1.2 pixels.
        noise_probability: of Gaussian noise with a deviation of 0.01 to 0.04 of full scale.

    Raises:
        UserError: a probability outside 0..1, or a zoom that is no range around positive numbers.
    """

    def __init__(
        self,
        affine_probability: float = 0.5,
        rotation: float = 45.0,
        zoom: tuple[float, float] = (0.8, 1.25),
        shift: float = 0.1,
        elastic_probability: float = 0.2,
        elastic_strength: float = 0.015,
        color_probability: float = 0.8,
        color_gain: float = 0.1,
        color_shift: float = 0.15,
        blur_probability: float = 0.1,
        noise_probability: float = 0.2,
    ) -> None:
        super().__init__()
        if len(zoom) != 2 or not 0 < zoom[0] <= zoom[1]:
            raise UserError(f"augmentation.zoom={list(zoom)} is no range", "e.g. [0.8, 1.25]")
        self.affine_probability = _probability(affine_probability, "affine_probability")
        self.rotation = float(rotation)
        self.zoom = (float(zoom[0]), float(zoom[1]))
        self.shift = float(shift)
        self.elastic_probability = _probability(elastic_probability, "elastic_probability")
        self.elastic_strength = float(elastic_strength)
        self.color_probability = _probability(color_probability, "color_probability")
        self.color_gain = float(color_gain)
        self.color_shift = float(color_shift)
        self.blur_probability = _probability(blur_probability, "blur_probability")
        self.noise_probability = _probability(noise_probability, "noise_probability")

    def transforms(self, height: int, width: int, channels: int) -> list[Any]:
        side = min(height, width)
        smoothness = max(side / 16, 1.0)  # the least that albumentations takes
        turns = [A.RandomRotate90(p=0.75)] if height == width else []  # 3 of 4 turns are one
        return [
            A.HorizontalFlip(p=0.5),
            A.VerticalFlip(p=0.5),
            *turns,
            A.Affine(
                scale=self.zoom,
                rotate=(-self.rotation, self.rotation),
                translate_percent=(-self.shift, self.shift),
                keep_ratio=True,
                balanced_scale=self.zoom[0] < 1 < self.zoom[1],
                border_mode=cv2.BORDER_REFLECT_101,
                p=self.affine_probability,
            ),
            A.ElasticTransform(
                # smoothing by sigma leaves 1 / (2 sqrt(pi) sigma) of the noise's deviation
                alpha=self.elastic_strength * side * 2 * np.sqrt(np.pi) * smoothness,
                sigma=smoothness,
                border_mode=cv2.BORDER_REFLECT_101,
                p=self.elastic_probability,
            ),
            _ColorJitter(self.color_gain, self.color_shift, p=self.color_probability),
            A.GaussianBlur(sigma_limit=(0.3, 1.2), p=self.blur_probability),
            A.GaussNoise(std_range=(0.01, 0.04), p=self.noise_probability),
        ]


class _ColorJitter(A.ImageOnlyTransform):  # type: ignore[misc]
    """x -> mean + (x - mean) (1 + gain n1) + shift std n2 with normal n1 and n2, per channel."""

    def __init__(self, gain: float, shift: float, p: float) -> None:
        super().__init__(p=p)
        self.gain, self.shift = gain, shift

    def get_params(self) -> dict[str, Any]:
        return {"draws": self.random_generator.normal(size=(2, 3))}

    def apply(
        self, img: NDArray[np.uint8], draws: NDArray[np.float64], **_: Any
    ) -> NDArray[np.uint8]:
        channels = img.shape[2]
        n1, n2 = draws if channels == 3 else np.repeat(draws[:, :1], channels, axis=1)
        planes = [np.ascontiguousarray(img[..., c]) for c in range(channels)]
        moments = np.array([cv2.meanStdDev(plane) for plane in planes])
        mean, std = moments.reshape(channels, 2).T
        levels = np.arange(256)[:, None]
        table = mean + (levels - mean) * (1 + self.gain * n1) + self.shift * std * n2
        table = np.clip(np.rint(table), 0, 255).astype(np.uint8)
        changed = [cv2.LUT(plane, column) for plane, column in zip(planes, table.T, strict=True)]
        return np.stack(changed, axis=-1)


def _probability(value: float, name: str) -> float:
    if not 0 <= value <= 1:
        raise UserError(
            f"augmentation.{name}={value} is no probability", "use a number from 0 to 1"
        )
    return float(value)
