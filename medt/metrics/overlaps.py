"""How the objects of two label maps overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]
Integers = NDArray[np.int64]
ROWS = 256  # counted at once


@dataclass(frozen=True)
class Overlaps:
    """The objects of a prediction and a truth, numbered from 0 by their label, and their overlaps.

    Attributes:
        predicted, true: (H, W) intp, the object of each pixel counted from 1, 0 = none.
        predicted_area: pixels of each predicted object.
        true_area: pixels of each true object.
        pairs: (n, 2), each predicted and true object that share a pixel.
        shared: (n,) pixels that each of the pairs shares.
    """

    predicted: NDArray[np.intp]
    true: NDArray[np.intp]
    predicted_area: Integers
    true_area: Integers
    pairs: Integers
    shared: Integers

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each of the pairs, 0..1."""
        areas = self.predicted_area[self.pairs[:, 0]] + self.true_area[self.pairs[:, 1]]
        return np.asarray(self.shared / (areas - self.shared), np.float64)

    def matched(self) -> Integers:
        """Places of pairs, made from the largest IoU down, each object used once."""
        free = [np.ones(len(areas), bool) for areas in (self.predicted_area, self.true_area)]
        chosen = []
        for index in np.argsort(-self.iou, kind="stable"):
            predicted, true = self.pairs[index]
            if free[0][predicted] and free[1][true]:
                free[0][predicted] = free[1][true] = False
                chosen.append(index)
        return np.array(chosen, np.int64)


def components(mask: NDArray[Any]) -> NDArray[np.int32]:
    """8-connected components of a mask (H, W): their numbers from 1, int32, 0 where it is 0."""
    _, labels = cv2.connectedComponents((mask != 0).astype(np.uint8), connectivity=8)
    return np.asarray(labels, np.int32)


def areas(numbers: NDArray[Any], least: int = 0) -> Integers:
    """The pixels of each number of a map (H, W) from 0 on, in a table of at least so many.

    Row by row, since numpy counts in copies of 8 bytes a pixel.
    """
    total = np.zeros(max(least, int(numbers.max()) + 1), np.int64)
    for first in range(0, len(numbers), ROWS):
        total += np.bincount(numbers[first : first + ROWS].ravel(), minlength=len(total))
    return total


def objects_of(true: NDArray[np.bool_], numbered: NDArray[Any] | None) -> Labels:
    """(H, W) numbers of the true objects of a class: the dataset's, else its components."""
    return components(true) if numbered is None else numbered * true


def find_overlaps(prediction: Labels, truth: Labels) -> Overlaps:
    """Number the objects of both label maps and count what they share.

    Args:
        prediction: (H, W) object numbers, 0 = none; they may have gaps, objects may be in parts.
        truth: the same.

    Raises:
        ValueError: the shapes differ, or an object number is negative.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, truth {truth.shape}")
    predicted, predicted_area = _numbered(prediction)
    true, true_area = _numbered(truth)
    columns = len(true_area) + 1
    pairs = (predicted * columns + true)[(predicted > 0) & (true > 0)]
    keys, shared = np.unique(pairs, return_counts=True)
    numbers = np.stack([keys // columns - 1, keys % columns - 1], axis=1)
    return Overlaps(predicted, true, predicted_area, true_area, numbers, shared.astype(np.int64))


def _numbered(labels: Labels) -> tuple[NDArray[np.intp], Integers]:
    """Object numbers from 1 without gaps, and the objects' areas."""
    if labels.size and labels.min() < 0:
        raise ValueError(f"object numbers are negative, such as {labels.min()}")
    present = np.unique(labels)
    numbers = np.searchsorted(present, labels) + (0 if present.size and present[0] == 0 else 1)
    areas = np.bincount(numbers.ravel(), minlength=1)[1:]
    return numbers, areas.astype(np.int64)
