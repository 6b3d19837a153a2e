"""Writing an evaluation to files and to the terminal."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from medt.evaluation.evaluate import Evaluation
from medt.files import write_text

METRICS_FILE = "metrics.json"
CASES_FILE = "per_case.csv"
REDUCTIONS = {"mean_over_cases": "mean over cases", "pooled": "pooled over the split"}
TITLES = {"dice": "Dice", "iou": "IoU", "precision": "Precision", "recall": "Recall"}
COUNTS = ("tp", "fp", "fn")


def write_evaluation(evaluation: Evaluation, folder: str | Path) -> Path:
    """Write ``metrics.json`` (the summary) and ``per_case.csv`` (a line per case).

    Nothing is overwritten: if ``folder`` holds a result already, the first free of ``<folder>-2``,
    ``<folder>-3``, ... is used. A score that was left out is null in the JSON and empty in the CSV.

    Returns:
        The folder written to.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = _free_folder(Path(folder))
    write_text(folder / CASES_FILE, _per_case_csv(evaluation))
    summary = json.dumps(strict(evaluation.summary), indent=2, allow_nan=False, ensure_ascii=False)
    write_text(folder / METRICS_FILE, summary + "\n")
    return folder


def render(evaluation: Evaluation) -> RenderableType:
    """A table of all scores in both reductions with the rules beneath, for ``rich.print``.

    It fits 80 columns and holds no box characters, so that it reads the same in a file.
    """
    summary = evaluation.summary
    cases, splits = summary["cases"], ", ".join(summary["splits"])
    size = " x ".join(map(str, summary["image_size"]))
    head = Text(
        f"{cases} {'case' if cases == 1 else 'cases'} ({splits}), network size {size}\n"
        f"protocol {evaluation.protocol}: {summary['protocol_means']}"
    )
    table = Table(box=box.ASCII_DOUBLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    table.add_column("class", overflow="fold", max_width=24)
    for score in summary["pooled"]:
        table.add_column(TITLES[score], justify="right", no_wrap=True)
    table.add_column("left out", justify="right", no_wrap=True)
    for reduction, title in REDUCTIONS.items():
        _add_section(table, title, summary[reduction], evaluation.class_names)
    notes = [Text(line, style="dim") for line in summary["rules"]]
    return Group(head, Text(), table, Text(), *notes)


def _add_section(
    table: Table, title: str, scores: dict[str, Any], class_names: tuple[str, ...]
) -> None:
    table.add_row(Text(title, style="italic"))
    left_out = scores["dice"]["left_out"]
    for name in class_names:
        values = [_shown(part["classes"][name]) for part in scores.values()]
        table.add_row(Text(f"  {name}"), *values, str(left_out["classes"][name]))
    values = [_shown(part["foreground"]) for part in scores.values()]
    table.add_row(
        Text("  foreground mean"),
        *values,
        str(left_out["foreground"]),
        style="bold",
        end_section=True,
    )


def _shown(score: float) -> str:
    return "-" if math.isnan(score) else f"{score:.4f}"


def _free_folder(folder: Path) -> Path:
    base = folder if folder.name else folder.resolve()  # "." has no name
    candidate, number = folder, 1
    while any((candidate / name).exists() for name in (METRICS_FILE, CASES_FILE)):
        number += 1
        candidate = base.with_name(f"{base.name}-{number}")
    return candidate


def _per_case_csv(evaluation: Evaluation) -> str:
    scores = list(evaluation.summary["pooled"])
    facts = ["case", "group", "split", "height", "width"]
    columns = facts + scores
    columns += [f"{key}_{name}" for name in evaluation.class_names for key in (*scores, *COUNTS)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in evaluation.rows:
        line = [row[fact] for fact in facts] + [row["foreground"][score] for score in scores]
        line += [
            row["classes"][name][key]
            for name in evaluation.class_names
            for key in (*scores, *COUNTS)
        ]
        writer.writerow([_cell(value) for value in line])
    return text.getvalue()


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
