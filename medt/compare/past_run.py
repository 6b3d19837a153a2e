"""What the folder of a past training run holds, read without its checkpoints."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medt.checkpoint import load_checkpoint
from medt.data.folds import MOST_FOLDS
from medt.data.splits import SPLITS
from medt.errors import UserError
from medt.evaluation.evaluate import PROTOCOLS
from medt.evaluation.recorded import Recorded, read_recorded, share
from medt.evaluation.tables import CASES_FILE, METRICS_FILE
from medt.io.files import natural_key
from medt.io.plain import read_json, read_table
from medt.io.runs_below import use_of
from medt.io.text import from_csv_cell
from medt.metrics.pixel import COUNTS, PixelCounts, dice
from medt.metrics.sums import means_of_present
from medt.signatures import fits
from medt.training.run_folder import GATE_PREFIX, RunFolder, without_circumstances

MOST_SETTINGS = 500  # of a config; ours have about a hundred
MOST_EPOCHS = 10**7
MOST_SECONDS = 1e10  # three hundred years
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
FOUND = ("splits_digest", "object_area")  # filled in by train.py, differently for each fold
CURVES = ("train_loss", "val_loss", "val_dice")
EVALUATION_NAME = re.compile(
    rf"(.+-(?:{'|'.join((*SPLITS, 'all'))})-(?:{'|'.join(PROTOCOLS)}))(?:-(\d+))?", re.DOTALL
)

# A config as dotted keys.
Settings = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """One evaluation.

    Attributes:
        dice: of the foreground, mean over the cases that show some.
        cases: their number, and that of those which show none.
        by_case: the foreground Dice of each case that has one; empty without a per_case.csv.
        groups: of these cases, such as their patients.
        false_alarms: the share of the cases without foreground in which some was predicted; None
            where there is no such case, or nobody can say.
        splits: the digest of the split file that chose the cases; empty where it is not recorded.
    """

    dice: float
    cases: int
    by_case: dict[str, float]
    groups: dict[str, str]
    false_alarms: float | None
    splits: str


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes:
        root: the folder.
        config: its config.yaml.
        epoch: epochs trained.
        finished: whether training came to its end.
        dice, iou: foreground validation scores of the weights for use, 0..1.
        seconds: the training's duration.
        curves: see `read_curves`.
        evaluations: by <dataset>-<split>-<protocol>, the newest result of the weights for use.
        others: of these names, those of which there are results of other weights only.
    """

    root: Path
    config: dict[str, Any]
    epoch: int
    finished: bool
    dice: float
    iou: float
    seconds: float
    curves: dict[str, dict[int, float]]
    evaluations: dict[str, Result]
    others: tuple[str, ...] = ()

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def fold(self) -> int | None:
        """Which fold of a cross-validation validates; None where there is none."""
        fold = self.config["dataset"].get("fold")
        return None if fold is None else int(fold)

    @property
    def folds(self) -> int | None:
        """How many folds the cross-validation has, if the config says so."""
        folds = self.config["dataset"].get("folds")
        return None if folds is None else int(folds)

    @property
    def splits(self) -> str:
        """The digest of the split file; empty where the run is of before it was recorded."""
        return str(self.config["dataset"].get("splits_digest") or "")

    @cached_property
    def settings(self) -> Settings:
        """What was trained: the config apart from seed, fold and circumstances, by dotted key."""
        config = without_circumstances(self.config)
        del config["seed"]
        for key in FOUND:
            config["dataset"].pop(key, None)
        if self.fold is not None:
            del config["dataset"]["fold"]
        return dict(_flat(config))


def find_runs(paths: Sequence[Path]) -> list[RunFolder]:
    """The runs that `paths` name: run folders, or folders with runs at any depth below.

    A run that is named twice counts once.

    Raises:
        UserError: no path is given, or one is not there or holds no run.
    """
    if not paths:
        raise UserError("no run is given", "name run folders, or a folder with runs below")
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(f"there is no folder {path}", "name run folders, or a folder of runs")
        roots = [path] if _is_run(path) else _runs_below(path)
        if not roots:
            raise UserError(
                f"there is no run in {path}", "a run has a config.yaml beside its checkpoints/"
            )
        for root in roots:
            found.setdefault(root.resolve(), root)
    return [RunFolder(root) for root in found.values()]


