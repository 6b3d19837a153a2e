"""What commands show on the terminal: tables, progress, paths and commands to type."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from medt.io.console import safe_console
from medt.io.terminal import safe_output

LONGEST_NAME = 40  # longer ones are folded where the terminal is too narrow


@contextmanager
def progress(description: str) -> Iterator[Callable[[float, int], None]]:
    """A bar with the time left, on a terminal; yields what to call with (done, in all)."""
    console = safe_console(sys.stderr)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    with bar, safe_output():
        task = bar.add_task(escape(description), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_table(shown: RenderableType) -> None:
    """A table or a text, or a group of them, to the terminal; the only way to print a table.

    Where the terminal is too narrow their lines break there, but nothing is cut off.
    """
    if isinstance(shown, Group):
        for part in shown.renderables:
            print_table(part)
        return
    console = safe_console(soft_wrap=True)
    if isinstance(shown, Table):
        for column in shown.columns:
            cells = "\n".join(map(str, (column.header, *column.cells))).split("\n")
            widest = max(map(cell_len, cells))
            column.min_width = min(widest, column.max_width or LONGEST_NAME)
            if column.no_wrap:  # rich would cut off behind a blank
                column.min_width = widest
        unlimited = console.options.update(max_width=sys.maxsize)
        console.width = max(console.width, console.measure(shown, options=unlimited).minimum)
    console.print(shown)
