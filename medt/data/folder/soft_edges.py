"""Masks of one class whose edges were smoothed, by resizing, drawing or JPEG: how to tell them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

END = 1 / 8  # of the range of values: what is this near to 0 or the highest counts as that
LEAST_HIGHEST = 32  # what is below may be the classes of thin lines
FEWEST_BETWEEN = 3  # values; fewer may be classes
FEWEST_SHADES = 9  # other than 0 and the highest, where none is between: JPEG leaves those
MOST_SOLID = 0.02  # of the pixels between, or of all shades, inside an area of their value
MOST_BETWEEN = 1 / 4  # of all pixels
LEAST_HIGH = 1 / 3  # of the pixels between; of numbers that are spread evenly it is 1/6


def solid_pixels(mask: NDArray[Any]) -> dict[int, int]:
    """Value -> the pixels whose eight neighbours hold it, too; ``mask`` is (H, W)."""
    across = (mask[:, 1:-1] == mask[:, :-2]) & (mask[:, 1:-1] == mask[:, 2:])
    inside = across[1:-1] & across[:-2] & across[2:]
    middle = mask[1:-1, 1:-1]
    inside &= (middle == mask[:-2, 1:-1]) & (middle == mask[2:, 1:-1])
    values, counts = np.unique(middle[inside], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def has_soft_edges(found: Mapping[int, int], solid: Mapping[int, int]) -> bool:
    """Whether values between 0 and the highest lie on edges alone, not in areas of their own.

    Numbers of objects or classes fill areas, however small; so do not the shades of an edge.

    Args:
        found: mask value -> pixels, over all masks.
        solid: the same of ``solid_pixels``.
    """
    if not found or min(found) != 0 or not LEAST_HIGHEST <= max(found) <= 0xFFFF:
        return False
    between = _between(found)
    shades = sorted(found)[1:-1]
    if len(between) < FEWEST_BETWEEN:
        return len(shades) >= FEWEST_SHADES and _are_thin(shades, found, solid)
    pixels = sum(found[value] for value in between)
    high = sum(n for value, n in found.items() if value >= (1 - END) * max(found))
    return (
        _are_thin(between, found, solid)
        and pixels <= MOST_BETWEEN * sum(found.values())
        and high >= LEAST_HIGH * pixels
    )


def has_areas_between(found: Mapping[int, int], solid: Mapping[int, int]) -> bool:
    """Whether values between 0 and the highest fill areas, as those of a third class do."""
    between = _between(found)
    pixels = sum(found[value] for value in between)
    return sum(solid.get(value, 0) for value in between) > pixels / 4


def _are_thin(values: Sequence[int], found: Mapping[int, int], solid: Mapping[int, int]) -> bool:
    inside = sum(solid.get(value, 0) for value in values)
    return inside <= MOST_SOLID * sum(found[value] for value in values)


def _between(found: Mapping[int, int]) -> list[int]:
    highest = max(found)
    return [value for value in found if END * highest < value < (1 - END) * highest]
