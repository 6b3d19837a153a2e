"""Writing an evaluation to files and to the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from medt.evaluation.detail_tables import detail_tables, new_table, shown
from medt.evaluation.evaluate import Evaluation
from medt.evaluation.headline import headline
from medt.inference.instances import METHODS, InstanceRule
from medt.io.files import write_text
from medt.io.locks import claimed_folder
from medt.io.text import csv_text, json_text
from medt.metrics.pixel_size import ABBREVIATIONS, UNITS

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


def render(evaluation: Evaluation) -> RenderableType:
    """The headline, tables of all scores in both reductions and the rules, for ``rich.print``.

    It fits 80 columns and holds no box characters, so that it reads the same in a file.
    """
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
    first = evaluation.rows[0]
    facts = [name for name in CASE_FACTS if name in first]
    scores = list(first["foreground"])
    keys = [(name, key) for name in evaluation.class_names for key in first["classes"][name]]
    measured = _measured(evaluation.summary)
    titles = [measured.get(score, score) for score in scores]
    lines = [facts + titles + [f"{measured.get(key, key)}_{name}" for name, key in keys]]
    for row in evaluation.rows:
        line = [row[fact] for fact in facts] + [row["foreground"][score] for score in scores]
        line += [row["classes"][name][key] for name, key in keys]
        lines.append([_cell(value) for value in line])
    return csv_text(lines)


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
