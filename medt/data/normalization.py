"""Statistics of the training images, by which all images of a dataset are normalised."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np

from medt.data.intensity import DEVIATIONS, Intensity
from medt.data.layout import Case
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError

# torchvision's constants for networks trained on ImageNet, RGB scaled to 0..1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STD_FLOOR = 0.01
STRETCHED = 0.5  # the percentile that becomes 0, and 100 less it 1
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
    if normalize in fixed:
        mean, std = fixed[normalize]
    else:
        cases = list(cases)
        if not cases:
            raise UserError(
                "Normalisation needs at least one training image", "check the split file"
            )
        rule, mean, std = _fitted(cases, normalize, channels, page, rule)
    return {
        "mean": mean,
        "std": std,
        "percentile": rule.percentile,
        "window": rule.window,
        "clip": rule.clip,
        "zscore": rule.zscore,
        "eight_bit": rule.eight_bit,
    }


def _fitted(
    cases: Sequence[Case], normalize: str, channels: int, page: int | None, rule: Intensity
) -> tuple[Intensity, tuple[float, ...], tuple[float, ...]]:
    decoder = Preprocessing.decoder(channels, page, rule)
    if normalize == "percentile_dataset":
        low, high = _pooled_ends(cases, decoder)
        rule = Intensity(window=(low, high))
        return (rule, *_statistics(cases, Preprocessing.decoder(channels, page, rule)))
    if normalize == "dataset" and rule.by_type and not rule.eight_bit:
        own = _own_range(cases, decoder)
        if own is not None:
            rule = Intensity(window=own, clip=False)
            decoder = Preprocessing.decoder(channels, page, rule)
    return (rule, *_statistics(cases, decoder))


def _own_range(cases: Sequence[Case], decoder: Preprocessing) -> tuple[float, float] | None:
    """The least and the greatest value of images of more than 8 bits; None if any has 8."""
    low, high = np.inf, -np.inf
    for case in cases:
        values = decoder.values(case.image)
        if values.dtype in SMALL:
            return None
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    return (low, high) if low < high else (low - 0.5, low + 0.5)


def _pooled_ends(cases: Sequence[Case], decoder: Preprocessing) -> tuple[float, float]:
    """The percentiles of the values of all images, each image counting the same."""
    ranks = np.linspace(0, 1, RANKS)
    pooled = np.concatenate([np.quantile(decoder.values(case.image), ranks) for case in cases])
    low, high = np.percentile(pooled, (STRETCHED, 100 - STRETCHED)).tolist()
    if low == high:  # a few bright pixels on nothing
        low, high = float(pooled.min()), float(pooled.max())
    return (low, high) if low < high else (low - 0.5, low + 0.5)


def _statistics(
    cases: Sequence[Case], decoder: Preprocessing
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel on the scale 0..1, each image counting the same."""
    channels = decoder.channels
    shares = np.zeros((channels, 256))  # of the levels of 8 bits
    sums = np.zeros((2, channels))  # of the means of other values, and of their squares
    deep = 0
    for case in cases:
        pixels = decoder.original(case.image).reshape(-1, channels)
        if pixels.dtype == np.uint8:
            for channel in range(channels):
                shares[channel] += np.bincount(pixels[:, channel], minlength=256) / len(pixels)
        else:
            values = pixels.astype(np.float64)
            sums += values.mean(axis=0), (values**2).mean(axis=0)
            deep += 1
    levels = np.arange(256) / 255
    if not deep:
        shares /= shares.sum(axis=1, keepdims=True)
        mean, squares = shares @ levels, shares @ levels**2
    else:
        mean = (sums[0] + shares @ levels) / len(cases)
        squares = (sums[1] + shares @ levels**2) / len(cases)
    std = np.sqrt(np.maximum(squares - mean**2, 0))
    # Only of a type's full range is a hundredth nothing: a window may have one far brighter pixel.
    floor = STD_FLOOR if decoder.window is None else 1e-6
    return tuple(mean.tolist()), tuple(np.maximum(std, floor).tolist())
