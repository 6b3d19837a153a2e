"""Images that show the same thing: copies, re-encodings, slightly different exposures or cuts.

Photographs of different eyes, ultrasound sectors or fields of cells share their outline, their
shading and their colours; what tells them apart is the detail. So the details of small versions of
two images are correlated, one moved over the other, without the background and without what is
common to all images of the dataset.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from medt.io.files import natural_key

SIDE = 64  # pixels of a thumbnail
# The correlation from which on two images show the same, without what all have in common, and
# with it. Measured by scripts/measure_duplicates.py on DRIVE, GlaS, DSB2018, ISBI 2012, Kvasir-SEG,
# MoNuSeg and generated fundus photographs, ultrasound sectors and electron micrographs: different
# images reach at most 0.46 (neighbouring sections of one block) and 0.64 (two eyes); an image
# changed by JPEG of quality 30, half the size, noise, blur, 20 % more or 30 % less light, a shift
# of 2 %, a turn of 1 degree or a margin of 1 % cut off keeps at least 0.58.
LEAST_LIKENESS = 0.52
LEAST_WITH_COMMON = 0.75
FEWEST = 8  # images of which something in common can be told
SHADING = 3.0  # pixels of a thumbnail: what is coarser is no detail
DEVIATIONS = 7.0  # by which the likeness has to exceed that of independent details
NOISE = 2.0  # grey levels that are no detail
FLAT = 8  # grey levels within which what reaches the border is background
LEAST_AREA = 0.1  # of a thumbnail besides the background, to be compared there alone
REACH = 3  # pixels of a thumbnail by which one is moved, in each direction
# The first look, at all pairs, has half the size and lower limits.
FIRST_SIDE, FIRST_REACH, FIRST_SHADING = 32, 2, 2.0
FIRST_LIKENESS, FIRST_WITH_COMMON = 0.35, 0.65
CLOSEST = 10  # later images that are looked at again, of each: many may share their outline
BLOCK = 256  # images that are compared with all others at once

Thumbnail = NDArray[np.uint8]
Plane = NDArray[np.float32]


class NearDuplicate(NamedTuple):
    """Two cases whose images look alike; ``likeness`` is the correlation of their details."""

    first: str
    second: str
    likeness: float


def thumbnail(image: NDArray[Any]) -> Thumbnail:
    """A small version of an image, of all its channels: (64, 64).

    Args:
        image: (H, W) or (H, W, C), any type.
    """
    planes = image[..., None] if image.ndim == 2 else image
    if planes.dtype not in (np.uint8, np.uint16, np.float32):  # that OpenCV resizes
        planes = planes.astype(np.float32)
    small = np.stack([_reduced(planes[..., c]) for c in range(planes.shape[2])])
    if planes.shape[2] not in (1, 3) or image.dtype != np.uint8:
        low, high = small.min(axis=(1, 2), keepdims=True), small.max(axis=(1, 2), keepdims=True)
        small = (small - low) * (255 / np.where(high > low, high - low, np.inf))
    return np.asarray(np.rint(small.mean(axis=0)), np.uint8)


def _reduced(plane: NDArray[Any]) -> Plane:
    small = cv2.resize(np.ascontiguousarray(plane), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.nan_to_num(small.astype(np.float32), posinf=0, neginf=0)


def near_duplicates(thumbnails: Mapping[str, Thumbnail]) -> Iterator[NearDuplicate]:
    """Pairs of cases whose images show the same, in natural order of their names.

    Of many that all show the same, each stands beside a few others, not beside all.

    Args:
        thumbnails: case -> what `thumbnail` gives.
    """
    names = sorted(thumbnails, key=natural_key)
    if len(names) < 2:
        return
    images = [thumbnails[name] for name in names]
    details = [_details(image, SHADING) for image in images]
    common = _common(details)
    for first, second in _candidates(images):
        seen = _seen(images[first], SHADING), _seen(images[second], SHADING)
        plain = details[first], details[second]
        own = details[first] - common, details[second] - common
        looks = [(plain, LEAST_WITH_COMMON), (own, LEAST_LIKENESS)][: 1 + (len(names) >= FEWEST)]
        found = [(_likeness(pair, seen), max(least, _by_chance(pair))) for pair, least in looks]
        if any(likeness >= least for likeness, least in found):
            yield NearDuplicate(names[first], names[second], max(likeness for likeness, _ in found))


def _details(image: NDArray[Any], shading: float) -> Plane:
    """What is finer than the shading, everywhere of about the same contrast."""
    grey = image.astype(np.float32)
    fine = grey - cv2.GaussianBlur(grey, (0, 0), shading)
    contrast = cv2.GaussianBlur(fine * fine, (0, 0), 1.5 * shading) + NOISE**2
    return np.asarray(fine / np.sqrt(contrast), np.float32)


def _seen(image: Thumbnail, shading: float) -> Plane:
    """1 where an image shows something, 0 on background that reaches the border and beside it."""
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]).astype(int)
    background = np.zeros(image.shape, np.uint8)
    for level in {int(np.median(edge)), int(np.percentile(edge, 10))}:
        _, parts = cv2.connectedComponents((abs(image.astype(int) - level) < FLAT).astype(np.uint8))
        at_edge = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
        background |= np.isin(parts, at_edge[at_edge > 0]).astype(np.uint8)
    beside = cv2.dilate(background, np.ones((3, 3), np.uint8), iterations=round(shading))
    return np.asarray(1 - beside, np.float32)


def _common(details: Sequence[Plane]) -> Plane:
    """What all images have: an outline, a scale bar. Of few images nothing can be told."""
    mean: Plane = np.mean(details, axis=0)
    return mean if len(details) >= FEWEST else np.zeros_like(mean)


def _candidates(images: Sequence[Thumbnail]) -> Iterator[tuple[int, int]]:
    """Pairs, first before second, that are worth a closer look."""
    size = FIRST_SIDE, FIRST_SIDE
    small = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images]
    details = np.stack([_details(image, FIRST_SHADING) for image in small])
    seen = np.stack([_seen(np.asarray(image), FIRST_SHADING) for image in small])
    own, raw = details - _common(list(details)), details * seen
    moves = list(product(range(2 * FIRST_REACH + 1), repeat=2))
    looks = ((own, moves, FIRST_LIKENESS), (raw, [(FIRST_REACH, FIRST_REACH)], FIRST_WITH_COMMON))
    for start in range(0, len(images), BLOCK):
        above = np.full((min(BLOCK, len(images) - start), len(images) - start), -np.inf, np.float32)
        for view, reached, least in looks:
            block = _unit_windows(view[start : start + BLOCK], FIRST_REACH, FIRST_REACH)
            for down, right in reached:
                found = block @ _unit_windows(view[start:], down, right).T - least
                np.maximum(above, found, out=above)
        for row, found in enumerate(above):
            later = row + 1 + np.flatnonzero(found[row + 1 :] >= 0)
            for column in np.sort(later[np.argsort(-found[later])[:CLOSEST]]).tolist():
                yield start + row, start + column


def _unit_windows(view: Plane, down: int, right: int) -> Plane:
    """(n, pixels): a window of each of n images, as a vector of length 1."""
    side = FIRST_SIDE - 2 * FIRST_REACH
    flat = view[:, down : down + side, right : right + side].reshape(len(view), -1)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-3))


def _likeness(details: tuple[Plane, Plane], seen: tuple[Plane, Plane]) -> float:
    """The largest correlation of two details over all moves, where both images show something."""
    inner = slice(REACH, -REACH)
    within = seen[0][inner, inner]
    still = details[0][inner, inner] * within
    windows, seen_there = (
        sliding_window_view(plane, still.shape) for plane in (details[1] * seen[1], seen[1])
    )
    shared = _products(within, seen_there)
    if shared.min() < LEAST_AREA * still.size:  # nearly all is background
        ones = np.ones_like(seen[0])
        return 0.0 if seen[0].all() and seen[1].all() else _likeness(details, (ones, ones))
    together = _products(still, windows)
    lengths = _products(still**2, seen_there) * _products(within, windows**2)
    return float((together / np.sqrt(np.maximum(lengths, 1e-6))).max())


def _by_chance(details: tuple[Plane, Plane]) -> float:
    """What the correlation of two such details never reaches by chance.

    Neighbouring pixels are alike, so there are fewer independent values than pixels: the reciprocal
    of the sum of the products of both autocorrelations (Bartlett 1935), here by their spectra.
    """
    first, second = (np.abs(np.fft.fft2(plane)) ** 2 for plane in details)
    half = (first * second).sum()
    independent = first.sum() * second.sum() / half if half > 0 else 1.0
    return float(DEVIATIONS / np.sqrt(independent))


def _products(still: Plane, windows: Plane) -> Plane:
    return np.asarray(np.tensordot(windows, still, 2), np.float32)


def joined_groups(
    groups: Mapping[str, str], pairs: Iterable[NearDuplicate]
) -> dict[str, frozenset[str]]:
    """What must stay in one split: case -> all cases linked to it by a group or a near-duplicate.

    Args:
        groups: case -> patient or slide, empty where it is not known.
        pairs: between cases of ``groups``.
    """
    together: dict[str, set[str]] = {case: {case} for case in groups}

    def join(first: str, second: str) -> None:
        small, large = sorted((together[first], together[second]), key=len)
        if small is not large:
            large |= small
            together.update(dict.fromkeys(small, large))

    first_of: dict[str, str] = {}
    for case, group in groups.items():
        if group:
            join(first_of.setdefault(group, case), case)
    for pair in pairs:
        join(pair.first, pair.second)
    members = {id(joined): frozenset(joined) for joined in together.values()}
    return {case: members[id(joined)] for case, joined in together.items()}
