"""Lists of transforms as one change: one random state a call, geometry first, the crop between."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np
from albumentations.core.composition import BaseCompose
from numpy.typing import NDArray

from medt.data.augmentation.transforms import Elastic, QuarterTurns
from medt.data.crops import Sample
from medt.errors import UserError, is_out_of_memory

Transforms = Mapping[str, Any] | Sequence[Any]
FILLS = ("fill_mask", "mask_drop_value")  # what a transform may write into a mask
IGNORED = 255
SMALLEST_ZOOM = 0.01


class Pipeline:
    """Changes image and mask by transforms of albumentations, or of this package, in their order.

    Args:
        geometry: the transforms that move pixels, of image and mask: a list, or by name.
        appearance: those that follow, of the image's values.

    Raises:
        UserError: something is no transform, a probability lies outside 0..1, a zoom is no range
            above 0, or a mask would gain a class; the message begins with the place in the lists.
    """

    def __init__(self, geometry: Transforms = (), appearance: Transforms = ()) -> None:
        named = {"geometry": geometry, "appearance": appearance}
        for place, transform in _walk(named):
            _check(transform, place)
        self.geometry, self.appearance = _values(geometry), _values(appearance)
        self._composed: dict[tuple[int, ...], Any] = {}

    def __call__(
        self,
        image: NDArray[Any],
        mask: NDArray[np.uint8],
        seed: int,
        size: tuple[int, int] | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Change image and mask alike; the arguments are not written to.

        Args:
            image: (H, W, C) uint8, or float32 in 0..1.
            mask: (H, W) uint8 class ids, 255 = ignored.
            seed: non-negative; the same seed gives the same result in any process.
            size: (h, w) of the result, cut from the middle after the changes of geometry, which
                so draw from what surrounds it; None keeps (H, W).

        Returns:
            New contiguous arrays of the same types, (h, w, C) and (h, w).

        Raises:
            UserError: a transform does not take such an image, or changes its size or type.
        """
        changed = self.with_objects(Sample(image, mask), seed, size)
        return changed.image, changed.mask

    def with_objects(
        self, sample: Sample, seed: int, size: tuple[int, int] | None = None
    ) -> Sample:
        """As a call, and the object numbers, up to 65,535, go with the mask.

        There is no object where the mask is ignored.
        """
        image, mask, instances = sample
        height, width, channels = image.shape
        size = (height, width) if size is None else size
        key = (height, width, *size)
        if key not in self._composed:
            self._composed[key] = self._compose((height, width), size)
        composed = self._composed[key]
        composed.set_random_state(np.random.default_rng(seed), random.Random(seed))
        try:
            given = {} if instances is None else {"instances": instances.astype(np.uint16)}
            changed = composed(image=image.copy(), mask=mask.copy(), **given)
        except Exception as error:
            if isinstance(error, UserError) or is_out_of_memory(error):
                raise
            said = " ".join(str(error).split())[:300]
            raise UserError(
                f"augmentation cannot change an image of {image.shape}, {image.dtype}: "
                f"{type(error).__name__}: {said}",
                "leave the transform out that needs another one",
            ) from error
        new, new_mask = (np.ascontiguousarray(changed[name]) for name in ("image", "mask"))
        if (new.size, new.dtype) != (math.prod(size) * channels, image.dtype):
            raise UserError(
                f"augmentation makes {new.shape}, {new.dtype} of an image of "
                f"{(*size, channels)}, {image.dtype}",
                "leave out what changes size or type: dataset.image_size and normalize do that",
            )
        new_mask = new_mask.reshape(size)
        numbers = None
        if instances is not None:  # a transform fills them with what it fills the mask with
            numbers = np.where(new_mask == IGNORED, 0, changed["instances"].reshape(size))
        return Sample(new.reshape(*size, channels), new_mask, numbers)

    def margin(self, height: int, width: int) -> tuple[int, int]:
        """Pixels above and below, left and right of a result that its geometry draws from.

        That is what the largest turn of each A.Affine at its smallest zoom needs; a shift on top
        may show the mirror.
        """
        vertical = horizontal = 0
        for _, change in _walk({"geometry": self.geometry}):
            if isinstance(change, A.Affine) and change.p > 0:
                steepest = math.radians(min(max(map(abs, change.rotate)), 90))
                # Where each side is longest.
                turned = math.atan2(width, height), math.atan2(height, width)
                zoom = _smallest_zoom(change)
                tall = _turned(height, width, min(steepest, turned[0])) / zoom
                wide = _turned(width, height, min(steepest, turned[1])) / zoom
                vertical += _half(tall - height)
                horizontal += _half(wide - width)
        return vertical, horizontal

    def _compose(self, whole: tuple[int, int], size: tuple[int, int]) -> Any:
        """The transforms for images of the size `whole` and results of the size `size`."""
        geometry, appearance = copy.deepcopy((self.geometry, self.appearance))
        for _, change in _walk({"geometry": geometry, "appearance": appearance}):
            if isinstance(change, Elastic | QuarterTurns):
                change.fit(*size)
        cut = [] if size == whole else [A.CenterCrop(*size)]
        return A.Compose(
            [*geometry, *cut, *appearance],
            mask_interpolation=cv2.INTER_NEAREST,
            additional_targets={"instances": "mask"},
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_composed": {}}


def _values(transforms: Transforms) -> list[Any]:
    return list(transforms.values() if isinstance(transforms, Mapping) else transforms)


def _walk(lists: Mapping[str, Transforms]) -> Iterator[tuple[str, Any]]:
    """Every transform, also within compositions, with its place, such as geometry.affine."""
    for place, transforms in lists.items():
        names = transforms if isinstance(transforms, Mapping) else range(len(transforms))
        for name, one in zip(names, _values(transforms), strict=True):
            yield f"{place}.{name}", one
            if isinstance(one, BaseCompose):
                yield from _walk({f"{place}.{name}.transforms": one.transforms})


def _check(transform: Any, place: str) -> None:
    if not isinstance(transform, A.BasicTransform | BaseCompose):
        raise UserError(f"{place} is no transform", "name one, such as albumentations.Blur")
    if not 0 <= transform.p <= 1:
        raise UserError(f"{place}.p={transform.p} is no probability", "use a number from 0 to 1")
    if isinstance(transform, A.Affine) and (zoom := _smallest_zoom(transform)) < SMALLEST_ZOOM:
        raise UserError(f"{place}.scale={zoom} is out of range", f"give at least {SMALLEST_ZOOM}")
    if getattr(transform, "border_mode", cv2.BORDER_CONSTANT) != cv2.BORDER_CONSTANT:
        return
    for name in FILLS:
        value = getattr(transform, name, None)
        if value not in (None, IGNORED):
            raise UserError(
                f"{place}.{name}={value} would be a class where nothing is known",
                f"give {name}: {IGNORED} (ignored)"
                + (" or border_mode: 4 (mirror)" if hasattr(transform, "border_mode") else ""),
            )


def _smallest_zoom(affine: Any) -> float:
    return float(min(low for low, _ in affine.scale.values()))


def _turned(side: float, other: float, angle: float) -> float:
    """The extent along ``side`` of the rectangle side x other, turned."""
    return side * math.cos(angle) + other * math.sin(angle)


def _half(excess: float) -> int:
    return max(0, math.ceil(excess / 2))
