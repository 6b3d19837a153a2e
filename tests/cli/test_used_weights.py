"""Which weights a run's folder stands for, from training to every command that takes a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import compare
import evaluate
import export
import predict
import pytest
import train
from conftest import TINY, tiny

import medt
from medt.checkpoint import load_checkpoint
from medt.io.runs_below import validation_score
from medt.training.trainer import Trainer

LAST, BEST = "those at the end of its schedule", "those of its best validation"


def stopped(given: list[str], epoch: int) -> None:
    """Train, and be asked to stop when so many epochs are done."""
    save = Trainer.save

    def stopping(self: Trainer, *arguments: Any) -> None:
        save(self, *arguments)
        if self.state.epoch == epoch:
            self.stop.signal = 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "save", stopping)
        assert train.main(given) == 130


def metrics(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return found


def stands_for(run: Path, name: str, epochs: int) -> str:
    """Assert it of whatever reads a run; returns what a command says first."""
    assert metrics(run)["use"] == name
    checkpoint = load_checkpoint(run)
    assert checkpoint.file == str(run / f"checkpoints/{name}.pt")
    assert checkpoint.epoch == epochs
    assert validation_score(run) == metrics(run)[name]["val_dice"]
    why = LAST if name == "last" else BEST
    plural = "s" * (epochs != 1)
    said = f"weights {run}/checkpoints/{name}.pt, after {epochs} epoch{plural}: {why}"
    assert checkpoint.describe() == said
    return said


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished tiny run, to be written into."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    return run


def test_of_a_finished_run_the_last_are_named_first_by_every_command(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = stands_for(run, "last", 2)
    capsys.readouterr()
    assert evaluate.main([f"checkpoint={run}", "split=test", "panels=0"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == said
    image = TINY / "images/test_1.png"
    given = [f"checkpoint={run}", f"input={image}", f"output={tmp_path}/out"]
    assert predict.main(given) == 0
    assert capsys.readouterr().out.splitlines()[0] == said
    assert export.main([f"checkpoint={run}", "format=safetensors"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"exporting {said}, as safetensors"
    assert (run / "export/last.safetensors").is_file()


def test_a_file_is_named_without_a_reason(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = run / "checkpoints/best.pt"
    assert evaluate.main([f"checkpoint=[{run},{best}]", "split=test", "panels=0"]) == 0
    epoch = metrics(run)["best_epoch"]
    assert capsys.readouterr().out.splitlines()[:2] == [
        stands_for(run, "last", 2),
        f"weights {best}, after {epoch} epoch{'s' * (epoch != 1)}",
    ]


def test_training_says_which_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for use, why in (("last", LAST), ("best", BEST)):
        run = tmp_path / use
        more = [] if use == "last" else ["trainer.use=best"]
        assert train.main(tiny(tmp_path, f"run_dir={run}", *more)) == 0
        found = metrics(run)
        rows = [found[name]["val_dice"] for name in ("last", "best")]
        printed = capsys.readouterr().out
        epoch = found["best_epoch"]
        assert f"last dice {rows[0]:.4f}, best {rows[1]:.4f} in epoch {epoch} (" in printed
        assert f"checkpoint   {run}/checkpoints/{use}.pt: {why}\n" in printed
        stands_for(run, use, 2 if use == "last" else epoch)


def test_a_run_stands_for_its_best_until_the_end_of_its_schedule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    stopped(tiny(tmp_path, f"run_dir={run}", "trainer.epochs=3"), 2)
    stands_for(run, "best", metrics(run)["best_epoch"])
    assert train.main([f"resume={run}"]) == 0
    stands_for(run, "last", 3)
    stopped([f"resume={run}", "trainer.epochs=5", "resume_force=true"], 4)
    said = stands_for(run, "best", metrics(run)["best_epoch"])
    capsys.readouterr()
    assert evaluate.main([f"checkpoint={run}", "split=test", "panels=0"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == said


def test_a_run_that_lost_patience_stands_for_its_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    more = ["trainer.epochs=6", "trainer.patience=1", "optimizer.lr=0"]
    assert train.main(tiny(tmp_path, f"run_dir={run}", *more)) == 0
    assert metrics(run)["finished"]
    assert metrics(run)["epoch"] < 6
    stands_for(run, "best", metrics(run)["best_epoch"])
    assert f"checkpoint   {run}/checkpoints/best.pt: {BEST}\n" in capsys.readouterr().out


@pytest.mark.parametrize("use", [None, ["last"], {"last": 1}, 7, "worst"])
def test_where_the_file_says_something_else_the_best_are_taken(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], use: Any
) -> None:
    (run / "metrics.json").write_text(json.dumps(metrics(run) | {"use": use}))
    assert evaluate.main([f"checkpoint={run}", "split=test", "panels=0"]) == 0
    assert f"{run}/checkpoints/best.pt, after" in capsys.readouterr().out.splitlines()[0]
    assert compare.main([str(run), f"output={tmp_path}/out"]) == 0
    found = json.loads((tmp_path / "out/comparison.json").read_text())
    assert found["groups"][0]["val_dice"]["mean"] == metrics(run)["best"]["val_dice"]
    assert not any("Left out" in note for note in found["notes"])


def test_that_are_gone_are_one_line(run: Path, tmp_path: Path, refused: Any) -> None:
    (run / "checkpoints/last.pt").unlink()
    given = [f"checkpoint={run}", f"output={tmp_path}/out"]
    best = f"give checkpoint={run}/checkpoints/best.pt"
    refused(evaluate.main, given, f"{run} is a folder without checkpoints/last.pt", best)


def test_python_takes_the_same(run: Path, tmp_path: Path) -> None:
    image = TINY / "images/test_1.png"
    expected = medt.load(run / "checkpoints/last.pt").maps(image).probabilities
    assert (medt.load(run).maps(image).probabilities == expected).all()


@pytest.mark.parametrize("value", ["worst", "null", "[last]"])
def test_another_choice_is_refused(tmp_path: Path, refused: Any, value: str) -> None:
    refused(train.main, tiny(tmp_path, f"trainer.use={value}"), "trainer.use")
