"""What fails in a loader's worker: one line on the terminal, and the traceback in the log."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import train
from conftest import tiny, tiny_dataset
from torch.utils.data import _utils, get_worker_info

from medt.data.dataset import SegmentationDataset
from medt.errors import UserError


@pytest.fixture
def in_workers(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Let workers do something before they read the case train_4."""
    sample = SegmentationDataset.sample
    monkeypatch.setattr(_utils, "MP_STATUS_CHECK_INTERVAL", 0.5)

    def use(action: Callable[[], None]) -> None:
        def acting(self: SegmentationDataset, epoch: int, index: int, *more: object) -> object:
            if get_worker_info() is not None and self.cases[index].name == "train_4":
                action()
            return sample(self, epoch, index, *more)

        monkeypatch.setattr(SegmentationDataset, "sample", acting)

    return use


def bug() -> None:
    raise ZeroDivisionError("our bug")


def fault() -> None:
    raise UserError("the file is broken", "copy it again")


@pytest.mark.parametrize(
    ("action", "line", "origin"),
    [
        (
            bug,
            "error: RuntimeError: Case train_4 failed in epoch 1: ZeroDivisionError('our bug') "
            "(not foreseen: MEDT_DEBUG=1 shows the traceback)\n",
            "in bug",
        ),
        (fault, "error: Case train_4: the file is broken (copy it again)\n", "in fault"),
        (
            lambda: os._exit(7),
            "error: a worker of the loader ended with code 7, at case train_4 (try "
            "dataset.workers=0, which reads in the training process; look at the case's files)\n",
            "in train_epoch",
        ),
        (
            lambda: time.sleep(600),
            "error: no batch came for 2 s, at case train_4 (look at the case's files and the disk "
            "they lie on; dataset.timeout=SECONDS waits longer, dataset.workers=0 for ever)\n",
            "in train_epoch",
        ),
    ],
    ids=["bug", "fault", "death", "hang"],
)
def test_it_is_one_line_with_the_case_and_the_log_has_the_traceback(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    in_workers: Callable[[Callable[[], None]], None],
    action: Callable[[], None],
    line: str,
    origin: str,
) -> None:
    in_workers(action)
    tiny_dataset()
    capsys.readouterr()
    settings = [f"run_dir={tmp_path}/run", "dataset.workers=2", "dataset.timeout=2"]
    assert train.main(tiny(tmp_path, *settings)) == 1
    assert capsys.readouterr().err == line
    log = (tmp_path / "run/train.log").read_text()
    assert " ERROR " in log
    assert line.removeprefix("error: ").removeprefix("RuntimeError: ").split(" (")[0] in log
    assert origin in log
    assert not multiprocessing.active_children()


def test_without_workers_the_log_has_the_traceback_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = SegmentationDataset.sample

    def failing(self: SegmentationDataset, epoch: int, index: int) -> object:
        if epoch == 2:
            bug()
        return sample(self, epoch, index)

    monkeypatch.setattr(SegmentationDataset, "sample", failing)
    tiny_dataset()
    capsys.readouterr()
    assert train.main(tiny(tmp_path, f"run_dir={tmp_path}/run")) == 1
    error = capsys.readouterr().err
    assert "failed in epoch 2: ZeroDivisionError" in error
    assert error.count("\n") == 1
    log = (tmp_path / "run/train.log").read_text()
    assert "epoch 1/2" in log
    assert "in bug" in log
