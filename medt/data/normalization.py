"""Statistics of the training images, by which all images of a dataset are normalised."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from medt.data.intensity import DEVIATIONS, Intensity
from medt.data.layout import Case
from medt.data.preprocessing import Preprocessing
from medt.data.scan import Scan
from medt.errors import UserError
from medt.io.images import Samples

# torchvision's constants for networks trained on ImageNet, RGB scaled to 0..1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STD_FLOOR = 0.01
STRETCHED = 0.5  # the percentile that becomes 0, and 100 less it 1
FIXED = ("unit", "imagenet", "zscore")  # of no image
NORMALIZATIONS = ("unit", "imagenet", "dataset", "percentile", "percentile_dataset", "zscore")
RANKS = 2001  # of each image's sorted values, by which the values of all are pooled
SMALL = (np.dtype(np.uint8), np.dtype(bool))


def intensity_of(
    normalize: str, window: Sequence[float] | None = None, eight_bit: bool = False
) -> Intensity:
    """What a normalisation makes of each image by itself, before any is read.

    Raises:
        UserError: an impossible window, or one beside a normalisation that finds its own.
    """
    if window is not None and normalize not in ("unit", "imagenet", "dataset"):
        raise UserError(
            f"dataset.window={list(window)} does not go with dataset.normalize={normalize}",
            "it finds its own range: use unit, imagenet or dataset with a window",
        )
    if eight_bit and normalize in ("percentile_dataset", "zscore"):
        raise UserError(
            f"dataset.eight_bit=true does not go with dataset.normalize={normalize}",
            "use unit, imagenet, dataset or percentile, or leave it out",
        )
    return Intensity(
        percentile=STRETCHED if normalize == "percentile" else None,
        window=None if window is None else cast(tuple[float, float], tuple(map(float, window))),
        zscore=normalize == "zscore",
        eight_bit=eight_bit,
    )


def fit_normalization(
    cases: Iterable[Case],
    normalize: str,
    channels: int,
    page: int | None = None,
    window: Sequence[float] | None = None,
    eight_bit: bool = False,
    scan: Scan | None = None,
) -> dict[str, Any]:
    """The arguments of `Preprocessing` that say how values are normalised.

    Args:
        cases: the training cases; "unit", "imagenet" and "zscore" do not read them.
        normalize: "unit" leaves 0..1 as it is, "imagenet" takes the constants of ImageNet (3
            channels), "dataset" pools all pixels of the cases at their own size, each image
            counting the same, "percentile" does so after each is stretched, "percentile_dataset"
            after all are stretched between the percentiles of all their pixels, "zscore" takes
            each image's own mean and deviation, by channel.
        channels: of the network's input.
        page: which image of a stack, from 0.
        window: the values that become 0 and 1, [low, high], for the first three.
        eight_bit: whether values are rounded to 8 bits.
        scan: of the images, where they may have been looked at.

    Returns:
        ``mean`` and ``std``, each of length ``channels`` and on the scale 0..1, and the attributes
        of `Intensity`. "dataset" without a window takes the range of the images' values as 0..1,
        unless all, or some, have 8 bits; ``std`` is at least 0.01 on the scale of a type.

    Raises:
        UserError: an unknown choice, "imagenet" with other than 3 channels, or an unreadable image.
    """
    if normalize not in NORMALIZATIONS or (normalize == "imagenet" and channels != 3):
        raise UserError(
            f"Normalisation {normalize!r} with {channels} channels is not known",
            "use unit, dataset, percentile, percentile_dataset or zscore, with 3 channels imagenet",
        )
    fixed = {
        "unit": ((0.0,) * channels, (1.0,) * channels),
        "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
        "zscore": ((0.5,) * channels, (0.5 / DEVIATIONS,) * channels),
    }
    rule = intensity_of(normalize, window, eight_bit)
    if normalize in FIXED:
        mean, std = fixed[normalize]
    else:
        cases = list(cases)
        if not cases:
            raise UserError(
                "Normalisation needs at least one training image", "check the split file"
            )
        (look,) = tone_looks(normalize, channels, window, eight_bit)
        rule, mean, std = _fitted(cases, page, scan or Scan(), look, rule)
    return {
        "mean": mean,
        "std": std,
        "percentile": rule.percentile,
        "window": rule.window,
        "clip": rule.clip,
        "zscore": rule.zscore,
        "eight_bit": rule.eight_bit,
    }


@dataclass(frozen=True)
class Tones:
    """What a normalisation finds in one image: the first three before its range is known.

    Attributes:
        ends: the least and the greatest value of one whose own range counts; not of 8 bits.
        ranks: of the sorted values, as many as of every image.
        shares: (C, 256), of the pixels at each level of 8 bits.
        sums: (2, C), the mean of other values, and of their squares.
    """

    ends: tuple[float, float] | None = None
    ranks: NDArray[Any] | None = None
    shares: NDArray[Any] | None = None
    sums: NDArray[Any] | None = None


@dataclass(frozen=True)
class ToneLook:
    """A first look at an image, for `fit_normalization`; arguments as there."""

    normalize: str
    channels: int
    window: tuple[float, ...] | None
    eight_bit: bool

    def __call__(self, samples: Samples, name: str) -> Tones:
        rule = intensity_of(self.normalize, self.window, self.eight_bit)
        decoder = Preprocessing.decoder(self.channels, None, rule)
        if self.normalize == "percentile_dataset":
            ranks = np.linspace(0, 1, RANKS)
            return Tones(ranks=np.quantile(decoder.values(samples, name), ranks))
        if self.normalize == "dataset" and rule.by_type and not rule.eight_bit:
            values = decoder.values(samples, name)
            if values.dtype not in SMALL:
                return Tones(ends=(float(values.min()), float(values.max())))
        return RuledLook(self.channels, rule)(samples, name)


@dataclass(frozen=True)
class RuledLook:
    """A look at an image whose range is known."""

    channels: int
    rule: Intensity

    def __call__(self, samples: Samples, name: str) -> Tones:
        decoder = Preprocessing.decoder(self.channels, None, self.rule)
        pixels = decoder.original(samples, name).reshape(-1, self.channels)
        if pixels.dtype == np.uint8:
            counts = [np.bincount(plane, minlength=256) for plane in pixels.T]
            return Tones(shares=np.array(counts) / len(pixels))
        values = pixels.astype(np.float64)
        return Tones(sums=np.stack([values.mean(axis=0), (values**2).mean(axis=0)]))


def tone_looks(
    normalize: str, channels: int, window: Sequence[float] | None = None, eight_bit: bool = False
) -> list[ToneLook]:
    """The looks that `fit_normalization` takes first; arguments as there."""
    if normalize in FIXED:
        return []
    return [ToneLook(normalize, channels, None if window is None else tuple(window), eight_bit)]


def _fitted(
    cases: Sequence[Case], page: int | None, scan: Scan, look: ToneLook, rule: Intensity
) -> tuple[Intensity, tuple[float, ...], tuple[float, ...]]:
    tones = [scan.image(case.image, page, look) for case in cases]
    if look.normalize == "percentile_dataset":
        rule = Intensity(window=_pooled_ends([one.ranks for one in tones if one.ranks is not None]))
    ends = [one.ends for one in tones if one.ends is not None]
    if len(ends) == len(tones):  # no image has 8 bits
        low, high = min(low for low, _ in ends), max(high for _, high in ends)
        own = (low, high) if low < high else (low - 0.5, low + 0.5)
        rule = Intensity(window=own, clip=False)
    ruled = RuledLook(look.channels, rule)
    known = [
        one if one.ends is None and one.ranks is None else scan.image(case.image, page, ruled)
        for case, one in zip(cases, tones, strict=True)
    ]
    return (rule, *_statistics(known, rule))


def _pooled_ends(ranks: Sequence[NDArray[Any]]) -> tuple[float, float]:
    """The percentiles of the values of all images, each image counting the same."""
    pooled = np.concatenate(ranks)
    low, high = np.percentile(pooled, (STRETCHED, 100 - STRETCHED)).tolist()
    if low == high:  # a few bright pixels on nothing
        low, high = float(pooled.min()), float(pooled.max())
    return (low, high) if low < high else (low - 0.5, low + 0.5)


def _statistics(
    tones: Sequence[Tones], rule: Intensity
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel on the scale 0..1, each image counting the same."""
    shares = sum((one.shares for one in tones if one.shares is not None), np.zeros((1, 256)))
    deep = [one.sums for one in tones if one.sums is not None]
    levels = np.arange(256) / 255
    if not deep:
        shares /= shares.sum(axis=1, keepdims=True)
        mean, squares = shares @ levels, shares @ levels**2
    else:
        sums = sum(deep, np.zeros((2, 1)))
        mean = (sums[0] + shares @ levels) / len(tones)
        squares = (sums[1] + shares @ levels**2) / len(tones)
    std = np.sqrt(np.maximum(squares - mean**2, 0))
    # Only of a type's full range is a hundredth nothing: a window may have one far brighter pixel.
    floor = STD_FLOOR if rule.window is None else 1e-6
    return tuple(mean.tolist()), tuple(np.maximum(std, floor).tolist())
