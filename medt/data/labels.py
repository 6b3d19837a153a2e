"""What the numbers in mask files mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medt.errors import UserError
from medt.metrics.pixel import IGNORE_INDEX


@dataclass(frozen=True)
class Labels:
    """How mask values become class ids.

    Attributes:
        values: mask value -> class id 0..254; None where the values are the ids.
        ignore: the mask value that is neither trained on nor scored, or None.
    """

    values: Mapping[int, int] | None = None
    ignore: int | None = None

    def class_ids(self, mask: NDArray[Any], name: str = "the mask") -> NDArray[np.uint8]:
        """Translate mask values to class ids.

        Args:
            mask: (H, W) integers or bool.
            name: what an error calls the mask.

        Returns:
            (H, W) uint8; what is ignored is 255 (``IGNORE_INDEX``).

        Raises:
            UserError: the mask is no plane of integers, or holds values that are no class; all of
                them are named.
        """
        if mask.ndim != 2 or mask.size == 0 or mask.dtype.kind not in "biu":
            raise UserError(
                f"Mask {name} has shape {mask.shape} and type {mask.dtype}",
                "a mask is one plane (H, W) of whole numbers",
            )
        values, inverse = _distinct(mask)
        known = {i: i for i in range(IGNORE_INDEX)} if self.values is None else dict(self.values)
        if self.ignore is not None:
            known[self.ignore] = IGNORE_INDEX
        unknown = [value for value in values.tolist() if value not in known]
        if unknown:
            shown = ", ".join(map(str, unknown[:10])) + (", ..." if len(unknown) > 10 else "")
            expected = (
                "0 to 254" if self.values is None else ", ".join(map(str, sorted(known)[:20]))
            )
            raise UserError(
                f"Mask {name} holds values that are no class: {shown}",
                f"known are {expected}; correct the mask or dataset.classes",
            )
        table = np.array([known[value] for value in values.tolist()], np.uint8)
        return table[inverse].reshape(mask.shape)


IDS = Labels()


def _distinct(mask: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Sorted distinct values and each pixel's index in them; counted where the range allows it."""
    flat = mask.astype(np.int64).ravel()
    if flat.min() < 0 or flat.max() > 0xFFFF:
        values, inverse = np.unique(flat, return_inverse=True)
        return values, inverse.ravel()
    present = np.bincount(flat) > 0
    position = np.cumsum(present) - 1
    return np.flatnonzero(present), position[flat]
