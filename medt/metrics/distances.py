"""Distances between the pixels of masks, by OpenCV's exact distance transform."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def distance_map(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Of each pixel to the nearest one of a mask that is not empty: (H, W) float32, in pixels."""
    outside = (~mask).astype(np.uint8)
    distances = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distances, np.float32)


def distances_between(
    first: NDArray[np.bool_], second: NDArray[np.bool_]
) -> NDArray[np.floating[Any]]:
    """Of each pixel of the first mask to the nearest one of the second: float64, in pixels.

    A squared distance of pixels is a whole number, which takes the rounding of float32 away.
    """
    squares = np.square(distance_map(second)[first].astype(np.float64))
    return np.asarray(np.sqrt(np.rint(squares)), np.float64)
