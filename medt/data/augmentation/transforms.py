"""Transforms that albumentations does not have; `p` is the probability of each."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from medt.errors import UserError


class QuarterTurns(A.RandomRotate90):  # type: ignore[misc]
    """None to three quarter turns, each as likely; no change where the result is no square."""

    def fit(self, height: int, width: int) -> None:
        """Prepare for results of this size; where it is no square no number is drawn, either."""
        if height != width:
            self.p = 0.0


class Elastic(A.ElasticTransform):  # type: ignore[misc]
    """A smooth deformation by displacements whose strength goes with the image's size.

    Args:
        strength: standard deviation of the displacements, as a fraction of the shorter side.
        border_mode: what lies beyond the edge: 4 its mirror image, 1 the edge repeated.

    Raises:
        UserError: a strength below 0.
    """

    def __init__(
        self, strength: float, border_mode: int = cv2.BORDER_REFLECT_101, p: float = 0.5
    ) -> None:
        self.strength = _within(strength, "strength")
        super().__init__(border_mode=border_mode, p=p)

    def fit(self, height: int, width: int) -> None:
        """Prepare for results of this size."""
        side = min(height, width)
        self.sigma = max(side / 16, 1.0)  # the least that albumentations takes
        # Smoothing by sigma leaves 1 / (2 sqrt(pi) sigma) of the noise's deviation.
        self.alpha = self.strength * side * 2 * math.sqrt(math.pi) * self.sigma


class ColorJitter(A.ImageOnlyTransform):  # type: ignore[misc]
    """x -> mean + (x - mean) (1 + gain n1) + shift std n2 with normal n1 and n2, per channel.

    Only the three channels of an image in colour have draws of their own: three equal ones are a
    grey image and stay one.

    Args:
        gain: standard deviation of the factor, around the channel's mean.
        shift: standard deviation of the shift, in standard deviations of the channel.

    Raises:
        UserError: one of them is below 0.
    """

    def __init__(self, gain: float, shift: float, p: float = 0.5) -> None:
        super().__init__(p=p)
        self.gain, self.shift = _within(gain, "gain"), _within(shift, "shift")

    def get_params(self) -> dict[str, Any]:
        return {"draws": self.random_generator.normal(size=(2, 3))}

    def apply(self, img: NDArray[Any], draws: NDArray[np.float64], **_: Any) -> NDArray[Any]:
        channels = img.shape[2]
        colored = channels == 3 and bool(np.any(img[..., :1] != img[..., 1:]))
        n1, n2 = draws if colored else np.repeat(draws[:, :1], channels, axis=1)
        planes = [np.ascontiguousarray(img[..., c]) for c in range(channels)]
        moments = np.array([cv2.meanStdDev(plane) for plane in planes])
        mean, std = moments.reshape(channels, 2).T
        if img.dtype != np.uint8:
            jittered = mean + (img - mean) * (1 + self.gain * n1) + self.shift * std * n2
            return np.asarray(np.clip(jittered, 0, 1), np.float32)
        levels = np.arange(256)[:, None]
        table = mean + (levels - mean) * (1 + self.gain * n1) + self.shift * std * n2
        table = np.clip(np.rint(table), 0, 255).astype(np.uint8)
        changed = [cv2.LUT(plane, column) for plane, column in zip(planes, table.T, strict=True)]
        return np.stack(changed, axis=-1)


class _Factor(A.ImageOnlyTransform):  # type: ignore[misc]
    """x -> x times a random field, the same for all channels: what is black stays black."""

    most = 1.0  # strength

    def __init__(self, strength: float, p: float = 0.5) -> None:
        super().__init__(p=p)
        self.strength = _within(strength, "strength", self.most)

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        height, width = params["shape"][:2]
        return {"field": self.field(height, width)}

    @abstractmethod
    def field(self, height: int, width: int) -> NDArray[np.floating]:
        """Factors >= 0 that broadcast to (height, width)."""

    def apply(self, img: NDArray[Any], field: NDArray[np.floating], **_: Any) -> NDArray[Any]:
        changed = img * field[..., None]
        if img.dtype != np.uint8:
            return np.asarray(np.clip(changed, 0, 1), np.float32)
        return np.asarray(np.clip(np.rint(changed), 0, 255), np.uint8)


class DepthGain(_Factor):
    """Gain over depth: factors within 1 +- strength at the top, a third, two thirds, the bottom."""

    def field(self, height: int, width: int) -> NDArray[np.floating]:
        knots = 1 + self.random_generator.uniform(-self.strength, self.strength, 4)
        gain = np.interp(np.linspace(0, 3, height), np.arange(4), knots)
        return np.asarray(gain[:, None])


class Shadow(_Factor):
    """An acoustic shadow: below some depth, and down to the bottom, a darker column.

    Across it has a Gaussian profile with a deviation of 4 to 15 % of the width, and at its deepest
    it takes half of the strength to all of it away.
    """

    def field(self, height: int, width: int) -> NDArray[np.floating]:
        draw = self.random_generator.uniform
        depth, centre, spread = draw(0.1, 0.7), draw(0, 1), draw(0.04, 0.15)
        strength = self.strength * draw(0.5, 1)
        rows, columns = np.linspace(0, 1, height), np.linspace(0, 1, width)
        onset = np.clip((rows - depth) / 0.1, 0, 1)
        profile = np.exp(-0.5 * ((columns - centre) / spread) ** 2)
        return np.asarray(1 - strength * onset[:, None] * profile)


class Speckle(_Factor):
    """Multiplicative noise with grains of half a pixel to 1.5 pixels: 1 + strength n, n normal."""

    most = np.inf

    def field(self, height: int, width: int) -> NDArray[np.floating]:
        noise = self.random_generator.standard_normal((height, width), np.float32)
        grain = self.random_generator.uniform(0.5, 1.5)
        smooth = np.asarray(cv2.GaussianBlur(noise, (0, 0), grain))
        smooth /= max(float(smooth.std()), 1e-6)
        return np.maximum(1 + self.strength * smooth, 0)


def _within(value: float, name: str, most: float = np.inf) -> float:
    """The number, or a UserError that names it where it lies outside 0..most."""
    if not 0 <= value <= most or value == np.inf:
        hint = "give at least 0" if most == np.inf else f"give a number from 0 to {most:g}"
        raise UserError(f"{name}={value} is out of range", hint)
    return float(value)
