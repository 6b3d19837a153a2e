"""objects.csv: every object that a prediction found, with its place, size and shape."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medt.data.layout import SegmentationClass
from medt.inference.areas import number, refuse_unit
from medt.inference.tables import ImageTable, Row, is_count
from medt.metrics.pixel_size import UNITS, PixelSize, Spacing, distance_of_offset

OBJECTS_FILE = "objects.csv"
BOX = ("box_left", "box_top", "box_right", "box_bottom")
SIDES = ndimage.generate_binary_structure(2, 1)


class ObjectTable(ImageTable):
    """The file while a folder is predicted.

    Args:
        folder: of the predictions.
        pixel_size: of the images.

    Raises:
        UserError: there is a file of this name that is none of ours, or in another unit.
    """

    def __init__(self, folder: Path, pixel_size: PixelSize) -> None:
        self.pixel_size = pixel_size
        path = folder / OBJECTS_FILE
        super().__init__(path, object_columns(pixel_size), 3, "table of objects")

    def lacks(self, name: str, count: int, pixels: int) -> bool:
        """Whether rows of an image are missing, of another mask, or of another pixel size.

        Args:
            name: of the image.
            count: of its objects.
            pixels: of all of them.
        """
        rows = self.rows.setdefault(name, [])
        area = self.pixel_size.area
        if (len(rows), sum(int(row[3]) for row in rows)) != (count, pixels):
            return True
        return any(row[4] != number(int(row[3]) * area) for row in rows)

    def adopted(self, head: Row, rows: list[Row]) -> list[Row]:
        """As in `ImageTable`, in the unit of the pixel size only."""
        for unit in UNITS:
            if tuple(head) == object_columns(PixelSize(unit=unit)):
                refuse_unit(self.path, unit, self.pixel_size)
        if not all(len(row) > 3 and is_count(row[3]) for row in rows):
            raise self.refused
        return super().adopted(head, rows)


def object_columns(pixel_size: PixelSize) -> tuple[str, ...]:
    """The columns, with their units; boxes are in pixels."""
    unit, area = pixel_size.unit, pixel_size.of_area
    return (
        *("image", "class", "object", "pixels", f"area_{area}"),
        *(f"centroid_x_{unit}", f"centroid_y_{unit}", *BOX),
        *("mean_probability", "eccentricity", f"perimeter_{unit}"),
    )


def object_rows(
    name: str,
    ids: NDArray[np.uint8],
    objects: NDArray[np.int32],
    probabilities: NDArray[np.float32],
    classes: Sequence[SegmentationClass],
    pixel_size: PixelSize,
) -> list[Row]:
    """A row for each object of one image, in the order of `object_columns`.

    Centroids and boxes are measured from the upper left corner of the image, as the outlines in
    GeoJSON are: the centre of the first pixel lies half a pixel from it, and a box ends where its
    last pixels do. The eccentricity is that of the ellipse with the object's second moments: 0 for
    a circle, towards 1 for a line.

    Args:
        name: of the image.
        ids: (H, W) class ids.
        objects: (H, W) numbers of objects from 1, each of one class; 0 = none.
        probabilities: (classes, H, W), 0..1; of each object the mean of its class's is taken.
        classes: in the order of the ids.
        pixel_size: areas and distances are in its unit.
    """
    from skimage.measure import regionprops

    rows: list[Row] = []
    for one in regionprops(objects, spacing=pixel_size.spacing):  # type: ignore[no-untyped-call]
        class_id = int(ids[one.slice][one.image][0])
        of_class = probabilities[class_id][one.slice][one.image]
        y, x = np.asarray(one.centroid) + np.asarray(pixel_size.spacing) / 2
        top, left, bottom, right = one.bbox
        count = int(np.count_nonzero(one.image))
        rows.append(
            (
                *(name, classes[class_id].name, str(one.label), str(count)),
                *(number(count * pixel_size.area), number(x), number(y)),
                *map(str, (left, top, right, bottom)),
                f"{of_class.mean(dtype=np.float64):.6f}",
                f"{one.eccentricity:.6f}",
                number(perimeter(one.image, pixel_size.spacing)),
            )
        )
    return rows


def perimeter(region: NDArray[np.bool_], spacing: Spacing) -> float:
    """The length of a region's outline through the centres of its border pixels.

    Benkrid and Crookes 2000, as scikit-image has it, whose steps all have one length; here each has
    that of its direction, since pixels may be taller than wide. A border pixel adds its mean step
    to its neighbours on the border: straight, diagonal, or half of both where the outline bends.

    Args:
        region: (H, W) bool.
        spacing: height and width of a pixel, in whose unit the length is.
    """
    border = np.pad(region & ~ndimage.binary_erosion(region, SIDES), 1)
    rows, columns = np.nonzero(border)
    upright, level, slanted = (
        np.sum([border[rows + v, columns + h] for v, h in ways], axis=0)
        for ways in (((-1, 0), (1, 0)), ((0, -1), (0, 1)), ((-1, -1), (-1, 1), (1, -1), (1, 1)))
    )
    beside = upright + level
    height, width = spacing
    straight = (upright * height + level * width) / np.maximum(beside, 1)
    diagonal = distance_of_offset(1, 1, spacing)
    goes_on = (beside >= 2) & (beside <= 3) & (slanted <= 2)
    bends = (beside == 1) & (slanted >= 1) & (slanted <= 2)
    goes_slanted = (beside == 0) & (slanted == 2) | (beside == 1) & (slanted == 3)
    lengths = straight[goes_on].sum() + (straight[bends] + diagonal).sum() / 2
    return float(lengths + diagonal * np.count_nonzero(goes_slanted))
