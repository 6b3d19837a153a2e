"""The charts of a report, each an SVG that needs nothing else."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medt.compare.curves import COLORS, plain_text
from medt.io.text import for_terminal
from medt.metrics.family import Chart
from medt.training.run_folder import GATE_PREFIX

# matplotlib takes a second to load: it is imported where something is drawn.
if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = 5.2, 3.6  # inches
JITTER = 0.18  # of the points beside each other, in the width of a column
LEGEND_ENTRIES = 12
MOST_MARKED = 30  # points of a line

Curves = Mapping[str, Mapping[int, float]]


def draw_dice(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bytes:
    """The Dice of every case, a column for each of these classes: points, quartiles, median."""
    columns = [[row["classes"][name]["dice"] for row in rows] for name in names]
    present = [np.array(column)[np.isfinite(column)] for column in columns]

    def draw(axes: Axes) -> None:
        axes.boxplot(
            present,
            showfliers=False,
            widths=0.5,
            medianprops={"color": COLORS[1], "linewidth": 2},
            boxprops={"color": "#777777"},
            whiskerprops={"color": "#777777"},
            capprops={"color": "#777777"},
        )
        for position, values in enumerate(present, start=1):
            aside = np.linspace(-JITTER, JITTER, len(values)) if len(values) > 1 else np.zeros(1)
            axes.scatter(
                position + aside[: len(values)], np.sort(values), s=14, color=COLORS[0], alpha=0.7
            )
        labels = [f"{name}\n{len(v)} cases" for name, v in zip(names, present, strict=True)]
        axes.set_xticks(range(1, len(names) + 1), labels)
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("Dice")

    return _svg(draw)


def draw_chart(chart: Chart) -> bytes:
    """The lines and bars of a metric family's chart."""

    def draw(axes: Axes) -> None:
        edges = np.linspace(0, 1, len(chart.bars) + 1)
        axes.bar(edges[:-1], chart.bars, np.diff(edges), align="edge", color="#d9d9d9")
        axes.plot(*chart.dashed, color="#777777", linestyle="--", linewidth=1)
        for index, (name, points) in enumerate(chart.lines.items()):
            marker = "" if len(points[0]) > MOST_MARKED else "o"
            color = COLORS[index % len(COLORS)]
            axes.plot(*points, color=color, marker=marker, label=for_terminal(name))
        axes.set(xlabel=chart.x, ylabel=chart.y, xlim=(0, 1), ylim=(0, 1.02))
        if len(chart.lines) > 1:
            axes.legend(frameon=False)

    return _svg(draw)


def draw_curves(curves: Curves, names: Sequence[str], what: str) -> bytes:
    """Some of the curves, of losses or scores, over the epochs."""

    def draw(axes: Axes) -> None:
        for color, name in zip(COLORS, names, strict=False):
            points = curves[name]
            marker = "o" if len(points) == 1 else ""
            axes.plot(list(points), list(points.values()), color=color, marker=marker, label=name)
        _name_epochs(axes, what)
        if len(names) > 1:
            axes.legend(frameon=False)

    return _svg(draw)


def draw_gates(curves: Curves) -> bytes:
    """The gates over the epochs; those of one kind (the last part of the name) in one colour."""
    gates = [name for name in curves if name.startswith(GATE_PREFIX)]
    kinds = list(dict.fromkeys(name.rpartition(".")[2] for name in gates))

    def draw(axes: Axes) -> None:
        for name in gates:
            kind = name.rpartition(".")[2]
            color = COLORS[kinds.index(kind) % len(COLORS)]
            axes.plot(list(curves[name]), list(curves[name].values()), color=color, linewidth=1)
        for index, kind in enumerate(kinds[:LEGEND_ENTRIES]):
            axes.plot([], [], color=COLORS[index % len(COLORS)], label=for_terminal(kind))
        _name_epochs(axes, "gate")
        axes.legend(frameon=False)

    return _svg(draw)


def _name_epochs(axes: Axes, what: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.set_ylabel(what)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


@plain_text()
def _svg(draw: Callable[[Axes], None]) -> bytes:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    draw(axes)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()
