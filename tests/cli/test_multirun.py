"""train.py --multirun: a run for every combination of values, each in a folder of its name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import compare
import pytest
import train
from conftest import QUICK, tiny, tiny_dataset

from medt.training.run_folder import RunFolder
from medt.training.trainer import Trainer


def sweep(folder: Path, *more: str) -> list[str]:
    return ["-m", *tiny(folder, f"hydra.sweep.dir={folder}/sweep", "trainer.epochs=1", *more)]


def folders(sweep: Path) -> list[str]:
    """What lies in a sweep beside the config that Hydra leaves there."""
    return sorted(path.name for path in sweep.iterdir() if path.name != "multirun.yaml")


def test_runs_every_combination_and_compare_reads_the_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(sweep(tmp_path, "seed=0,1", "optimizer.lr=1e-3,3e-4")) == 0
    output = capsys.readouterr().out
    assert "4 of 4 runs ended well" in output
    assert f"python scripts/compare.py {tmp_path}/sweep" in output
    runs = folders(tmp_path / "sweep")
    assert runs == [
        f"optimizer.lr={rate},seed={seed}" for rate in ("0.0003", "0.001") for seed in (0, 1)
    ]
    for name in runs:
        run = RunFolder(tmp_path / "sweep" / name)
        config = run.read_config()
        assert f"optimizer.lr={config['optimizer']['lr']},seed={config['seed']}" == name
        assert config["run_dir"] == str(run.root)
        assert run.best.is_file()
    assert compare.main([f"{tmp_path}/sweep", f"output={tmp_path}/table"]) == 0
    table = capsys.readouterr().out
    assert "optimizer.lr=0.001 " in table
    assert "optimizer.lr=0.0003 |    2 |" in table


def test_without_a_folder_a_sweep_lies_below_the_runs(tmp_path: Path) -> None:
    assert train.main(["-m", *tiny(tmp_path, "trainer.epochs=1", "seed=3,4")]) == 0
    assert len(list((tmp_path / "runs/sweeps").glob("*/seed=*/checkpoints/best.pt"))) == 2


def test_a_run_that_fails_keeps_no_other_from_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(sweep(tmp_path, "trainer.batch_size=4,99,3")) == 1
    captured = capsys.readouterr()
    assert "trainer.batch_size=99 is larger than the training set" in captured.err
    assert captured.err.count("\n") == 1
    assert "2 of 3 runs ended well" in captured.out
    assert folders(tmp_path / "sweep") == ["trainer.batch_size=3", "trainer.batch_size=4"]


def test_ctrl_c_ends_the_whole_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = Trainer.step

    def interrupted(self: Trainer, cases: list[str]) -> float:
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, cases)

    monkeypatch.setattr(Trainer, "step", interrupted)
    assert train.main(sweep(tmp_path, "seed=0,1")) == 130
    output = capsys.readouterr().out
    assert f"resume={tmp_path}/sweep/seed=0" in output
    assert "0 of 1 runs ended well" in output
    assert folders(tmp_path / "sweep") == ["seed=0"]


def test_values_with_slashes_make_names_without(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    values = f"paths.runs={tmp_path}/a,{tmp_path}/b"
    kept = [o for o in sweep(tmp_path, "overfit=4") if not o.startswith("paths.runs")]
    assert train.main([*kept, values]) == 0
    names = folders(tmp_path / "sweep")
    assert len(names) == 2
    assert all((tmp_path / "sweep" / name / "checkpoints/best.pt").is_file() for name in names)


def test_a_key_that_is_fixed_and_varied_is_varied(tmp_path: Path) -> None:
    assert train.main(sweep(tmp_path, "seed=7", "seed=1,2", "overfit=4")) == 0
    assert folders(tmp_path / "sweep") == ["seed=1", "seed=2"]


def test_a_sweep_goes_on_where_it_was_interrupted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(sweep(tmp_path, "seed=0,1")) == 0
    assert train.main(sweep(tmp_path, "seed=0,1,2", "resume=auto")) == 0
    output = capsys.readouterr().out
    assert f"finished already: {tmp_path}/sweep/seed=1" in output
    assert "3 of 3 runs ended well" in output
    assert folders(tmp_path / "sweep") == ["seed=0", "seed=1", "seed=2"]


def test_a_sweep_of_nothing_is_refused(refused, tmp_path: Path) -> None:
    refused(train.main, sweep(tmp_path), "--multirun varies nothing", "seed=0,1")


def test_one_folder_for_all_runs_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*sweep(tmp_path, "seed=0,1"), f"run_dir={tmp_path}/one"]) == 1
    assert "run_dir would be the same for all runs" in capsys.readouterr().err


def test_a_key_that_one_of_the_networks_lacks_is_refused(refused, tmp_path: Path) -> None:
    given = [one for one in sweep(tmp_path) if not one.startswith("model")]
    refused(train.main, [*given, "model=unet,medt", "model.depths=[1,1]"], "no key model.depths")


@pytest.mark.slow
def test_joblib_trains_several_runs_at_once_and_one_that_fails_is_told(tmp_path: Path) -> None:
    """The launcher of another package, in processes of its own."""
    tiny_dataset()
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    given = sweep(tmp_path, *launcher, "check=false", QUICK, "trainer.batch_size=2,3,100")
    command = [sys.executable, train.__file__, *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    for size in (2, 3):
        assert RunFolder(tmp_path / f"sweep/trainer.batch_size={size}").best.is_file()
    assert "trainer.batch_size=100 is larger than the training set" in done.stderr
    assert "the run trainer.batch_size=100 failed" in done.stderr
