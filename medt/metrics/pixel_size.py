"""How large a pixel is: the unit of areas, distances and counts per area."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from medt.errors import UserError
from medt.io.text import abridged

UNITS = {"px": "pixels", "nm": "nanometres", "um": "micrometres", "mm": "millimetres"}
ABBREVIATIONS = {name: unit for unit, name in UNITS.items()}
# Per unit: what objects are counted per, and how many of the unit's squares that is.
COUNTED_PER = {
    "px": ("megapixel", 1e6),
    "nm": ("um2", 1e6),
    "um": ("mm2", 1e6),
    "mm": ("mm2", 1.0),
}
NANOMETRES = {"nm": 1.0, "um": 1e3, "mm": 1e6}
DEFAULT_DISTANCE = {"nm": "2px", "um": 2.0, "mm": "2px", "px": 2.0}
LARGEST = 1e6
WANTED = (
    "a number above 0 with its unit (nm, um or mm), such as 0.25um; [0.1mm,0.2mm] where height and "
    "width differ; a bare number is in um; px measures in pixels"
)
TEXT = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?) ?([nu\u00b5\u03bcm]m)")
LONGEST = 40  # characters; of a value that an error repeats, too

Spacing = tuple[float, float]


@dataclass(frozen=True)
class PixelSize:
    """How far neighbouring pixels lie apart.

    Attributes:
        height: of a pixel, from a row to the next, in `unit`.
        width: of a pixel, from a column to the next.
        unit: a key of `UNITS`.
    """

    height: float = 1.0
    width: float = 1.0
    unit: str = "px"

    @classmethod
    def of(cls, value: Any, key: str = "pixel_size") -> PixelSize:
        """What a setting says.

        Args:
            value: a number of micrometres; text such as "0.1mm" or "0.25 µm"; two of them,
                [height, width], in the same unit; "px" or None for pixels; or a PixelSize.
            key: of the setting, for the error.

        Raises:
            UserError: it is none of these.
        """
        if isinstance(value, PixelSize):
            return value
        if value is None or value in ("px", "1px"):
            return PIXELS
        sides = value if isinstance(value, list | tuple) else (value, value)
        read = [_side(side) for side in sides] if len(sides) == 2 else [None]
        units = {side[1] for side in read if side is not None}
        if None in read or len(units) != 1:
            try:
                shown = abridged(str(value), LONGEST)
            except (ValueError, RecursionError):  # thousands of digits, or of lists in lists
                shown = f"<{type(value).__name__}>"
            what = "mixes units" if len(units) > 1 else "cannot be used"
            raise UserError(f"{key}={shown} {what}", f"give {WANTED}")
        (height, unit), (width, _) = (side for side in read if side is not None)
        return cls(height, width, unit)

    @property
    def spacing(self) -> Spacing:
        """Height and width of a pixel, in the unit."""
        return self.height, self.width

    def distance(self, value: Any, key: str) -> float:
        """What a setting says of a distance, in the unit.

        Args:
            value: a number of the unit; text with a unit of its own, such as "0.5mm" or "2px",
                pixels that are not square counting as square ones of their area; or None for 2
                micrometres, or for 2 pixels where they are not measured in micrometres.
            key: of the setting, for the error.

        Raises:
            UserError: it is none of these, or a length where no pixel size is known.
        """
        value = DEFAULT_DISTANCE[self.unit] if value is None else value
        if type(value) in (int, float) and 0 <= value < LARGEST:
            return float(value)
        number = value[:-2] if isinstance(value, str) and value.endswith("px") else None
        length = _side(value if number is None else f"{number}mm")
        if isinstance(value, int | float) or length is None:
            raise UserError(
                f"{key}={str(value)[:LONGEST]} is no distance",
                f"give a number ({UNITS[self.unit]}), or one with its unit: 2px, 0.5mm, 3um",
            )
        if number is not None:
            return length[0] * math.sqrt(self.area)
        if not self.known:
            raise UserError(
                f"{key}={value}, but the size of a pixel is not known",
                "give dataset=NAME dataset.pixel_size=0.25um or the like, or the distance in px",
            )
        return length[0] * NANOMETRES[length[1]] / NANOMETRES[self.unit]

    @property
    def area(self) -> float:
        """Of a pixel, in squares of the unit."""
        return self.height * self.width

    @property
    def of_area(self) -> str:
        """The unit of areas as the end of a column's name, such as um2."""
        return self.unit if self.unit == "px" else f"{self.unit}2"

    @property
    def known(self) -> bool:
        """Whether it is in a unit of length."""
        return self.unit != "px"

    @property
    def plain(self) -> float | list[float] | None:
        """For JSON: a number where height and width are the same, else both; None in pixels."""
        if not self.known:
            return None
        return self.height if self.height == self.width else [self.height, self.width]

    def __str__(self) -> str:
        if not self.known:
            return self.unit
        height, width = (f"{side:.10g}{self.unit}" for side in self.spacing)
        return height if height == width else f"[{height},{width}]"


PIXELS = PixelSize()


def is_pixel_size(value: Any) -> bool:
    """Whether `PixelSize.of` takes a value."""
    try:
        PixelSize.of(value)
    except UserError:
        return False
    return True


def distance_of_offset(rows: float, columns: float, spacing: Spacing) -> float:
    """The length of a way over so many rows and columns, in the unit of `spacing`."""
    return math.hypot(rows * spacing[0], columns * spacing[1])


def _side(value: Any) -> tuple[float, str] | None:
    """Size and unit of one side; None for what is none."""
    if type(value) in (int, float):
        return (float(value), "um") if 0 < value < LARGEST else None
    found = TEXT.fullmatch(value) if isinstance(value, str) and len(value) <= LONGEST else None
    if found is None or not 0 < float(found[1]) < LARGEST:
        return None
    return float(found[1]), re.sub("[\u00b5\u03bc]", "u", found[2])
