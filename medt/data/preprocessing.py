"""The only way from a file to a tensor: decode, channels, resize, normalise.

Training, validation, evaluation and prediction all come through here, so that a network sees the
same numbers for the same file everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from medt.data.crops import mirrored
from medt.data.intensity import Intensity, check_values
from medt.errors import UserError
from medt.io.files import environment_number
from medt.io.images import Samples, read_samples
from medt.metrics.pixel import IGNORE_INDEX
from medt.signatures import check_arguments

Source = str | Path | Samples | NDArray[Any]

MOST_INPUT_PIXELS = 2**22  # 2048 x 2048, of which one layer of 64 channels takes 1 GB
# Of a mean and a standard deviation; what is beyond gives infinite or rounded inputs.
LARGEST_SHIFT, SMALLEST_SCALE = 1e9, 1e-9
SAMPLINGS = ("resize", "crop")


@dataclass(frozen=True)
class Preprocessing:
    """From a file or array to what the network takes.

    Attributes:
        image_size: (H, W) of the network's input in pixels.
        channels: C of the network's input.
        mean: subtracted per channel, on the scale 0..1.
        std: divided by per channel, on the scale 0..1.
        order: "rgb", or "bgr" where the network takes its three channels the other way round, as
            those of the official code do.
        page: which image of a stack, from 0; None refuses stacks.
        percentile, window, clip, zscore, eight_bit: how values become the scale 0..1, see
            `medt.data.intensity.Intensity`.
        sampling: "resize" where the network takes whole images at its size, "crop" where it takes
            parts of its size at the image's own resolution.
    """

    image_size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: str = "rgb"
    page: int | None = None
    percentile: float | None = None
    sampling: str = "resize"
    window: tuple[float, float] | None = None
    clip: bool = True
    zscore: bool = False
    eight_bit: bool = False

    def __post_init__(self) -> None:
        if len(self.image_size) != 2 or min(self.image_size) < 1 or self.channels < 1:
            raise UserError(
                f"Image size {self.image_size} with {self.channels} channels is impossible",
                "give height and width, and at least one channel",
            )
        most = environment_number("MEDT_MAX_INPUT_PIXELS", MOST_INPUT_PIXELS)
        if self.image_size[0] * self.image_size[1] > most:
            raise UserError(
                f"Image size {self.image_size} is larger than any network here is trained on",
                f"at most {most:,} pixels (MEDT_MAX_INPUT_PIXELS in the environment allows more); "
                "larger images are taken in windows",
            )
        fits = len(self.mean) == len(self.std) == self.channels
        shifts = all(abs(value) <= LARGEST_SHIFT for value in (*self.mean, *self.std))
        if not fits or not shifts or min(self.std) < SMALLEST_SCALE:
            raise UserError(
                f"Mean {self.mean} and std {self.std} do not fit {self.channels} channels",
                "one mean and one positive std per channel",
            )
        if self.order != "rgb" and (self.order, self.channels) != ("bgr", 3):
            raise UserError(
                f"Channel order {self.order!r} with {self.channels} channels is impossible",
                "use rgb, or with 3 channels bgr",
            )
        _ = self.intensity  # which refuses what is impossible
        if self.sampling not in SAMPLINGS:
            raise UserError(
                f"dataset.sampling={self.sampling} is not known",
                f"choose one of {', '.join(SAMPLINGS)}",
            )

    @classmethod
    def decoder(cls, channels: int, page: int | None, rule: Intensity) -> Preprocessing:
        """One whose `original` and `values` count alone: of no size and no statistics yet."""
        return cls(
            *((1, 1), channels, (0.0,) * channels, (1.0,) * channels),
            page=page,
            percentile=rule.percentile,
            window=rule.window,
            clip=rule.clip,
            zscore=rule.zscore,
            eight_bit=rule.eight_bit,
        )

    @property
    def intensity(self) -> Intensity:
        """How values become the scale 0..1."""
        return Intensity(self.percentile, self.window, self.clip, self.zscore, self.eight_bit)

    def original(self, source: Source, name: str | None = None) -> NDArray[Any]:
        """Decode at the image's own size, its values on the scale 0..1.

        A grey image is repeated to C channels, RGB becomes its luminance where C is 1. What a file
        calls alpha is dropped (before it could count), unless the file has C channels with it.

        Args:
            source: path, what `read_samples` gives, or array (H, W) or (H, W, channels), RGB, of
                which no channel is alpha.
            name: what an error calls it; by default its path.

        Returns:
            (H, W, C): uint8, 255 standing for 1, of images of 8 bits, else float32; which images,
            see `Intensity.scaled`.

        Raises:
            UserError: the file cannot be read, or type, range or channels are none of these, or a
                value is not finite.
        """
        name = name or source_name(source)
        pixels = _planes(self._samples(source), self.channels, name)
        return _to_channels(self.intensity.scaled(pixels, name), self.channels)

    def values(self, source: Source, name: str | None = None) -> NDArray[Any]:
        """The numbers that `original` starts from: (H, W, n), n = 1, 3 or C, in their own type.

        Arguments and errors are those of `original`.
        """
        name = name or source_name(source)
        pixels = _planes(self._samples(source), self.channels, name)
        check_values(pixels, name)
        return pixels

    def own_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """`mean` and `std` on the scale of the images' own values, of which there is a window."""
        assert self.window is not None
        low, high = self.window
        mean = tuple(low + (high - low) * value for value in self.mean)
        return mean, tuple((high - low) * value for value in self.std)

    def _samples(self, source: Source) -> Samples:
        if isinstance(source, Samples):
            return source
        return (
            Samples(source) if isinstance(source, np.ndarray) else read_samples(source, self.page)
        )

    def image(self, source: Source) -> NDArray[Any]:
        """`fit` of `original`: (H, W, C) of which the network's input is made."""
        return self.fit(self.original(source))

    def fit(self, original: NDArray[Any]) -> NDArray[Any]:
        """Resize or enlarge to what the network's input is made of.

        Args:
            original: (h, w, C), as `original` returns it.

        Returns:
            (H, W, C) of its type. Sampling "resize": (H, W) = ``image_size``, by area average
            where it shrinks, linear where it grows. "crop": at least ``image_size``, the image in
            the upper left corner, and its mirror image beyond the lower and right edges where it is
            smaller.
        """
        height, width = original.shape[:2]
        if self.sampling == "crop":
            tall, wide = self._enlarged(height, width)
            rows, columns = mirrored(0, tall, height), mirrored(0, wide, width)
            return original if (tall, wide) == (height, width) else original[rows][:, columns]
        least = min(self.image_size[0], height), min(self.image_size[1], width)
        pixels = _resize(original, least, cv2.INTER_AREA)
        return _resize(pixels, self.image_size, cv2.INTER_LINEAR)

    def fit_mask(self, ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What `fit` does to the image: by the nearest pixel centre, and what is added is ignored.

        Args:
            ids: (h, w) uint8 class ids at the image's own size, as `Labels.read` returns them.
        """
        if self.sampling == "crop":
            tall, wide = self._enlarged(*ids.shape)
            after = (0, tall - ids.shape[0]), (0, wide - ids.shape[1])
            return np.pad(ids, after, constant_values=IGNORE_INDEX)
        return _resize(ids[..., None], self.image_size, cv2.INTER_NEAREST_EXACT)[..., 0]

    def fit_instances(self, numbers: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """What `fit_mask` does to class ids; what is added has no object."""
        if self.sampling == "crop":
            tall, wide = self._enlarged(*numbers.shape)
            return np.pad(numbers, ((0, tall - numbers.shape[0]), (0, wide - numbers.shape[1])))
        return _resize(numbers[..., None], self.image_size, cv2.INTER_NEAREST_EXACT)[..., 0]

    def _enlarged(self, height: int, width: int) -> tuple[int, int]:
        """The size, but no side shorter than the network's."""
        return max(height, self.image_size[0]), max(width, self.image_size[1])

    def tensor(self, image: NDArray[Any]) -> torch.Tensor:
        """(x - mean) / std of (H, W, C), any size, as contiguous float32 (C, H, W).

        Of uint8 255 is 1.

        The image is RGB; the tensor, mean and std are in the network's ``order``.
        """
        if self.order == "bgr":
            image = image[..., ::-1]
        full = 255 if image.dtype == np.uint8 else 1
        scale = 1 / (full * np.array(self.std))
        offset = np.array(self.mean) / np.array(self.std)
        pixels = image.astype(np.float32) * scale.astype(np.float32) - offset.astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints."""
        return {
            "image_size": list(self.image_size),
            "channels": self.channels,
            "mean": list(self.mean),
            "std": list(self.std),
            "order": self.order,
            "page": self.page,
            "percentile": self.percentile,
            "sampling": self.sampling,
            "window": None if self.window is None else list(self.window),
            "clip": self.clip,
            "zscore": self.zscore,
            "eight_bit": self.eight_bit,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of ``to_dict``; early checkpoints, which name no bits, are of 8.

        Raises:
            UserError: a value is missing or impossible.
        """
        check_arguments(cls, values, "preprocessing")
        height, width = values["image_size"]
        window = values.get("window")
        named = {
            "image_size": (height, width),
            "mean": tuple(values["mean"]),
            "std": tuple(values["std"]),
            "window": None if window is None else tuple(window),
        }
        return cls(**{"eight_bit": True, **values, **named})


def source_name(source: Source) -> str:
    """What an error calls an image."""
    return str(source) if isinstance(source, str | Path) else "the array"


def _planes(samples: Samples, channels: int, name: str) -> NDArray[Any]:
    """(H, W, n) with n = 1 or ``channels``, or RGB that becomes grey."""
    pixels = samples.pixels
    if pixels.ndim not in (2, 3) or pixels.size == 0:
        raise UserError(f"Image {name} has shape {pixels.shape}", "give (H, W) or (H, W, channels)")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if samples.alpha and pixels.shape[2] != channels:
        pixels = samples.opaque()
    found = pixels.shape[2]
    if found not in (1, channels) and (found, channels) != (3, 1):
        unmarked = ", none of them marked as alpha" if found in (2, 4) else ""
        raise UserError(
            f"Image {name} has {found} channels{unmarked}; the network takes {channels}",
            f"dataset.channels={found} trains on all, else convert the images to grey or RGB",
        )
    return pixels


def _to_channels(pixels: NDArray[Any], channels: int) -> NDArray[Any]:
    if pixels.shape[2] == 3 and channels == 1:
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)[..., None]
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, channels, axis=2)
    return np.ascontiguousarray(pixels)


def _resize(pixels: NDArray[Any], size: tuple[int, int], interpolation: int) -> NDArray[Any]:
    """(H, W, C) to ``size``; OpenCV takes at most 4 channels at once."""
    height, width = size
    if pixels.shape[:2] == size:
        return pixels
    blocks = [
        cv2.resize(
            np.ascontiguousarray(pixels[..., first : first + 4]),
            (width, height),
            interpolation=interpolation,
        ).reshape(height, width, -1)
        for first in range(0, pixels.shape[2], 4)
    ]
    return np.concatenate(blocks, axis=2) if len(blocks) > 1 else blocks[0]
