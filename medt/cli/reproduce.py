"""Train and score the networks of a table: python scripts/reproduce.py table=glas

Each run is a command that is printed. What has been trained or scored is not done again, and a run
that was stopped goes on.
"""

from __future__ import annotations

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
from medt.interruption import STOPPING, Stopped, on_stop
from medt.io.files import write_text
from medt.io.locks import locked
from medt.io.plain import read_json
from medt.io.text import csv_text, for_markdown, is_folder_name, shown
from medt.shipped import typed
from medt.targets import is_outside, targets_in
from medt.training.progress import duration
from medt.training.run_folder import RunFolder

HEADS = ("network", "runs", "Dice", "deviation", "difference", "low", "high", "p_holm", "seconds")
PROTOCOL = "native"
TRIAL = "dry_run"  # the folder of what a dry run writes, which no row is called


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
    output, split = Path(cfg.output), settings["table"]["split"]
    jobs = list(jobs_of(settings, output))
    wanted = [job for job in jobs if settings["rows"] is None or job.row in settings["rows"]]
    with locked(output, "reproduce.py"):
        if cfg.dry_run:
            return estimate(wanted, output, split)
        failed = []
        for number, job in enumerate(wanted, 1):
            print(f"\nrun {number} of {len(wanted)}: {job.row}, {job.folder.name}", flush=True)
            if not carried_out(job, split, settings["paths"]["data"]):
                failed.append(job)
        if groups := groups_of(jobs, split):
            print(f"\n{write_table(groups, output, split)}")
            print(f"table.md and table.csv written to {shown(output)}")
    if failed:
        names = ", ".join(f"{job.row}/{job.folder.name}" for job in failed)
        raise UserError(
            f"{len(failed)} of {len(wanted)} runs failed and are not in the table: {names}",
            "see what each said above; with other settings give another output=...",
        )
    return 0


def jobs_of(settings: dict[str, Any], output: Path) -> Iterator[Job]:
    """All runs of the table: each row with the first seed, then with the next.

    Raises:
        UserError: the table has no run, a name that cannot be one of a folder, a seed twice, or
            not the rows that are asked for.
    """
    table = settings["table"]
    rows, seeds, name = table["rows"], table["seeds"], table["name"]
    if not rows or not seeds or len(set(seeds)) < len(seeds):
        raise UserError(
            f"table {name}: rows {list(rows)}, seeds {seeds}", "give a row, and each seed once"
        )
    for row in rows:
        if not is_folder_name(row) or row == TRIAL:
            raise UserError(f"table {name}: {row!r} is no name for a row", "give another one")
    for row in [] if settings["rows"] is None else settings["rows"] or [""]:
        if row not in rows:
            hint = did_you_mean(row, rows, f"choose from {', '.join(rows)}")
            raise UserError(f"there is no row {row} in the table {name}", hint)
    for seed in seeds:
        for row, own in rows.items():
            folder = output / row / f"seed={seed}"
            places = [f"paths.data={settings['paths']['data']}", f"paths.runs={folder}"]
            given = [*table["settings"], *own, *settings["more"], f"seed={seed}", *places]
            yield Job(row, folder, tuple(given))


def carried_out(job: Job, split: str, data: str) -> bool:
    """Train and score a run, as far as that is not done; whether it is done now."""
    settings = [*job.training, f"run_dir={job.folder}", "resume=auto"]
    if called("train", [*own_folders(), *settings]):
        return False
    try:
        run = read_run(RunFolder(job.folder))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return False
    if any(_is_of(name, split) for name in run.evaluations):
        return True
    given = [f"checkpoint={job.folder}", f"split={split}", f"protocol={PROTOCOL}"]
    given += [f"device={run.config['trainer']['device']}", f"paths.data={data}"]
    own = [name for name in targets_in([run.config["model"]]) if is_outside(name)]
    allowing = [f"allow=[{','.join(own)}]"] if own else []
    return called("evaluate", [*given, *allowing]) == 0


def own_folders() -> list[str]:
    """The --config-dir that this command was given."""
    sources = HydraConfig.get().runtime.config_sources
    return [f"--config-dir={one.path}" for one in sources if one.provider == "command-line"]


