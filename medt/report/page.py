"""report.html: an evaluation as one page that needs no other file and no network."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from rich.table import Table as RichTable

from medt.data.layout import SegmentationClass
from medt.drawing import ERROR_COLORS
from medt.evaluation.detail_tables import between, detail_tables, shown
from medt.evaluation.evaluate import Evaluation
from medt.evaluation.headline import headline
from medt.evaluation.tables import OVERLAPS, REDUCTIONS, WITH_TRUE_NEGATIVES
from medt.io.text import for_terminal
from medt.metrics.pixel import mean_of_present
from medt.metrics.pixel_size import ABBREVIATIONS
from medt.report import charts
from medt.report.panels import Panel
from medt.training.run_folder import GATE_PREFIX

TITLES = {**OVERLAPS, **WITH_TRUE_NEGATIVES, "hd95": "HD95", "nsd": "NSD", "cldice": "clDice"}
AREA_TITLES = ("Foreground (px)", "predicted (px)")
CASE_TITLES = {
    **TITLES,
    "ece": "Calibration error",
    "brier": "Brier",
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
}
MOST_CLASSES = 30  # whose confusion matrix is readable


@dataclass(frozen=True)
class Table:
    """A table of the page: a heading, texts and a note beneath."""

    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass(frozen=True)
class Origin:
    """Where an evaluation comes from, so that it can be made again.

    Attributes:
        title: such as "glas val".
        facts: name and value, as the page shall list them.
        config: of the training, as YAML.
        curves: of the training by name (see `medt.compare.past_run.read_curves`), or None where
            the checkpoint lies beside no history.
    """

    title: str
    facts: Mapping[str, str]
    config: str
    curves: charts.Curves | None


def render_report(
    evaluation: Evaluation,
    classes: Sequence[SegmentationClass],
    panels: Sequence[Panel],
    origin: Origin,
) -> str:
    """The page, as HTML.

    Everything that comes from names, paths or settings is escaped, control characters included, and
    the page forbids itself (Content-Security-Policy) to load anything.

    Args:
        evaluation: what the page reports.
        classes: with their colours, in the order of the class ids.
        panels: the cases to show.
        origin: what the reader needs to know, or to repeat the evaluation.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=lambda value: for_terminal(value, keep="\n") if isinstance(value, str) else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    summary = evaluation.summary
    return environment.get_template("page.html.j2").render(
        origin=origin,
        summary=summary,
        headline=_headline(summary),
        first_lines=list(headline(summary)),
        tables=[*_score_tables(evaluation), *_detail_tables(summary), *_group_tables(evaluation)],
        charts=_charts(evaluation, origin.curves),
        confusion=_confusion(summary["confusion"], evaluation.class_names),
        panels=panels,
        legend={name: _css(color) for name, color in ERROR_COLORS.items()},
        classes={c.name: _css(c.color) for c in classes},
        cases=_case_table(evaluation),
        links={panel.case: number for number, panel in enumerate(panels, start=1)},
    )


