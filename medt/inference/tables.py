"""Tables of a folder of predictions: CSV, in which every image has rows of its own."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from medt.errors import UserError
from medt.io.files import append_text, natural_key, write_text
from medt.io.plain import read_text
from medt.io.text import csv_text, from_csv_cell

LARGEST = 2**28  # bytes; some two million objects
Row = Sequence[str]


def is_count(cell: str) -> bool:
    """Whether a cell is a whole number that an image may have of anything."""
    return cell.isdecimal() and len(cell) < 19


class ImageTable:
    """A table while a folder is predicted; the first column names the image.

    Rows are appended image by image, so that an interruption loses none, and put in order at the
    end.

    Args:
        path: of the file, which is read where it is there.
        columns: of the table.
        keys: how many of the first columns tell a row from all others.
        what: the rows are of, for the error.

    Raises:
        UserError: there is a file of this name that is none of ours.
    """

    def __init__(self, path: Path, columns: Row, keys: int, what: str) -> None:
        self.path, self.columns, self.keys = path, tuple(columns), keys
        self.rows: dict[str, list[Row]] = {}
        self.refused = UserError(
            f"{path} is no {what}", "choose another output folder, or move the file away"
        )
        if path.exists():
            self._read()

    def add(self, name: str, rows: list[Row]) -> None:
        """Replace the rows of one image."""
        append_text(self.path, csv_text(rows if self.path.exists() else [self.columns, *rows]))
        self.rows[name] = rows

    def drop(self, name: str) -> None:
        """Forget the rows of an image whose mask could not be written."""
        self.rows.pop(name, None)

    def close(self) -> None:
        """Write the rows once more, in natural order of the images; no rows are no file."""
        if not self.rows:
            self.path.unlink(missing_ok=True)
        else:
            ordered = sorted(self.rows, key=natural_key)
            write_text(
                self.path,
                csv_text([self.columns, *(row for name in ordered for row in self.rows[name])]),
            )

    def adopted(self, head: Row, rows: list[Row]) -> list[Row]:
        """The rows of a file with this head, in our columns.

        Raises:
            UserError: it is not a head of ours, or a row does not fit.
        """
        if tuple(head) != self.columns or {len(row) for row in rows} - {len(head)}:
            raise self.refused
        return rows

    def _read(self) -> None:
        try:
            text = read_text(self.path, LARGEST)
            whole = text[: text.rfind("\n") + 1]  # the last line is torn where power was lost
            head, *rows = list(csv.reader(io.StringIO(whole))) or [[]]
        except (UserError, csv.Error):
            raise self.refused from None
        kept: dict[str, dict[tuple[str, ...], Row]] = {}
        for row in self.adopted(head, [[from_csv_cell(cell) for cell in row] for row in rows]):
            known, key = kept.setdefault(row[0], {}), tuple(row[: self.keys])
            known.pop(key, None)  # what was written later stands below
            known[key] = row
        self.rows = {name: list(known.values()) for name, known in kept.items()}
        if whole != text or tuple(head) != self.columns:  # else the next row would not fit
            self.close()
