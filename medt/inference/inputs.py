"""Which images are predicted, and where the region of interest of each lies."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medt.data.folder.pairing import MASK_WORDS, masks_by_image, suffix_pattern
from medt.errors import UserError
from medt.io.files import IMAGE_EXTENSIONS, looked_for, natural_key
from medt.io.images import PaintedMaskError, read_mask
from medt.io.links import check_link

ROI_WORDS = (*MASK_WORDS, "roi", "fov")
ROI_SUFFIX: re.Pattern[str] = suffix_pattern(ROI_WORDS)


@dataclass(frozen=True)
class Input:
    """An image file, and its name below the folder of images."""

    path: Path
    name: Path


@dataclass(frozen=True)
class Regions:
    """Files of regions of interest: masks of the images' sizes, inside of which they are not 0.

    Attributes:
        place: the folder, or the file, that was given.
        files: per name of an image those that its name fits.
    """

    place: Path
    files: Mapping[Path, Sequence[Path]]

    def inside(self, one: Input, size: tuple[int, ...], page: int | None) -> NDArray[np.bool_]:
        """The region of an image: (H, W) bool.

        Args:
            one: the image.
            size: (H, W) of the image.
            page: which image of a stack, from 0.

        Raises:
            UserError: the image has no region or several, or its file cannot be read, is of another
                size, or 0 throughout.
        """
        file = self._file(one)
        try:
            inside: NDArray[np.bool_] = read_mask(file, page) != 0
        except PaintedMaskError:
            raise UserError(
                f"the roi {file} is painted in colours", "save it in grey: 0 is outside"
            ) from None
        if inside.shape != size:
            sizes = " and ".join(f"{one[1]} x {one[0]}" for one in (inside.shape, size))
            raise UserError(
                f"the roi {file} and its image {one.path} differ in size: {sizes} pixels",
                "give the region at the size of the image",
            )
        if not inside.any():
            raise UserError(f"the roi {file} is empty: all of it is 0", "what is not 0 is inside")
        return inside

    def _file(self, one: Input) -> Path:
        files = self.files.get(one.name, ())
        if len(files) > 1:
            raise UserError(
                f"{one.path} has the rois {' and '.join(str(file) for file in files)}",
                "leave one of them in the folder",
            )
        if not files:
            raise UserError(
                f"{one.path} has no roi in {self.place / one.name.parent}",
                f"its file is called {one.name.stem}, or that and one of _" + ", _".join(ROI_WORDS),
            )
        if self.place.is_dir():
            check_link(files[0], self.place)
        return files[0]


def find_inputs(path: str | Path, output: str | Path, roi: str | Path | None = None) -> list[Input]:
    """The image file itself, or all image files below a folder, in natural order.

    Hidden files and folders, linked folders, the output folder and that of the regions of interest
    are passed over.

    Raises:
        UserError: there is nothing at ``path``, no image, or a link that leads out of it.
    """
    path = Path(path)
    kinds = " ".join(IMAGE_EXTENSIONS)
    if path.is_file():
        if path.suffix.lower() not in IMAGE_EXTENSIONS:
            raise UserError(f"{path} is not an image file", f"the formats are {kinds}")
        return [Input(path, Path(path.name))]
    if not path.exists():
        raise UserError(f"there is no file or folder {path}", looked_for(path))
    names: list[Path] = []
    skipped = {Path(place).resolve() for place in (output, roi) if place is not None}
    for folder, below, files in os.walk(path):
        below[:] = [
            name
            for name in below
            if not name.startswith(".") and Path(folder, name).resolve() not in skipped
        ]
        names += [Path(folder, name).relative_to(path) for name in files if _is_image(name)]
    if not names:
        raise UserError(f"there are no images in {path}", f"the formats are {kinds}")
    for name in names:
        check_link(path / name, path)
    return [Input(path / name, name) for name in sorted(names, key=_order)]


def find_regions(roi: str | Path, inputs: Sequence[Input]) -> Regions:
    """Match the files of a folder, which mirrors that of the images, with these by their names.

    A region has its image's name up to the extension, or that name and a suffix of `ROI_WORDS`. A
    region that is missing is told when its image is predicted.

    Args:
        roi: the folder; for a single image its file, too.
        inputs: what `find_inputs` found.

    Raises:
        UserError: there is no such folder, it is that of several images, or a file is given for
            several.
    """
    place = Path(roi)
    if place.is_file():
        if len(inputs) > 1:
            raise UserError(
                f"roi={place} is one file for {len(inputs)} images", "give a folder with one each"
            )
        return Regions(place, {one.name: [place] for one in inputs})
    if not place.is_dir():
        raise UserError(f"there is no roi folder {place}", looked_for(place))
    below: dict[Path, list[Input]] = defaultdict(list)
    for one in inputs:
        below[one.name.parent].append(one)
    files: dict[Path, Sequence[Path]] = {}
    for parent, images in below.items():
        folder = place / parent
        if len(inputs) > 1 and images[0].path.parent.resolve() == folder.resolve():
            raise UserError(
                f"the roi folder {place} is where the images lie", "put the rois into another one"
            )
        names = {one.path.resolve() for one in images}
        masks = [file for file in _image_files(folder) if file.resolve() not in names]
        found = masks_by_image([one.path for one in images], masks, ROI_SUFFIX)
        files |= {one.name: found[one.path] for one in images}
    return Regions(place, files)


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _is_image(path.name))


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_EXTENSIONS and not name.startswith(".")


def _order(name: Path) -> list[tuple[tuple[int, str], ...]]:
    return [natural_key(part) for part in name.parts]
