"""Which ``dataset.image_size`` and ``dataset.normalize`` suit a dataset, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from medt.check.cases import CaseFacts, ImageFacts, MaskFacts

SIZE_STEP = 128  # MedT's strides and its 4 x 4 patches divide multiples of it
LARGEST = 512  # beyond, crops cost less
SMALLER_OBJECT = 6.0  # pixels at the network's size: three in the finest map of its encoder
MOST_SQUASHED = 1.5
LOW_RANGE = 1 / 2  # of the range of a file's type
UNEVEN = 3.0


@dataclass(frozen=True)
class SizeSuggestion:
    """An image size that every network takes.

    Attributes:
        size: (H, W) in pixels.
        reason: why this one.
        enough: whether the smaller objects stay visible in it.
    """

    size: tuple[int, int]
    reason: str
    enough: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"value": list(self.size), "reason": self.reason}


def suggest_size(
    facts: Sequence[CaseFacts], smaller_object: float = SMALLER_OBJECT
) -> SizeSuggestion:
    """The smallest size that keeps the smaller objects so many pixels wide, proportions to 1.5.

    Sides are multiples of 128 up to 512, and at most the first one above the images' own (median).
    Each image is measured by its own height and width, an object by its narrower side.

    Args:
        facts: at least one with an image.
    """
    images = [fact.image for fact in facts if fact.image is not None]
    height = median(image.height for image in images)
    width = median(image.width for image in images)
    masks = [f.mask for f in facts if f.mask is not None and f.mask.small is not None]
    candidates = [(h, w) for h in _sides(height) for w in _sides(width)]

    def squash(size: tuple[int, int]) -> float:
        turned = (size[0] / image.height * image.width / size[1] for image in images)
        return math.exp(fmean(abs(math.log(ratio)) for ratio in turned))

    def across(size: tuple[int, int]) -> float:
        return median(m.small * shrinkage(m, size) for m in masks if m.small) if masks else math.inf

    least = max(MOST_SQUASHED, min(map(squash, candidates)))
    shaped = [size for size in candidates if squash(size) <= least * (1 + 1e-9)]
    visible = [size for size in shaped if across(size) >= smaller_object]
    size = (
        min(visible, key=lambda size: (size[0] * size[1], squash(size)))
        if visible
        else max(shaped, key=across)
    )
    reason = f"images of {width:g} x {height:g} (median)"
    if squash(size) > 1.05:
        reason += f", squashed by a factor of {squash(size):.1f}"
    if masks:
        reason += f"; the smaller objects (10th percentile) become {across(size):.0f} pixels wide"
    if not visible:
        reason += ": too few, so rather dataset.sampling=crop"
    return SizeSuggestion(size, reason, bool(visible))


def shrinkage(stored: ImageFacts | MaskFacts, size: tuple[int, int]) -> float:
    """By what resizing to (H, W) multiplies lengths along the side that it shrinks more."""
    return min(size[0] / stored.height, size[1] / stored.width)


def _sides(own: float) -> range:
    """The multiples of 128 up to an image's own side, the first above it included."""
    most = max(SIZE_STEP, math.ceil(own / SIZE_STEP) * SIZE_STEP)
    return range(SIZE_STEP, min(LARGEST, most) + 1, SIZE_STEP)


def suggest_normalize(facts: Sequence[CaseFacts]) -> tuple[str, str]:
    """ "percentile" or "dataset", and the reason."""
    images = [fact.image for fact in facts if fact.image is not None]
    floating = [i for i in images if i.dtype.startswith("float")]
    if any(image.low < 0 or image.high > 1 for image in floating):
        return "percentile", "floating point beyond 0..1"
    deep = [image.span for image in images if image.dtype == "uint16"]
    if deep and median(deep) < LOW_RANGE:
        return "percentile", f"the 16 bit images use {median(deep):.0%} of their range (median)"
    spans = sorted(image.span for image in images if image.span > 0)
    if len(spans) >= 10:
        low, high = spans[len(spans) // 10], spans[-1 - len(spans) // 10]
        if high > UNEVEN * low:
            return "percentile", f"contrast differs {high / low:.1f} fold between images"
    return "dataset", "the images are alike in range and contrast"
