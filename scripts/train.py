"""Train a network: python scripts/train.py dataset=glas model=medt"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command import plain, run
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from medt.errors import UserError

# Only what --help does not need is imported inside functions: torch takes seconds.
if TYPE_CHECKING:
    from rich.console import Console

    from medt.checkpoint import Checkpoint
    from medt.data.layout import DatasetIndex
    from medt.training.run_folder import RunFolder
    from medt.training.trainer import Trainer

# With resume=PATH the run's own config counts; these keys say only how it is computed.
FREE_ON_RESUME = ("resume", "trainer.device", "dataset.workers", "dataset.cache")


def main(argv: Sequence[str] | None = None) -> int:
    """Train as configs/train.yaml and the overrides in `argv` say; returns the exit code."""
    return run(train, "train", argv)


def train(cfg: DictConfig) -> int:
    from rich.console import Console

    from medt.data.sources import open_dataset
    from medt.training.progress import log, logging_to

    if cfg.resume not in (None, "auto"):
        config, run_folder, checkpoint = run_of_resume(cfg)
        index = open_dataset(config["dataset"])
    else:
        index = open_dataset(plain(cfg.dataset))
        config, run_folder, checkpoint = run_of_config(cfg, index)
    console = Console()
    with logging_to(console, run_folder.log):
        trainer = build_trainer(config, index, run_folder, console)
        if checkpoint is not None:
            trainer.load_state_dict(checkpoint.training or {})
            log.info(f"resumed after epoch {checkpoint.epoch}: {run_folder.root}")
        elif cfg.resume == "auto":
            log.info("no unfinished run has this config: starting afresh")
        log.info(trainer.describe())
        try:
            state = trainer.fit()
        except KeyboardInterrupt:
            log.info(f"interrupted; continue with resume={run_folder.root}")
            raise
        log.info(
            f"best {trainer.settings.monitor} {state.best_score:.4f} in epoch {state.best_epoch}\n"
            f"checkpoint   {run_folder.best}\n"
            f"history      {run_folder.history}\n"
            f"TensorBoard  tensorboard --logdir {run_folder.tensorboard}"
        )
    return 0


def run_of_resume(cfg: DictConfig) -> tuple[dict[str, Any], RunFolder, Checkpoint]:
    """The run that resume=PATH names, with its own config."""
    from medt.training.run_folder import run_to_resume

    run_folder, checkpoint = run_to_resume(Path(cfg.resume))
    config = run_folder.read_config()
    for override in HydraConfig.get().overrides.task:
        key = override.partition("=")[0]
        if key not in FREE_ON_RESUME:
            raise UserError(
                f"{override} cannot change a run that is resumed: its own config.yaml counts",
                f"leave it out, or start a new run from model.weights={run_folder.best}",
            )
        if key != "resume":
            group, _, name = key.partition(".")
            config[group][name] = plain(cfg[group])[name]
    return config, run_folder, checkpoint


def run_of_config(
    cfg: DictConfig, index: DatasetIndex
) -> tuple[dict[str, Any], RunFolder, Checkpoint | None]:
    """A new run with the composed config or, with resume=auto, the newest unfinished like it."""
    from medt.checkpoint import load_checkpoint
    from medt.training.run_folder import RunFolder, newest_unfinished

    cfg.dataset.channels = cfg.dataset.channels or index.channels
    cfg.dataset.num_classes = len(index.classes)
    config = plain(cfg)
    if cfg.resume == "auto":
        unfinished = newest_unfinished(Path(cfg.paths.runs), config)
        if unfinished is not None:
            return config, unfinished, load_checkpoint(unfinished.last)
    return config, RunFolder.create(Path(cfg.run_dir), config), None


def build_trainer(
    config: dict[str, Any], index: DatasetIndex, run_folder: RunFolder, console: Console
) -> Trainer:
    """The trainer that a resolved config describes."""
    import torch

    from medt.checkpoint import build_model, load_weights
    from medt.data.dataset import SegmentationDataset
    from medt.data.preprocessing import Preprocessing, fit_normalization
    from medt.inference.device import choose_device
    from medt.models.sizes import as_size
    from medt.training.progress import log
    from medt.training.settings import TrainerSettings
    from medt.training.trainer import Trainer

    device = choose_device(config["trainer"]["device"])
    torch.manual_seed(config["seed"])
    spec = {k: v for k, v in config["model"].items() if k not in ("name", "weights")}
    model = build_model(spec, allow=(spec["_target_"],))
    if config["model"]["weights"]:
        kept = load_weights(model, Path(config["model"]["weights"]))
        if kept:
            log.info(f"the class head differs and starts afresh: {', '.join(kept)}")

    train_cases, val_cases = index.split("train"), index.split("val")
    if config["overfit"]:
        train_cases = val_cases = train_cases[: config["overfit"]]
    channels = config["dataset"]["channels"]
    mean, std = fit_normalization(train_cases, config["dataset"]["normalize"], channels)
    preprocessing = Preprocessing(as_size(config["dataset"]["image_size"]), channels, mean, std)
    augmentation = (
        instantiate(config["augmentation"]) if config["augmentation"]["_target_"] else None
    )
    cache = config["dataset"]["cache"]
    labels = (index.label_map, index.ignore)
    return Trainer(
        model=model,
        loss=instantiate(config["loss"]),
        optimizer=instantiate(config["optimizer"], params=model.parameters()),
        schedule=instantiate(config["scheduler"]),
        train_set=SegmentationDataset(
            train_cases, preprocessing, *labels, augmentation, config["seed"], cache
        ),
        val_set=SegmentationDataset(val_cases, preprocessing, *labels, cache_megabytes=cache),
        classes=index.classes,
        settings=TrainerSettings(**config["trainer"]),
        run=run_folder,
        config=config,
        device=device,
        console=console,
    )


if __name__ == "__main__":
    sys.exit(main())
