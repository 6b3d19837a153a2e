"""The only way from a file to a tensor: decode, channels, resize, normalise.

Training, validation, evaluation and prediction all come through here, so that a network sees the
same numbers for the same file everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from medt.data.crops import mirrored
from medt.data.layout import Case
from medt.errors import UserError
from medt.files import environment_number
from medt.images import Samples, read_samples
from medt.metrics.pixel import IGNORE_INDEX
from medt.signatures import check_arguments

Source = str | Path | Samples | NDArray[Any]

# torchvision's constants for networks trained on ImageNet, RGB scaled to 0..1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STD_FLOOR = 0.01
MOST_INPUT_PIXELS = 2**22  # 2048 x 2048, of which one layer of 64 channels takes 1 GB
# Of a mean and a standard deviation; what is beyond gives infinite or rounded inputs.
LARGEST_SHIFT, SMALLEST_SCALE = 1e9, 1e-9
# By the name of the normalisation, see `Preprocessing.percentile`.
STRETCHES = {"percentile": 0.5}
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
        percentile: where given, such as 0.5, the values of each image between its 0.5 and 99.5
            percentiles are stretched to the whole range, all its channels alike; None takes the
            values by their type.
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
        if self.percentile is not None and not 0 <= self.percentile < 50:
            raise UserError(
                f"Percentile {self.percentile} is impossible", "give at least 0 and below 50"
            )
        if self.sampling not in SAMPLINGS:
            raise UserError(
                f"dataset.sampling={self.sampling} is not known",
                f"choose one of {', '.join(SAMPLINGS)}",
            )

    def original(self, source: Source, name: str | None = None) -> NDArray[np.uint8]:
        """Decode at the image's own size.

        Without `percentile` uint8 stays; uint16 is divided by 257; float must lie in 0..1 and is
        multiplied by 255; bool becomes 0 and 255. With it any real type of any range is stretched,
        from smallest to largest where the two percentiles are equal; an image of a single value is
        0. A grey image is repeated to C channels, RGB becomes its luminance where C is 1. What a
        file calls alpha is dropped (before it could be stretched), unless the file has C channels
        with it.

        Args:
            source: path, what `read_samples` gives, or array (H, W) or (H, W, channels), RGB, of
                which no channel is alpha.
            name: what an error calls it; by default its path.

        Returns:
            (H, W, C) uint8, 0..255.

        Raises:
            UserError: the file cannot be read, or type, range or channels are none of these, or a
                value is not finite.
        """
        name = name or source_name(source)
        pixels = _planes(self._samples(source), self.channels, name)
        if self.percentile is None:
            pixels = _to_uint8(pixels, name)
        else:
            pixels = _stretched(pixels, self.percentile, name)
        return _to_channels(pixels, self.channels)

    def _samples(self, source: Source) -> Samples:
        if isinstance(source, Samples):
            return source
        return (
            Samples(source) if isinstance(source, np.ndarray) else read_samples(source, self.page)
        )

    def image(self, source: Source) -> NDArray[np.uint8]:
        """`fit` of `original`: (H, W, C) uint8 of which the network's input is made."""
        return self.fit(self.original(source))

    def fit(self, original: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize or enlarge to what the network's input is made of.

        Args:
            original: (h, w, C) uint8, as `original` returns it.

        Returns:
            (H, W, C) uint8. Sampling "resize": (H, W) = ``image_size``, by area average where it
            shrinks, linear where it grows. "crop": at least ``image_size``, the image in the upper
            left corner, and its mirror image beyond the lower and right edges where it is smaller.
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

    def _enlarged(self, height: int, width: int) -> tuple[int, int]:
        """The size, but no side shorter than the network's."""
        return max(height, self.image_size[0]), max(width, self.image_size[1])

    def tensor(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """(x / 255 - mean) / std of (H, W, C) uint8, any size, as contiguous float32 (C, H, W).

        The image is RGB; the tensor, mean and std are in the network's ``order``.
        """
        if self.order == "bgr":
            image = image[..., ::-1]
        scale = 1 / (255 * np.array(self.std))
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
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of ``to_dict``.

        Raises:
            UserError: a value is missing or impossible.
        """
        check_arguments(cls, values, "preprocessing")
        height, width = values["image_size"]
        named = ("image_size", "mean", "std")
        return cls(
            (height, width),
            mean=tuple(values["mean"]),
            std=tuple(values["std"]),
            **{name: value for name, value in values.items() if name not in named},
        )


def fit_normalization(
    cases: Iterable[Case], normalize: str, channels: int, page: int | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, on the scale 0..1.

    Args:
        cases: the training cases; only "dataset" and "percentile" read them.
        normalize: "unit" leaves 0..1 as it is, "imagenet" takes the constants of ImageNet (3
            channels), "dataset" pools all pixels of the cases at their own size, each image
            counting the same, "percentile" does so after each is stretched.
        channels: of the network's input.
        page: which image of a stack, from 0.

    Returns:
        (mean, std), each of length ``channels``; std is at least 0.01.

    Raises:
        UserError: an unknown choice, "imagenet" with other than 3 channels, or an unreadable image.
    """
    if normalize == "unit":
        return (0.0,) * channels, (1.0,) * channels
    if normalize == "imagenet" and channels == 3:
        return IMAGENET_MEAN, IMAGENET_STD
    if normalize not in ("dataset", *STRETCHES):
        raise UserError(
            f"Normalisation {normalize!r} with {channels} channels is not known",
            "use unit, dataset, percentile, or with 3 channels imagenet",
        )
    plain = (0.0,) * channels, (1.0,) * channels
    decoder = Preprocessing(
        (1, 1), channels, *plain, page=page, percentile=STRETCHES.get(normalize)
    )
    shares = np.zeros((channels, 256))
    for case in cases:
        pixels = decoder.original(case.image).reshape(-1, channels)
        for channel in range(channels):
            shares[channel] += np.bincount(pixels[:, channel], minlength=256) / len(pixels)
    if not shares.any():
        raise UserError("Normalisation needs at least one training image", "check the split file")
    shares /= shares.sum(axis=1, keepdims=True)
    levels = np.arange(256) / 255
    mean = shares @ levels
    std = np.sqrt(np.maximum(shares @ levels**2 - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.maximum(std, STD_FLOOR).tolist())


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


def _to_uint8(pixels: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if pixels.dtype == bool:
        pixels = np.where(pixels, 255, 0)
    elif pixels.dtype == np.uint16:
        pixels = (pixels.astype(np.uint32) + 128) // 257
    elif np.issubdtype(pixels.dtype, np.floating):
        _check_finite(pixels, name)
        low, high = float(pixels.min()), float(pixels.max())
        if low < 0 or high > 1:
            raise UserError(
                f"Image {name} holds {pixels.dtype} from {low:g} to {high:g}",
                "floating point images must lie in 0..1: dataset.normalize=percentile takes any "
                "range, or scale them",
            )
        pixels = np.rint(pixels.astype(np.float64) * 255)
    elif pixels.dtype != np.uint8:
        raise UserError(
            f"Image {name} has type {pixels.dtype}",
            "use uint8, uint16, bool, or float in 0..1; dataset.normalize=percentile takes any",
        )
    return np.asarray(pixels, np.uint8)


def _stretched(pixels: NDArray[Any], percentile: float, name: str) -> NDArray[np.uint8]:
    if pixels.dtype.kind not in "biuf":
        raise UserError(f"Image {name} has type {pixels.dtype}", "use whole or real numbers")
    _check_finite(pixels, name)
    values = pixels.astype(np.float32 if pixels.dtype.itemsize <= 2 else np.float64)  # exact
    low, high = np.percentile(values, (percentile, 100 - percentile))
    if low == high:  # a few bright pixels on nothing
        low, high = values.min(), values.max()
    if low == high:
        return np.zeros(values.shape, np.uint8)
    shares = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(np.rint(shares * 255), np.uint8)


def _check_finite(pixels: NDArray[Any], name: str) -> None:
    missing = pixels.size - np.count_nonzero(np.isfinite(pixels))
    if missing:
        raise UserError(
            f"Image {name} holds {missing} values that are NaN or infinite",
            "replace them before training",
        )


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
