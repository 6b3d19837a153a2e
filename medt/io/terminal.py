"""What scripts print: characters are seen as what they are, and none runs the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO, cast

from medt.io.text import for_terminal


@contextmanager
def safe_output() -> Iterator[None]:
    """Let nothing through to stdout and stderr but text and line breaks, whoever prints.

    What they cannot encode, such as accents in ASCII, becomes escapes, too. Only the consoles of
    `medt.io.console` go past this, since they colour and move, and see to their text themselves.
    """
    with redirect_stdout(_safe(sys.stdout)), redirect_stderr(_safe(sys.stderr)):
        yield


def innermost(stream: Any) -> Any:
    """The stream within ours, and within what rich puts before it while a bar is shown."""
    while (within := getattr(stream, "rich_proxied_file", None)) is not None:
        stream = within
    return stream


class _SafeStream:
    """A stream that escapes what is written to it."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream  # the name that rich gives it, too

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(for_terminal(text, keep="\n"))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def _safe(stream: TextIO | None) -> TextIO | None:
    """None, as of a process without a terminal, stays None."""
    if stream is None:
        return None
    reconfigure = getattr(innermost(stream), "reconfigure", None)
    if reconfigure is not None and stream.errors != "backslashreplace":
        reconfigure(errors="backslashreplace")
    return cast(TextIO, _SafeStream(stream))