def read_run(folder: RunFolder) -> Run:
    """Read what a run's config, metrics, history and evaluations hold.

    Raises:
        UserError: one of them is missing or damaged, or the run has no validation yet.
    """
    config = folder.read_config()
    needed: dict[str, dict[str, Any]] = {
        "": {"dataset": dict, "model": dict, "trainer": dict, "seed": int},
        "dataset": {"name": str},
        "model": {"name": str},
    }
    for group, hints in needed.items():
        part = config[group] if group else config
        if not all(fits(part.get(key), hint) for key, hint in hints.items()):
            raise _damaged(folder.config)
    _check_folds(config["dataset"], folder.config)
    if sum(1 for _ in _flat(config)) > MOST_SETTINGS:
        raise UserError(
            f"{folder.config} holds more than {MOST_SETTINGS} settings", "leave the run out"
        )
    if not folder.metrics.exists():
        raise UserError(
            f"the run {folder.root} has no metrics.json: it never came to a validation",
            "wait for its first validation, or leave the run out",
        )
    evaluations, others = _read_evaluations(folder)
    try:
        metrics = read_json(folder.metrics)
        run = Run(
            root=folder.root,
            config=config,
            epoch=_epoch(metrics["epoch"]),
            finished=metrics["finished"] is True,
            dice=share(metrics[use_of(metrics)]["val_dice"], "val_dice"),
            iou=share(metrics[use_of(metrics)]["val_iou"], "val_iou"),
            seconds=_seconds(metrics["seconds"]),
            curves=read_curves(folder.history),
            evaluations=evaluations,
            others=others,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder.metrics) from error
    if max(run.curves["train_loss"], default=0) < run.epoch:
        raise _damaged(folder.history)
    return run


def read_curves(history: Path) -> dict[str, dict[int, float]]:
    """The values by epoch of a history.csv: those in CURVES, and of every gate.

    Validation may skip epochs.

    Raises:
        UserError: the file is missing or damaged.
    """
    curves: dict[str, dict[int, float]] = {name: {} for name in CURVES}
    try:
        for row in read_table(history, ("epoch",)):
            for name, value in row.items():
                if value and (name in CURVES or name.startswith(GATE_PREFIX)):
                    epoch = _epoch(int(row["epoch"]))
                    curves.setdefault(name, {})[epoch] = _measured(name, float(value))
    except ValueError as error:
        raise _damaged(history) from error
    return curves


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir()


def _runs_below(folder: Path) -> list[Path]:
    """Without runs that have no scores yet, unless none has."""
    found = [config.parent for config in folder.rglob("config.yaml") if _is_run(config.parent)]
    roots = sorted(found, key=lambda root: natural_key(str(root)))
    return [root for root in roots if RunFolder(root).metrics.exists()] or roots


def _check_folds(dataset: dict[str, Any], file: Path) -> None:
    limits = {"fold": (0, MOST_FOLDS - 1), "folds": (2, MOST_FOLDS)}
    for key, (least, most) in limits.items():
        value = dataset.get(key)
        if not fits(value, int | None):
            raise _damaged(file)
        if value is not None and not least <= value <= most:
            raise UserError(
                f"{file}: dataset.{key}={value} is out of range",
                f"give at least {least} and at most {most}",
            )


def _damaged(file: Path) -> UserError:
    return UserError(f"{file} is missing or damaged", "restore it, or leave the run out")


def _epoch(value: Any) -> int:
    """The number of an epoch, else ValueError."""
    if type(value) is not int or not 1 <= value <= MOST_EPOCHS:
        raise ValueError(f"{value} is no epoch")
    return value


def _seconds(value: Any) -> float:
    """The duration of a training, else ValueError."""
    if type(value) not in (int, float) or not 0 <= value <= MOST_SECONDS:
        raise ValueError(f"{value} is no duration")
    return float(value)


