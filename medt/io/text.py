"""Text from files, made harmless for what shows it: a terminal, Markdown, a spreadsheet, JSON.

HTML is the matter of the report's templates, see `medt.report.page`; `medt.io.terminal` applies
`for_terminal` to all that a script prints.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

LONGEST_NAME = 255  # of a file, in most file systems
LONGEST_PATH = 4096
LONGEST_SHOWN = 200  # of what is longer than any path
# C0, C1, ends of lines and paragraphs, what turns the direction of text, halves of characters.
CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Where a cell begins as a formula, or what stands behind a semicolon, which splits cells in some
# countries: https://owasp.org/www-community/attacks/CSV_Injection
_BEGIN, _SIGN = "(?:^|(?<=;))", "(?=[\\s'\"]*[=+@\uff1d\uff0b\uff0d\uff20-])"
FORMULA = re.compile(_BEGIN + _SIGN)
ESCAPED_FORMULA = re.compile(f"{_BEGIN}'{_SIGN}")
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]+)?|[+-]?(inf|nan)", re.IGNORECASE)
# ASCII punctuation that means something in Markdown; "-" and "_" mean nothing within a word.
MARKS = re.compile(r"[!#$&(-+.:-@\[-^`{-~]|(?<!\w)[-_]|[-_](?!\w)", re.ASCII)
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def is_name(text: str) -> bool:
    """Whether a case, group or file may have this name: 1 to 255 characters, no control among them.

    What turns the direction of text counts as one.
    """
    return 0 < len(text) <= LONGEST_NAME and not CONTROLS.search(text)


def is_folder_name(text: str) -> bool:
    """Whether it is a name, and names something in a folder, not above or elsewhere."""
    return is_name(text) and not re.search(r"[/\\:]|^[. ]*$", text)


def for_terminal(text: str, keep: str = "") -> str:
    r"""The text with all that would not be seen as what it is as escapes, such as ``\x1b``.

    These are control characters, line breaks among them, characters without width or that turn the
    direction of text, halves of characters, and what Unicode has not assigned.

    Args:
        keep: what stays nevertheless, such as line breaks.
    """
    return _replaced(text, keep, _escape)


def abridged(text: str, most: int = LONGEST_SHOWN) -> str:
    """Text of more characters without its middle."""
    if len(text) <= most:
        return text
    return f"{text[: most - most // 2 - 1]}…{text[-(most // 2) :]}"


def for_error(text: str) -> str:
    """The text as the one line of an error; words longer than any path lose their middle."""
    long = re.compile(rf"\S{{{LONGEST_PATH + 1},}}")
    return long.sub(lambda word: abridged(word[0]), for_terminal(text))


def for_markdown(text: str) -> str:
    """The text as part of a line of Markdown: it is seen as it is, whatever it holds."""
    line = re.sub(" +", " ", for_terminal(text)).strip()
    return MARKS.sub(lambda mark: ENTITIES.get(mark[0], "\\" + mark[0]), line)


def for_markdown_code(text: str) -> str:
    """The text as a span of code in a line of Markdown, whatever it holds."""
    line = for_terminal(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{line}{space}{fence}"


def for_csv_cell(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula; `from_csv_cell` reads it again.

    An apostrophe is put where a formula would begin, as OWASP advises. Numbers stay numbers.
    Controls, which no name holds, become escapes.
    """
    if NUMBER.fullmatch(text):
        return text
    return FORMULA.sub("'", CONTROLS.sub(lambda found: _escape(found[0]), text))


def from_csv_cell(cell: str) -> str:
    """What `for_csv_cell` was given, if that held no controls."""
    return ESCAPED_FORMULA.sub("", cell)


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV; what is text among their cells goes through `for_csv_cell`."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [for_csv_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows
    )
    return text.getvalue()


def json_text(value: Any, indent: int | None = 2) -> str:
    """Plain values as JSON that can be read by people, and has escapes where `for_terminal` does.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return _replaced(text, "\n", lambda character: json.dumps(character)[1:-1]) + "\n"


def _replaced(text: str, keep: str, escape: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def shown(path: Path) -> Path:
    """The path as the user would type it: relative where it lies below the working folder."""
    path, here = path.absolute(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
