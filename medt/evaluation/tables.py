"""Writing an evaluation to files and to the terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from medt.evaluation.detail_tables import detail_tables, new_table, shown
from medt.evaluation.evaluate import Evaluation
from medt.evaluation.headline import first_lines, first_table, headline
from medt.inference.instances import METHODS, InstanceRule
from medt.io.files import write_text
from medt.io.locks import claimed_folder
from medt.io.text import csv_text, json_text
from medt.metrics.pixel_size import ABBREVIATIONS, UNITS
from medt.metrics.tables import Table as Texts

METRICS_FILE = "metrics.json"
CASES_FILE = "per_case.csv"
REPORT_FILE = "report.html"
REDUCTIONS = {"mean_over_cases": "mean over cases", "pooled": "pooled over the split"}
OVERLAPS = {"dice": "Dice", "iou": "IoU", "precision": "Precision", "recall": "Recall"}
WITH_TRUE_NEGATIVES = {
    "specificity": "Specificity",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Bal. acc.",
    "mcc": "MCC",
}
CASE_FACTS = (
    *("case", "group", "split", "height", "width", "true_foreground", "predicted_foreground"),
    *("ece", "brier", "roc_auc", "pr_auc"),
)
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
    lines = [*first_lines(summary)]
    if elsewhere:
        lines.append(f"external: the network was trained on {elsewhere}")
    first: list[RenderableType] = [Text(what), Text(), rich_table(first_table(evaluation)), Text()]
    first += [Text(textwrap.fill(line, WIDTH)) for line in lines]
    return Group(*first, Text(), _details(evaluation)) if details else Group(*first)


def rich_table(table: Texts) -> Table:
    """A table that fits 80 columns and holds no box characters."""
    widths = [
        max(map(cell_len, "\n".join(cells).split("\n")))
        for cells in zip(table.columns, *(row[1:] for row in table.rows), strict=True)
    ]
    least, most = FIRST_WIDTH
    drawn = new_table(table.title, table.columns)
    drawn.columns[0].max_width = min(most, max(least, WIDTH - sum(widths) - 3 * len(widths)))
    drawn.columns[0].min_width = None
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    return drawn


def _details(evaluation: Evaluation) -> RenderableType:
    summary = evaluation.summary
    cases, splits = summary["cases"], ", ".join(summary["splits"])
    size = " x ".join(map(str, summary["image_size"]))
    rule = InstanceRule(**summary["postprocess"])
    elsewhere = summary.get("external")
    external = f"external: the network was trained on {elsewhere}\n" if elsewhere else ""
    head = Text(
        "\n".join(headline(summary))
        + f"\n\n{external}{cases} {'case' if cases == 1 else 'cases'} ({splits}), "
        f"network size {size}\n"
        f"protocol {evaluation.protocol}: {summary['protocol_means']}\n"
        f"{rule}: {METHODS[rule.method]}"
    )
    parts: list[RenderableType] = [head, Text()]
    for titles in (OVERLAPS, WITH_TRUE_NEGATIVES):
        parts += [_score_table(evaluation, titles), Text()]
    if "calibration" in summary:
        extra = [part for table in detail_tables(summary) for part in (table, Text())]
        parts = (
            [head, Text(), *extra, *parts[2:]]
            if evaluation.protocol == "glas_challenge"
            else parts + extra
        )
    return Group(*parts, *(Text(line, style="dim") for line in summary["rules"]))


def _score_table(evaluation: Evaluation, titles: Mapping[str, str]) -> Table:
    """These scores of every class in both reductions."""
    table = new_table("class", [*titles.values(), "left out"])
    for reduction, name in REDUCTIONS.items():
        scores = {key: evaluation.summary[reduction][key] for key in titles}
        _add_section(table, name, scores, evaluation.class_names)
    return table


def _add_section(
    table: Table, title: str, scores: dict[str, Any], class_names: tuple[str, ...]
) -> None:
    table.add_row(Text(title, style="italic"))
    for name in class_names:
        values = [shown(part["classes"][name]) for part in scores.values()]
        left_out = max(part["left_out"]["classes"][name] for part in scores.values())
        table.add_row(Text(f"  {name}"), *values, str(left_out))
    values = [shown(part["foreground"]) for part in scores.values()]
    left_out = max(part["left_out"]["foreground"] for part in scores.values())
    table.add_row(Text("  foreground mean"), *values, str(left_out), style="bold", end_section=True)


def _holds_result(folder: Path) -> bool:
    return any((folder / name).exists() for name in (METRICS_FILE, CASES_FILE, REPORT_FILE))


def _per_case_csv(evaluation: Evaluation) -> str:
    """A line per case; the columns that people sort by stand first."""
    measured = _measured(evaluation.summary)
    lines = [_columns(evaluation.class_names, row) for row in evaluation.rows]
    place = {(key, ""): i for i, key in enumerate(FIRST_COLUMNS)}
    order = sorted(lines[0], key=lambda column: place.get(column, len(place)))
    titles = [
        f"{measured.get(key, key)}_{name}" if name else measured.get(key, key)
        for key, name in order
    ]
    return csv_text([titles, *([_cell(line[column]) for column in order] for line in lines)])


def _columns(names: Sequence[str], row: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """The cells of a case by key and class, "" for what is of no class."""
    facts = {name: row[name] for name in CASE_FACTS if name in row}
    return {
        **{(key, ""): value for key, value in (facts | row["foreground"]).items()},
        **{(key, n): value for n in names for key, value in row["classes"][n].items()},
    }


def _measured(summary: Mapping[str, Any]) -> dict[str, str]:
    """The names of the columns of distances; they end with a unit that is not pixels."""
    units = {"hd95": summary["boundary"]["unit"]} if "boundary" in summary else {}
    for objects in summary.get("objects", {}).values():
        units["object_hausdorff"] = objects["unit"]
    return {
        key: f"{key}_{ABBREVIATIONS[unit]}" for key, unit in units.items() if unit != UNITS["px"]
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
