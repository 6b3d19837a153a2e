"""Two commands at once: nothing is mixed or lost, and the second is told who is there."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import benchmark
import check_data
import compare
import evaluate
import export
import import_official
import predict
import prepare_data
import pytest
import train
from conftest import TINY, files_below, tiny, tiny_dataset

from medt.io.locks import LOCK_FILE, locked, locked_beside
from medt.training.run_folder import RunFolder
from medt.training.trainer import Trainer

# Runs a script that stops at its first call of a function, until its input has another line.
PAUSED = """
import importlib, sys
from unittest.mock import patch
script, module, name, *arguments = sys.argv[1:]
owner = importlib.import_module(module)
for part in name.split(".")[:-1]:
    owner = getattr(owner, part)
name = name.split(".")[-1]
original, calls = getattr(owner, name), []
def paused(*positional, **named):
    if not calls:
        calls.append(1)
        print("paused", flush=True)
        sys.stdin.readline()
    return original(*positional, **named)
with patch.object(owner, name, paused):
    sys.exit(importlib.import_module(script).main(arguments))
"""


class Paused:
    """A script of its own process that has come to a function, and waits there."""

    def __init__(self, script: str, function: str, arguments: Sequence[str]) -> None:
        module, _, name = function.partition(":")
        here = os.environ.get("PYTHONPATH", "")
        self.process = subprocess.Popen(
            [sys.executable, "-c", PAUSED, script, module, name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{Path(train.__file__).parent}{os.pathsep}{here}"},
        )
        assert self.process.stdout is not None
        while (line := self.process.stdout.readline()) != "paused\n":
            assert line, self.process.communicate()[1]

    def end(self) -> str:
        """Let it go on to its end, which must be good; returns what it printed."""
        output, error = self.process.communicate("go on\n", timeout=120)
        assert self.process.returncode == 0, error
        return output

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run, to be written into."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.fixture
def a_second(monkeypatch: pytest.MonkeyPatch) -> str:
    """A second that does not pass: what every folder of its time is called."""
    now = datetime(2026, 1, 2, 3, 4, 5)
    monkeypatch.setattr("hydra.core.utils.datetime", SimpleNamespace(now=lambda: now))
    return "2026-01-02_03-04-05"


def unpicky(folder: Path, *more: str) -> list[str]:
    """A tiny training into a folder that nobody named."""
    return [*tiny(folder), "check=false", "trainer.epochs=1", *more]


class TestPredict:
    def arguments(self, run: Path, folder: Path) -> list[str]:
        images = TINY / "images"
        return [f"checkpoint={run}", f"input={images}", f"output={folder}/out", "device=cpu"]

    def images(self, folder: Path) -> list[str]:
        with (folder / "out/summary.csv").open() as file:
            return [row["image"] for row in csv.DictReader(file)]

    def test_the_second_is_refused_before_it_writes(
        self, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        first = Paused(
            "predict", "medt.inference.folder:_predict", self.arguments(tiny_run, tmp_path)
        )
        before = files_below(tmp_path)
        assert predict.main(self.arguments(tiny_run, tmp_path)) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {tmp_path}/out is being written by predict.py ")
        assert f"(process {first.process.pid} on " in error
        assert error.endswith("(wait for its end, or give another output=...)\n")
        assert error.count("\n") == 1
        assert files_below(tmp_path) == before
        assert "10 of 10 masks written" in first.end()
        assert len(set(self.images(tmp_path))) == 10
        assert len(files_below(tmp_path / "out")) == 11

    def test_what_a_killed_one_left_is_removed(self, tiny_run: Path, tmp_path: Path) -> None:
        arguments = [*self.arguments(tiny_run, tmp_path), "mask_format=tiff", "overlays=true"]
        first = Paused("predict", "medt.io.files:os.fsync", arguments)
        first.kill()
        torn = [path for path in (tmp_path / "out").rglob(".*") if path.name != LOCK_FILE]
        assert len(torn) == 1
        assert predict.main(arguments) == 0
        assert list((tmp_path / "out").rglob(".*")) == []
        assert len(set(self.images(tmp_path))) == 10


class TestEvaluate:
    def test_each_has_a_folder_of_its_own(
        self, run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = [f"checkpoint={run}", "device=cpu", "panels=1"]
        first = Paused("evaluate", "medt.evaluation.evaluate:evaluate", arguments)
        assert evaluate.main(arguments) == 0
        assert "synthetic-val-native-2, see report.html" in capsys.readouterr().out
        assert "synthetic-val-native, see report.html" in first.end()
        for name in ("synthetic-val-native", "synthetic-val-native-2"):
            found = {path.name for path in (run / "evaluation" / name).iterdir()}
            assert found == {"metrics.json", "per_case.csv", "report.html"}

    def test_one_that_fails_leaves_nothing(
        self, run: Path, refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        checkpoint = f"checkpoint={run}"
        with monkeypatch.context() as patch:
            patch.setattr("medt.io.files.os.fsync", full)
            refused(evaluate.main, [checkpoint, "panels=0"], "No space left on device")


class TestTrain:
    def test_two_of_one_second_have_a_folder_each(self, tmp_path: Path, a_second: str) -> None:
        for _ in range(2):
            assert train.main(unpicky(tmp_path)) == 0
        parent = tmp_path / "runs/synthetic/gated_axial_unet"
        assert {path.name for path in parent.iterdir()} == {a_second, f"{a_second}-2"}
        for name in (a_second, f"{a_second}-2"):
            assert RunFolder(parent / name).read_config()["run_dir"] == str(parent / name)
            assert RunFolder(parent / name).best.is_file()

    def test_of_one_that_has_just_begun_too(self, tmp_path: Path, a_second: str) -> None:
        parent = tmp_path / "runs/synthetic/gated_axial_unet"
        with locked(parent / a_second, "train.py"):
            assert train.main(unpicky(tmp_path)) == 0
        assert [path.name for path in parent.iterdir()] == [f"{a_second}-2"]

    def test_a_folder_that_is_being_trained_is_not_offered_to_resume(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = files_below(run)
        with RunFolder(run).locked():
            assert train.main(unpicky(tmp_path, f"run_dir={run}")) == 1
        error = capsys.readouterr().err
        assert f"{run} is being written by train.py (process {os.getpid()} " in error
        assert error.endswith("(wait for its end, or give another run_dir=...)\n")
        assert files_below(run) == before

    def test_a_folder_in_use_is_told_before_the_data_are_checked(
        self,
        run: Path,
        tmp_path: Path,
        refused: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("medt.cli.train.warnings_before_training", None)
        refused(train.main, tiny(tmp_path, f"run_dir={run}"), "is not empty", f"resume={run}")

    def test_what_fails_before_it_begins_leaves_no_folder(
        self, tmp_path: Path, refused: Callable[..., None]
    ) -> None:
        tiny_dataset()
        given = unpicky(tmp_path, "trainer.batch_size=99")
        refused(train.main, given, "trainer.batch_size=99 is larger")

    @pytest.fixture
    def stopped(self, tmp_path: Path) -> Path:
        """A run that was stopped in its first epoch."""
        with pytest.MonkeyPatch.context() as patch:
            step = Trainer.step

            def stopping(trainer: Trainer, cases: list[str]) -> float:
                trainer.stop.signal = signal.SIGINT
                return step(trainer, cases)

            patch.setattr(Trainer, "step", stopping)
            assert train.main(unpicky(tmp_path)) == 130
        (last,) = tmp_path.rglob("last.pt")
        return last.parent.parent

    def test_of_two_that_resume_the_same_run_one_is_refused(
        self, stopped: Path, tmp_path: Path, refused: Callable[..., None]
    ) -> None:
        first = Paused(
            "train", "medt.training.trainer:Trainer.fit", unpicky(tmp_path, "resume=auto")
        )
        for resume in ("auto", stopped):
            given = unpicky(tmp_path, f"resume={resume}")
            refused(train.main, given, f"{stopped} is being written by train.py (process ")
        assert "last dice" in first.end()

    @pytest.mark.slow
    def test_a_run_that_ended_meanwhile_is_not_trained_again(
        self,
        stopped: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Between finding the run and holding it, another process trains it to its end."""
        first = Paused("train", "medt.training.trainer:Trainer.fit", [f"resume={stopped}"])
        held = train.held

        def late(*arguments: Any) -> Any:
            first.end()
            return held(*arguments)

        monkeypatch.setattr("medt.cli.train.held", late)
        assert train.main([f"resume={stopped}"]) == 1
        assert "has ended after epoch 1" in capsys.readouterr().err

    def test_dry_runs_do_not_draw_over_each_other(
        self, tmp_path: Path, refused: Callable[..., None]
    ) -> None:
        tiny_dataset()
        picture = tmp_path / "runs/dry_run/synthetic-gated_axial_unet.png"
        with locked_beside(picture, "train.py dry_run=true"):
            given = unpicky(tmp_path, "dry_run=true")
            refused(train.main, given, f"{picture} is being written by", "another paths.runs=")


