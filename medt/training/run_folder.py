"""The folder of one training run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import yaml
from torch import nn

from medt.checkpoint import Checkpoint, load_checkpoint
from medt.errors import UserError
from medt.files import remove_torn, write_text
from medt.plain import read_yaml
from medt.text import csv_text
from medt.training.settings import CIRCUMSTANCES
from medt.training.state import Row, TrainingState

log = logging.getLogger("medt")

GATE_PREFIX = "gate."
LOCK_FILE = ".lock"


class RunFolder:
    """config.yaml, checkpoints/, metrics.json, history.csv, tensorboard/ and train.log."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.yaml"
        self.best = root / "checkpoints" / "best.pt"
        self.last = root / "checkpoints" / "last.pt"
        self.metrics = root / "metrics.json"
        self.history = root / "history.csv"
        self.tensorboard = root / "tensorboard"
        self.log = root / "train.log"

    def create(self, config: Mapping[str, Any]) -> None:
        """Make the folder with its config; of two runs that try it at once one is refused.

        Raises:
            UserError: the folder holds anything, or it cannot be made.
        """
        held = UserError(
            f"the run folder {self.root} is not empty",
            f"choose another run_dir, or continue an unfinished run with resume={self.root}",
        )
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if any(self.root.iterdir()):
                raise held
            self.config.touch(exist_ok=False)
            self.last.parent.mkdir()
        except FileExistsError:
            if self.root.is_dir():
                raise held from None
            raise UserError(f"{self.root} is a file", "choose another run_dir") from None
        except OSError as error:
            raise UserError(
                f"the run folder {self.root} cannot be made: {error.strerror}",
                "choose another with run_dir=...",
            ) from error
        write_text(self.config, yaml.safe_dump(dict(config), sort_keys=False))

    def was_given_up(self, config: Mapping[str, Any]) -> bool:
        """Whether it holds the beginning of a run of this config that never came to be saved."""
        if self.last.exists() or not self.config.is_file():
            return False
        if not self.config.stat().st_size:  # killed before it was written
            return True
        return without_circumstances(self.read_config()) == without_circumstances(config)

    def begin_again(self, config: Mapping[str, Any]) -> None:
        """Remove what a run left that was given up, and store the config."""
        with self.locked():
            self.best.unlink(missing_ok=True)
            self.last.parent.mkdir(exist_ok=True)
            self.tidy(config)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from training into the folder.

        Raises:
            UserError: another one does.
        """
        lock = filelock.FileLock(self.root / LOCK_FILE, blocking=False)
        try:
            with lock:
                yield
        except filelock.Timeout:
            raise UserError(
                f"another process trains into {self.root}",
                "wait for its end, or choose another run_dir",
            ) from None

    def tidy(self, config: Mapping[str, Any]) -> None:
        """Of a resumed run: store its config, and remove what writers left that were killed."""
        write_text(self.config, yaml.safe_dump(dict(config), sort_keys=False))
        for folder in (self.root, self.last.parent):
            remove_torn(folder)

    def read_config(self) -> dict[str, Any]:
        """The run's config.

        Raises:
            UserError: config.yaml is missing or damaged.
        """
        config = read_yaml(self.config)
        if not isinstance(config, dict):
            raise UserError(f"{self.config} is missing or damaged", "start the run again")
        return config

    def write_tables(self, state: TrainingState, monitor: str) -> None:
        """Write history.csv, a row an epoch, the gates' columns last, and metrics.json.

        A score that is not a number, as none was due, is null in metrics.json.
        """
        rows = state.history
        logged = dict.fromkeys(key for row in rows for key in row)
        columns = sorted(logged, key=lambda name: name.startswith(GATE_PREFIX))
        lines = [[f"{row[name]:.6g}" if name in row else "" for name in columns] for row in rows]
        write_text(self.history, csv_text([columns, *lines]))
        metrics = {
            "epoch": state.epoch,
            "finished": state.finished,
            "monitor": monitor,
            "best_epoch": state.best_epoch,
            "best": _without_gates(rows[state.best_epoch - 1]),
            "last": _without_gates(rows[-1]),
            "seconds": state.seconds,
        }
        known = json.loads(json.dumps(metrics), parse_constant=lambda _: None)
        write_text(self.metrics, json.dumps(known, indent=2) + "\n")


def restore_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Give a network the weights that it was last trained to.

    Raises:
        UserError: they do not fit it.
    """
    try:
        model.load_state_dict((checkpoint.training or {})["model"])
    except RuntimeError as error:
        raise UserError(
            f"{checkpoint.file}: its weights do not fit the changed network",
            "leave the model's settings as they were, or start anew with model.weights=FILE",
        ) from error


