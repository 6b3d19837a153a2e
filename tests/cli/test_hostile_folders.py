"""Run folders from anybody: nothing is written but in them, and no name forges a line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import evaluate
import export
import predict
import pytest
import torch
import train
from conftest import tiny_dataset
from test_hostile_runs import Refused, edit_checkpoint, edit_config

FORGED = "medt\n2030-01-01 00:00:00,000 INFO best dice 0.9999 in epoch 120"


@pytest.fixture
def unfinished(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a run that resume takes: its state says that it has not ended."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    last = run / "checkpoints/last.pt"
    content = torch.load(last, weights_only=True)
    content["training"] |= {"finished": False, "epoch": 1}
    del content["training"]["history"][1:]
    torch.save(content, last)
    return run


def resuming(run: Path) -> list[str]:
    return [f"resume={run}", "check=false"]


def replaced(path: Path, other: Path) -> None:
    """Let a link stand for a file or folder, which goes where the link leads."""
    if path.exists():
        path.rename(other)
    path.symlink_to(other)


class TestLinks:
    @pytest.mark.parametrize("name", ["train.log", "checkpoints", "tensorboard"])
    def test_lead_no_training_elsewhere(
        self, refused: Refused, unfinished: Path, tmp_path: Path, name: str
    ) -> None:
        replaced(unfinished / name, tmp_path / "elsewhere")
        refused(train.main, resuming(unfinished), f"{name} is a link", "MEDT_ALLOW_LINKS=1")

    @pytest.mark.parametrize("name", ["train.log", "tensorboard/events", "checkpoints/old"])
    def test_nor_where_they_lead_to_nothing_or_lie_deeper(
        self, refused: Refused, unfinished: Path, tmp_path: Path, name: str
    ) -> None:
        (unfinished / "train.log").unlink()
        (unfinished / name).symlink_to(tmp_path / "nothing")
        refused(train.main, resuming(unfinished), f"{name} is a link")

    def test_nor_within_the_run(self, refused: Refused, unfinished: Path) -> None:
        (unfinished / "train.log").unlink()
        (unfinished / "train.log").symlink_to("config.yaml")
        refused(train.main, resuming(unfinished), "train.log is a link")

    @pytest.mark.parametrize("kind", ["hard link", "pipe", "folder"])
    def test_nor_does_what_else_is_no_file_of_the_run(
        self, unfinished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
    ) -> None:
        log, other = unfinished / "train.log", tmp_path / "other"
        log.rename(other)
        {"hard link": lambda: os.link(other, log), "pipe": lambda: os.mkfifo(log)}.get(
            kind, log.mkdir
        )()
        before = other.read_bytes()
        capsys.readouterr()
        assert train.main(resuming(unfinished)) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert "train.log" in error
        assert "not foreseen" not in error
        assert other.read_bytes() == before

    @pytest.mark.parametrize("where", ["evaluation", "evaluation/synthetic-test-native"])
    def test_lead_no_evaluation_elsewhere(
        self, refused: Refused, unfinished: Path, tmp_path: Path, where: str
    ) -> None:
        tiny_dataset()
        (tmp_path / "elsewhere").mkdir()
        (unfinished / where).parent.mkdir(exist_ok=True)
        (unfinished / where).symlink_to(tmp_path / "elsewhere")
        refused(evaluate.main, [f"checkpoint={unfinished}", "split=test"], f"{where} is a link")

    def test_lead_no_export_elsewhere(
        self, refused: Refused, unfinished: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "elsewhere").mkdir()
        (unfinished / "export").symlink_to(tmp_path / "elsewhere")
        given = [f"checkpoint={unfinished}", "format=safetensors"]
        refused(export.main, given, "export is a link")

    def test_lead_no_summary_elsewhere(
        self, unfinished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        output, other = tmp_path / "masks", tmp_path / "other"
        given = [f"checkpoint={unfinished}", f"input={tiny_dataset()[0]}", f"output={output}"]
        assert predict.main(given) == 0
        replaced(output / "summary.csv", other)
        next(output.rglob("*.png")).unlink()
        before = other.read_bytes()
        assert predict.main(given) == 1
        assert "summary.csv is a link" in capsys.readouterr().err
        assert other.read_bytes() == before

    def test_of_the_user_are_followed_if_they_say_so(
        self, unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replaced(unfinished / "train.log", tmp_path / "log")
        replaced(unfinished / "checkpoints", tmp_path / "checkpoints")
        monkeypatch.setenv("MEDT_ALLOW_LINKS", "1")
        before = (tmp_path / "log").stat().st_size
        assert train.main(resuming(unfinished)) == 0
        assert (tmp_path / "log").stat().st_size > before


class TestNames:
    @pytest.mark.parametrize("group", ["model", "dataset"])
    @pytest.mark.parametrize("name", [FORGED, "x" * 5000, "", "\x1b[2J", None])
    def test_of_a_stored_config_are_names(
        self, refused: Refused, unfinished: Path, group: str, name: Any
    ) -> None:
        edit_config(unfinished, lambda config: config[group].update(name=name))
        refused(train.main, resuming(unfinished), "config.yaml", f"{group}.name")

    def test_of_a_dataset_name_no_folder_above(self, refused: Refused, unfinished: Path) -> None:
        edit_config(unfinished, lambda config: config["dataset"].update(name="../../x"))
        refused(train.main, resuming(unfinished), "config.yaml", "dataset.name")

    def test_in_a_log_begin_no_line(
        self, unfinished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = unfinished.rename(tmp_path / FORGED.replace("/", ""))
        capsys.readouterr()
        assert train.main([f"resume='{run}'", "check=false"]) == 0
        lines = (run / "train.log").read_text().splitlines()
        lines += capsys.readouterr().out.splitlines()
        assert any("2030-01-01" in line for line in lines)
        assert not any(line.startswith("2030-01-01") for line in lines)

    def test_in_an_error_begin_no_line_of_the_log(
        self, unfinished: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(self: Any) -> None:
            raise ValueError(FORGED)

        monkeypatch.setattr("medt.training.trainer.Trainer.fit", fail)
        assert train.main(resuming(unfinished)) == 1
        lines = (unfinished / "train.log").read_text().splitlines()
        assert any("2030-01-01" in line for line in lines)
        assert not any(line.startswith("2030-01-01") for line in lines)


class TestTheNetworkOfARun:
    @pytest.mark.parametrize(
        "changes", [{"width_factor": 64.0}, {"depths": [2, 2]}, {"heads": 4}, {"depths": [900] * 2}]
    )
    def test_is_the_one_of_its_checkpoint(
        self,
        refused: Refused,
        unfinished: Path,
        monkeypatch: pytest.MonkeyPatch,
        changes: dict[str, Any],
    ) -> None:
        built: list[Any] = []
        monkeypatch.setattr("medt.checkpoint.build", lambda spec, *more: built.append(spec))
        edit_config(unfinished, lambda config: config["model"].update(changes))
        refused(train.main, resuming(unfinished), "config.yaml", "last.pt", "another network")
        assert not built

    def test_is_no_larger_than_the_weights_of_it(self, refused: Refused, unfinished: Path) -> None:
        """Where both files say the same."""
        edit_config(unfinished, lambda config: config["model"].update(depths=[900, 900]))
        edit_checkpoint(
            unfinished / "checkpoints/last.pt",
            lambda content: content["model"].update(depths=[900, 900]),
        )
        refused(train.main, resuming(unfinished), "last.pt", "more layers")