def _headline(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Score, value and interval of what the protocol is about."""
    if summary["protocol"] == "glas_challenge":
        names = {"f1": "object F1", "object_dice": "object Dice"}
        names["object_hausdorff"] = "object Hausdorff (px)"
        return [
            (f"{title}, {part}", _value(key, scores[key]), between(scores["intervals"][key]))
            for objects in summary["objects"].values()
            for part, scores in objects["glas"].items()
            for key, title in names.items()
        ]
    means, intervals = summary["mean_over_cases"], summary.get("intervals")
    cards = []
    for key in ("dice", "iou"):
        interval = "" if intervals is None else between(_of(intervals, key))
        cards.append((TITLES[key], _value(key, means[key]["foreground"]), interval))
    if "topology" in summary:
        value = summary["topology"]["cldice"]["foreground"]
        interval = "" if intervals is None else between(_of(intervals, "cldice"))
        cards.append((TITLES["cldice"], _value("cldice", value), interval))
    if "boundary" in summary and intervals is not None:
        for key, title in _boundary_titles(summary).items():
            value = summary["boundary"]["mean_over_cases"][key]["foreground"]
            cards.append((title, _value(key, value), between(_of(intervals, key))))
    return cards


def _boundary_titles(summary: Mapping[str, Any]) -> dict[str, str]:
    """Of the scores of boundaries, with their unit; none where they were not measured."""
    if "boundary" not in summary:
        return {}
    unit = ABBREVIATIONS[summary["boundary"]["unit"]].replace("um", "µm")
    tolerance = summary["boundary"]["tolerance"]
    return {"hd95": f"HD95 ({unit})", "nsd": f"NSD at {tolerance:g} {unit}"}


def _of(intervals: Mapping[str, Any], key: str) -> Sequence[float]:
    interval: Sequence[float] = intervals["mean_over_cases"][key]["foreground"]
    return interval


def _value(key: str, value: float) -> str:
    """Distances in two digits, shares in four."""
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if key in ("hd95", "object_hausdorff") else f"{value:.4f}"


def _score_tables(evaluation: Evaluation) -> list[Table]:
    """The pixel scores of every class in both reductions, with intervals where they are known."""
    summary, tables = evaluation.summary, []
    for reduction, title in REDUCTIONS.items():
        rows = []
        for name in (*evaluation.class_names, None):
            cells = ["foreground mean" if name is None else name]
            for key in (*OVERLAPS, *WITH_TRUE_NEGATIVES):
                part = summary[reduction][key]
                value = part["foreground"] if name is None else part["classes"][name]
                cells.append(shown(value))
                if "intervals" in summary:
                    known = summary["intervals"][reduction][key]
                    interval = known["foreground"] if name is None else known["classes"][name]
                    cells[-1] += f"\n{between(interval)}"
            rows.append(cells)
        head = ["class", *(TITLES[key] for key in (*OVERLAPS, *WITH_TRUE_NEGATIVES))]
        tables.append(Table(f"Pixels, {title}", head, rows))
    return tables


def _detail_tables(summary: Mapping[str, Any]) -> list[Table]:
    """The tables of boundaries and objects, as the terminal shows them."""
    if "calibration" not in summary:
        return []
    tables = []
    for table in detail_tables(summary):
        if isinstance(table, RichTable):
            columns = [[str(cell) for cell in column.cells] for column in table.columns]
            head = [str(column.header) for column in table.columns]
            rows = [list(row) for row in zip(*columns, strict=True)]
            title = head[0][:1].upper() + head[0][1:]
            tables.append(Table(title, ["", *head[1:]], rows, str(table.caption or "")))
    return tables


def _group_tables(evaluation: Evaluation) -> list[Table]:
    """The mean scores of each patient or other group, where some have several cases."""
    groups: dict[str, list[dict[str, float]]] = {}
    for row in evaluation.rows:
        groups.setdefault(row["group"], []).append(row["foreground"])
    if len(groups) == len(evaluation.rows):
        return []
    titles = {**TITLES, **_boundary_titles(evaluation.summary)}
    keys = [key for key in TITLES if key in evaluation.rows[0]["foreground"]]
    rows = [
        [group, str(len(of)), *(_value(key, _mean(of, key)) for key in keys)]
        for group, of in groups.items()
    ]
    note = "Foreground, mean over the group's cases."
    return [Table("Groups", ["group", "cases", *(titles[key] for key in keys)], rows, note)]


def _mean(scores: Sequence[Mapping[str, float]], key: str) -> float:
    return mean_of_present(np.array([one[key] for one in scores]))


def _charts(evaluation: Evaluation, curves: charts.Curves | None) -> list[tuple[str, str]]:
    """Title and address of every chart that there are numbers for."""
    drawn = {"Dice of every case": charts.draw_dice(evaluation.rows, evaluation.class_names[1:])}
    if calibration := evaluation.summary.get("calibration"):
        title = f"Calibration (expected error {shown(calibration['ece'])})"
        drawn[title] = charts.draw_reliability(calibration["reliability"])
        if calibration["thresholds"]["threshold"]:
            drawn["Other thresholds"] = charts.draw_thresholds(calibration["thresholds"])
    if curves is not None:
        drawn["Training: loss"] = charts.draw_losses(curves)
        drawn["Training: validation Dice"] = charts.draw_validation(curves)
        if any(name.startswith(GATE_PREFIX) for name in curves):
            drawn["Training: gates"] = charts.draw_gates(curves)
    return [
        (title, f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}")
        for title, svg in drawn.items()
    ]


def _confusion(
    counts: Sequence[Sequence[int]], names: Sequence[str]
) -> list[tuple[str, list[tuple[float, int]]]]:
    """Per class of the truth its name, and share and number of the pixels of each prediction."""
    if len(names) > MOST_CLASSES:
        return []
    return [
        (name, [(count / (sum(row) or 1), count) for count in row])
        for name, row in zip(names, counts, strict=True)
    ]


def _case_table(evaluation: Evaluation) -> dict[str, list[Any]]:
    """Titles of the columns of numbers and, per case, what it is and these."""
    first = evaluation.rows[0]
    of_foreground = [key for key in CASE_TITLES if key in first["foreground"]]
    of_case = [key for key in ("ece", "brier", "roc_auc", "pr_auc") if key in first]
    rows = [
        {
            "case": row["case"],
            "group": row["group"],
            "size": f"{row['width']} x {row['height']}",
            "pixels": row["width"] * row["height"],
            "numbers": [
                (value, _value(key, value))
                for key, value in (
                    *((key, row["foreground"][key]) for key in of_foreground),
                    *((key, row[key]) for key in of_case),
                )
            ],
            "areas": [row["true_foreground"], row["predicted_foreground"]],
        }
        for row in evaluation.rows
    ]
    titles = {**CASE_TITLES, **_boundary_titles(evaluation.summary)}
    shown_titles = [*AREA_TITLES, *(titles[key] for key in (*of_foreground, *of_case))]
    return {"titles": shown_titles, "rows": rows}


def _css(color: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
