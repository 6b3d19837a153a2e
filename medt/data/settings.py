"""What the settings of a dataset may be: they may come from a stranger's file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medt.errors import UserError
from medt.metrics.pixel_size import WANTED, is_pixel_size

LONGEST_TEXT = 4096  # characters; of a path, too
MOST_CLASSES = 255
MOST_PAIRS = 10_000
LARGEST_SIDE = 16384  # pixels of the network's input
Test = Callable[[Any], bool]


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse values that are not of the kind that opening a dataset needs; null and absent are.

    Raises:
        UserError: the first key whose value is of another kind or out of range.
    """
    for key, (fits, described) in KINDS.items():
        value = settings.get(key)
        if value is not None and not fits(value):
            raise UserError(f"dataset.{key}={told(value)} cannot be used", f"give {described}")


def path_of(settings: Mapping[str, Any], key: str) -> Path:
    """The path that a key of the settings gives.

    Raises:
        UserError: the key has no value.
    """
    value = settings.get(key)
    if not value:
        raise UserError(f"dataset.{key} has no value", f"give dataset.{key}=<path>")
    return Path(value)


def told(value: Any) -> str:
    """A value as an error shows it: a short scalar as it is, anything else by its type."""
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:40] + "...")
    return str(value) if _scalar(value) else f"<{type(value).__name__}>"


def _whole(least: int, most: int) -> tuple[Test, str]:
    return (lambda value: _within(value, least, most), f"a whole number from {least} to {most}")


def _within(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most  # True and False are not numbers


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT and "\0" not in value


def _path(value: Any) -> bool:
    return _text(os.fspath(value)) if isinstance(value, os.PathLike) else _text(value)


def _scalar(value: Any) -> bool:
    if isinstance(value, int):
        return abs(value) < 2**63  # Python cannot print a number of any length
    return value is None or isinstance(value, float) or _text(value)


def _short_list(value: Any, most: int) -> bool:
    return isinstance(value, list | tuple) and len(value) <= most


def _side(value: Any) -> bool:
    return _within(value, 1, LARGEST_SIDE)


def _sides(value: Any) -> bool:
    several = _short_list(value, 2) and len(value) > 0 and all(map(_side, value))
    return several or _side(value)


def _color_or_number(value: Any) -> bool:
    return _scalar(value) or (_short_list(value, 3) and all(map(_scalar, value)))


def _class(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return _text(value)
    entries = [(_text(key) and _color_or_number(each)) for key, each in value.items()]
    return len(entries) <= 3 and all(entries)


def _classes(value: Any) -> bool:
    return _short_list(value, MOST_CLASSES) and all(map(_class, value))


def _pairs(value: Any) -> bool:
    pairs = _short_list(value, MOST_PAIRS) and all(_short_list(pair, 2) for pair in value)
    return pairs and all(len(pair) == 2 and all(map(_text, pair)) for pair in value)


_FOLDS = _whole(-1000, 1000)  # which of them make sense is asked where they are dealt
_PLACE = (_path, "a path")
_WORD = (_text, "text")

KINDS: dict[str, tuple[Test, str]] = {
    "root": _PLACE,
    "images": _PLACE,
    "masks": _PLACE,
    "splits_file": _PLACE,
    "seed": _whole(0, 2**32 - 1),
    "train": _whole(1, 100_000),
    "val": _whole(0, 100_000),
    "test": _whole(0, 100_000),
    "size": _whole(32, 4096),
    "channels": _whole(1, 1024),
    "page": _whole(0, 2**31 - 1),
    "folds": _FOLDS,
    "fold": _FOLDS,
    "splits_digest": _WORD,
    "group": _WORD,
    "mask": _WORD,
    "objects": _WORD,
    "border_width": _whole(1, 64),
    "object_area": _whole(1, 2**31 - 1),
    "mask_suffix": _WORD,
    "raster": _WORD,
    "pixel_size": (is_pixel_size, WANTED),
    "image_size": (_sides, f"a whole number from 1 to {LARGEST_SIDE}, or [height,width]"),
    "distinct": (_pairs, "pairs of names of cases: [[a,b],[c,d]]"),
    "ignore": (_color_or_number, "a mask value or a colour"),
    "classes": (_classes, f"a list of at most {MOST_CLASSES} names, or {{name, value}} each"),
}
