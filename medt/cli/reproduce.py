"""Train and score the networks of a table: python scripts/reproduce.py table=glas

Each run is a command that could as well be typed. What has been trained or scored is not done
again, and a run that was stopped goes on.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from medt.cli.settings import plain
from medt.compare.comparison import Group, report
from medt.compare.past_run import Run, read_run
from medt.errors import UserError, did_you_mean
from medt.interruption import Stopped
from medt.io.files import write_text
from medt.io.locks import locked
from medt.io.text import csv_text, shown
from medt.shipped import typed
from medt.targets import is_outside, targets_in
from medt.training.progress import duration
from medt.training.run_folder import RunFolder

HEADS = ("network", "runs", "Dice", "deviation", "difference", "low", "high", "p_holm", "seconds")


@dataclass(frozen=True)
class Job:
    """A run of the table.

    Attributes:
        row: the row's name.
        folder: of the run.
        training: settings of train.py.
    """

    row: str
    folder: Path
    training: tuple[str, ...]


def reproduce(cfg: DictConfig) -> int:
    settings = plain(cfg)
    table, output = settings["table"], Path(cfg.output)
    jobs = list(jobs_of(settings, output))
    with locked(output, "reproduce.py"):
        if cfg.dry_run:
            return estimate(jobs, output)
        failed = []
        for number, job in enumerate(jobs, 1):
            print(f"\nrun {number} of {len(jobs)}: {job.row}, {job.folder.name}", flush=True)
            if not carried_out(job, table["split"]):
                failed.append(job)
        if groups := groups_of([job for job in jobs if job not in failed]):
            evaluation = write_table(groups, output, table["split"])
            print(f"\n{(output / 'table.md').read_text(encoding='utf-8')}")
            print(f"table.md and table.csv of {evaluation} written to {shown(output)}")
    if failed:
        names = ", ".join(f"{job.row}/{job.folder.name}" for job in failed)
        raise UserError(
            f"{len(failed)} of {len(jobs)} runs failed and are not in the table: {names}",
            "see what each said above; the same command goes on",
        )
    return 0


def jobs_of(settings: dict[str, Any], output: Path) -> Iterator[Job]:
    """All runs of the table, a seed of all rows after the other, so that each row is there soon.

    Raises:
        UserError: a row that is asked for is not in the table.
    """
    table = settings["table"]
    wanted = settings["rows"] or list(table["rows"])
    for name in wanted:
        if name not in table["rows"]:
            hint = did_you_mean(name, table["rows"], f"choose from {', '.join(table['rows'])}")
            raise UserError(f"there is no row {name} in the table {table['name']}", hint)
    common = [f"paths.data={settings['paths']['data']}", f"paths.runs={output}"]
    for seed in table["seeds"]:
        for row in wanted:
            given = [*table["settings"], *table["rows"][row], *settings["more"], f"seed={seed}"]
            yield Job(row, output / row / f"seed={seed}", (*given, *common))


def carried_out(job: Job, split: str) -> bool:
    """Train and score a run, as far as that is not done; whether it is done now."""
    settings = [*job.training, f"run_dir={job.folder}", "resume=auto"]
    if called("train", [*own_folders(), *settings]):
        return False
    run = read_run(RunFolder(job.folder))
    if any(f"-{split}-" in name for name in run.evaluations):
        return True
    own = [name for name in targets_in([run.config["model"]]) if is_outside(name)]
    allowing = [f"allow=[{','.join(own)}]"] if own else []
    return called("evaluate", [f"checkpoint={job.folder}", f"split={split}", *allowing]) == 0


def own_folders() -> list[str]:
    """The --config-dir that this command was given."""
    sources = HydraConfig.get().runtime.config_sources
    return [f"--config-dir={one.path}" for one in sources if one.provider == "command-line"]


def called(command: str, settings: Sequence[str]) -> int:
    """Run a command of medt as a process of its own, and show how it is typed.

    Raises:
        Stopped: it was stopped by a signal, or this process was.
    """
    print(f"{typed(command)} {shlex.join(settings)}", flush=True)
    process = subprocess.Popen([sys.executable, "-m", "medt.cli", command, *settings])
    try:
        code = process.wait()
    except BaseException:
        process.send_signal(signal.SIGTERM)  # it saves what there is
        process.wait()
        raise
    if code > 128:
        raise Stopped(code - 128)
    return code


def estimate(jobs: Sequence[Job], output: Path) -> int:
    """Say how long the runs take, from a few steps of each row."""
    seconds: dict[str, float] = {}
    for job in jobs:
        if job.row not in seconds:
            if called("train", [*own_folders(), *job.training, "dry_run=true"]):
                return 1
            newest = max((output / "dry_run").glob("*.json"), key=lambda file: file.stat().st_mtime)
            seconds[job.row] = json.loads(newest.read_text(encoding="utf-8"))["seconds"]
    print("\ntrainings, without scoring:")
    for row, one in seconds.items():
        count = sum(job.row == row for job in jobs)
        print(f"  {row:20} {count} x {duration(one)}")
    print(f"  {'in all':20} {duration(sum(seconds[job.row] for job in jobs))}")
    return 0


def groups_of(jobs: Sequence[Job]) -> list[Group]:
    """The runs by row, in the table's order."""
    runs: dict[str, list[Run]] = {}
    for job in jobs:
        runs.setdefault(job.row, []).append(read_run(RunFolder(job.folder)))
    return [Group(row, {}, found) for row, found in runs.items()]


def write_table(groups: Sequence[Group], output: Path, split: str) -> str:
    """table.md and table.csv: a row each, compared with the first; returns the evaluation."""
    found = report(groups)
    evaluation: str = next(name for name in found["evaluations"] if f"-{split}-" in name)
    pairs = {pair["name"]: pair for pair in found["pairs"].get(evaluation, [])}
    lines: list[list[Any]] = []
    for group in found["groups"]:
        dice, pair = group["evaluations"][evaluation], pairs.get(group["name"])
        line = [group["name"], len(group["runs"]), dice["mean"], dice["deviation"]]
        if pair is None:
            line += [None] * 4
        else:
            line += [pair["difference"], *(pair["interval"] or (None, None)), pair["p_holm"]]
        lines.append([*line, group["seconds"]["mean"]])
    heads = ("network", "runs", "Dice", f"difference to {lines[0][0]}", "95 % interval")
    rows = [
        _row([*heads, "p (Holm)", "time a run"]),
        _row(["---"] * 7),
        *(_row(_cells(line)) for line in lines),
    ]
    write_text(output / "table.csv", csv_text([list(HEADS), *lines]))
    write_text(output / "table.md", "\n".join([*rows, "", *found["notes"], ""]))
    return evaluation


def _cells(line: Sequence[Any]) -> list[str]:
    name, runs, mean, deviation, difference, low, high, p, seconds = line
    return [
        *(str(name), str(runs)),
        f"{mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}"),
        "" if difference is None else f"{difference:+.4f}",
        "" if low is None else f"{low:+.4f} to {high:+.4f}",
        "" if p is None else f"{p:.4f}",
        duration(seconds),
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
