"""summary.csv: how much of each class a prediction found, image by image."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medt.data.layout import SegmentationClass
from medt.errors import UserError
from medt.files import append_text, natural_key, write_text
from medt.plain import read_text
from medt.text import csv_text, from_csv_cell

SUMMARY_FILE = "summary.csv"
COLUMNS = ("image", "class", "pixels", "fraction", "objects")

Row = Sequence[str]


def class_rows(
    name: str,
    ids: NDArray[np.uint8],
    objects: NDArray[np.int32],
    classes: Sequence[SegmentationClass],
) -> list[Row]:
    """A row for each class of one image, in the order of COLUMNS.

    Args:
        name: of the image.
        ids: (H, W) class ids.
        objects: (H, W) numbers of objects from 1, each of one class; 0 = none.
        classes: in the order of the ids; of the background no objects are counted.
    """
    class_of = np.zeros(int(objects.max()) + 1, np.uint8)
    for numbers, row in zip(objects, ids, strict=True):  # fewer bytes at once than all rows take
        class_of[numbers] = row
    of_class = np.bincount(class_of[1:], minlength=len(classes))
    pixels = [int(np.count_nonzero(ids == one.id)) for one in classes]
    return [
        (
            name,
            one.name,
            str(pixels[one.id]),
            f"{pixels[one.id] / ids.size:.6f}",
            str(of_class[one.id]) if one.id else "",
        )
        for one in classes
    ]


class Summary:
    """The file while a folder is predicted.

    Rows are appended image by image, so that an interruption loses none, and put in order at the
    end.

    Raises:
        UserError: there is a file of this name that is none of ours.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / SUMMARY_FILE
        self.rows: dict[str, list[Row]] = {}
        if self.path.exists():
            self._read()

    def add(self, name: str, rows: list[Row]) -> None:
        """Replace the rows of one image."""
        append_text(self.path, csv_text(rows if self.path.exists() else [COLUMNS, *rows]))
        self.rows[name] = rows

    def lacks(self, name: str, classes: Sequence[SegmentationClass]) -> bool:
        """Whether rows of an image are missing; those of other classes are another network's."""
        known = {row[1] for row in self.rows.get(name, ())}
        return known < {one.name for one in classes}

    def drop(self, name: str) -> None:
        """Forget the rows of an image whose mask could not be written."""
        del self.rows[name]

    def close(self) -> None:
        """Write the rows once more, in natural order of the images; no rows are no file."""
        if not self.rows:
            self.path.unlink(missing_ok=True)
        else:
            ordered = sorted(self.rows, key=natural_key)
            write_text(
                self.path,
                csv_text([COLUMNS, *(row for name in ordered for row in self.rows[name])]),
            )

    def _read(self) -> None:
        refused = UserError(
            f"{self.path} is no summary of predictions",
            "choose another output folder, or move the file away",
        )
        try:
            text = read_text(self.path)
            whole = text[: text.rfind("\n") + 1]  # the last line is torn where power was lost
            rows = list(csv.reader(io.StringIO(whole)))
        except (UserError, csv.Error):
            raise refused from None
        if not rows or tuple(rows[0]) != COLUMNS or {len(row) for row in rows} != {len(COLUMNS)}:
            raise refused
        for row in ([from_csv_cell(cell) for cell in cells] for cells in rows[1:]):
            known = self.rows.setdefault(row[0], [])
            known[:] = [*(other for other in known if other[1] != row[1]), row]
        if whole != text:  # else the next row would be appended to the torn line
            self.close()
