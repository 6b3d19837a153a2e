"""Tables of what a detailed evaluation measures beside the pixel scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from medt.metrics.pixel_size import ABBREVIATIONS

FIRST = 24  # columns of a table's first column, at most
NUCLEI = {"aji": "AJI", "pq": "PQ", "dq": "DQ", "sq": "SQ", "f1": "F1@0.5"}
GLANDS = {"f1": "object F1", "object_dice": "object Dice", "object_hausdorff": "Hausdorff"}


def detail_tables(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The challenge's scores first where its protocol was asked for, then all else."""
    objects = summary.get("objects", {})
    glands = [_gland_table(name, part["glas"], part["unit"]) for name, part in objects.items()]
    if summary["protocol"] == "glas_challenge":
        yield from glands
    if "topology" in summary:
        yield _centreline_table(summary["topology"])
    if "boundary" in summary:
        yield _boundary_table(summary["boundary"])
    yield from (_nuclei_table(name, part) for name, part in objects.items())
    if summary["protocol"] != "glas_challenge":
        yield from glands
    calibration = summary["calibration"]
    yield Text(
        f"expected calibration error {shown(calibration['ece'])}, "
        f"Brier score {shown(calibration['brier'])}"
    )
    if "ranking" in summary:
        yield _ranking_table(summary["ranking"])
    intervals = summary["intervals"]
    if intervals["groups"] == 1:
        yield Text(f"no intervals: there is one of these {intervals['over']}")
        return
    dice, iou = (
        between(intervals["mean_over_cases"][key]["foreground"]) for key in ("dice", "iou")
    )
    yield Text(
        f"{intervals['level']:.0%} intervals over {intervals['groups']} {intervals['over']}: "
        f"foreground Dice {dice}, IoU {iou}"
    )


def shown(score: float) -> str:
    """Four digits, or a dash for a score that was left out."""
    return "-" if math.isnan(score) else f"{score:.4f}"


def between(interval: Sequence[float]) -> str:
    """An interval in three digits."""
    low, high = interval
    return "-" if math.isnan(low) else f"{low:.3f} to {high:.3f}"


def new_table(first: str, titles: Sequence[str]) -> Table:
    """A table of numbers that fits 80 columns and holds no box characters."""
    table = Table(box=box.ASCII_DOUBLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold", max_width=FIRST, min_width=min(len(first), FIRST))
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _ranking_table(ranking: Mapping[str, Any]) -> Table:
    """In both reductions."""
    table = new_table("any threshold", ["ROC AUC", "PR AUC"])
    for title, part in (("mean over cases", "mean_over_cases"), ("pooled", "pooled")):
        table.add_row(title, *(shown(ranking[part][key]) for key in ("roc_auc", "pr_auc")))
    return table


def _centreline_table(means: Mapping[str, Any]) -> Table:
    """Of each class and the foreground."""
    table = new_table("centrelines (mean)", ["clDice", "precision", "recall"])
    for name in next(iter(means.values()))["classes"]:
        table.add_row(Text(name), *(shown(part["classes"][name]) for part in means.values()))
    cells = [shown(part["foreground"]) for part in means.values()]
    table.add_row("foreground mean", *cells, style="bold")
    return table


def _boundary_table(boundary: Mapping[str, Any]) -> Table:
    unit = ABBREVIATIONS[boundary["unit"]]
    means = boundary["mean_over_cases"]
    titles = [f"HD95 ({unit})", f"NSD at {boundary['tolerance']:g} {unit}", "one mask empty"]
    table = new_table("boundaries (mean)", titles)
    for name, empty in boundary["one_empty"].items():
        hd95, nsd = (means[key]["classes"][name] for key in ("hd95", "nsd"))
        table.add_row(Text(name), _two(hd95), shown(nsd), str(empty))
    table.add_row(
        "foreground mean",
        _two(means["hd95"]["foreground"]),
        shown(means["nsd"]["foreground"]),
        "",
        style="bold",
    )
    return table


def _nuclei_table(name: str, objects: Mapping[str, Any]) -> Table:
    counts = objects["counts"]
    table = new_table(f"objects of {name}", list(NUCLEI.values()))
    table.add_row("mean over cases", *(shown(objects["mean"][key]) for key in NUCLEI))
    intervals = (_short(objects["intervals"][key]) for key in NUCLEI)
    table.add_row("  interval", *intervals)
    table.add_row("pooled", *(shown(objects["pooled"][key]) for key in NUCLEI))
    table.caption = (
        f"{counts['true']} true and {counts['predicted']} predicted objects, mean count error "
        f"{counts['count_error']:.2f} a case, {objects['left_out']['f1']} cases without any"
    )
    table.caption_justify = "left"
    return table


def _gland_table(name: str, glands: Mapping[str, Any], unit: str) -> Table:
    *shares, distance = GLANDS.values()
    titles = [*shares, f"{distance} ({ABBREVIATIONS[unit]})", "undefined"]
    table = new_table(f"GlaS scores of {name}", titles)
    for part, scores in glands.items():
        numbers = shown(scores["f1"]), shown(scores["object_dice"])
        hausdorff = _two(scores["object_hausdorff"])
        table.add_row(
            Text(f"{part} ({scores['cases']})"), *numbers, hausdorff, str(scores["undefined"])
        )
        *ends, of_distance = (scores["intervals"][key] for key in GLANDS)
        table.add_row("  interval", *map(_short, ends), _short(of_distance, 1), "")
    return table


def _short(interval: Sequence[float], digits: int = 2) -> str:
    low, high = interval
    return "-" if math.isnan(low) else f"{low:.{digits}f}-{high:.{digits}f}"


def _two(number: float) -> str:
    return "-" if math.isnan(number) else f"{number:.2f}"