def called(command: str, settings: Sequence[str]) -> int:
    """Run a command of medt as a process of its own, show it, and hand on what asks it to stop.

    Raises:
        Stopped: a signal has stopped it.
    """
    print(f"{typed(command)} {shlex.join(settings)}", flush=True)
    # In a session of its own a terminal's Ctrl-C reaches it once, from here: twice is "at once".
    process = subprocess.Popen(
        [sys.executable, "-m", "medt.cli", command, *settings], start_new_session=True
    )
    came: list[int] = []

    def hand_on(number: int) -> None:
        came.append(number)
        process.send_signal(number)

    with on_stop(hand_on):
        try:
            code = process.wait()
        except BaseException:
            process.send_signal(signal.SIGTERM)
            process.wait()
            raise
    if came:
        raise Stopped(came[0])
    if -code in STOPPING or code - 128 in STOPPING:
        raise Stopped(-code if code < 0 else code - 128)
    return code


def estimate(jobs: Sequence[Job], output: Path, split: str) -> int:
    """Say how long the runs take that are not done yet, from a few steps of each row."""
    seconds: dict[str, float] = {}
    done = [run.root for group in groups_of(jobs, split) for run in group.runs]
    left = [job for job in jobs if job.folder not in done]
    failed = []
    for job in {job.row: job for job in left}.values():
        place = output / TRIAL / job.row
        settings = [*job.training, f"paths.runs={place}", "dry_run=true"]
        if called("train", [*own_folders(), *settings]):
            failed.append(job.row)
            continue
        (file,) = place.rglob("*.json")
        seconds[job.row] = read_json(file)["seconds"]
    print("\ntrainings that are left, without scoring:")
    for row, one in seconds.items():
        print(f"  {row:20} {sum(job.row == row for job in left)} x {duration(one)}")
    print(f"  {'in all':20} {duration(sum(seconds.get(job.row, 0.0) for job in left))}")
    if failed:
        raise UserError(
            f"these rows cannot be trained: {', '.join(failed)}", "see what each said above"
        )
    return 0


def groups_of(jobs: Sequence[Job], split: str) -> list[Group]:
    """The runs that are trained and scored, by row, in the table's order."""
    runs: dict[str, list[Run]] = {}
    for job in jobs:
        if RunFolder(job.folder).metrics.exists():
            run = read_run(RunFolder(job.folder))
            if run.finished and any(_is_of(name, split) for name in run.evaluations):
                runs.setdefault(job.row, []).append(run)
    return [Group(row, {}, found) for row, found in runs.items()]


def write_table(groups: Sequence[Group], output: Path, split: str) -> str:
    """Write table.csv and table.md, which is returned: a row each, compared with the first.

    Raises:
        UserError: the rows were scored on several datasets.
    """
    found = report(groups)
    names = [name for name in found["evaluations"] if _is_of(name, split)]
    if len(names) > 1:
        raise UserError(
            f"the rows of this table are of several datasets: {', '.join(names)}",
            "give them the same dataset",
        )
    pairs = {pair["name"]: pair for pair in found["pairs"].get(names[0], [])}
    lines: list[list[Any]] = []
    for group in found["groups"]:
        dice, pair = group["evaluations"][names[0]], pairs.get(group["name"])
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
    text = "\n".join([*rows, "", *found["notes"], ""])
    write_text(output / "table.csv", csv_text([list(HEADS), *lines]))
    write_text(output / "table.md", text)
    return text


def _is_of(evaluation: str, split: str) -> bool:
    """Whether an evaluation, <dataset>-<split>-<protocol>, is what the table shows."""
    return evaluation.endswith(f"-{split}-{PROTOCOL}")


def _cells(line: Sequence[Any]) -> list[str]:
    name, runs, mean, deviation, difference, low, high, p, seconds = line
    return [
        *(for_markdown(name), str(runs)),
        f"{mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}"),
        "" if difference is None else f"{difference:+.4f}",
        "" if low is None else f"{low:+.4f} to {high:+.4f}",
        "" if p is None else f"{p:.4f}",
        duration(seconds),
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
