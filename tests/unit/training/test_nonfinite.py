"""trainer.on_nonfinite: a loss or gradient that is no number stops the run, or costs a step."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
import train
from conftest import tiny_training
from torch import nn

from medt.checkpoint import load_checkpoint
from medt.losses import DiceCrossEntropyLoss
from medt.training.optimization import Optimization

pytestmark = pytest.mark.seconds

SKIP = "trainer.on_nonfinite=skip"


def spoil(monkeypatch: pytest.MonkeyPatch, calls: set[int]) -> None:
    """Let the loss be no number in the training batches of these numbers, from 0."""
    forward = DiceCrossEntropyLoss.forward
    count = iter(range(-2, 10**6))  # the estimate of the memory takes two steps first

    def spoilt(self: nn.Module, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = forward(self, logits, masks)
        return loss * math.nan if logits.requires_grad and next(count) in calls else loss

    monkeypatch.setattr(DiceCrossEntropyLoss, "forward", spoilt)


def rows(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "history.csv").open()))


def test_stops_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch, {2})
    assert train.main(tiny_training(tmp_path, "trainer.batch_size=2")) == 1
    error = capsys.readouterr().err
    assert "the loss is nan in epoch 1, step 3, cases train_" in error


def test_a_skipped_step_is_counted_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unchanged: list[bool] = []
    skip = Optimization.skip_step

    def checked(self: Optimization) -> None:
        kept = [value.clone() for value in self.model.parameters()]
        skip(self)
        unchanged.extend(map(torch.equal, kept, self.model.parameters()))

    monkeypatch.setattr(Optimization, "skip_step", checked)
    spoil(monkeypatch, {1})
    assert train.main([*tiny_training(tmp_path, "trainer.batch_size=2"), SKIP]) == 0
    printed = capsys.readouterr().out
    assert "step 2 is left out: the loss is nan, cases train_" in printed
    assert "1 steps skipped" in printed
    assert [row["skipped"] for row in rows(tmp_path / "run")] == ["1", ""]
    assert unchanged
    assert all(unchanged)
    saved = load_checkpoint(tmp_path / "run/checkpoints/last.pt")
    assert saved.training is not None
    assert saved.training["step"] == 6
    for value in saved.training["model"].values():
        assert value.isfinite().all()


def test_running_statistics_are_as_before_the_spoilt_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images that are no numbers reach every running mean before the loss is known."""
    nan = torch.full((2, 3, 32, 32), math.nan)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    from medt.training.settings import TrainerSettings

    optimization = Optimization(
        model,
        torch.optim.SGD(model.parameters(), lr=1),
        lambda step, steps: 1.0,
        TrainerSettings(on_nonfinite="skip"),
        torch.device("cpu"),
    )
    kept = [buffer.clone() for buffer in model.buffers()]
    optimization.begin_step()
    model(nan).sum().backward()
    assert not all(buffer.isfinite().all() for buffer in model.buffers())
    optimization.skip_step()
    assert all(torch.equal(*pair) for pair in zip(model.buffers(), kept, strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_with_accumulation_the_whole_step_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, {0})
    more = ["trainer.accumulate=3", SKIP]
    assert train.main([*tiny_training(tmp_path, "trainer.batch_size=2"), *more]) == 0
    assert [row["skipped"] for row in rows(tmp_path / "run")] == ["1", ""]


def test_an_epoch_without_any_number_stops_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch, set(range(100)))
    assert train.main([*tiny_training(tmp_path, "trainer.batch_size=1"), SKIP]) == 1
    said = capsys.readouterr()
    assert "loss was no number in any batch" in said.err
    assert said.out.count("is left out") == 5  # the log stays small
