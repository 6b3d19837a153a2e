"""Time and memory of a training step against the image's size, in one picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from medt.compare.curves import look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 11.0, 6.0  # inches
DOTS_PER_INCH = 150
# A network has a colour and a marker, a backend a dash pattern.
PATTERNS = {"fused": "-", "torch": "--", "naive": ":", None: "-."}
LEGEND_COLUMNS = 4


def draw(records: Sequence[dict[str, Any]]) -> bytes:
    """A PNG: a line for each network and backend at the smallest batch, on logarithmic axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    batch = min(record["batch_size"] for record in records)
    drawn = [r for r in records if r["batch_size"] == batch and r["backend"] in PATTERNS]
    networks = list(dict.fromkeys(record["network"] for record in drawn))
    backends = [b for b in PATTERNS if any(record["backend"] == b for record in drawn)]
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DOTS_PER_INCH)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    FigureCanvasAgg(figure)
    time, memory = figure.subplots(1, 2)
    for index, network in enumerate(networks):
        for backend in backends:
            lines = [r for r in drawn if (r["network"], r["backend"]) == (network, backend)]
            style = {**look(index), "linestyle": PATTERNS[backend]}
            plot_line(time, lines, "medians", 1000, style)
            plot_line(memory, lines, "memory_bytes", 1e-6, style)
    sizes = sorted({record["image_size"] for record in drawn})
    name_axes(time, f"training step, batch {batch}: time", "milliseconds", sizes)
    name_axes(memory, f"training step, batch {batch}: memory", "MB above the idle process", sizes)
    looks = [Line2D([], [], **look(i), label=name) for i, name in enumerate(networks)]
    patterns = [
        Line2D([], [], color="black", ls=PATTERNS[b], label=b or "another library's")
        for b in backends
    ]
    for handles, place in ((looks, "outside lower left"), (patterns, "outside lower right")):
        columns = min(len(handles), LEGEND_COLUMNS)
        figure.legend(
            handles=handles, loc=cast(Any, place), ncols=columns, frameon=False, fontsize=9
        )
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def plot_line(
    axes: Axes,
    records: Sequence[dict[str, Any]],
    key: str,
    factor: float,
    style: dict[str, Any],
) -> None:
    """One network in one formulation, at the sizes where its training step was measured."""
    points = sorted(
        (record["image_size"], factor * record[key]["training"])
        for record in records
        if record[key]["training"]
    )
    if points:
        axes.plot(*zip(*points, strict=True), **style, linewidth=1.6, markersize=5)


def name_axes(axes: Axes, title: str, unit: str, sizes: Sequence[int]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("image side in pixels")
    axes.set_ylabel(unit)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
