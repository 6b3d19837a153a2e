"""The training loop by itself: objects and plain values in, a run folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, tiny_dataset
from torch import nn

from medt.build import new_preprocessing
from medt.checkpoint import load_checkpoint
from medt.data.dataset import SegmentationDataset
from medt.data.open import open_dataset
from medt.data.scan import Scan
from medt.errors import UserError
from medt.io.console import safe_console
from medt.models import AxialUNet
from medt.training.facts import Facts
from medt.training.run_folder import RunFolder
from medt.training.schedules import Constant
from medt.training.settings import TrainerSettings
from medt.training.trainer import Trainer

SETTINGS = {
    "name": "synthetic",
    **{"root": str(TINY.parent), "seed": 0, "train": 6, "val": 2, "test": 2, "size": 64},
    **{"image_size": 32, "channels": 3, "normalize": "unit", "page": None, "sampling": "resize"},
}
NETWORK = {"image_size": 32, "depths": [1, 1], "position": "gated"}


@pytest.fixture(scope="module")
def sets() -> tuple[Any, SegmentationDataset, SegmentationDataset]:
    tiny_dataset()
    index = open_dataset(SETTINGS)
    train_cases, val_cases = index.split("train"), index.split("val")
    preprocessing = new_preprocessing(SETTINGS, train_cases, Scan())
    return (
        index.classes,
        SegmentationDataset(train_cases, preprocessing, index.labels),
        SegmentationDataset(val_cases, preprocessing, index.labels),
    )


def trainer_of(sets: Any, root: Path, loss: nn.Module | None = None, **settings: Any) -> Trainer:
    classes, train_set, val_set = sets
    torch.manual_seed(0)
    model = AxialUNet(**NETWORK)
    given = {"epochs": 2, "batch_size": 2, "device": "cpu", "gate_epoch": 1} | settings
    run = RunFolder(root)
    run.last.parent.mkdir(parents=True, exist_ok=True)
    return Trainer(
        model=model,
        loss=loss or nn.CrossEntropyLoss(ignore_index=255),
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3),
        schedule=Constant(),
        train_set=train_set,
        val_set=val_set,
        classes=classes,
        settings=TrainerSettings(**given),
        run=run,
        device=torch.device("cpu"),
        console=safe_console(quiet=True),
        facts=Facts("net", {"_target_": "medt.models.AxialUNet", **NETWORK}),
    )


def rows(trainer: Trainer) -> list[dict[str, float]]:
    clock = ("images", "loader", "norm_seconds")
    return [
        {key: value for key, value in row.items() if not key.startswith(clock)}
        for row in trainer.state.history
    ]


def test_a_run_leaves_a_network_for_use(sets: Any, tmp_path: Path) -> None:
    trainer = trainer_of(sets, tmp_path / "run")
    state = trainer.fit()
    assert state.finished
    assert [row["epoch"] for row in state.history] == [1, 2]
    best = load_checkpoint(trainer.run.best)
    assert best.training is None
    assert best.epoch == state.best_epoch
    assert best.scores["val_dice"] == state.best_score
    model = best.build_model()
    assert isinstance(model, AxialUNet)
    assert trainer.describe().startswith("net (93,")


def test_it_goes_on_as_if_it_had_not_stopped(sets: Any, tmp_path: Path) -> None:
    whole = trainer_of(sets, tmp_path / "whole", epochs=3)
    whole.fit()
    part = trainer_of(sets, tmp_path / "part", epochs=3)
    validate = part.validate

    def stopped(row: dict[str, float]) -> nn.Module:
        part.stop.signal = 2
        return validate(row)

    part.validate = stopped  # type: ignore[method-assign]
    assert not part.fit().finished
    again = trainer_of(sets, tmp_path / "part", epochs=3)
    again.resume(load_checkpoint(part.run.last))
    assert again.fit().finished
    assert rows(again) == rows(whole)


def test_it_ends_when_nothing_gets_better(sets: Any, tmp_path: Path) -> None:
    trainer = trainer_of(sets, tmp_path, epochs=20, patience=1, monitor="loss")
    for group in trainer.optimization.optimizer.param_groups:
        group["lr"] = 0.0
    trainer.optimization.schedule = lambda step, steps: 0.0
    assert trainer.fit().finished
    assert len(trainer.state.history) < 20


def test_gates_train_after_their_epoch(sets: Any, tmp_path: Path) -> None:
    trainer = trainer_of(sets, tmp_path, epochs=2, gate_epoch=1)
    gates: list[dict[str, float]] = []
    write = trainer.write

    def noted(*given: Any) -> None:
        gates.append(trainer.optimization.gates())
        write(*given)

    trainer.write = noted  # type: ignore[method-assign]
    trainer.fit()
    start = trainer_of(sets, tmp_path / "other").optimization.gates()
    assert gates[0] == start
    assert gates[1] != start


def test_batches_of_one_step_count_as_one(sets: Any, tmp_path: Path) -> None:
    trainer = trainer_of(sets, tmp_path, epochs=1, batch_size=2, accumulate=3)
    trainer.fit()
    assert trainer.steps_per_epoch == 1
    assert trainer.state.step == 1


def test_it_does_not_train_on_fewer_cases_than_a_batch(sets: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="larger than the training set"):
        trainer_of(sets, tmp_path, batch_size=7)
