"""Looks at the files of a dataset, each of which is decoded once for all that is asked of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medt.data.changes import Fact, fact_of
from medt.data.labels import Labels
from medt.errors import UserError
from medt.io.images import Samples, read_samples

Found = TypeVar("Found")
Look = Callable[[Samples, str], Found]  # at an image and its path; equal ones find the same
MaskLook = Callable[[NDArray[np.uint8], NDArray[Any] | None], Any]  # at class ids, object numbers
Place = tuple[Path, Fact | None]
Plan = Callable[[int], tuple[Sequence[Look[Any]], MaskLook | None]]  # by the network's channels


def nothing_planned(channels: int) -> tuple[Sequence[Look[Any]], MaskLook | None]:
    """The plan of those who look at files one by one."""
    return (), None


class Scan:
    """What looks found in files, kept as long as a file has the same size and time of change.

    Pixels are not kept, so that any number of images can be looked at.

    Args:
        page: which image of a stack, from 0.
        looks: at every image that is decoded, since they will be asked for.
        mask_look: the same for masks.
    """

    def __init__(
        self,
        page: int | None = None,
        looks: Sequence[Look[Any]] = (),
        mask_look: MaskLook | None = None,
    ) -> None:
        self.page = page
        self._looks = tuple(looks)
        self._mask_look = mask_look
        self._images: dict[tuple[Place, Look[Any]], Any] = {}
        self._masks: dict[Place, tuple[Labels, dict[int, int], Any]] = {}

    def image(self, path: Path, look: Look[Found]) -> Found:
        """What a look finds in an image.

        Raises:
            UserError: the image cannot be read, or the look refuses it.
        """
        place = path, fact_of(path)
        if (place, look) not in self._images:
            samples = read_samples(path, self.page)
            for each in {*self._looks, look}:
                self._images[place, each] = _outcome(each, samples, str(path))
        found: Found | UserError = self._images[place, look]
        if isinstance(found, UserError):
            raise found
        return found

    def add_mask(self, path: Path, mask: NDArray[Any], values: Sequence[int], to: Labels) -> None:
        """Look at a mask that was decoded.

        Args:
            values: all that are in the mask.
            to: what they most likely mean.
        """
        table = to.table(values)
        if self._mask_look is not None and table is not None:
            found = self._mask_look(to.class_ids(mask), mask if to.instances else None)
            self._masks[path, fact_of(path)] = to, table, found

    def mask(self, path: Path, labels: Labels) -> Any:
        """What the look at a mask that was added found; None if its values mean something else."""
        to, table, found = self._masks.get((path, fact_of(path)), (labels, {}, None))
        kinds = {(one.painted, one.alpha, one.instances) for one in (to, labels)}
        return found if len(kinds) == 1 and labels.table(table) == table else None


def _outcome(look: Look[Any], samples: Samples, name: str) -> Any:
    try:
        return look(samples, name)
    except UserError as error:
        return error
