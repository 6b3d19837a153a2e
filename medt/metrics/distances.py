"""Distances between the pixels of masks, by exact distance transforms."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medt.metrics.pixel_size import Spacing

UNSPACED: Spacing = (1.0, 1.0)


def distance_map(mask: NDArray[np.bool_], spacing: Spacing = UNSPACED) -> NDArray[np.floating[Any]]:
    """Of each pixel to the nearest one of a mask that is not empty: (H, W).

    Args:
        mask: (H, W) bool.
        spacing: height and width of a pixel, in whose unit the distances are.
    """
    if spacing[0] != spacing[1]:
        far = ndimage.distance_transform_edt(~mask, sampling=spacing)
        return np.asarray(far, np.float64)
    outside = (~mask).astype(np.uint8)
    distances = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distances * np.float32(spacing[0]), np.float32)


def distances_between(
    first: NDArray[np.bool_], second: NDArray[np.bool_], spacing: Spacing = UNSPACED
) -> NDArray[np.floating[Any]]:
    """Of each pixel of the first mask to the nearest one of the second: float64.

    A squared distance of square pixels is a whole number, which takes the rounding of float32 away.

    Args:
        first, second: (H, W) bool.
        spacing: height and width of a pixel, in whose unit the distances are.
    """
    if spacing[0] != spacing[1]:
        return np.asarray(distance_map(second, spacing)[first], np.float64)
    squares = np.square(distance_map(second)[first].astype(np.float64))
    return np.asarray(np.sqrt(np.rint(squares)) * spacing[0], np.float64)
