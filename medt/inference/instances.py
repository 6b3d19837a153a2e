"""Objects of a predicted mask: connected components, or touching ones parted by a watershed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from medt.errors import UserError
from medt.metrics.overlaps import areas, components
from medt.metrics.pixel import IGNORE_INDEX

Method = Literal["none", "components", "watershed"]

METHODS = {
    "none": "the prediction as it is; its objects are 8-connected components of one class",
    "components": "holes are filled, small objects removed; objects are 8-connected components of "
    "one class",
    "watershed": "holes are filled, touching objects parted by a watershed of the distance to the "
    "class's edge, small objects removed",
}


@dataclass(frozen=True)
class InstanceRule:
    """How the objects of a mask are found; sizes in pixels of the mask.

    Attributes:
        method: a key of :data:`METHODS`. "none" uses none of the numbers.
        smallest: objects of fewer pixels are removed.
        largest_hole: holes of at most so many pixels are filled: 4-connected background that one
            object encloses.
        smoothing: watershed: standard deviation of the Gaussian that smooths the distance.
        seed_distance: watershed: how far apart the centres of two objects are at least.

    Raises:
        UserError: the method is not known, or a number is out of range.
    """

    method: Method = "none"
    smallest: int = 0
    largest_hole: int = 0
    smoothing: float = 1.0
    seed_distance: int = 5

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UserError(
                f"postprocess.method={self.method} is not known",
                f"choose one of {', '.join(get_args(Method))}",
            )
        for name, least in {
            "smallest": 0,
            "largest_hole": 0,
            "smoothing": 0,
            "seed_distance": 1,
        }.items():
            value = getattr(self, name)
            if not value >= least:
                raise UserError(f"postprocess.{name}={value} is out of range", f"give >= {least}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the method and the numbers that it uses."""
        used = {"none": 1, "components": 3, "watershed": 5}[self.method]
        return dict(list(asdict(self).items())[:used])

    def __str__(self) -> str:
        """As on the command line: ``postprocess=components postprocess.smallest=30 ...``."""
        method, *numbers = self.to_dict().items()
        return " ".join(
            [f"postprocess={method[1]}", *(f"postprocess.{key}={value}" for key, value in numbers)]
        )


NO_RULE = InstanceRule()


def find_objects(
    ids: NDArray[np.uint8], rule: InstanceRule
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The mask as the rule cleans it, and its objects.

    Args:
        ids: (H, W) class ids, 0 = background, 255 = ignored, which is in no object.
        rule: what is done with each class by itself.

    Returns:
        (H, W) uint8 class ids, and (H, W) int32 object numbers from 1 in the order of the class
        ids, 0 = none. Each object is of one class; each pixel of a class but the background
        belongs to an object.
    """
    cleaned = np.zeros_like(ids)
    objects = np.zeros(ids.shape, np.int32)
    count = 0
    for class_id in np.unique(ids[(ids > 0) & (ids != IGNORE_INDEX)]).tolist():
        mask = ids == class_id
        if rule.method != "none" and rule.largest_hole > 0:
            mask |= _small_holes(mask, rule.largest_hole) & (ids == 0)
        mask &= cleaned == 0  # a hole that two classes enclose is the first one's
        found = _watershed(mask, rule) if rule.method == "watershed" else components(mask)
        if rule.method != "none":
            found = _without_small(found, rule.smallest)
        present = found > 0
        np.copyto(cleaned, class_id, where=present)
        np.add(found, count, out=objects, where=present)
        count += int(found.max())
    return cleaned, objects


def _small_holes(mask: NDArray[np.bool_], largest: int) -> NDArray[np.bool_]:
    """Regions of at most `largest` pixels that the mask encloses; those at the edge are none."""
    around = np.pad(~mask, 1, constant_values=True)  # what touches the edge becomes one region
    _, labels, stats, _ = cv2.connectedComponentsWithStats(around.astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] <= largest
    small[[0, labels[0, 0]]] = False  # the mask itself, and the outside
    holes: NDArray[np.bool_] = small[labels][1:-1, 1:-1]
    return holes


def _watershed(mask: NDArray[np.bool_], rule: InstanceRule) -> NDArray[np.int32]:
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    if rule.smoothing > 0:
        distance = cv2.GaussianBlur(distance, (0, 0), rule.smoothing)
    regions = components(mask)
    peaks = peak_local_max(  # type: ignore[no-untyped-call]
        distance, min_distance=rule.seed_distance, labels=regions, exclude_border=False
    )
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    bare = np.setdiff1d(np.arange(1, regions.max() + 1), regions[tuple(peaks.T)])
    seeds = np.where(np.isin(regions, bare), regions + len(peaks), seeds)  # left in one piece
    labels = watershed(-distance, seeds, connectivity=2, mask=mask)  # type: ignore[no-untyped-call]
    return np.asarray(labels, np.int32)


def _without_small(labels: NDArray[np.int32], smallest: int) -> NDArray[np.int32]:
    """The objects of at least `smallest` pixels, numbered from 1 without gaps."""
    large = areas(labels) >= max(smallest, 1)
    large[0] = False
    numbers = np.where(large, np.cumsum(large), 0).astype(np.int32)
    kept: NDArray[np.int32] = numbers[labels]
    return kept
