"""How the values of an image become the scale 0..1 that the network's input is made of.

Images of 8 bits stay as they are, 255 being 1; all others keep every value, in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medt.errors import UserError

DEVIATIONS = 5.0  # of a z-score, to either side, that the scale 0..1 holds


@dataclass(frozen=True)
class Intensity:
    """What becomes 0 and what becomes 1; without any of these the ends of the image's own type.

    Attributes:
        percentile: where given, such as 0.5, the values of each image between its 0.5 and 99.5
            percentiles are stretched, all its channels alike.
        window: the two values that become 0 and 1, in any image.
        clip: whether values beyond the window become 0 and 1, too; else they stay beyond.
        zscore: whether each channel's mean becomes 0.5 and 5 of its deviations to either side 0
            and 1; what lies beyond is clipped.
        eight_bit: whether all values are rounded to 8 bits, as they once were: early checkpoints.
    """

    percentile: float | None = None
    window: tuple[float, float] | None = None
    clip: bool = True
    zscore: bool = False
    eight_bit: bool = False

    def __post_init__(self) -> None:
        if self.percentile is not None and not 0 <= self.percentile < 50:
            raise UserError(
                f"Percentile {self.percentile} is impossible", "give at least 0 and below 50"
            )
        window = self.window
        if window is not None:
            ends = len(window) == 2 and all(math.isfinite(end) for end in window)
            if not ends or window[0] >= window[1]:
                raise UserError(
                    f"dataset.window={list(window)} is no range",
                    "give two numbers, the lower one first, such as [-160,240]",
                )
        ways = (self.percentile is not None) + (window is not None) + self.zscore
        if ways > 1 or (self.eight_bit and ways > (self.percentile is not None)):
            raise UserError(
                "Values can be brought to 0..1 in one way only",
                "of percentile, window and zscore give one; 8 bits go with percentile alone",
            )

    @property
    def by_type(self) -> bool:
        """Whether the image's type alone says what is 0 and 1."""
        return self.percentile is None and self.window is None and not self.zscore

    def scaled(self, pixels: NDArray[Any], name: str) -> NDArray[Any]:
        """Bring values to the scale 0..1.

        Args:
            pixels: (H, W, C) of any real type.
            name: what an error calls the image.

        Returns:
            The same shape: uint8, of which 255 is 1, of 8 bit images (and bool) by their type or
            percentiles, and of all with ``eight_bit``; else float32.

        Raises:
            UserError: the type is not real, its range is not known, or a value is not finite.
        """
        check_values(pixels, name)
        small = self.eight_bit or pixels.dtype in (np.uint8, bool)
        if self.zscore:
            return _standardised(pixels)
        if self.window is not None:
            shares = _shares(pixels, *self.window).astype(np.float32)
            return np.asarray(np.clip(shares, 0, 1) if self.clip else shares)
        if self.percentile is not None:
            shares = np.clip(_shares(pixels, *_ends(pixels, self.percentile)), 0, 1)
            if small:
                return np.asarray(np.rint(shares * 255), np.uint8)
            return np.asarray(shares, np.float32)
        if small:
            return _to_uint8(pixels, name)
        return _by_type(pixels, name)


def _shares(pixels: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    """0 at ``low`` and 1 at ``high``, in the precision that `_precise` takes."""
    values = _precise(pixels)
    if low == high:
        return np.zeros(values.shape, values.dtype)
    return (values - low) / (high - low)


def _precise(pixels: NDArray[Any]) -> NDArray[Any]:
    """The same values, exactly, in a type that computes."""
    return pixels.astype(np.float32 if pixels.dtype.itemsize <= 2 else np.float64)


def _ends(pixels: NDArray[Any], percentile: float) -> tuple[Any, Any]:
    values = _precise(pixels)
    low, high = np.percentile(values, (percentile, 100 - percentile))
    if low == high:  # a few bright pixels on nothing
        low, high = values.min(), values.max()
    return low, high


def _standardised(pixels: NDArray[Any]) -> NDArray[np.float32]:
    values = pixels.astype(np.float64)
    mean, std = values.mean(axis=(0, 1)), values.std(axis=(0, 1))
    shares = (values - mean) / np.where(std > 0, 2 * DEVIATIONS * std, np.inf) + 0.5
    return np.asarray(np.clip(shares, 0, 1), np.float32)


def _by_type(pixels: NDArray[Any], name: str) -> NDArray[np.float32]:
    if pixels.dtype.kind == "u":
        return np.asarray(pixels / np.float64(np.iinfo(pixels.dtype).max), np.float32)
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype.kind != "f" or low < 0 or high > 1:
        raise _unknown_range(pixels, name)
    return pixels.astype(np.float32)


def _to_uint8(pixels: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if pixels.dtype == bool:
        pixels = np.where(pixels, 255, 0)
    elif pixels.dtype == np.uint16:
        pixels = (pixels.astype(np.uint32) + 128) // 257
    elif pixels.dtype != np.uint8:
        if pixels.dtype.kind != "f" or pixels.min() < 0 or pixels.max() > 1:
            raise _unknown_range(pixels, name)
        pixels = np.rint(pixels.astype(np.float64) * 255)
    return np.asarray(pixels, np.uint8)


def _unknown_range(pixels: NDArray[Any], name: str) -> UserError:
    return UserError(
        f"Image {name} holds {pixels.dtype} from {pixels.min():g} to {pixels.max():g}",
        "of such values nobody knows the full range: give dataset.window=[low,high], or let "
        "dataset.normalize=dataset, percentile or zscore find it",
    )


def check_values(pixels: NDArray[Any], name: str) -> None:
    """Raises UserError for values that are not real, or not finite; ``name`` is the image's."""
    if pixels.dtype.kind not in "biuf":
        raise UserError(f"Image {name} has type {pixels.dtype}", "use whole or real numbers")
    missing = pixels.size - np.count_nonzero(np.isfinite(pixels))
    if missing:
        raise UserError(
            f"Image {name} holds {missing} values that are NaN or infinite",
            "replace them before training",
        )
