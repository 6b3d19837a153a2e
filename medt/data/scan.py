"""Looks at the files of a dataset, each of which is decoded once for all that is asked of it."""

from __future__ import annotations

import os
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
Place = tuple[Path, Fact | None, int | None]
Plan = Callable[[int], tuple[Sequence[Look[Any]], MaskLook | None]]  # by the network's channels


WORKERS = min(8, os.cpu_count() or 1)  # each holds an image and its mask


def place_of(path: Path, page: int | None) -> Place:
    """A page of a file as it is now."""
    return path, fact_of(path), page


def nothing_planned(channels: int) -> tuple[Sequence[Look[Any]], MaskLook | None]:
    """The plan of those who look at files one by one."""
    return (), None


class Scan:
    """What looks found in files, kept as long as a file has the same size and time of change.

    Pixels are not kept, so that any number of images can be looked at.

    Args:
        looks: at every image that is decoded, since they will be asked for.
        mask_look: the same for masks.
    """

    def __init__(self, looks: Sequence[Look[Any]] = (), mask_look: MaskLook | None = None) -> None:
        self._looks = tuple(looks)
        self._mask_look = mask_look
        self._images: dict[tuple[Place, Look[Any]], Any] = {}
        self._masks: dict[Place, tuple[Labels, dict[int, int], Any]] = {}

    def image(self, path: Path, page: int | None, look: Look[Found]) -> Found:
        """What a look finds in an image.

        Args:
            page: which image of a stack, from 0.

        Raises:
            UserError: the image cannot be read, or the look refuses it.
        """
        place = place_of(path, page)
        if (place, look) not in self._images:
            samples = read_samples(path, page)
            for each in {*self._looks, look}:
                self._images[place, each] = _outcome(each, samples, str(path))
        found: Found | UserError = self._images[place, look]
        if isinstance(found, UserError):
            raise found
        return found

    def add_mask(self, place: Place, mask: NDArray[Any], values: Sequence[int], to: Labels) -> None:
        """Look at a mask that was decoded.

        Args:
            place: the file as it was before.
            values: all that are in the mask.
            to: what they most likely mean.
        """
        table = to.table(values)
        if self._mask_look is not None and table is not None:
            found = self._mask_look(to.class_ids(mask), mask if to.instances else None)
            self._masks[place] = to, table, found

    def mask(self, path: Path, page: int | None, labels: Labels) -> Any:
        """What the look at a mask that was added found; None if its values mean something else."""
        to, table, found = self._masks.get(place_of(path, page), (labels, {}, None))
        kinds = {(one.painted, one.alpha, one.instances) for one in (to, labels)}
        return found if len(kinds) == 1 and labels.table(table) == table else None


def _outcome(look: Look[Any], samples: Samples, name: str) -> Any:
    try:
        return look(samples, name)
    except UserError as error:
        return error
