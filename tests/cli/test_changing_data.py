"""Files of a dataset that change during a training, or between two parts of it, are told of."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import train
from conftest import TINY, tiny, tiny_dataset

from medt.training.trainer import Trainer

WARNING = "of the dataset changed or went since"
RESUMED = "warning: the files of the dataset are not those that the run began with"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A copy of the tiny set, to be changed."""
    tiny_dataset()
    return Path(shutil.copytree(TINY, tmp_path / "data" / TINY.name))


def training(data: Path, *more: str) -> list[str]:
    run = data.parents[1] / "run"
    return tiny(run.parent, f"dataset.root={data.parent}", f"run_dir={run}", *more)


def after_epoch(monkeypatch: pytest.MonkeyPatch, epoch: int, action: Callable[[], None]) -> None:
    """Do something when an epoch has been trained and validated."""
    update = Trainer.update_state

    def then(self: Trainer, row: dict[str, float]) -> bool:
        is_best = update(self, row)
        if self.state.epoch == epoch:
            action()
        return is_best

    monkeypatch.setattr(Trainer, "update_state", then)


def log_of(data: Path) -> list[str]:
    return (data.parents[1] / "run/train.log").read_text().splitlines()


class TestDuringATraining:
    @pytest.mark.parametrize("file", ["images/train_1.png", "masks/val_2.png", "splits.csv"])
    def test_a_change_is_told_once_with_the_file_and_the_epoch(
        self, data: Path, monkeypatch: pytest.MonkeyPatch, file: str
    ) -> None:
        after_epoch(monkeypatch, 2, lambda: os.utime(data / file))
        assert train.main(training(data, "trainer.epochs=5", "dataset.cache=0")) == 0
        told = [line for line in log_of(data) if WARNING in line]
        assert len(told) == 1
        expected = f"warning: 1 file {WARNING} epoch 2, such as {data}/{file}: from then on"
        assert expected in told[0]

    def test_several_are_counted(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def change() -> None:
            shutil.copy(data / "images/train_2.png", data / "images/train_1.png")
            (data / "masks/train_3.png").unlink()

        after_epoch(monkeypatch, 1, change)
        assert train.main(training(data, "trainer.epochs=2")) == 0  # all of them are in memory
        assert f"warning: 2 files {WARNING} epoch 1" in "\n".join(log_of(data))

    def test_what_the_training_does_not_use_is_not_told(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        after_epoch(monkeypatch, 1, lambda: os.utime(data / "images/test_1.png"))
        assert train.main(training(data, "trainer.epochs=2")) == 0
        assert "warning: " not in "\n".join(line for line in log_of(data) if WARNING in line)

    @pytest.mark.parametrize("workers", [0, 1])
    @pytest.mark.parametrize("case", ["train_1", "val_1"])
    def test_a_file_that_went_is_an_error_when_it_is_needed(
        self,
        data: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        case: str,
        workers: int,
    ) -> None:
        file = data / f"images/{case}.png"
        after_epoch(monkeypatch, 1, file.unlink)
        more = ["dataset.cache=0", f"dataset.workers={workers}"]
        assert train.main(training(data, *more)) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"error: Case {case}: No file {file} " in error


class TestBetweenTwoParts:
    @pytest.fixture
    def stopped(self, data: Path) -> Path:
        """A run that stopped after its first epoch."""
        with pytest.MonkeyPatch.context() as patch:
            update = Trainer.update_state

            def stopping(self: Trainer, row: dict[str, float]) -> bool:
                self.stop.signal = 2
                return update(self, row)

            patch.setattr(Trainer, "update_state", stopping)
            assert train.main(training(data, "trainer.epochs=3")) == 130
        return data.parents[1] / "run"

    def resumed(self, run: Path, *more: str) -> bool:
        """Whether a resumed run tells that its data changed."""
        before = (run / "train.log").read_text()
        assert train.main([f"resume={run}", *more]) == 0
        return RESUMED in (run / "train.log").read_text().removeprefix(before)

    def test_unchanged_data_are_not_told_of(self, stopped: Path) -> None:
        assert not self.resumed(stopped)

    def test_a_change_is_told_every_time_since_the_run_began(
        self, stopped: Path, data: Path
    ) -> None:
        os.utime(data / "masks/train_1.png", (1e9, 1e9))
        assert self.resumed(stopped)
        assert self.resumed(stopped, "trainer.epochs=4", "resume_force=true")

    def test_a_copy_with_its_times_is_the_same_and_one_without_is_told(
        self, stopped: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(tmp_path / "data", tmp_path / "copy")  # as cp -p, rsync -a do
        assert not self.resumed(stopped, f"dataset.root={tmp_path}/copy")
        for path in (tmp_path / "copy").rglob("*.png"):
            os.utime(path, (1e9, 1e9))
        more = ["trainer.epochs=4", "resume_force=true"]
        assert self.resumed(stopped, f"dataset.root={tmp_path}/copy", *more)

    def test_a_run_of_a_version_that_did_not_note_them_goes_on(self, stopped: Path) -> None:
        path = stopped / "checkpoints/last.pt"
        content = torch.load(path, weights_only=True)
        del content["training"]["data"]
        torch.save(content, path)
        assert not self.resumed(stopped)
