"""Consoles of rich for text from files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from medt.io.terminal import innermost
from medt.io.text import for_terminal


def safe_console(stream: TextIO | None = None, **settings: Any) -> Console:
    """A console on which text is seen as it is, whatever controls or markup are in it.

    Args:
        stream: where it writes, by default stdout.
        settings: further ones of `rich.console.Console`.
    """
    file = innermost(stream or sys.stdout)
    return _SafeConsole(file=file, markup=False, emoji=False, **settings)


class _SafeConsole(Console):
    """Escapes texts before they are laid out; what is laid out holds rich's own controls."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        if isinstance(renderable, Text):
            plain = for_terminal(renderable.plain, keep="\n")
            if plain != renderable.plain:
                renderable = renderable.blank_copy(plain)
        yield from super().render(renderable, options)

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(for_terminal(text, keep="\n"), **settings)
