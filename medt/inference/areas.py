"""summary.csv: how much of each class a prediction found, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medt.data.layout import SegmentationClass
from medt.errors import UserError
from medt.inference.tables import ImageTable, Row, is_count
from medt.metrics.pixel_size import COUNTED_PER, PIXELS, UNITS, PixelSize

SUMMARY_FILE = "summary.csv"
COUNTED = ("image", "class", "pixels", "fraction", "objects")


def summary_columns(pixel_size: PixelSize) -> tuple[str, ...]:
    """Those that are counted, and those that are measured, with their units."""
    return (
        *COUNTED,
        f"area_{pixel_size.of_area}",
        f"objects_per_{COUNTED_PER[pixel_size.unit][0]}",
    )


def class_rows(
    name: str,
    ids: NDArray[np.uint8],
    objects: NDArray[np.int32],
    classes: Sequence[SegmentationClass],
    pixel_size: PixelSize = PIXELS,
) -> list[Row]:
    """A row for each class of one image, in the order of `summary_columns`.

    Args:
        name: of the image.
        ids: (H, W) class ids; 255 = outside the region of interest, which nothing counts.
        objects: (H, W) numbers of objects from 1, each of one class; 0 = none.
        classes: in the order of the ids; of the background no objects are counted.
        pixel_size: areas, and the objects per area of the image, are in its unit.
    """
    class_of = np.zeros(int(objects.max()) + 1, np.uint8)
    for numbers, row in zip(objects, ids, strict=True):  # fewer bytes at once than all rows take
        class_of[numbers] = row
    of_class = np.bincount(class_of[1:], minlength=len(classes))
    pixels = [int(np.count_nonzero(ids == one.id)) for one in classes]
    counted = [
        (
            name,
            one.name,
            str(pixels[one.id]),
            f"{pixels[one.id] / sum(pixels):.6f}",
            str(of_class[one.id]) if one.id else "",
        )
        for one in classes
    ]
    return measured(counted, pixel_size)


def measured(rows: Sequence[Row], pixel_size: PixelSize) -> list[Row]:
    """All rows of an image with the columns that follow from what is counted."""
    inside = sum(int(row[2]) for row in rows) * pixel_size.area
    per = COUNTED_PER[pixel_size.unit][1]
    return [
        (
            *row[: len(COUNTED)],
            number(int(row[2]) * pixel_size.area),
            number(int(row[4]) / inside * per) if row[4] and inside else "",
        )
        for row in rows
    ]


def number(value: float) -> str:
    """A measured value as a cell; digits beyond the tenth are rounding."""
    return f"{value:.10g}"


class Summary(ImageTable):
    """The file while a folder is predicted.

    Rows in pixels, such as those of earlier versions, are taken over; measures of these follow.

    Args:
        folder: of the predictions.
        pixel_size: of the images.

    Raises:
        UserError: there is a file of this name that is none of ours, or in another unit.
    """

    def __init__(self, folder: Path, pixel_size: PixelSize = PIXELS) -> None:
        self.pixel_size = pixel_size
        path = folder / SUMMARY_FILE
        super().__init__(path, summary_columns(pixel_size), 2, "summary of predictions")

    def lacks(self, name: str, classes: Sequence[SegmentationClass]) -> bool:
        """Whether rows of an image are missing; those of other classes are another network's."""
        known = {row[1] for row in self.rows.get(name, ())}
        return known < {one.name for one in classes}

    def is_of(self, name: str, classes: Sequence[SegmentationClass]) -> bool:
        """Whether the rows of an image are of these classes."""
        return {row[1] for row in self.rows.get(name, ())} == {one.name for one in classes}

    def found(self, name: str) -> tuple[int, int]:
        """How many objects the rows of an image count, and how many pixels these have."""
        rows = [row for row in self.rows.get(name, ()) if row[4]]
        return sum(int(row[4]) for row in rows), sum(int(row[2]) for row in rows)

    def measure(self, name: str) -> None:
        """Let the rows of an image, if there are any, have the areas of this pixel size."""
        rows = self.rows.get(name, [])
        again = measured(rows, self.pixel_size)
        if again != [tuple(row) for row in rows]:
            self.add(name, again)

    def adopted(self, head: Row, rows: list[Row]) -> list[Row]:
        """As in `ImageTable`; rows in pixels lack the measures of other units."""
        heads = {summary_columns(PixelSize(unit=unit)): unit for unit in UNITS}
        heads[COUNTED] = PIXELS.unit  # as earlier versions wrote
        unit = heads.get(tuple(head))
        if unit is None or {len(row) for row in rows} - {len(head)}:
            raise self.refused
        if not all(is_count(row[2]) and (is_count(row[4]) or not row[4]) for row in rows):
            raise self.refused
        if unit == self.pixel_size.unit and len(head) == len(self.columns):
            return rows
        refuse_unit(self.path, unit, self.pixel_size, but=PIXELS.unit)
        blank = ("",) * (len(self.columns) - len(COUNTED))
        return [(*row[: len(COUNTED)], *blank) for row in rows]


def refuse_unit(path: Path, unit: str, pixel_size: PixelSize, but: str = "") -> None:
    """Refuse a table in another unit; its rows and ours would be one column.

    Raises:
        UserError: it is in neither the unit of the pixel size nor the one that is excepted.
    """
    if unit not in (pixel_size.unit, but):
        raise UserError(
            f"{path} is in {UNITS[unit]}, but pixel_size={pixel_size}",
            f"give it in {unit}, choose another output folder, or move the file away: masks that "
            "are kept are counted again",
        )
