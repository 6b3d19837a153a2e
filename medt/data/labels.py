"""What the numbers and colours in mask files mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medt.errors import UserError
from medt.io.images import read_alpha, read_colors, read_mask
from medt.metrics.pixel import IGNORE_INDEX


@dataclass(frozen=True)
class Labels:
    """How masks become class ids.

    Attributes:
        values: mask value -> class id 0..254; None where the values are the ids.
        ignore: the mask value that is neither trained on nor scored, or None.
        painted: whether masks are painted in colours; the values are then 0xRRGGBB.
        instances: whether the values are object numbers: 0 is class 0, all others class 1.
        alpha: whether the values are those of the alpha channel.
    """

    values: Mapping[int, int] | None = None
    ignore: int | None = None
    painted: bool = False
    instances: bool = False
    alpha: bool = False

    def read(self, path: str | Path, page: int | None = None) -> NDArray[np.uint8]:
        """The class ids in a mask file, (H, W) uint8; what is ignored is 255.

        Args:
            page: which image of a stack, from 0.

        Raises:
            UserError: the file cannot be read, or as ``class_ids``.
        """
        return self.class_ids(self.read_values(path, page), str(path))

    def read_values(self, path: str | Path, page: int | None = None) -> NDArray[Any]:
        """The values in a mask file, (H, W) integers, before they become class ids."""
        if self.alpha:
            return read_alpha(path, page)
        return read_colors(path, page) if self.painted else read_mask(path, page)

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
        if self.instances:
            ids: NDArray[np.uint8] = (mask != 0).astype(np.uint8)
            ids[mask == self.ignore] = IGNORE_INDEX
            return ids
        values, inverse = _distinct(mask)
        known = self._known()
        unknown = [value for value in values.tolist() if value not in known]
        if unknown:
            expected = "0 to 254" if self.values is None else self.shown(known)
            raise UserError(
                f"Mask {name} holds values that are no class: {self.shown(unknown)}",
                f"known are {expected}; correct the mask or dataset.classes",
            )
        table = np.array([known[value] for value in values.tolist()], np.uint8)
        return table[inverse].reshape(mask.shape)

    def table(self, values: Iterable[int]) -> dict[int, int] | None:
        """The class id of each of these mask values; None if one of them is no class."""
        if self.instances:
            return {v: IGNORE_INDEX if v == self.ignore else int(v != 0) for v in values}
        known = self._known()
        found = {value: known[value] for value in values if value in known}
        return found if len(found) == len(set(values)) else None

    def _known(self) -> dict[int, int]:
        ids = {i: i for i in range(IGNORE_INDEX)} if self.values is None else dict(self.values)
        return ids if self.ignore is None else {**ids, self.ignore: IGNORE_INDEX}

    def shown(self, values: Iterable[int]) -> str:
        """Values, or colours as #rrggbb, for a message; beyond 20 the first ones and the count."""
        every = sorted(values)
        listed = ", ".join(f"#{v:06x}" if self.painted else str(v) for v in every[:20])
        return listed if len(every) <= 20 else f"{listed}, ... ({len(every)} different)"


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
