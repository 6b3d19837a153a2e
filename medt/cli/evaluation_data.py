"""What evaluate.py scores: the cases, in the network's classes, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from medt.checkpoint import Checkpoint
from medt.cli.settings import plain
from medt.cli.training_data import located
from medt.data.dataset import SegmentationDataset
from medt.data.layout import DatasetIndex
from medt.data.open import open_dataset
from medt.errors import UserError
from medt.evaluation.classes import in_order_of
from medt.inference.predictor import Predictor


def open_index(cfg: DictConfig, checkpoint: Checkpoint, predictor: Predictor) -> DatasetIndex:
    """The dataset asked for, else the one trained on; its classes must be the network's.

    Where all cases are scored, a folder needs no split, and none is drawn.
    """
    if cfg.dataset is not None:
        given = plain(cfg.dataset)
        index = open_dataset(given, draws=True, splits=cfg.split != "all", only=cfg.split)
    elif checkpoint.dataset:
        stored = located(checkpoint.dataset, cfg.paths.data, checkpoint.file, "evaluate")
        if stored.get("classes") is None and stored.get("mask") != "instances":
            stored["classes"] = [c["name"] for c in checkpoint.classes]
        index = open_dataset(stored, only=cfg.split)
    else:
        raise UserError(
            f"{checkpoint.file} was imported and names no dataset",
            "give one: dataset=glas, or another",
        )
    return in_order_of(index, predictor.classes, checkpoint.file)


def trained_elsewhere(checkpoint: Checkpoint, cfg: DictConfig) -> str | None:
    """The dataset trained on, if another one is asked for: the scores are then of an external test.

    Of two folders the images decide.
    """
    trained = checkpoint.dataset
    if cfg.dataset is None or not trained:
        return None
    own = plain(cfg.dataset)
    if own["name"] != trained["name"]:
        return str(trained["name"])
    if own["name"] != "folder" or not trained.get("images"):
        return None
    folders = [Path(one["images"]).resolve() for one in (own, trained)]
    return None if folders[0] == folders[1] else str(folders[1])


def split_otherwise(checkpoint: Checkpoint, index: DatasetIndex) -> str:
    """What to say where the dataset is the one trained on and its split file says other things."""
    trained = checkpoint.dataset
    known = trained.get("splits_digest")
    if not known or known == index.splits_digest or trained.get("splits_file") is None:
        return ""
    same = trained["name"] != "folder" and trained["name"] == index.name
    if not same and Path(trained["splits_file"]) != index.splits_file:
        return ""
    return (
        f"{index.splits_file} ({index.splits_digest}) does not split as the network was trained "
        f"({known}): cases of a split may be others"
    )


def cases_trained_on(
    cfg: DictConfig, checkpoints: Sequence[Checkpoint], dataset: SegmentationDataset
) -> set[str]:
    """Cases of a split other than train that the networks have seen, if it is their dataset."""
    other = cfg.dataset is not None and cfg.dataset.name != checkpoints[0].dataset.get("name")
    if other or cfg.split == "train":
        return set()
    trained_on = {case for one in checkpoints for case in one.training_cases}
    return trained_on & {case.name for case in dataset.cases}
