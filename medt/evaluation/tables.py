"""Writing an evaluation to files and to the terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from medt.evaluation.evaluate import Evaluation
from medt.evaluation.headline import first_lines, first_table
from medt.inference.instances import METHODS, InstanceRule
from medt.io.files import write_text
from medt.io.locks import claimed_folder
from medt.io.text import csv_text, json_text
from medt.metrics.family import Table

METRICS_FILE = "metrics.json"
CASES_FILE = "per_case.csv"
REPORT_FILE = "report.html"
# What people sort the cases by; the other columns follow.
FIRST_COLUMNS = (
    *("case", "group", "split", "dice", "iou", "cldice", "hd95", "object_f1_iou50", "count_error"),
    *("true_foreground", "predicted_foreground"),
)
WIDTH = 80  # of a table on the terminal, at most
FIRST_WIDTH = 8, 24  # of its first column, which is folded


def claimed_result(folder: Path) -> AbstractContextManager[Path]:
    """Hold the first of ``folder``, ``<folder>-2``, ... without a result, for `write_evaluation`.

    Raises:
        UserError: the folder cannot be written.
    """
    return claimed_folder(folder, "evaluate.py", _holds_result)


def write_evaluation(evaluation: Evaluation, folder: Path, report: str) -> None:
    """Write ``metrics.json`` (the summary), ``per_case.csv`` (a line per case) and ``report.html``.

    All files or none are written. A score that was left out is null in the JSON and empty in the
    CSV.

    Args:
        folder: which `claimed_result` holds.

    Raises:
        UserError: the folder cannot be written.
    """
    texts = {CASES_FILE: _per_case_csv(evaluation), REPORT_FILE: report}
    texts[METRICS_FILE] = json_text(strict(evaluation.summary))
    try:
        for name, text in texts.items():
            write_text(folder / name, text)
    except BaseException:  # all files or none
        for name in texts:
            (folder / name).unlink(missing_ok=True)
        raise


def render(evaluation: Evaluation, details: bool = False) -> RenderableType:
    """The first table and what one has to know to read it, for ``rich.print``.

    It fits 80 columns and holds no box characters, so that it reads the same in a file.

    Args:
        details: add the tables of all scores in both reductions, and the rules.
    """
    summary = evaluation.summary
    cases, splits = summary["cases"], ", ".join(summary["splits"])
    what = f"{cases} {'case' if cases == 1 else 'cases'} ({splits}), protocol {evaluation.protocol}"
    elsewhere = summary.get("external")
    lines = [*first_lines(evaluation, details)]
    lines += [f"external: the network was trained on {elsewhere}"] if elsewhere else []
    more = [Text(), *_details(evaluation)] if details else []
    texts = [Text(textwrap.fill(line, WIDTH, break_long_words=False)) for line in lines]
    return Group(Text(what), Text(), *rich_tables(first_table(evaluation)), Text(), *texts, *more)


def rich_tables(table: Table) -> Iterator[RichTable]:
    """A table without box characters that fits 80 columns: several, where its numbers do not."""
    least, most = FIRST_WIDTH
    sides: list[list[int]] = []
    left = 0
    for index, title in enumerate(table.columns, start=1):
        cells = "\n".join([title, *(row[index] for row in table.rows)])
        width = 3 + max(map(cell_len, cells.split("\n")))
        if width > left:
            sides.append([])
            left = WIDTH - least
        sides[-1].append(index)
        left -= width
    for side in sides:
        drawn = RichTable(
            box=box.ASCII_DOUBLE_HEAD, show_edge=False, pad_edge=False, header_style="bold"
        )
        drawn.add_column(Text(table.title), overflow="fold", max_width=min(most, least + left))
        for index in side:
            drawn.add_column(table.columns[index - 1], justify="right", no_wrap=True)
        for row in table.rows:
            drawn.add_row(*(Text(row[index]) for index in (0, *side)))
        yield drawn


def _details(evaluation: Evaluation) -> Iterator[RenderableType]:
    """What all families show, and the rules."""
    summary = evaluation.summary
    size = " x ".join(map(str, summary["image_size"]))
    rule = InstanceRule(**summary["postprocess"])
    yield Text(f"network size {size}")
    yield Text(f"protocol {evaluation.protocol}: {summary['protocol_means']}")
    yield Text(f"{rule}: {METHODS[rule.method]}")
    for family in evaluation.families:
        for table in family.tables(summary):
            for drawn in rich_tables(table):
                yield from (Text(), drawn)
            if table.note:
                yield Text(table.note)
    yield Text()
    yield from (Text(line, style="dim") for line in summary["rules"])


def _holds_result(folder: Path) -> bool:
    return any((folder / name).exists() for name in (METRICS_FILE, CASES_FILE, REPORT_FILE))


def _per_case_csv(evaluation: Evaluation) -> str:
    """A line per case; the columns that people sort by stand first."""
    named = {
        column.key: column.name
        for family in evaluation.families
        for column in family.columns(evaluation.summary)
    }
    lines = [_columns(evaluation.class_names, row) for row in evaluation.rows]
    place = {(key, ""): i for i, key in enumerate(FIRST_COLUMNS)}
    order = sorted(lines[0], key=lambda column: place.get(column, len(place)))
    titles = [
        f"{named.get(key, key)}_{name}" if name else named.get(key, key) for key, name in order
    ]
    return csv_text([titles, *([_cell(line[column]) for column in order] for line in lines)])


def _columns(names: Sequence[str], row: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """The cells of a case by key and class, "" for what is of no class."""
    facts = {key: value for key, value in row.items() if key not in ("foreground", "classes")}
    return {
        **{(key, ""): value for key, value in (facts | row["foreground"]).items()},
        **{(key, n): value for n in names for key, value in row["classes"][n].items()},
    }


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6f}"
    return value


def strict(value: Any) -> Any:
    """The same plain values with None where a number is not finite, as JSON needs it."""
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