class TestSweeps:
    def sweep(self, folder: Path, *more: str) -> list[str]:
        return ["-m", *unpicky(folder, "overfit=4", "seed=0,1", *more)]

    def test_two_of_one_second_have_a_folder_each(
        self, tmp_path: Path, a_second: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sweeps = tmp_path / "runs/sweeps"
        with locked(sweeps / a_second, "train.py --multirun"):
            assert train.main(self.sweep(tmp_path)) == 0
            assert train.main(self.sweep(tmp_path)) == 0
        assert f"compare.py {sweeps}/{a_second}-3" in capsys.readouterr().out
        assert {path.name for path in sweeps.iterdir()} == {f"{a_second}-2", f"{a_second}-3"}
        for folder in sweeps.iterdir():
            names = {path.name for path in folder.iterdir()}
            assert names == {"seed=0", "seed=1", "multirun.yaml"}

    def test_one_that_comes_to_nothing_leaves_nothing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tiny_dataset()
        assert train.main(self.sweep(tmp_path, "trainer.batch_size=99")) == 1
        assert "0 of 2 runs ended well" in capsys.readouterr().out
        assert list(tmp_path.iterdir()) == []

    def test_help_makes_no_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        train.main([*self.sweep(tmp_path), "--help"])
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_is_given_is_taken(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/notes.txt").touch()
        assert train.main(self.sweep(tmp_path, f"hydra.sweep.dir={tmp_path}/mine")) == 0
        assert {"seed=0", "seed=1"} <= {path.name for path in (tmp_path / "mine").iterdir()}


class TestOthers:
    """Every other script that writes into a folder."""

    @pytest.fixture
    def scripts(self, tiny_run: Path) -> dict[str, tuple[Any, list[str]]]:
        _, dataset = tiny_dataset()
        return {
            "check_data": (check_data.main, dataset),
            "compare": (compare.main, [str(tiny_run)]),
            "export": (export.main, [f"checkpoint={tiny_run}", "format=safetensors"]),
            "benchmark": (benchmark.main, ["networks=[fcn]", "sizes=[32]", "batches=[1]"]),
        }

    @pytest.mark.parametrize("script", ["check_data", "compare", "export", "benchmark"])
    def test_the_second_is_refused(
        self,
        scripts: dict[str, tuple[Any, list[str]]],
        tmp_path: Path,
        refused: Callable[..., None],
        script: str,
    ) -> None:
        main, arguments = scripts[script]
        with locked(tmp_path / "out", f"{script}.py"):
            given = [*arguments, f"output={tmp_path}/out"]
            refused(main, given, f"{tmp_path}/out is being written by {script}.py (process ")

    @pytest.mark.parametrize("script", ["check_data", "compare", "export"])
    def test_what_a_killed_one_left_is_removed(
        self, scripts: dict[str, tuple[Any, list[str]]], tmp_path: Path, script: str
    ) -> None:
        torn = tmp_path / "out/.check.0123456f.json"
        torn.parent.mkdir()
        torn.touch()
        main, arguments = scripts[script]
        assert main([*arguments, f"output={tmp_path}/out"]) == 0
        assert not torn.exists()

    def test_two_imports_into_one_file(self, tmp_path: Path, refused: Callable[..., None]) -> None:
        given = ["model=medt", f"weights={tmp_path}/medt.pth", f"output={tmp_path}/x.pt"]
        with locked_beside(tmp_path / "x.pt", "import_official.py"):
            refused(import_official.main, given, "x.pt is being written by import_official.py")

    def test_two_preparations(self, tmp_path: Path, refused: Callable[..., None]) -> None:
        given = ["dataset=glas", f"source={tmp_path}", f"paths.data={tmp_path}/data"]
        with locked_beside(tmp_path / "data/glas", "prepare_data.py"):
            refused(prepare_data.main, given, "glas is being written by prepare_data.py")
