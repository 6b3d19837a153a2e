"""Time, memory and limit of the networks: python scripts/benchmark.py [networks=[medt,unet]]"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig

from medt.benchmark.measure import measure, plan
from medt.benchmark.plot import draw
from medt.benchmark.report import closing_lines, failure_lines, ratio_lines, table_of
from medt.cli.arguments import CONFIGS, quoted_path
from medt.cli.screen import print_table, progress
from medt.cli.settings import plain
from medt.errors import UserError
from medt.io.files import atomic_write, write_text
from medt.io.locks import locked
from medt.io.text import shown

BACKENDS = ("naive", "torch", "fused")


def benchmark(cfg: DictConfig) -> int:
    settings = plain(cfg)
    known = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml"))
    check_names("networks", settings["networks"], known)
    check_names("backends", settings["backends"], BACKENDS)
    given = {key: settings[key] is not None for key in ("checkpoint", "glas", "large")}
    if given["checkpoint"] and not given["glas"] and not given["large"]:
        raise UserError(
            "checkpoint=... without images to evaluate it on",
            "give glas=ARCHIVE or large=8000, too",
        )
    if given["large"] and not given["checkpoint"]:
        raise UserError("large=... without a network to predict with", "give checkpoint=FILE, too")
    planned = plan(settings, train_config)
    output = Path(settings["output"])

    def save(report: dict[str, Any]) -> None:
        write_text(output / "benchmark.json", json.dumps(report, indent=2) + "\n")

    with locked(output, "benchmark.py"):
        with progress("timing") as advance:
            report = measure(settings, *planned, train_config, advance, save)
        with atomic_write(output / "benchmark.png") as temporary:
            temporary.write_bytes(draw(report["variants"]))
    show(report)
    print(f"\nbenchmark.json and benchmark.png written to {shown(output)}")
    return 0


def check_names(key: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown or not given:
        wrong = ", ".join(unknown) or "nothing"
        raise UserError(f"{key} names {wrong}", f"choose some of {', '.join(known)}")


def train_config(overrides: Sequence[str]) -> dict[str, Any]:
    """configs/train.yaml as training would see it; Hydra knows the folder from this command."""
    config: dict[str, Any] = plain(compose("train", list(map(quoted_path, overrides))))
    return config


def show(report: dict[str, Any]) -> None:
    """A table and ratios for each size and batch, what was left out, and the closing lines."""
    for (size, batch), group in itertools.groupby(
        report["variants"], key=lambda record: (record["image_size"], record["batch_size"])
    ):
        records = list(group)
        print(f"{size} x {size}, batch {batch}")
        print_table(table_of(records))
        of_group = [
            ratio
            for ratio in report["ratios"]
            if (ratio["image_size"], ratio["batch_size"]) == (size, batch)
        ]
        lines = failure_lines(records) + [line for r in of_group for line in ratio_lines(r)]
        print("\n".join(["", *lines, ""] if lines else [""]))
    for line in report["skipped"]:
        print(f"skipped: {line}")
    print(machine_line(report))
    print("\n".join(closing_lines(report)))


def machine_line(report: dict[str, Any]) -> str:
    """Threads, processor, and how quiet the machine was."""
    records, machine = report["variants"], report["machine"]
    spread = max(
        (max(times) / min(times) for r in records for times in r["seconds"].values() if times),
        default=1.0,
    )
    return (
        f"{machine['threads']} threads on {machine['cores']} cores, {machine['processor']}; "
        f"medians of at most {report['settings']['rounds']} rounds, the slowest of a variant at "
        f"most {spread:.1f} times its fastest"
    )
