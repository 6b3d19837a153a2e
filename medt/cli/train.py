"""Train a network: python scripts/train.py dataset=glas"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TextIO, cast

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import Container, DictConfig, OmegaConf

from medt.build import (
    build_trainer,
    memory_of,
    network_of,
    new_network,
    object_area,
    plan_of,
)
from medt.checkpoint import Checkpoint
from medt.cli.resume_rules import check_changes, check_position, differences
from medt.cli.settings import allowed, plain
from medt.cli.sweeps import is_named_by_time, sweep_folder
from medt.cli.training_data import (
    FOLDER_KEYS,
    located,
    warnings_before_training,
)
from medt.config.stored import check_stored
from medt.data.layout import DatasetIndex
from medt.data.open import open_dataset
from medt.errors import UserError
from medt.inference.device import choose_device
from medt.interruption import Output
from medt.io.console import safe_console
from medt.io.locks import claimed_folder, locked_beside
from medt.io.runs_below import USES
from medt.io.terminal import innermost
from medt.io.text import shown
from medt.processes import Meeting, Processes, local_device, meeting
from medt.shipped import typed
from medt.targets import FOLLOWED, GROUPS, is_outside, targets_in
from medt.training.determinism import make_deterministic
from medt.training.dry_run import dry_run
from medt.training.progress import log, logging_to, silence
from medt.training.run_folder import RunFolder, is_finished, newest_unfinished, run_to_resume
from medt.training.settings import CIRCUMSTANCES
from medt.training.trainer import Trainer


def train(cfg: DictConfig) -> int:
    with meeting() as others:
        if cfg.dataset.fold != "all":
            return train_together(cfg, others)
        return train_folds(cfg, others)


def train_folds(cfg: DictConfig, others: Meeting) -> int:
    """Train once for each fold, into folders of the run's; returns the highest exit code."""
    folds = cfg.dataset.folds
    if folds is None or cfg.resume not in (None, "auto") or cfg.dry_run:
        raise UserError(
            "dataset.fold=all needs dataset.folds=N, and new runs",
            "give a fold, resume a fold's run, or use resume=auto",
        )
    if others.count > 1:
        raise UserError(
            "dataset.fold=all trains in one process",
            "start torchrun for each dataset.fold=0, 1, ...",
        )
    codes = []
    for fold in range(folds):
        print(f"\nfold {fold} of {folds}", flush=True)
        one = cfg.copy()
        one.dataset.fold = fold
        codes.append(train_together(one, others, f"fold={fold}"))
        if codes[-1] > 128:  # stopped by a signal
            break
    return max(codes)


def train_together(cfg: DictConfig, others: Meeting, within: str = "") -> int:
    """Train in this process, and in the others if there are any.

    Args:
        cfg: the composed config.
        others: the processes.
        within: the run's folder in the one that the config names; empty is that itself.
    """
    if cfg.dry_run and cfg.resume is not None:
        raise UserError("dry_run=true says what a new run would be", "leave resume out")
    allow = allowed_targets(cfg)
    checks = cfg.check and others.rank == 0
    checkpoint: Checkpoint | None
    if cfg.resume not in (None, "auto"):
        config, run_folder, checkpoint = run_of_resume(cfg, allow)
        settings = config["dataset"] = located(
            config["dataset"], cfg.paths.data, run_folder.config, "train"
        )
        index = open_dataset(settings, plan=plan_of(settings, checks))
    else:
        settings = plain(cfg.dataset)
        index = open_dataset(settings, draws=True, plan=plan_of(settings, checks, fits=True))
        config, run_folder, checkpoint = run_of_config(cfg, index, within)
        if cfg.resume == "auto" and checkpoint is None and is_finished(run_folder.root, config):
            if others.rank == 0:
                print(f"finished already: {shown(run_folder.root)}")
            return 0
    device = choose_device(local_device(config["trainer"]["device"]))
    with others.join(device) as processes:
        writes = processes.writes and not cfg.dry_run
        named_by_time = not within and sweep_folder() is None and is_named_by_time(cfg, "run_dir")
        place: AbstractContextManager[RunFolder] = nullcontext(run_folder)
        if writes:
            place = held(cfg, config, run_folder, checkpoint, named_by_time)
        with place as run_folder:
            run_folder = RunFolder(processes.gather_items([run_folder.root])[0])
            if checkpoint is not None:  # which another process may have trained on meanwhile
                _, checkpoint = run_to_resume(run_folder.root, cfg.resume_force, allow)
            return train_with(cfg, config, index, checkpoint, run_folder, device, processes, allow)


