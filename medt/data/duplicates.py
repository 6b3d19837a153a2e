"""Images that show the same thing: copies, re-encodings, slightly different exposures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medt.drawing import displayable
from medt.files import natural_key

HASH_SIDE = 16
# Of the 256 bits, how many two images of the same thing may differ in. Measured on GlaS, DSB2018,
# ISBI 2012 and Kvasir-SEG: JPEG of quality 30, half the size, noise, blur, 20 % more brightness or
# 1 % cut off change at most 30; different images are at least 56 apart (endoscopies; tissue 96).
LARGEST_DISTANCE = 40

Hash = NDArray[np.bool_]


class NearDuplicate(NamedTuple):
    """Two cases whose images look alike; ``distance`` is the number of differing bits."""

    first: str
    second: str
    distance: int


def perceptual_hash(image: NDArray[Any]) -> Hash:
    """256 bits of an image's coarse structure: signs of its lowest cosine frequencies.

    Size, compression, brightness and contrast hardly change it; mirroring and turning do.

    Args:
        image: (H, W) or (H, W, C), any type.
    """
    import imagehash
    from PIL import Image

    picture = Image.fromarray(displayable(image))
    bits: Hash = imagehash.phash(picture, hash_size=HASH_SIDE).hash.ravel()
    return bits


def near_duplicates(
    hashes: Mapping[str, Hash], distance: int = LARGEST_DISTANCE
) -> Iterator[NearDuplicate]:
    """All pairs of cases at most ``distance`` bits apart, in natural order of their names.

    One by one, since n images that are all alike are n^2 / 2 pairs.
    """
    names = sorted(hashes, key=natural_key)
    if len(names) < 2:
        return
    bits = np.stack([hashes[name] for name in names]).astype(np.float32) * 2 - 1
    for index in range(len(names) - 1):
        apart = (bits.shape[1] - bits[index + 1 :] @ bits[index]) / 2
        for offset in np.flatnonzero(apart <= distance).tolist():
            other = names[index + 1 + offset]
            yield NearDuplicate(names[index], other, int(apart[offset]))


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
