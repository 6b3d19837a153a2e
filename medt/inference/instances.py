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

Method = Literal["none", "components", "watershed", "seeds"]

METHODS = {
    "none": "the prediction as it is; its objects are 8-connected components of one class",
    "components": "holes are filled, small objects removed; objects are 8-connected components of "
    "one class",
    "watershed": "holes are filled, touching objects parted by a watershed of the distance to the "
    "class's edge, small objects removed",
    "seeds": "holes are filled, touching objects parted by a watershed of what the network says of "
    "the depth within objects, small objects removed",
}
# The numbers that a method uses, in the order in which they are shown.
USED: dict[str, tuple[str, ...]] = {
    "none": (),
    "components": ("smallest", "largest_hole"),
    "watershed": ("smallest", "largest_hole", "smoothing", "seed_distance", "depth"),
    "seeds": ("smallest", "largest_hole", "smoothing", "depth"),
}


@dataclass(frozen=True)
class InstanceRule:
    """How the objects of a mask are found; sizes in pixels of the mask.

    Attributes:
        method: a key of :data:`METHODS`. "none" uses none of the numbers.
        smallest: objects of fewer pixels are removed.
        largest_hole: holes of at most so many pixels are filled: 4-connected background that one
            object encloses.
        smoothing: watershed, seeds: standard deviation of the Gaussian that smooths the depths.
        seed_distance: watershed: how far apart the centres of two objects are at least.
        depth: how much shallower than both of two objects it is between them at least: watershed:
            in pixels; seeds: as a share of the greatest depth, 0..1.

    Raises:
        UserError: the method is not known, or a number is out of range.
    """

    method: Method = "none"
    smallest: int = 0
    largest_hole: int = 0
    smoothing: float = 1.0
    seed_distance: int = 5
    depth: float = 0.0

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
            "depth": 0,
        }.items():
            value = getattr(self, name)
            if not value >= least:
                raise UserError(f"postprocess.{name}={value} is out of range", f"give >= {least}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the method and the numbers that it uses."""
        numbers = asdict(self)
        used = {key: numbers[key] for key in USED[self.method]}
        if self.method == "watershed" and not self.depth:  # as versions without it said
            del used["depth"]
        return {"method": self.method, **used}

    def __str__(self) -> str:
        """As on the command line: ``postprocess=components postprocess.smallest=30 ...``."""
        method, *numbers = self.to_dict().items()
        return " ".join(
            [f"postprocess={method[1]}", *(f"postprocess.{key}={value}" for key, value in numbers)]
        )


NO_RULE = InstanceRule()
# Of the typical object's area: less is no object, nor a hole of one. What tuning found on GlaS,
# DSB2018 and MoNuSeg was from 0.1 to 0.4 (docs/experiments.md).
SPECK = 0.1


def parting_rule(area: int | None) -> InstanceRule:
    """For a network that was trained to part objects, until its numbers are tuned.

    Args:
        area: pixels of a typical object; None where it is not known.
    """
    speck = round(SPECK * (area or 0))
    return InstanceRule("seeds", smallest=speck, largest_hole=speck, depth=0.3)


def find_objects(
    ids: NDArray[np.uint8],
    rule: InstanceRule,
    depths: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The mask as the rule cleans it, and its objects.

    Args:
        ids: (H, W) class ids, 0 = background, 255 = ignored, which is in no object.
        rule: what is done with each class by itself.
        depths: (H, W), 0..1, what a network says of how deep a pixel lies within its object; None
            where it was not trained to.

    Raises:
        UserError: the rule needs depths, and there are none.

    Returns:
        (H, W) uint8 class ids, and (H, W) int32 object numbers from 1 in the order of the class
        ids, 0 = none. Each object is of one class; each pixel of a class but the background
        belongs to an object.
    """
    if rule.method == "seeds" and depths is None:
        raise UserError(
            "postprocess=seeds needs a network that was trained to part objects",
            "train with dataset.objects=borders or distance, or give postprocess=watershed",
        )
    cleaned = np.zeros_like(ids)
    objects = np.zeros(ids.shape, np.int32)
    count = 0
    for class_id in np.unique(ids[(ids > 0) & (ids != IGNORE_INDEX)]).tolist():
        mask = ids == class_id
        if rule.method != "none" and rule.largest_hole > 0:
            mask |= _small_holes(mask, rule.largest_hole) & (ids == 0)
        mask &= cleaned == 0  # a hole that two classes enclose is the first one's
        if rule.method == "watershed":
            found = _parted_by_distance(mask, rule)
        elif rule.method == "seeds":
            assert depths is not None
            found = _grown(mask, _smoothed(depths * mask.astype(np.float32), rule), rule.depth)
        else:
            found = components(mask)
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


def _parted_by_distance(mask: NDArray[np.bool_], rule: InstanceRule) -> NDArray[np.int32]:
    """Objects around the deepest points of the distance to the mask's edge."""
    from skimage.feature import peak_local_max

    plain = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    distance = _smoothed(np.asarray(plain, np.float32), rule)
    peaks = peak_local_max(  # type: ignore[no-untyped-call]
        distance, min_distance=rule.seed_distance, labels=components(mask), exclude_border=False
    )
    return _grown(mask, distance, rule.depth, peaks)


def _smoothed(depths: NDArray[np.float32], rule: InstanceRule) -> NDArray[np.float32]:
    if not rule.smoothing:
        return depths
    return np.asarray(cv2.GaussianBlur(depths, (0, 0), rule.smoothing), np.float32)


def _grown(
    mask: NDArray[np.bool_],
    depths: NDArray[np.float32],
    least: float,
    peaks: NDArray[np.intp] | None = None,
) -> NDArray[np.int32]:
    """Objects grown from seeds to the deep pixels first; a component without a seed is one object.

    Args:
        mask: (H, W) of one class.
        depths: (H, W), >= 0.
        least: two seeds are one unless the depth between them is so much less than at either.
        peaks: (n, 2) rows and columns of the seeds; None takes every maximum of the depths.
    """
    from skimage.segmentation import watershed

    seeds = _seeds(depths * mask, least, peaks)
    regions = components(mask)
    bare = np.setdiff1d(np.arange(1, regions.max() + 1), regions[seeds > 0])
    seeds = np.where(np.isin(regions, bare), regions + seeds.max(), seeds)  # left in one piece
    labels = watershed(-depths, seeds, connectivity=2, mask=mask)  # type: ignore[no-untyped-call]
    return np.asarray(labels, np.int32)


def _seeds(
    depths: NDArray[np.float32], least: float, peaks: NDArray[np.intp] | None
) -> NDArray[np.int32]:
    """The numbered seeds of `_grown`: hills of the depths, or peaks, of which a hill has one."""
    from skimage.morphology import local_maxima, reconstruction

    if peaks is not None and not least:
        seeds = np.zeros(depths.shape, np.int32)
        seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        return seeds
    # Lowered by `least` and filled up below the depths, what lies between two peaks is level with
    # both where it is not so much shallower (h-maxima: Soille, Morphological Image Analysis, 6.3).
    level = depths
    if least:
        lowered = np.maximum(depths - least, 0)
        level = reconstruction(lowered, depths)  # type: ignore[no-untyped-call]
    highest = local_maxima(level)  # type: ignore[no-untyped-call]
    hills = components(highest & (level > 0))
    if peaks is None:
        return hills
    seeds = np.zeros(depths.shape, np.int32)
    seeds[tuple(peaks.T)] = hills[tuple(peaks.T)]
    return seeds


def _without_small(labels: NDArray[np.int32], smallest: int) -> NDArray[np.int32]:
    """The objects of at least `smallest` pixels, numbered from 1 without gaps."""
    large = areas(labels) >= max(smallest, 1)
    large[0] = False
    numbers = np.where(large, np.cumsum(large), 0).astype(np.int32)
    kept: NDArray[np.int32] = numbers[labels]
    return kept
