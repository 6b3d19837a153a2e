"""Plain values in files that may come from anybody: numbers, text, lists and dicts, all bounded.

Nothing that a file names is looked up or built here, and no text is interpolated.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from medt.errors import UserError
from medt.io.files import read_bytes

MOST_VALUES = 1_000_000  # of a file; a part that stands in several places counts in each
DEEPEST = 32
LONGEST_TEXT = 100_000  # characters of one value
LONGEST_NUMBER = 40  # characters
LARGEST_YAML = 2**23  # bytes; some ten seconds of reading
LARGEST_TEXT = 2**25
SEPARATORS = ",;\t"
_Number = TypeVar("_Number", int, float)
DAMAGED = "copy it again, or take another"


def read_text(path: str | Path, most: int = LARGEST_TEXT) -> str:
    """Read a UTF-8 text file of at most so many bytes.

    Raises:
        UserError: it is missing, larger, a pipe or a device, unreadable, or not UTF-8.
    """
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"Cannot read {path}: {error.reason} at byte {error.start}",
            "it must be a UTF-8 text file",
        ) from error


def read_json(path: str | Path) -> Any:
    """Read a JSON file of plain values.

    Raises:
        UserError: as `read_text`, or the file is not JSON, which has no NaN and nothing infinite,
            or as `check_plain`.
    """
    text = read_text(path)
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:  # also whole numbers of thousands of digits
        raise UserError(f"{path} is damaged or not JSON: {_said(error)}", DAMAGED) from error
    check_plain(value, str(path))
    return value


def read_yaml(path: str | Path, most: int = LARGEST_YAML) -> Any:
    """Read a YAML file of plain values; references to other parts of the file are refused.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        UserError: as `read_text`, or the file is not such YAML, or as `check_plain`.
    """
    text = read_text(path, most)
    try:
        value = yaml.load(text, _PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged or not YAML: {_said(error)}", DAMAGED) from error
    check_plain(value, str(path))
    return value


def read_table(path: str | Path, columns: Collection[str]) -> list[dict[str, str]]:
    """Read a CSV file with a line of column names; blank lines are passed over.

    Columns are parted by commas or, as spreadsheets do in many languages, by semicolons or tabs.

    Args:
        path: the file.
        columns: that it must have; it may have others.

    Raises:
        UserError: as `read_text`; a column is missing, named twice, or a line is not as long as
            the first.
    """
    text = read_text(path)
    rows = []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text, columns))
        names = next(reader, [])
        missing = [column for column in columns if column not in names]
        if missing or len(set(names)) != len(names):
            fault = f"has no column {', '.join(missing)}" if missing else "names a column twice"
            raise UserError(f"{path} {fault}", f"its first line must be {','.join(columns)}")
        for row in reader:
            if not row:
                continue
            if len(row) != len(names):
                raise UserError(
                    f"{path} line {reader.line_num} has {len(row)} fields, "
                    f"the first line {len(names)}",
                    "correct that line",
                )
            rows.append(dict(zip(names, row, strict=True)))
    except csv.Error as error:
        raise UserError(f"{path} is damaged: {_said(error)}", DAMAGED) from error
    return rows


def _separator(text: str, columns: Collection[str]) -> str:
    """What parts the line of names into one with these columns; a comma where nothing does."""
    line = [text.partition("\n")[0].rstrip("\r")]
    for separator in SEPARATORS:
        if set(columns) <= set(next(csv.reader(line, delimiter=separator), [])):
            return separator
    return ","


def check_plain(value: Any, name: str, allowed: Callable[[Any], bool] = lambda _: False) -> None:
    """Refuse what is not made of plain values, or unfolds without end.

    Args:
        value: None, a bool, a number of at most 64 bits, text, or a list or dict of such; the keys
            of a dict are text or whole numbers.
        name: of the file, for the error.
        allowed: whether a value of another type may stand in it.

    Raises:
        UserError: it holds another type, is nested deeper than `DEEPEST`, holds more than
            `MOST_VALUES` values, or text longer than `LONGEST_TEXT`.
    """
    left = MOST_VALUES
    waiting: list[tuple[Any, int]] = [(value, 0)]
    while waiting:
        one, depth = waiting.pop()
        if depth > DEEPEST:
            _refuse(name, f"is nested deeper than {DEEPEST}")
        if isinstance(one, dict):
            left -= 2 * len(one)
            parts = [*one, *one.values()]
            if not all(isinstance(key, str) or type(key) is int for key in one):
                _refuse(name, "has keys that are neither text nor whole numbers")
        elif isinstance(one, list | tuple):
            left -= len(one)
            parts = list(one) if left >= 0 else []
        else:
            _check_value(one, name, allowed)
            continue
        if left < 0:
            _refuse(name, f"holds more than {MOST_VALUES:,} values")
        waiting += [(part, depth + 1) for part in parts]


def _check_value(value: Any, name: str, allowed: Callable[[Any], bool]) -> None:
    if isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            _refuse(name, f"holds a text of {len(value):,} characters")
    elif type(value) is int:
        if value.bit_length() > 64:
            _refuse(name, f"holds a number of {value.bit_length()} bits")
    elif not (value is None or type(value) in (bool, float) or allowed(value)):
        _refuse(name, f"holds a value of type {type(value).__name__}")


def _finite(text: str) -> float:
    """A number of JSON; 1e999 and the constants that Python reads beyond it are none."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _refuse(name: str, fault: str) -> NoReturn:
    raise UserError(f"{name} {fault}", "do not trust this file")


def _said(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return " ".join(str(error).split())[:200]


class _PlainLoader(yaml.SafeLoader):
    """Without references, of which a few lines could make a file without end."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it refers to another part of itself")
        return super().compose_node(parent, index)

    def _construct_whole(self, node: yaml.ScalarNode) -> int | str:
        value = self._number(node, yaml.SafeLoader.construct_yaml_int)
        if isinstance(value, int) and value.bit_length() > 64:  # as a key it could be made to
            raise yaml.YAMLError("it holds a number of more than 64 bits")  # hash like others
        return value

    def _construct_fraction(self, node: yaml.ScalarNode) -> float | str:
        return self._number(node, yaml.SafeLoader.construct_yaml_float)

    def _number(self, node: yaml.ScalarNode, construct: Callable[..., _Number]) -> _Number | str:
        """Not to base 60, as YAML 1.1 reads 12:30, in a time that grows with the square."""
        text = str(self.construct_scalar(node))
        if ":" in text:
            return text
        if len(text) > LONGEST_NUMBER:
            raise yaml.YAMLError(f"it holds a number of {len(text):,} characters")
        return construct(self, node)


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader._construct_whole)
_PlainLoader.add_constructor("tag:yaml.org,2002:float", _PlainLoader._construct_fraction)