def home_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint lies in, else the folder that it lies in."""
    folder = checkpoint.parent
    return folder.parent if folder.name == "checkpoints" else folder


def run_to_resume(path: Path, ended: bool = False) -> tuple[RunFolder, Checkpoint]:
    """The run that `path` names: its folder, or a checkpoint in it.

    Args:
        path: of either.
        ended: whether a run that has ended will do.

    Raises:
        UserError: there is no run, it left no checkpoint, or it has ended.
    """
    root = path.parent.parent if path.is_file() else path
    run = RunFolder(root)
    if not root.is_dir() or not run.config.is_file():
        raise UserError(
            f"there is no run at {path}", "give a run folder, its last.pt, or resume=auto"
        )
    if not run.last.is_file():
        raise UserError(f"the run {root} left no last.pt", "start it again")
    checkpoint = load_checkpoint(run.last)
    if checkpoint.training is None or (checkpoint.training["finished"] and not ended):
        raise UserError(
            f"the run {root} has ended after epoch {checkpoint.epoch}",
            "for more of them give trainer.epochs=N resume_force=true, or start anew from "
            f"model.weights={run.best}",
        )
    _check_best(run, checkpoint)
    return run, checkpoint


def is_finished(root: Path, config: Mapping[str, Any]) -> bool:
    """Whether `root` holds a run of this config that has ended."""
    run = RunFolder(root)
    if not run.last.is_file() or not run.config.is_file():
        return False
    if without_circumstances(run.read_config()) != without_circumstances(config):
        return False
    training = load_checkpoint(run.last).training
    return training is not None and bool(training["finished"])


def _check_best(run: RunFolder, checkpoint: Checkpoint) -> None:
    """A resumed run may never beat its best score, and then names this file at its end."""
    if (checkpoint.training or {})["best_epoch"] and not run.best.is_file():
        raise UserError(
            f"{run.best} is missing", f"restore it, or start anew from model.weights={run.last}"
        )


def newest_unfinished(
    folders: Sequence[Path], config: Mapping[str, Any]
) -> tuple[RunFolder, Checkpoint] | None:
    """The newest run in or below `folders` that has not ended and whose config equals `config`."""
    wanted = without_circumstances(config)
    found = {last for folder in folders for last in folder.rglob("checkpoints/last.pt")}
    for last in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        run = RunFolder(last.parent.parent)
        try:
            equal = without_circumstances(run.read_config()) == wanted
            checkpoint = load_checkpoint(last) if equal else None
        except UserError as error:
            log.warning(f"passed over: {error}")
            continue
        if checkpoint and checkpoint.training and not checkpoint.training["finished"]:
            _check_best(run, checkpoint)
            return run, checkpoint
    return None


def without_circumstances(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a run's config without the keys that say only where and how it is computed.

    What should be a group and is none, as in a file from elsewhere, stays as it is.
    """
    copy = json.loads(json.dumps(dict(config)))
    for *parents, key in (one.split(".") for one in CIRCUMSTANCES):
        node = copy
        for parent in parents:
            node = node.get(parent, {})
        if isinstance(node, dict):
            node.pop(key, None)
    return dict(copy)


def _without_gates(row: Row) -> Row:
    return {name: value for name, value in row.items() if not name.startswith(GATE_PREFIX)}
