"""The folder of one training run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from medt.checkpoint import Checkpoint, load_checkpoint
from medt.data.former_augmentation import present_form
from medt.errors import UserError
from medt.io.files import write_text
from medt.io.links import check_unlinked
from medt.io.locks import LOCK_FILE, locked
from medt.io.plain import read_yaml
from medt.io.runs_below import weights_of
from medt.io.text import csv_text
from medt.training.settings import CIRCUMSTANCES
from medt.training.state import Row, TrainingState, check_saved

log = logging.getLogger("medt")

GATE_PREFIX = "gate."
LARGEST_CONFIG = 2**18  # bytes; one with the most classes and the longest names has half of it


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
        # What is written through links; the other files are replaced as a whole.
        self._grown = (self.last.parent, self.tensorboard, self.log)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.root)!r})"

    def __fspath__(self) -> str:
        return str(self.root)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from training into the folder, see `medt.io.locks.locked`.

        Raises:
            UserError: as there, or a link would lead the training to other places.
        """
        check_unlinked(self.root, *(path.name for path in self._grown))
        with locked(self.root, "train.py", "run_dir=..."):
            yield

    def check_new(self) -> None:
        """Refuse a folder that holds anything.

        Raises:
            UserError: it does.
        """
        if any(path.name != LOCK_FILE for path in self.root.iterdir()):
            raise self._used()

    def create(self, config: Mapping[str, Any]) -> None:
        """Store the config in the folder, which is locked; where nothing can be locked, once.

        Raises:
            UserError: another run was faster, or the folder cannot be written.
        """
        try:
            self.config.touch(exist_ok=False)
            self.last.parent.mkdir()
        except FileExistsError:
            raise self._used() from None
        except OSError as error:
            raise UserError(
                f"the run folder {self.root} cannot be made: {error.strerror}",
                "choose another with run_dir=...",
            ) from error
        self.store_config(config)

    def _used(self) -> UserError:
        return UserError(
            f"the run folder {self.root} is not empty",
            f"choose another run_dir, or continue an unfinished run with resume={self.root}",
        )

    def was_given_up(self, config: Mapping[str, Any]) -> bool:
        """Whether it holds the beginning of a run of this config that never came to be saved."""
        if self.last.exists() or not self.config.is_file():
            return False
        if not self.config.stat().st_size:  # killed before it was written
            return True
        return without_circumstances(self.read_config()) == without_circumstances(config)

    def begin_again(self, config: Mapping[str, Any]) -> None:
        """Remove what a run left that was given up, and store the config."""
        self.best.unlink(missing_ok=True)
        self.last.parent.mkdir(exist_ok=True)
        self.store_config(config)

    def store_config(self, config: Mapping[str, Any]) -> None:
        """Write config.yaml."""
        write_text(self.config, yaml.safe_dump(dict(config), sort_keys=False))

    def read_config(self) -> dict[str, Any]:
        """The run's config, with its augmentation as it is said now.

        Raises:
            UserError: config.yaml is missing or damaged, or far larger than any of ours.
        """
        config = read_yaml(self.config, LARGEST_CONFIG)
        if not isinstance(config, dict):
            raise UserError(f"{self.config} is missing or damaged", "start the run again")
        if isinstance(config.get("augmentation"), dict):
            try:
                config["augmentation"] = present_form(config["augmentation"])
            except UserError as error:
                raise UserError(f"{self.config}: {error.message}", error.hint) from error
        return config

    @property
    def used(self) -> Path:
        """The checkpoint that the folder stands for."""
        return weights_of(self.root)[0]

    def write_tables(self, state: TrainingState, monitor: str, use: str) -> None:
        """Write history.csv, a row an epoch, the gates' columns last, and metrics.json.

        `use` says which weights the folder stands for, see `medt.io.runs_below.USES`.

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
            "use": use,
            "best_epoch": state.best_epoch,
            "best": _without_gates(rows[state.best_epoch - 1]),
            "last": _without_gates(rows[-1]),
            "seconds": state.seconds,
        }
        known = json.loads(json.dumps(metrics), parse_constant=lambda _: None)
        write_text(self.metrics, json.dumps(known, indent=2) + "\n")


def home_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint lies in, else the folder that it lies in."""
    folder = checkpoint.parent
    return folder.parent if folder.name == "checkpoints" else folder


def run_to_resume(
    path: Path, ended: bool = False, allow: Sequence[str] = ()
) -> tuple[RunFolder, Checkpoint]:
    """The run that `path` names: its folder, or a checkpoint in it.

    Args:
        path: of either.
        ended: whether a run that has ended will do.
        allow: full names of classes outside medt that its config may name.

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
    checkpoint = load_checkpoint(run.last, allow)
    if checkpoint.training is not None:
        check_saved(checkpoint.training, checkpoint.file)
    if checkpoint.training is None or (checkpoint.training["finished"] and not ended):
        raise UserError(
            f"the run {root} has ended after epoch {checkpoint.epoch}",
            "for more of them give trainer.epochs=N resume_force=true, or start anew from "
            f"model.weights={run.used}",
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
