"""Outlines of objects along the edges of their pixels, and as GeoJSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medt.data.layout import SegmentationClass

# The sides of a pixel clockwise as seen: top, right, bottom, left. Walking along them the pixel is
# at the right hand. Of each: the step to the next pixel on the way, the step to the pixel at the
# left hand, and the corner where the side starts; all (row, column).
FORWARD = ((0, 1), (1, 0), (0, -1), (-1, 0))
OUTWARD = ((-1, 0), (0, 1), (1, 0), (0, -1))
CORNER = ((0, 0), (0, 1), (1, 1), (1, 0))

Ring = NDArray[np.int64]


def polygons(region: NDArray[np.bool_]) -> list[list[Ring]]:
    """The outlines of a region along its pixels' edges; they enclose exactly its pixels.

    Pixels that touch at a corner only are not joined: each 4-connected part is a polygon of its
    own, so that no ring crosses or touches itself.

    Args:
        region: (H, W) bool.

    Returns:
        Per part its outer ring, then its holes: (N, 2) corners x, y in pixels from the image's
        upper left corner, the first repeated at the end; the outer ring has a positive area by the
        shoelace formula, holes a negative one.
    """
    from scipy import ndimage

    numbered, _ = ndimage.label(region)
    found = []
    for number, place in enumerate(ndimage.find_objects(numbered), start=1):
        shift = np.array([place[1].start, place[0].start])
        rings = [ring + shift for ring in _rings(numbered[place] == number)]
        found.append(sorted(rings, key=_area, reverse=True))  # the outer ring's area is positive
    return found


def feature_collection(
    ids: NDArray[np.uint8], objects: NDArray[np.int32], classes: Sequence[SegmentationClass]
) -> dict[str, Any]:
    """GeoJSON (RFC 7946) of all objects, which QuPath opens as annotations with their classes.

    Args:
        ids: (H, W) class ids.
        objects: (H, W) numbers of objects from 1, each of one class; 0 = none.
        classes: in the order of the ids.
    """
    from scipy.ndimage import find_objects

    features = []
    for number, place in enumerate(find_objects(objects), start=1):
        if place is None:
            continue
        region = objects[place] == number
        of_class = classes[int(ids[place][region][0])]
        shift = np.array([place[1].start, place[0].start])
        parts = [[(ring + shift).tolist() for ring in rings] for rings in polygons(region)]
        several = len(parts) > 1
        features.append(
            {
                "type": "Feature",
                "geometry": {
                    "type": "MultiPolygon" if several else "Polygon",
                    "coordinates": parts if several else parts[0],
                },
                "properties": {
                    "objectType": "annotation",
                    "name": f"{of_class.name} {number}",
                    "classification": {"name": of_class.name, "color": list(of_class.color)},
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def _rings(part: NDArray[np.bool_]) -> list[Ring]:
    """All outlines of a 4-connected region.

    Where two of its pixels touch at a corner the outline goes from one to the other: the background
    at both sides of that corner is never joined around the region, so no ring comes there twice.
    """
    held = np.pad(part, 1)
    flat, width = held.ravel(), held.shape[1]
    steps = [row * width + column for row, column in FORWARD]
    aside = [row * width + column for row, column in OUTWARD]
    pixels = [np.flatnonzero(flat & ~np.roll(flat, -aside[side])) for side in range(4)]
    sides = np.repeat(np.arange(4), [len(one) for one in pixels])
    start = np.concatenate(pixels)
    ahead = start + np.array(steps)[sides]
    beside = ahead + np.array(aside)[sides]
    pixel = np.where(flat[beside], beside, np.where(flat[ahead], ahead, start))
    turn = np.where(flat[beside], -1, np.where(flat[ahead], 0, 1))
    edges = sides * flat.size + start  # in ascending order
    following = np.searchsorted(edges, (sides + turn) % 4 * flat.size + pixel)
    corners = np.array(CORNER)[sides]
    x, y = start % width - 1 + corners[:, 1], start // width - 1 + corners[:, 0]
    bends = np.empty(len(edges), dtype=bool)  # where the way comes round a corner
    bends[following] = turn != 0
    return [
        np.stack([x[ring], y[ring]], axis=1) for ring in _cycles(following.tolist(), bends.tolist())
    ]


def _cycles(following: list[int], kept: list[bool]) -> list[list[int]]:
    """The cycles of a permutation, of each only what is kept, closed by its first again."""
    seen = [False] * len(following)
    cycles = []
    for first in range(len(following)):
        if seen[first]:
            continue
        cycle, at = [], first
        while not seen[at]:
            seen[at] = True
            if kept[at]:
                cycle.append(at)
            at = following[at]
        cycles.append([*cycle, cycle[0]])
    return cycles


def _area(ring: Ring) -> float:
    x, y = ring.T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2
