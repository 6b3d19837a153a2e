"""The curves of several training runs in one picture."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from medt.compare.comparison import Group
from medt.compare.past_run import Run
from medt.io.text import abridged

# matplotlib takes a second to load: it is imported where something is drawn.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by readers with any colour vision (the set of Okabe and Ito, grey for its yellow,
# which is faint on white). Eight colours and seven markers: no pair repeats before the 57th group.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

WIDTH, PANEL_HEIGHT, LEGEND_LINE = 11.0, 4.2, 0.21  # inches
DOTS_PER_INCH = 150
LEGEND_CHARACTERS = 130  # what fits one line of the legend
LEGEND_LINES = 3  # of one group
MARKS = 8  # markers along a curve


@contextmanager
def plain_text() -> Iterator[None]:
    """Let figures draw names as they are: a "$" is a dollar, and what no font has is a box."""
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


@plain_text()
def draw_curves(groups: Sequence[Group]) -> bytes:
    """A PNG: losses at the left, validation Dice at the right, over the epochs.

    Each group has a colour. Thin lines are its runs, the thick one their mean in the epochs that
    all of them have.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [abridged(group.name, LEGEND_LINES * LEGEND_CHARACTERS) for group in groups]
    labels = [textwrap.fill(name, LEGEND_CHARACTERS) for name in names]
    columns = max(1, min(4, LEGEND_CHARACTERS // (8 + max(map(len, labels)))))
    lines = -(-sum(1 + label.count("\n") for label in labels) // columns)
    height = PANEL_HEIGHT + LEGEND_LINE * (lines + 1)
    figure = Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    FigureCanvasAgg(figure)
    loss, dice = figure.subplots(1, 2)
    for index, group in enumerate(groups):
        _draw_group(loss, group.runs, "train_loss", index, dashed=True)
        _draw_group(loss, group.runs, "val_loss", index)
        _draw_group(dice, group.runs, "val_dice", index)
    losses = {str(_loss_settings(group)) for group in groups}
    unlike = "" if len(losses) == 1 else "; groups minimise different losses"
    _name_axes(loss, "loss", f"dashed: training, solid: validation{unlike}")
    averaged = any(len(group.runs) > 1 for group in groups)
    _name_axes(dice, "validation Dice", "thick: mean, thin: single runs" if averaged else "")
    _add_legend(figure, labels, columns)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def mean_curve(runs: Sequence[Run], name: str) -> dict[int, float]:
    """The mean of a curve in the epochs that all runs have."""
    curves = [run.curves[name] for run in runs]
    shared = sorted(set(curves[0]).intersection(*curves[1:]))
    return {epoch: sum(curve[epoch] for curve in curves) / len(curves) for epoch in shared}


def _loss_settings(group: Group) -> dict[str, Any]:
    settings = group.runs[0].settings
    return {key: value for key, value in settings.items() if key.startswith("loss.")}


def look(index: int) -> dict[str, Any]:
    """Colour and marker of a group."""
    return {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}


def _draw_group(
    axes: Axes, runs: Sequence[Run], name: str, index: int, dashed: bool = False
) -> None:
    color, marker = look(index).values()
    pattern = "--" if dashed else "-"
    if len(runs) > 1:
        for run in runs:
            curve = run.curves[name]
            axes.plot(
                list(curve),
                list(curve.values()),
                color=color,
                linewidth=0.7,
                alpha=0.35,
                linestyle=pattern,
            )
    mean = mean_curve(runs, name)
    step = max(1, len(mean) // MARKS)
    axes.plot(
        list(mean),
        list(mean.values()),
        color=color,
        marker="." if dashed and len(mean) == 1 else "" if dashed else marker,
        linewidth=1.4 if dashed else 2.0,
        linestyle=pattern,
        markersize=5,
        markevery=(index % step, step),  # the groups' markers beside each other
    )


def _name_axes(axes: Axes, what: str, how: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(f"{what} ({how})" if how else what, fontsize=10)
    axes.set_xlabel("epoch")
    axes.set_ylabel(what)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _add_legend(figure: Figure, labels: Sequence[str], columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **look(index), linewidth=2) for index in range(len(labels))]
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
