"""What the folder of a past training run holds, read without its checkpoints."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medt.data.folds import MOST_FOLDS
from medt.data.splits import SPLITS
from medt.errors import UserError
from medt.evaluation.evaluate import PROTOCOLS
from medt.evaluation.recorded import read_recorded, share
from medt.evaluation.tables import CASES_FILE, METRICS_FILE
from medt.files import natural_key
from medt.plain import read_json, read_table
from medt.signatures import fits
from medt.text import from_csv_cell
from medt.training.run_folder import GATE_PREFIX, RunFolder, without_circumstances

MOST_SETTINGS = 500  # of a config; ours have about a hundred
MOST_EPOCHS = 10**7
MOST_SECONDS = 1e10  # three hundred years
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
CURVES = ("train_loss", "val_loss", "val_dice")
EVALUATION_NAME = re.compile(
    rf"(.+-(?:{'|'.join(SPLITS)})-(?:{'|'.join(PROTOCOLS)}))(?:-(\d+))?", re.DOTALL
)

# A config as dotted keys.
Settings = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """One evaluation.

    Attributes:
        dice: of the foreground, mean over cases.
        cases: their number.
        repeats: older results of the same evaluation.
        by_case: the foreground Dice of each case that has one; empty without a per_case.csv.
        groups: of these cases, such as their patients.
    """

    dice: float
    cases: int
    repeats: int
    by_case: dict[str, float]
    groups: dict[str, str]


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes:
        root: the folder.
        config: its config.yaml.
        epoch: epochs trained.
        finished: whether training came to its end.
        dice, iou: foreground validation scores of the best epoch, 0..1.
        seconds: the training's duration.
        curves: see `read_curves`.
        evaluations: by <dataset>-<split>-<protocol>, the newest result.
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

    @cached_property
    def settings(self) -> Settings:
        """What was trained: the config apart from seed, fold and circumstances, by dotted key."""
        config = without_circumstances(self.config)
        del config["seed"]
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
        roots = [path] if _is_run(path) else _validated(_runs_below(path))
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
    try:
        metrics = read_json(folder.metrics)
        run = Run(
            root=folder.root,
            config=config,
            epoch=_epoch(metrics["epoch"]),
            finished=metrics["finished"] is True,
            dice=share(metrics["best"]["val_dice"], "val_dice"),
            iou=share(metrics["best"]["val_iou"], "val_iou"),
            seconds=_seconds(metrics["seconds"]),
            curves=read_curves(folder.history),
            evaluations=_read_evaluations(folder.root / "evaluation"),
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
    roots = [config.parent for config in folder.rglob("config.yaml") if _is_run(config.parent)]
    return sorted(roots, key=lambda root: natural_key(str(root)))


def _validated(roots: list[Path]) -> list[Path]:
    """Without runs that have no scores yet, unless none has."""
    return [root for root in roots if RunFolder(root).metrics.exists()] or roots


def _check_folds(dataset: dict[str, Any], file: Path) -> None:
    if not all(fits(dataset.get(key), int | None) for key in ("fold", "folds")):
        raise _damaged(file)
    limits = {"fold": (0, MOST_FOLDS - 1), "folds": (2, MOST_FOLDS)}
    for key, (least, most) in limits.items():
        value = dataset.get(key)
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


def _read_evaluations(folder: Path) -> dict[str, Result]:
    """The newest result of each evaluation; one without any foreground to score is left out."""
    files: dict[str, dict[int, Path]] = {}
    for file in folder.glob(f"*/{METRICS_FILE}"):
        if match := EVALUATION_NAME.fullmatch(file.parent.name):
            files.setdefault(match[1], {})[int(match[2] or 1)] = file
    results = {}
    for name, numbered in files.items():
        file = numbered[max(numbered)]
        recorded = read_recorded(file)
        if "dice" in recorded.scores:
            scores = recorded.scores["dice"], recorded.cases, len(numbered) - 1
            results[name] = Result(*scores, *_read_cases(file.with_name(CASES_FILE)))
    return results


def _read_cases(file: Path) -> tuple[dict[str, float], dict[str, str]]:
    """Foreground Dice and group of each case that has a Dice; nothing where there is no file."""
    if not file.exists():
        return {}, {}
    try:
        scored = [row for row in read_table(file, ("case", "group", "dice")) if row["dice"]]
        dice = {from_csv_cell(row["case"]): share(float(row["dice"]), "Dice") for row in scored}
        return dice, {from_csv_cell(row["case"]): from_csv_cell(row["group"]) for row in scored}
    except ValueError as error:
        raise _damaged(file) from error


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values below a node by dotted key; lists are values."""
    if not isinstance(node, dict):
        yield prefix, node
        return
    for name, child in node.items():
        yield from _flat(child, f"{prefix}.{name}" if prefix else str(name))
