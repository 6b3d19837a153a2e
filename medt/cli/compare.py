"""Training runs in one table, over seeds: python scripts/compare.py RUN_OR_FOLDER ..."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich import box
from rich.table import Table
from rich.text import Text

from medt.cli.screen import print_table
from medt.cli.settings import plain
from medt.compare.comparison import group_runs, report
from medt.compare.curves import draw_curves
from medt.compare.past_run import find_runs, read_run
from medt.io.files import atomic_write, write_text
from medt.io.locks import locked
from medt.io.text import csv_text, json_text
from medt.training.progress import duration

SCORES = {"val_dice": "val Dice", "val_iou": "val IoU"}


def compare(cfg: DictConfig) -> int:
    output = Path(cfg.output)
    with locked(output, "compare.py"):
        folders = find_runs([Path(path) for path in plain(cfg)["runs"]])
        groups = group_runs([read_run(folder) for folder in folders])
        comparison = report(groups)
        picture = draw_curves(groups)
        write_text(output / "comparison.csv", csv_of(comparison))
        write_text(output / "comparison.json", json_text(comparison))
        with atomic_write(output / "curves.png") as temporary:
            temporary.write_bytes(picture)
    print_table(table_of(comparison))
    for evaluation, pairs in comparison["pairs"].items():
        print()
        print_table(pair_table(evaluation, pairs))
    print("", *comparison["notes"], sep="\n")
    print(f"\ncomparison.csv, comparison.json and curves.png written to {output}")
    return 0


def table_of(comparison: dict[str, Any]) -> Table:
    """A row a group: runs, epochs, mean ± deviation of the scores, time."""
    evaluations = [_title(name) for name in comparison["evaluations"]]
    heads = ("runs", "epochs", *SCORES.values(), "time a run", *evaluations)
    rows = [
        (
            str(len(group["runs"])),
            _range(group["epochs"]) + ("*" if group["unfinished"] else ""),
            *(_shown(group[score]) for score in SCORES),
            duration(group["seconds"]["mean"]),
            *(_shown(summary) for summary in group["evaluations"].values()),
        )
        for group in comparison["groups"]
    ]
    table = Table(box=box.ASCII_DOUBLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("", overflow="fold")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for group, cells in zip(comparison["groups"], rows, strict=True):
        table.add_row(Text(group["name"]), *cells)
    return table


def pair_table(evaluation: str, pairs: Sequence[dict[str, Any]]) -> Table:
    """A row a group: how its Dice differs from the first group's on common cases."""
    dataset, split, protocol = evaluation.rsplit("-", 2)
    table = Table(box=box.ASCII_DOUBLE_HEAD, show_edge=False, pad_edge=False)
    first = f"{dataset} {split} {protocol}, against {pairs[0]['reference']}"
    table.add_column(Text(first), overflow="fold")
    for head in ("cases", "difference", "95% interval", "p", "p (Holm)"):
        table.add_column(head, justify="right", no_wrap=True)
    for pair in pairs:
        interval = pair["interval"]
        table.add_row(
            Text(pair["name"]),
            str(pair["cases"]),
            f"{pair['difference']:+.4f}",
            "-" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}",
            *("-" if pair[key] is None else f"{pair[key]:.4f}" for key in ("p", "p_holm")),
        )
    return table


def csv_of(comparison: dict[str, Any]) -> str:
    """A line a group; what is not known is empty."""
    columns = [*SCORES, "seconds", *comparison["evaluations"]]
    pairs = [f"{column}_{part}" for column in columns for part in ("mean", "deviation")]
    lines = [["group", "runs", "unfinished", "epochs_least", "epochs_most", *pairs]]
    for group in comparison["groups"]:
        summaries = [group[name] for name in (*SCORES, "seconds")]
        summaries += group["evaluations"].values()
        line = [group["name"], len(group["runs"]), group["unfinished"]]
        line += [group["epochs"][0], group["epochs"][-1]]
        for summary in summaries:
            line += [None, None] if summary is None else [summary["mean"], summary["deviation"]]
        lines.append([f"{cell:.6f}" if isinstance(cell, float) else cell for cell in line])
    return csv_text(lines)


def _title(evaluation: str) -> str:
    """The heading of an evaluation's column, on two lines to keep it narrow."""
    dataset, split, protocol = evaluation.rsplit("-", 2)
    return f"{dataset} {split}\n{protocol} Dice"


def _range(numbers: Sequence[int]) -> str:
    """The least and the greatest of sorted numbers, or the only one."""
    return "-".join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))


def _shown(summary: dict[str, Any] | None) -> str:
    if summary is None:
        return "-"
    deviation = summary["deviation"]
    return f"{summary['mean']:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")