@contextmanager
def held(
    cfg: DictConfig,
    config: dict[str, Any],
    run_folder: RunFolder,
    checkpoint: Checkpoint | None,
    named_by_time: bool,
) -> Iterator[RunFolder]:
    """Hold the run's folder; of two new runs that are named by the same second one gets another."""
    if checkpoint is None and named_by_time:
        with claimed_folder(run_folder.root, "train.py", other="run_dir=...") as root:
            config["run_dir"] = str(root)
            yield RunFolder(root)
        return
    with run_folder.locked():
        if checkpoint is None and not (cfg.resume == "auto" and run_folder.was_given_up(config)):
            run_folder.check_new()
        yield run_folder


def train_with(
    cfg: DictConfig,
    config: dict[str, Any],
    index: DatasetIndex,
    checkpoint: Checkpoint | None,
    run_folder: RunFolder,
    device: torch.device,
    processes: Processes,
    allow: Sequence[str],
) -> int:
    """Train, or say what the training would be, in this process and those beside it."""
    stream = cast(TextIO, Output(innermost(sys.stdout)))
    console = safe_console(stream, quiet=not processes.writes)
    cost = make_deterministic() if config["trainer"]["deterministic"] else None
    if checkpoint is None:
        model, said = new_network(config, allow)
    else:
        model, said = network_of(checkpoint, config, run_folder), []
    settings = config["dataset"]
    checked = cfg.check and processes.writes
    warnings = warnings_before_training(settings, index) if checked else []
    trainer = build_trainer(
        config, index, model, checkpoint, run_folder, console, device, processes, allow
    )
    memory = memory_of(trainer)
    if cfg.dry_run:
        name = f"{config['dataset']['name']}-{config['model']['name']}.png"
        picture = shown(Path(config["paths"]["runs"]) / "dry_run" / name)
        place = locked_beside(picture, "train.py dry_run=true", "paths.runs=...")
        with place if processes.writes else nullcontext():
            summary = dry_run(trainer, memory, picture)
        if processes.writes:
            print(summary, *warnings, sep="\n")
        return 0
    if processes.writes and checkpoint is None:
        if cfg.resume == "auto" and run_folder.was_given_up(config):
            run_folder.begin_again(config)
        else:
            run_folder.create(config)
    with logging_to(console, run_folder.log) if processes.writes else silence():
        if checkpoint is not None:
            rates = trainer.resume(checkpoint)
            if processes.writes:
                run_folder.store_config(config)
            log.info(f"resumed {trainer.state.position(len(trainer.batches))}: {run_folder.root}")
            for line in rates:
                log.info(line)
        elif cfg.resume == "auto" and sweep_folder() is None:
            log.info("no unfinished run has this config: starting afresh")
        for note in said:
            log.info(note)
        if cost:
            log.info(cost)
        log.info(trainer.describe())
        if index.splits_file is not None:
            log.info(f"splits: {shown(index.splits_file)} ({index.splits_digest})")
        for line in warnings:
            log.warning(line)
        if memory.is_tight():
            log.warning(f"memory may not suffice: a training step takes {memory.describe()}")
        state = trainer.fit()
        for line in closing_lines(trainer):
            log.info(line)
    return 0 if state.finished else 128 + (trainer.stop.signal or 0)


