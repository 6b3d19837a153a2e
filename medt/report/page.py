"""report.html: an evaluation as one page that needs no other file and no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from medt.data.layout import SegmentationClass
from medt.drawing import ERROR_COLORS
from medt.evaluation.evaluate import Evaluation
from medt.evaluation.headline import first_lines, first_table
from medt.evaluation.tables import FIRST_COLUMNS
from medt.io.text import for_terminal
from medt.metrics.family import Column, Table, number
from medt.metrics.sums import mean_of_present
from medt.report import charts
from medt.report.panels import Panel
from medt.training.run_folder import GATE_PREFIX

MOST_CLASSES = 30  # whose confusion matrix is readable


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
        headline=_cards(evaluation),
        first_lines=list(first_lines(evaluation, every=True)),
        tables=[
            *(table for family in evaluation.families for table in family.tables(summary)),
            *_group_tables(evaluation),
        ],
        charts=_charts(evaluation, origin.curves),
        confusion=_confusion(summary["confusion"], evaluation.class_names),
        panels=panels,
        legend={name: _css(color) for name, color in ERROR_COLORS.items()},
        classes={c.name: _css(c.color) for c in classes},
        cases=_case_table(evaluation),
        links={panel.case: number for number, panel in enumerate(panels, start=1)},
    )


def _cards(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Score, value and interval of what the protocol is about."""
    table = first_table(evaluation)
    of_parts = evaluation.protocol == "glas_challenge"
    cards = []
    for name, *cells in table.rows if of_parts else table.rows[:1]:
        for title, cell in zip(table.columns, cells, strict=True):
            value, _, interval = cell.partition("\n")
            cards.append((f"{title}, {name}" if of_parts else title, value, interval))
    return cards


def _columns(evaluation: Evaluation) -> list[Column]:
    """Of the table of cases those of the foreground or the whole case, in the CSV file's order."""
    first = evaluation.rows[0]
    columns = [c for family in evaluation.families for c in family.columns(evaluation.summary)]
    known = [column for column in columns if column.key in (first | first["foreground"])]
    place = {key: i for i, key in enumerate(FIRST_COLUMNS)}
    return sorted(known, key=lambda column: place.get(column.key, len(place)))


def _group_tables(evaluation: Evaluation) -> list[Table]:
    """The mean scores of each patient or other group, where some have several cases."""
    groups: dict[str, list[dict[str, float]]] = {}
    for row in evaluation.rows:
        if row["group"]:
            groups.setdefault(row["group"], []).append(row["foreground"])
    if all(len(of) == 1 for of in groups.values()):
        return []
    columns = [c for c in _columns(evaluation) if c.key in evaluation.rows[0]["foreground"]]
    rows = [
        [group, str(len(of)), *(number(_mean(of, c.key), c.digits) for c in columns)]
        for group, of in groups.items()
    ]
    note = "Foreground, mean over the group's cases."
    return [Table("groups", ["cases", *(column.heading for column in columns)], rows, note)]


def _mean(scores: Sequence[Mapping[str, float]], key: str) -> float:
    return mean_of_present(np.array([one[key] for one in scores], np.float64))


def _charts(evaluation: Evaluation, curves: charts.Curves | None) -> list[tuple[str, str]]:
    """Title and address of every chart that there are numbers for."""
    drawn = {"Dice of every case": charts.draw_dice(evaluation.rows, evaluation.class_names[1:])}
    for family in evaluation.families:
        for chart in family.charts(evaluation.summary):
            drawn[chart.title] = charts.draw_chart(chart)
    if curves is not None:
        drawn["Training: loss"] = charts.draw_curves(curves, ("train_loss", "val_loss"), "loss")
        drawn["Training: validation Dice"] = charts.draw_curves(
            curves, ("val_dice",), "validation Dice"
        )
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
    columns = _columns(evaluation)
    rows = []
    for row in evaluation.rows:
        numbers = row | row["foreground"]
        rows.append(
            {
                "case": row["case"],
                "group": row["group"],
                "size": f"{row['width']} x {row['height']}",
                "pixels": row["width"] * row["height"],
                "numbers": [(numbers[c.key], number(numbers[c.key], c.digits)) for c in columns],
            }
        )
    return {"titles": [column.heading for column in columns], "rows": rows}


def _css(color: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
