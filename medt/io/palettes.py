"""Palettes of masks: what a file stores are indices, and the colours that it gives to them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medt.io.image_headers import HeaderError
from medt.io.tiff import opened_by_pillow


def palette_indices(data: bytes, number: int) -> NDArray[np.uint8] | None:
    """(H, W) indices of a palette image in colours, else None.

    A palette of greys, and that of a GIF, is arbitrary: there the shown values count.
    """
    try:
        with opened_by_pillow(data) as image:
            palette = _palette(image, number)
            if palette is None or _is_grey(palette):
                return None
            return np.array(image)
    except HeaderError:
        return None


def palette_colors(data: bytes, number: int) -> dict[int, int]:
    """The colour, 0xRRGGBB, of each number that a mask is read as; empty without a palette."""
    try:
        with opened_by_pillow(data) as image:
            palette = _palette(image, number)
    except HeaderError:
        return {}
    if palette is None:
        return {}
    colors = (palette.astype(np.int64) @ (1 << 16, 1 << 8, 1)).tolist()
    numbers = palette[:, 0].tolist() if _is_grey(palette) else range(len(colors))
    return dict(zip(numbers, colors, strict=True))


def _palette(image: Any, number: int) -> NDArray[Any] | None:
    """(colours, 3) of one image of a file."""
    if image.mode != "P" or image.format == "GIF":
        return None
    image.seek(number)
    return np.array(image.getpalette("RGB")).reshape(-1, 3)


def _is_grey(palette: NDArray[Any]) -> bool:
    return bool(np.all(palette == palette[:, :1]))