def _measured(name: str, value: float) -> float:
    """A value of a history: a score, or whatever a loss or a gate in float32 can be."""
    if name == "val_dice":
        return share(value, name)
    if not abs(value) <= LARGEST_FLOAT32:
        raise ValueError(f"{value} is no {name}")
    return value


def _read_evaluations(run: RunFolder) -> tuple[dict[str, Result], tuple[str, ...]]:
    """The newest result of the weights for use of each evaluation, and what has no such result.

    One without any foreground to score is left out.
    """
    files: dict[str, dict[int, Path]] = {}
    for file in (run.root / "evaluation").glob(f"*/{METRICS_FILE}"):
        if match := EVALUATION_NAME.fullmatch(file.parent.name):
            files.setdefault(match[1], {})[int(match[2] or 1)] = file
    digest = load_checkpoint(run.used).digest if files and run.used.exists() else None
    results, others = {}, []
    for name, numbered in files.items():
        known = {number: read_recorded(file) for number, file in numbered.items()}
        ours = [number for number, recorded in known.items() if recorded.is_of(digest) is not False]
        if not ours:
            others.append(name)
        elif result := _read_result(numbered[max(ours)], known[max(ours)]):
            results[name] = result
    return results, tuple(sorted(others, key=natural_key))


def _read_result(file: Path, recorded: Recorded) -> Result | None:
    """An evaluation's result; None where nothing is to be found in any case.

    Dice is counted anew from the pixels of each case, over those that show foreground: results by
    any rule for empty images, and those older than these rules, compare. The official protocol's
    is no function of them.
    """
    if "dice" not in recorded.scores:
        return None
    table = file.with_name(CASES_FILE)
    mean, counts, alarms = recorded.scores["dice"], None, None
    try:
        rows = read_table(table, ("case", "group", "dice")) if table.exists() else []
        if recorded.protocol != "paper_official":
            counts = _pixels(rows, recorded.classes[1:])
        if counts is None:
            scored = [(row, float(row["dice"])) for row in rows if row["dice"]]
        else:
            means = means_of_present(dice(counts, "skip")).tolist()
            scored = [(row, m) for row, m in zip(rows, means, strict=True) if not math.isnan(m)]
            alarms = _false_alarms(counts)
        known = [(row, share(value, "Dice")) for row, value in scored]
    except (ValueError, OverflowError) as error:
        raise _damaged(table) from error
    if counts is not None:
        if not known:
            return None
        mean = statistics.mean(value for _, value in known)
    return Result(
        dice=mean,
        cases=recorded.cases,
        by_case={from_csv_cell(row["case"]): value for row, value in known},
        groups={from_csv_cell(row["case"]): from_csv_cell(row["group"]) for row, _ in known},
        false_alarms=alarms,
        splits=recorded.splits,
    )


def _pixels(rows: Sequence[Mapping[str, str]], classes: Sequence[str]) -> PixelCounts | None:
    """(cases, classes) as a per_case.csv holds them; None if it lacks some.

    Raises:
        ValueError, OverflowError: a cell is no number of pixels.
    """
    columns = [[f"{kind}_{name}" for name in classes] for kind in COUNTS]
    if (
        not rows
        or not classes
        or not {name for of_kind in columns for name in of_kind} <= {*rows[0]}
    ):
        return None
    return PixelCounts(
        *(np.array([[int(row[name]) for name in of_kind] for row in rows]) for of_kind in columns)
    )


def _false_alarms(counts: PixelCounts) -> float | None:
    """Of the cases without foreground the share in which some was predicted, if there are any."""
    true, false, right = (n.sum(axis=1) for n in (counts.tp + counts.fn, counts.fp, counts.tn))
    alarms = false[(true == 0) & (false + right > 0)] > 0  # else all of it is ignored
    return float(alarms.mean()) if alarms.size else None


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values below a node by dotted key; lists are values."""
    if not isinstance(node, dict):
        yield prefix, node
        return
    for name, child in node.items():
        yield from _flat(child, f"{prefix}.{name}" if prefix else str(name))
