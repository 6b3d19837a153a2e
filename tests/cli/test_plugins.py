"""Hydra's plug-ins: runs handed to submitit, hyperparameters searched for by Optuna, all folds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import compare
import pytest
import train
import yaml
from conftest import QUICK, tiny, tiny_dataset
from hydra.errors import MissingConfigException

from medt.cli.error_lines import error_line
from medt.io.runs_below import validation_score
from medt.training.run_folder import RunFolder

SEARCH = ["hydra/sweeper=optuna", "optimizer.lr=interval(1e-4,1e-2)", "hydra.sweeper.n_jobs=1"]


def sweep(folder: Path, *more: str) -> list[str]:
    where = f"hydra.sweep.dir={folder}/sweep"
    return ["-m", *tiny(folder, where, "trainer.epochs=1", "check=false", *more)]


def runs(folder: Path) -> list[Path]:
    return sorted(path.parent for path in (folder / "sweep").glob("*/metrics.json"))


@pytest.fixture
def optuna() -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")


@pytest.fixture
def submitit() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")


class TestOptuna:
    @pytest.mark.parametrize("use", ["last", "best"])
    def test_the_validation_score_of_the_weights_for_use_is_what_it_looks_for(
        self, optuna: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], use: str
    ) -> None:
        tiny_dataset()
        capsys.readouterr()
        given = [*SEARCH, "hydra.sweeper.n_trials=2", f"trainer.use={use}"]
        assert train.main(sweep(tmp_path, *given)) == 0
        said = capsys.readouterr()
        assert "2 of 2 runs ended well" in said.out
        assert f"python scripts/compare.py {tmp_path}/sweep" in said.out
        assert said.err == ""
        found = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
        scores = [json.loads((run / "metrics.json").read_text())[use] for run in runs(tmp_path)]
        assert found["best_value"] == pytest.approx(max(one["val_dice"] for one in scores))
        assert compare.main([f"{tmp_path}/sweep", f"output={tmp_path}/table"]) == 0

    def test_a_study_goes_on_to_the_number_of_trials(
        self, optuna: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        given = [*SEARCH, "hydra.sweeper.sampler.seed=1"]
        assert train.main(sweep(tmp_path, *given, "hydra.sweeper.n_trials=1")) == 0
        assert len(runs(tmp_path)) == 1
        given[-1] = "hydra.sweeper.sampler.seed=2"
        assert train.main(sweep(tmp_path, *given, "hydra.sweeper.n_trials=3")) == 0
        assert len(runs(tmp_path)) == 3
        capsys.readouterr()
        assert train.main(sweep(tmp_path, *given, "hydra.sweeper.n_trials=3")) == 0
        assert "run 1:" not in capsys.readouterr().out

    def test_a_loss_is_made_small(self, optuna: None, tmp_path: Path) -> None:
        given = [*SEARCH, "trainer.monitor=loss", "hydra.sweeper.n_trials=2"]
        assert train.main(sweep(tmp_path, *given)) == 0
        found = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
        scores = [validation_score(run) for run in runs(tmp_path)]
        assert found["best_value"] == pytest.approx(min(filter(None, scores)))

    def test_a_trial_that_fails_does_not_end_the_study(
        self, optuna: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Of the batch sizes 3 and 99 only the first can be trained with."""
        drawn = ["hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.n_jobs=1"]
        drawn.append("hydra.sweeper.sampler.seed=0")
        given = [*drawn, "trainer.batch_size=choice(99,3)", "hydra.sweeper.n_trials=2"]
        assert train.main(sweep(tmp_path, *given)) == 1
        said = capsys.readouterr()
        assert "trainer.batch_size=99 is larger" in said.err
        assert "1 of 2 runs ended well" in said.out
        found = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
        assert found["best_params"] == {"trainer.batch_size": 3}

    def test_where_no_trial_ends_well_one_line_says_so(
        self, optuna: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        given = [*SEARCH, "trainer.batch_size=99", "hydra.sweeper.n_trials=1"]
        assert train.main(sweep(tmp_path, *given)) == 1
        assert "no run of this sweep ended well" in capsys.readouterr().err

    @pytest.mark.slow
    def test_the_mean_over_all_folds_is_the_score_of_a_trial(
        self, optuna: None, tmp_path: Path
    ) -> None:
        folds = ["dataset.folds=2", "dataset.fold=all", "trainer.batch_size=2"]
        assert train.main(sweep(tmp_path, *SEARCH, *folds, "hydra.sweeper.n_trials=1")) == 0
        found = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
        files = sorted((tmp_path / "sweep").glob("*/fold=*/metrics.json"))
        scores = [json.loads(file.read_text())["last"]["val_dice"] for file in files]
        assert len(scores) == 2
        assert found["best_value"] == pytest.approx(sum(scores) / 2)


class TestSubmitit:
    def test_runs_go_to_its_local_executor(
        self, submitit: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tiny_dataset()
        given = sweep(tmp_path, "hydra/launcher=submitit_local", "seed=0,1", QUICK)
        done = subprocess.run(
            [sys.executable, train.__file__, *given], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert [run.name for run in runs(tmp_path)] == ["seed=0", "seed=1"]
        assert "2 runs ended well" in done.stdout
        assert f"python scripts/compare.py {tmp_path}/sweep" in done.stdout
        assert compare.main([f"{tmp_path}/sweep", f"output={tmp_path}/table"]) == 0

    @pytest.mark.slow
    def test_a_run_that_fails_is_told(self, submitit: None, tmp_path: Path) -> None:
        tiny_dataset()
        values = "trainer.batch_size=3,99"
        given = sweep(tmp_path, "hydra/launcher=submitit_local", values, QUICK)
        done = subprocess.run(
            [sys.executable, train.__file__, *given], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "the run trainer.batch_size=99 failed" in done.stderr
        assert [run.name for run in runs(tmp_path)] == ["trainer.batch_size=3"]


@pytest.mark.parametrize("option", ["launcher=submitit_slurm", "sweeper=optuna"])
def test_a_plugin_that_is_not_installed_is_said_how_to_get(option: str) -> None:
    kind, name = option.split("=")
    said = f"Could not find 'hydra/{kind}/{name}'\n\nAvailable options in 'hydra/{kind}':\n\tbasic"
    line = error_line(MissingConfigException(said), "train", [f"hydra/{option}"], composing=True)
    assert line.startswith(f"hydra/{option} needs a package more (pip install 'medt[")


class TestFolds:
    def test_all_are_trained_each_in_its_folder(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folds = ["dataset.folds=2", "dataset.fold=all", "trainer.batch_size=2"]
        given = tiny(tmp_path, f"run_dir={tmp_path}/all", "trainer.epochs=1", *folds)
        assert train.main(given) == 0
        found = [RunFolder(tmp_path / "all" / f"fold={k}").read_config() for k in range(2)]
        assert [config["dataset"]["fold"] for config in found] == [0, 1]
        assert compare.main([f"{tmp_path}/all", f"output={tmp_path}/table"]) == 0
        capsys.readouterr()
        assert train.main([*given, "resume=auto"]) == 0
        assert capsys.readouterr().out.count("finished already") == 2

    def test_without_their_number_they_are_refused(self, refused, tmp_path: Path) -> None:
        given = tiny(tmp_path, f"run_dir={tmp_path}/all", "dataset.fold=all")
        refused(train.main, given, "dataset.fold=all needs dataset.folds=N")