def closing_lines(trainer: Trainer) -> list[str]:
    """What came of the run, and the commands that go on from it."""
    run_folder, state = trainer.run, trainer.state
    root = shown(run_folder.root)

    def allowing(groups: Iterable[str]) -> str:
        """What a command must be given to build the classes of these groups again."""
        named = targets_in([trainer.facts.config[group] for group in groups])
        outside = [name for name in dict.fromkeys(named) if is_outside(name)]
        listed = outside[0] if len(outside) == 1 else f"[{','.join(outside)}]"
        return f" {shlex.quote(f'allow={listed}')}" if outside else ""

    if not state.finished:
        return [
            f"stopped {state.position(len(trainer.batches))}, and saved",
            f"to go on: {typed('train')} {shlex.quote(f'resume={root}')}{allowing(GROUPS)}",
        ]
    checkpoint = shlex.quote(f"checkpoint={root}") + allowing(["model"])
    settings = trainer.settings
    last = state.history[-1][f"val_{settings.monitor}"]
    rule = "" if settings.monitor == "loss" else f" (trainer.empty={settings.empty})"
    return [
        f"last {settings.monitor} {last:.4f}, best {state.best_score:.4f} in epoch "
        f"{state.best_epoch}{rule}",
        f"checkpoint   {shown(run_folder.used)}: {USES[trainer.use]}",
        f"history      {shown(run_folder.history)}",
        f"TensorBoard  tensorboard --logdir {shlex.quote(str(root))}",
        f"evaluate     {typed('evaluate')} {checkpoint} split=val",
        f"predict      {typed('predict')} {checkpoint} input=IMAGES output=MASKS",
    ]


def run_of_resume(
    cfg: DictConfig, allow: Sequence[str]
) -> tuple[dict[str, Any], RunFolder, Checkpoint]:
    """The run that resume=PATH names, with its own config, which may come from anybody."""
    run_folder, checkpoint = run_to_resume(Path(cfg.resume), cfg.resume_force, allow)
    config = run_folder.read_config()
    check_stored(config, str(run_folder.config), allow)
    check_stored(checkpoint.config, checkpoint.file, allow)
    given = [override.partition("=")[0] for override in HydraConfig.get().overrides.task]
    for name in FOLLOWED.values():
        if f"dataset.{name}" not in given:
            cfg.dataset[name] = config["dataset"][name]
    changes: dict[str, tuple[Any, Any]] = {}
    for key in given:
        *parents, name = key.split(".")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {}) if isinstance(node, dict) else node
        if not isinstance(node, dict):  # a list of transforms, whose names are those of another
            raise UserError(f"there is no {key} in {run_folder.config}", "give the whole group")
        before: Any = node.get(name)
        selected = OmegaConf.select(cfg, key)
        after: Any = plain(selected) if isinstance(selected, Container) else selected
        if key == "dataset" and after["name"] == before["name"]:
            continue  # it says which keys there are, not their values
        changes |= differences(key, before, after) if before != after else {}
        if parents or key not in CIRCUMSTANCES:
            node[name] = after
    check_changes(changes, cfg.resume_force)
    check_stored(config, str(run_folder.config), allow)
    check_position(config["trainer"]["epochs"], changes, checkpoint.training or {})
    return config, run_folder, checkpoint


def allowed_targets(cfg: DictConfig) -> tuple[str, ...]:
    """The classes that the user names: by allow=, or in a config that is not a run's."""
    groups = [OmegaConf.to_container(cfg[group], resolve=True) for group in GROUPS]
    return (*allowed(cfg), *targets_in(groups))


def run_of_config(
    cfg: DictConfig, index: DatasetIndex, within: str
) -> tuple[dict[str, Any], RunFolder, Checkpoint | None]:
    """A new run with the composed config or, with resume=auto, the newest unfinished like it."""
    cfg.dataset.channels = cfg.dataset.channels or index.channels
    cfg.dataset.num_classes = len(index.classes)
    cfg.dataset.splits_digest = index.splits_digest or None
    cfg.dataset.object_area = object_area(plain(cfg.dataset), index.split("train"))
    config = plain(cfg)
    for key in FOLDER_KEYS:
        if config["dataset"].get(key):
            config["dataset"][key] = str(Path(config["dataset"][key]).resolve())
    for key, name in FOLLOWED.items():
        wanted = config["dataset"][name]
        if key in config["model"] and config["model"][key] != wanted:
            raise UserError(
                f"model.{key}={config['model'][key]} differs from the dataset's {wanted}",
                "leave it out: the model follows the dataset",
            )
    run_dir = (sweep_folder() or Path(cfg.run_dir)) / within
    config["run_dir"] = str(run_dir)
    if cfg.resume == "auto":
        unfinished = newest_unfinished([Path(cfg.paths.runs), run_dir], config)
        if unfinished is not None:
            run_folder, checkpoint = unfinished
            stored = run_folder.read_config()
            for group, _, name in (key.partition(".") for key in CIRCUMSTANCES):
                if name:
                    stored[group][name] = config[group][name]
            return stored, run_folder, checkpoint
    return config, RunFolder(run_dir), None
