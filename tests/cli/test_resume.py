"""resume=PATH and resume=auto: a run goes on as if it had never been interrupted."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
import train
import yaml
from conftest import tiny

from medt.checkpoint import load_checkpoint


def test_a_run_is_reproducible_and_resumes_as_if_never_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from medt.training.trainer import Trainer

    more = ["trainer.epochs=4", "trainer.gate_epoch=1", "trainer.ema=0.9", "trainer.accumulate=2"]
    whole = tmp_path / "whole/run"
    assert train.main(tiny(tmp_path / "whole", f"run_dir={whole}", *more)) == 0

    write = Trainer.report

    def interrupt(self: Trainer, row: dict[str, float], is_best: bool) -> None:
        write(self, row, is_best)
        if self.state.epoch == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "report", interrupt)
    folder = tmp_path / "parts"
    assert train.main(tiny(folder, f"run_dir={folder}/run", *more)) == 130
    assert f"resume={folder}/run" in capsys.readouterr().out
    monkeypatch.undo()
    assert load_checkpoint(folder / "run/checkpoints/last.pt").epoch == 2
    assert train.main([f"resume={folder}/run"]) == 0

    expected = load_checkpoint(whole / "checkpoints/last.pt")
    resumed = load_checkpoint(folder / "run/checkpoints/last.pt")
    assert resumed.epoch == 4
    for name, value in expected.weights.items():
        torch.testing.assert_close(resumed.weights[name], value, rtol=0, atol=0)
    timeless = [
        {k: v for k, v in row.items() if k.split("_")[0] not in ("images", "loader", "norm")}
        for path in (whole, folder / "run")
        for row in csv.DictReader((path / "history.csv").open())
    ]
    assert timeless[:4] == timeless[4:]


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was interrupted in its second epoch."""
    from medt.training.trainer import Trainer

    write = Trainer.report

    def interrupt(self: Trainer, row: dict[str, float], is_best: bool) -> None:
        write(self, row, is_best)
        if self.state.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "report", interrupt)
        assert train.main(tiny(tmp_path, f"run_dir={tmp_path}/runs/a")) == 130
    return tmp_path / "runs/a"


def test_resume_auto_finds_the_unfinished_run_with_this_config(
    interrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    assert train.main(tiny(tmp_path, f"run_dir={runs}/other", "resume=auto", "seed=1")) == 0
    assert "starting afresh" in capsys.readouterr().out
    assert train.main(tiny(tmp_path, f"run_dir={runs}/b", "resume=auto")) == 0
    assert f"resumed after epoch 1: {interrupted}" in capsys.readouterr().out
    assert not (runs / "b").exists()
    assert train.main(tiny(tmp_path, f"run_dir={runs}/c", "resume=auto")) == 0
    assert "starting afresh" in capsys.readouterr().out


def test_resume_auto_looks_into_run_dir_too(
    interrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = [o for o in tiny(tmp_path) if not o.startswith("paths.runs")]
    elsewhere += [f"paths.runs={tmp_path}/none", f"run_dir={interrupted}", "resume=auto"]
    assert train.main(elsewhere) == 0
    assert f"resumed after epoch 1: {interrupted}" in capsys.readouterr().out


def test_a_resumed_run_does_not_need_the_weights_it_started_from(
    interrupted: Path, tmp_path: Path
) -> None:
    config = yaml.safe_load((interrupted / "config.yaml").read_text())
    config["model"]["weights"] = f"{tmp_path}/deleted.pt"
    (interrupted / "config.yaml").write_text(yaml.safe_dump(config))
    assert train.main([f"resume={interrupted}"]) == 0


def test_resume_auto_takes_the_device_and_workers_of_the_command(
    interrupted: Path, tmp_path: Path
) -> None:
    overrides = tiny(tmp_path, f"run_dir={tmp_path}/runs/b", "resume=auto", "dataset.workers=1")
    assert train.main(overrides) == 0
    kept = load_checkpoint(interrupted / "checkpoints/last.pt")
    assert kept.epoch == 2
    assert kept.config["dataset"]["workers"] == 1


def test_a_resumed_run_needs_the_cases_it_was_trained_on(
    interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((interrupted / "config.yaml").read_text())
    config["overfit"] = 2
    (interrupted / "config.yaml").write_text(yaml.safe_dump(config))
    assert train.main([f"resume={interrupted}"]) == 1
    assert "the training cases are no longer those of" in capsys.readouterr().err


def test_a_resumed_run_keeps_its_config(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([f"resume={tiny_run}", "trainer.epochs=9"]) == 1
    assert "has ended" in capsys.readouterr().err
    assert train.main([f"resume={tmp_path}"]) == 1
    assert f"there is no run at {tmp_path}" in capsys.readouterr().err
