"""resume=PATH and resume=auto: a run goes on as if it had never been interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import train
import yaml
from conftest import QUICK, timeless, tiny, tiny_dataset
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medt.checkpoint import load_checkpoint
from medt.training.trainer import Trainer


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int, number: int = signal.SIGINT) -> None:
    """Send this process a signal in the middle of the optimizer step of this number."""
    step = Trainer.step

    def interrupted(self: Trainer, cases: list[str]) -> float:
        norm = step(self, cases)
        if self.state.step == steps:
            os.kill(os.getpid(), number)
        return norm

    monkeypatch.setattr(Trainer, "step", interrupted)


MORE = ["trainer.gate_epoch=1", "trainer.ema=0.9", "trainer.batch_size=1", "trainer.accumulate=2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 3 epochs of 3 steps that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    assert train.main(tiny(folder, f"run_dir={folder}/run", *MORE, "trainer.epochs=3")) == 0
    return folder / "run"


@pytest.mark.parametrize(
    ("steps", "workers", "position"),
    [
        (1, 0, "in epoch 1 after 2 of 6 batches"),
        (5, 2, "in epoch 2 after 4 of 6 batches"),
        (6, 0, "after epoch 2"),
    ],
)
def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on_to_the_bit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    whole: Path,
    steps: int,
    workers: int,
    position: str,
) -> None:
    run = tmp_path / "run"
    overrides = [*MORE, "trainer.epochs=3", f"dataset.workers={workers}"]
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        assert train.main(tiny(tmp_path, f"run_dir={run}", *overrides)) == 130
    output = capsys.readouterr().out
    assert f"stopped {position}, and saved" in output
    assert output.splitlines()[-1] == f"to go on: python scripts/train.py resume={run}"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    saved = load_checkpoint(run / "checkpoints/last.pt")
    assert saved.training is not None
    assert saved.training["step"] == steps
    assert bool(saved.scores) == (steps > 3)  # before the first validation there are none
    assert saved.build_model() is not None

    assert train.main([f"resume={run}"]) == 0
    assert f"resumed {position}: {run}" in capsys.readouterr().out
    expected = load_checkpoint(whole / "checkpoints/last.pt")
    resumed = load_checkpoint(run / "checkpoints/last.pt")
    assert resumed.epoch == 3
    for name, value in expected.weights.items():
        torch.testing.assert_close(resumed.weights[name], value, rtol=0, atol=0)
    assert timeless(run) == timeless(whole)
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/train")] == [1, 2, 3]


def test_sigterm_saves_too_and_exits_with_its_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(monkeypatch, 1, signal.SIGTERM)
    assert train.main(tiny(tmp_path, f"run_dir={tmp_path}/run", "trainer.batch_size=2")) == 143
    assert load_checkpoint(tmp_path / "run/checkpoints/last.pt").training["step"] == 1


def test_a_second_ctrl_c_stops_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    step = Trainer.step

    def twice(self: Trainer, cases: list[str]) -> float:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, cases)

    monkeypatch.setattr(Trainer, "step", twice)
    assert train.main(tiny(tmp_path, f"run_dir={tmp_path}/run")) == 130
    error = capfd.readouterr().err
    assert "stopping after this step, then saving (once more to stop at once)" in error
    assert error.endswith("interrupted\n")
    assert not (tmp_path / "run/checkpoints/last.pt").exists()


def test_a_signal_to_the_whole_group_saves_and_leaves_no_worker_behind(tmp_path: Path) -> None:
    script = Path(train.__file__)
    overrides = tiny(tmp_path, f"run_dir={tmp_path}/run", "dataset.workers=2", QUICK)
    tiny_dataset()
    with subprocess.Popen(
        [sys.executable, str(script), *overrides, "trainer.epochs=1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        while "epoch 2/1000" not in (line := process.stdout.readline()):
            assert line, "the training ended"
        os.killpg(process.pid, signal.SIGINT)
        output, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert error.strip().startswith("stopping after this step")
    assert error.count("\n") == 2
    assert f"to go on: python scripts/train.py resume={tmp_path}/run" in output
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was interrupted after its first epoch."""
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
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


def test_a_resumed_run_needs_its_best_checkpoint(
    interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (interrupted / "checkpoints/best.pt").unlink()
    assert train.main([f"resume={interrupted}"]) == 1
    assert f"{interrupted}/checkpoints/best.pt is missing" in capsys.readouterr().err


def test_resume_auto_leaves_a_finished_run_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = tiny(tmp_path, f"run_dir={tmp_path}/run", "trainer.epochs=1", "resume=auto")
    assert train.main(overrides) == 0
    before = (tmp_path / "run/checkpoints/last.pt").stat().st_mtime_ns
    assert train.main(overrides) == 0
    assert f"finished already: {tmp_path}/run" in capsys.readouterr().out
    assert (tmp_path / "run/checkpoints/last.pt").stat().st_mtime_ns == before


def test_a_dry_run_resumes_nothing(interrupted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for resume in (interrupted, "auto"):
        assert train.main([f"resume={resume}", "dry_run=true"]) == 1
        assert "leave resume out" in capsys.readouterr().err


def test_a_resumed_run_keeps_its_config(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([f"resume={tiny_run}", "trainer.epochs=9"]) == 1
    assert "has ended" in capsys.readouterr().err
    assert train.main([f"resume={tmp_path}"]) == 1
    assert f"there is no run at {tmp_path}" in capsys.readouterr().err
