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

from medt.data.labels import IDS, Labels
from medt.data.layout import Case
from medt.errors import UserError
from medt.images import read_image

Source = str | Path | NDArray[Any]

# torchvision's constants for networks trained on ImageNet, RGB scaled to 0..1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STD_FLOOR = 0.01


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
    """

    image_size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: str = "rgb"
    page: int | None = None

    def __post_init__(self) -> None:
        if len(self.image_size) != 2 or min(self.image_size) < 1 or self.channels < 1:
            raise UserError(
                f"Image size {self.image_size} with {self.channels} channels is impossible",
                "give height and width, and at least one channel",
            )
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise UserError(
                f"Mean {self.mean} and std {self.std} do not fit {self.channels} channels",
                "one mean and one positive std per channel",
            )
        if self.order != "rgb" and (self.order, self.channels) != ("bgr", 3):
            raise UserError(
                f"Channel order {self.order!r} with {self.channels} channels is impossible",
                "use rgb, or with 3 channels bgr",
            )

    def original(self, source: Source) -> NDArray[np.uint8]:
        """Decode at the image's own size.

        uint8 stays; uint16 is divided by 257; float must lie in 0..1 and is multiplied by 255; bool
        becomes 0 and 255. A grey image is repeated to C channels, RGB becomes its luminance where C
        is 1, alpha is dropped.

        Args:
            source: path, or array (H, W) or (H, W, channels), RGB.

        Returns:
            (H, W, C) uint8, 0..255.

        Raises:
            UserError: the file cannot be read, or type, range or channels are none of these.
        """
        name = _name(source)
        pixels = source if isinstance(source, np.ndarray) else read_image(source, self.page)
        return _to_channels(_to_uint8(pixels, name), self.channels, name)

    def image(self, source: Source) -> NDArray[np.uint8]:
        """``original`` at the network's size: area average where it shrinks, linear where it grows.

        Returns:
            (H, W, C) uint8 with (H, W) = ``image_size``.
        """
        pixels = self.original(source)
        height, width = self.image_size
        least = min(height, pixels.shape[0]), min(width, pixels.shape[1])
        pixels = _resize(pixels, least, cv2.INTER_AREA)
        return _resize(pixels, self.image_size, cv2.INTER_LINEAR)

    def mask(self, source: Source, labels: Labels = IDS) -> NDArray[np.uint8]:
        """Class ids at the network's size, by the nearest pixel centre.

        Args:
            source: path, or integer or bool array (H, W).
            labels: what its values mean.

        Returns:
            (H, W) uint8 with (H, W) = ``image_size``.

        Raises:
            UserError: the file cannot be read or holds a value that is no class.
        """
        if isinstance(source, np.ndarray):
            ids = labels.class_ids(source, _name(source))
        else:
            ids = labels.read(source, self.page)
        return self.fit_mask(ids)

    def fit_mask(self, ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Class ids (h, w) uint8 at the network's size, by the nearest pixel centre."""
        return _resize(ids[..., None], self.image_size, cv2.INTER_NEAREST_EXACT)[..., 0]

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
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of ``to_dict``.

        Raises:
            UserError: a value is missing or impossible.
        """
        try:
            height, width = (int(n) for n in values["image_size"])
            return cls(
                image_size=(height, width),
                channels=int(values["channels"]),
                mean=tuple(float(x) for x in values["mean"]),
                std=tuple(float(x) for x in values["std"]),
                order=str(values.get("order", "rgb")),
                page=None if values.get("page") is None else int(values["page"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"Preprocessing {dict(values)} is incomplete: {error!r}",
                "image_size, channels, mean and std are needed",
            ) from error


def fit_normalization(
    cases: Iterable[Case], normalize: str, channels: int, page: int | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, on the scale 0..1.

    Args:
        cases: the training cases; only "dataset" reads them.
        normalize: "unit" leaves 0..1 as it is, "imagenet" takes the constants of ImageNet (3
            channels), "dataset" pools all pixels of the cases at their own size, each image
            counting the same.
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
    if normalize != "dataset":
        raise UserError(
            f"Normalisation {normalize!r} with {channels} channels is not known",
            "use unit, dataset, or with 3 channels imagenet",
        )
    plain = (0.0,) * channels, (1.0,) * channels
    decoder = Preprocessing((1, 1), channels, *plain, page=page)
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


def _name(source: Source) -> str:
    return "the array" if isinstance(source, np.ndarray) else str(source)


def _to_uint8(pixels: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if pixels.ndim not in (2, 3) or pixels.size == 0:
        raise UserError(f"Image {name} has shape {pixels.shape}", "give (H, W) or (H, W, channels)")
    if pixels.dtype == bool:
        pixels = np.where(pixels, 255, 0)
    elif pixels.dtype == np.uint16:
        pixels = (pixels.astype(np.uint32) + 128) // 257
    elif np.issubdtype(pixels.dtype, np.floating):
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 1):  # also for NaN
            raise UserError(
                f"Image {name} holds {pixels.dtype} from {low:g} to {high:g}",
                "floating point images must lie in 0..1: scale them, or save as 8 or 16 bit",
            )
        pixels = np.rint(pixels.astype(np.float64) * 255)
    elif pixels.dtype != np.uint8:
        raise UserError(
            f"Image {name} has type {pixels.dtype}", "use uint8, uint16, bool, or float in 0..1"
        )
    return np.asarray(pixels, np.uint8)


def _to_channels(pixels: NDArray[Any], channels: int, name: str) -> NDArray[Any]:
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    found = pixels.shape[2]
    if found != channels and found in (2, 4):
        pixels = pixels[..., :-1]
    if pixels.shape[2] == 3 and channels == 1:
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)[..., None]
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, channels, axis=2)
    if pixels.shape[2] != channels:
        raise UserError(
            f"Image {name} has {found} channels, the network takes {channels}",
            "set dataset.channels, or convert the image to grey or RGB",
        )
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
