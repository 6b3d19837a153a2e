"""Resuming with other settings, more epochs, and a folder that another process trains into."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import train
from conftest import timeless, tiny, tiny_dataset

from medt.checkpoint import load_checkpoint
from medt.cli import resume_rules
from medt.errors import UserError
from medt.training.run_folder import RunFolder
from medt.training.save_schedule import SaveSchedule
from medt.training.trainer import Trainer

ALL = [
    *("trainer.gate_epoch=1", "trainer.ema=0.9", "trainer.batch_size=1", "trainer.accumulate=2"),
    *("dataset.workers=2", "scheduler=cosine", "augmentation=histology", "trainer.epochs=4"),
]


def stop_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Ask the run to stop after its optimizer step of this number."""
    step = Trainer.step

    def stopping(self: Trainer, cases: list[str]) -> float:
        norm = step(self, cases)
        if self.state.step == steps:
            self.stop.signal = 2
        return norm

    patch.setattr(Trainer, "step", stopping)


def test_interrupted_again_and_again_it_ends_the_same_to_the_bit(tmp_path: Path) -> None:
    """Workers, augmentation, averaged weights, accumulation and a schedule are all on."""
    given = [one for one in tiny(tmp_path) if one != "augmentation=flip"]
    assert train.main([*given, *ALL, f"run_dir={tmp_path}/whole"]) == 0
    run = tmp_path / "run"
    arguments = [*given, *ALL, f"run_dir={run}"]
    for steps in (1, 2, 4, 6, 7, 11):
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, steps)
            assert train.main(arguments) == 130
        arguments = [f"resume={run}"]
    assert train.main(arguments) == 0
    whole, parts = (
        load_checkpoint(root / "checkpoints/last.pt") for root in (tmp_path / "whole", run)
    )
    assert whole.training is not None
    assert parts.training is not None
    for name in ("model", "average"):
        for key, value in whole.training[name].items():
            assert torch.equal(parts.training[name][key], value), key
    states = (one.training["optimizer"]["state"] for one in (whole, parts) if one.training)
    for mine, other in zip(*(state.values() for state in states), strict=True):
        assert all(torch.equal(mine[key], other[key]) for key in mine)
    assert timeless(run) == timeless(tmp_path / "whole")
    best = [load_checkpoint(root).weights for root in (tmp_path / "whole", run)]
    assert all(torch.equal(best[0][key], best[1][key]) for key in best[0])


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run of four epochs that was stopped in its first one."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 1)
        given = tiny(tmp_path, f"run_dir={tmp_path}/run", "trainer.epochs=4", "scheduler=cosine")
        assert train.main(given) == 130
    return tmp_path / "run"


class TestChanges:
    def test_are_refused_with_what_differs(
        self, stopped: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        changes = ["trainer.epochs=6", "optimizer.lr=0.5", "scheduler=constant"]
        assert train.main([f"resume={stopped}", *changes]) == 1
        error = capsys.readouterr().err
        assert "trainer.epochs 4 -> 6; optimizer.lr 0.002 -> 0.5; scheduler._target_ " in error
        assert "resume_force=true" in error
        assert RunFolder(stopped).read_config()["trainer"]["epochs"] == 4

    def test_a_run_older_than_the_rule_for_empty_images_keeps_its_own(self, stopped: Path) -> None:
        config = RunFolder(stopped).read_config()
        assert config["trainer"].pop("empty") == "skip"
        RunFolder(stopped).store_config(config)
        assert train.main([f"resume={stopped}"]) == 0
        assert RunFolder(stopped).read_config()["trainer"]["empty"] == "one"

    def test_that_change_nothing_are_none(self, stopped: Path) -> None:
        assert train.main([f"resume={stopped}", "trainer.epochs=4", "seed=0"]) == 0

    def test_go_on_by_force_and_say_what_the_learning_rate_does(
        self, stopped: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        force = ["trainer.epochs=6", "resume_force=true"]
        assert train.main([f"resume={stopped}", *force]) == 0
        printed = capsys.readouterr().out
        assert (
            "the schedule now spans 12 steps instead of 8: the learning rate goes on at" in printed
        )
        assert len(timeless(stopped)) == 6
        assert RunFolder(stopped).read_config()["trainer"]["epochs"] == 6
        assert load_checkpoint(stopped / "checkpoints/last.pt").config["trainer"]["epochs"] == 6

    def test_let_a_run_that_has_ended_train_on(
        self, stopped: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert train.main([f"resume={stopped}"]) == 0
        assert train.main([f"resume={stopped}"]) == 1
        assert "trainer.epochs=N resume_force=true" in capsys.readouterr().err
        assert train.main([f"resume={stopped}", "trainer.epochs=5", "resume_force=true"]) == 0
        assert len(timeless(stopped)) == 5

    @pytest.mark.many_parameters
    @pytest.mark.parametrize(
        "change",
        [
            *("model=axial_unet", "model.heads=4", "dataset.image_size=64", "dataset.folds=2"),
            *("seed=5", "overfit=2", "trainer.monitor=loss", "trainer.ema=0.9"),
            *("dataset.sampling=crop", "dataset.normalize=unit", "dataset.train=7"),
        ],
    )
    def test_to_another_training_are_refused_by_force_too(
        self, stopped: Path, capsys: pytest.CaptureFixture[str], change: str
    ) -> None:
        before = (stopped / "checkpoints/last.pt").read_bytes()
        assert train.main([f"resume={stopped}", change, "resume_force=true"]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "a resumed run keeps its settings" in error
        assert change.partition("=")[0] in error
        assert "model.weights=FILE" in error
        assert (stopped / "checkpoints/last.pt").read_bytes() == before

    @pytest.mark.parametrize(
        ("done", "epochs", "least"), [(False, 0, None), (True, 3, 5), (True, 4, 5), (True, 0, None)]
    )
    def test_to_fewer_epochs_than_are_done_are_refused(
        self,
        stopped: Path,
        capsys: pytest.CaptureFixture[str],
        done: bool,
        epochs: int,
        least: int | None,
    ) -> None:
        if done:
            assert train.main([f"resume={stopped}"]) == 0
        capsys.readouterr()
        force = [f"trainer.epochs={epochs}", "resume_force=true"]
        assert train.main([f"resume={stopped}", *force]) == 1
        error = capsys.readouterr().err
        if least:
            assert f"trainer.epochs={epochs}, but the run stands after epoch 4" in error
            assert f"give at least {least}" in error
        assert error.count("\n") == 1

    def test_to_the_running_epoch_end_with_it(
        self, stopped: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert train.main([f"resume={stopped}", "trainer.epochs=1", "resume_force=true"]) == 0
        assert len(timeless(stopped)) == 1
        assert "epoch 1/1" in capsys.readouterr().out

    @pytest.mark.parametrize("change", ["trainer.batch_size=2", "trainer.accumulate=2"])
    def test_of_the_step_wait_for_the_end_of_the_epoch(
        self, stopped: Path, capsys: pytest.CaptureFixture[str], change: str
    ) -> None:
        assert train.main([f"resume={stopped}", change, "resume_force=true"]) == 1
        assert "cannot change in the middle of epoch 1" in capsys.readouterr().err
        assert train.main([f"resume={stopped}"]) == 0
        more = [change, "trainer.epochs=5", "resume_force=true"]
        assert train.main([f"resume={stopped}", *more]) == 0
        assert len(timeless(stopped)) == 5

    def test_of_the_optimizer_are_taken_over(self, stopped: Path) -> None:
        force = "resume_force=true"
        changes = ["optimizer.weight_decay=0.25", "optimizer.betas=[0.8,0.9]"]
        assert train.main([f"resume={stopped}", *changes, force]) == 0
        training = load_checkpoint(stopped / "checkpoints/last.pt").training
        assert training is not None
        (group,) = training["optimizer"]["param_groups"]
        assert (group["weight_decay"], list(group["betas"])) == (0.25, [0.8, 0.9])

    def test_to_another_optimizer_start_its_state_afresh(self, stopped: Path) -> None:
        assert train.main([f"resume={stopped}", "optimizer=sgd", "resume_force=true"]) == 0


class TestLock:
    def test_a_run_that_is_being_trained_is_left_alone(
        self, stopped: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = (stopped / "checkpoints/last.pt").read_bytes()
        with RunFolder(stopped).locked():
            assert train.main([f"resume={stopped}"]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {stopped} is being written by train.py (process ")
        assert error.endswith("(wait for its end, or give another run_dir=...)\n")
        assert (stopped / "checkpoints/last.pt").read_bytes() == before

    def test_two_runs_into_one_folder_are_one_too_many(
        self, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert train.main(tiny(tmp_path, f"run_dir={stopped}", "seed=5")) == 1
        assert f"the run folder {stopped} is not empty" in capsys.readouterr().err


def test_what_never_came_to_be_saved_is_begun_again(tmp_path: Path) -> None:
    given = tiny(tmp_path, f"run_dir={tmp_path}/run", "resume=auto")
    tiny_dataset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "fit", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        assert train.main(given) == 130
    assert not (tmp_path / "run/checkpoints/last.pt").exists()
    assert train.main([*given, "seed=3"]) == 1  # another run's beginning is not touched
    assert train.main(given) == 0


class TestCheckpointEvery:
    @pytest.mark.parametrize(
        ("text", "epochs", "minutes"),
        [(2, 2, None), ("3 epochs", 3, None), ("1 epoch", 1, None), ("0.5 min", None, 0.5)],
    )
    def test_is_epochs_or_minutes(
        self, text: object, epochs: int | None, minutes: float | None
    ) -> None:
        schedule = SaveSchedule.parse(text)
        assert (schedule.epochs, schedule.minutes) == (epochs, minutes)

    @pytest.mark.parametrize("text", ["0", "-1 min", "1.5 epochs", "often", "", None, "5 h"])
    def test_is_nothing_else(self, text: object) -> None:
        with pytest.raises(UserError, match=r"trainer\.checkpoint_every="):
            SaveSchedule.parse(text)

    def test_in_epochs_saves_between_validations(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        saved: list[int] = []
        save = Trainer.save_progress

        def noted(self: Trainer) -> None:
            saved.append(self.state.epoch)
            save(self)

        monkeypatch.setattr(Trainer, "save_progress", noted)
        more = ["trainer.epochs=7", "trainer.validate_every=7", "trainer.checkpoint_every=2"]
        assert train.main(tiny(tmp_path, f"run_dir={tmp_path}/run", *more)) == 0
        assert saved == [2, 4, 6]

    def test_in_minutes_saves_in_the_middle_of_an_epoch(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        saved: list[tuple[int, bool]] = []
        save = Trainer.save_progress

        def noted(self: Trainer) -> None:
            saved.append((self.state.step, self.state.sums is not None))
            save(self)

        monkeypatch.setattr(Trainer, "save_progress", noted)
        every = "trainer.checkpoint_every=0.00001 min"
        more = ["trainer.batch_size=2", every, "trainer.epochs=1"]
        assert train.main(tiny(tmp_path, f"run_dir={tmp_path}/run", *more)) == 0
        assert saved == [(1, True), (2, True)]


class TestRules:
    def test_every_setting_of_a_training_has_one(self, tiny_run: Path) -> None:
        config = RunFolder(tiny_run).read_config()
        keys = [
            f"{group}.{key}" if isinstance(values, dict) else group
            for group, values in config.items()
            for key in (values if isinstance(values, dict) else [group])
        ]
        changes = {key: resume_rules.rule_of(key).change for key in keys}
        assert set(changes.values()) == {"free", "resume_force=true", "never"}
        assert changes["trainer.epochs"] == changes["loss._target_"] == "resume_force=true"
        assert changes["trainer.device"] == changes["dataset.root"] == "free"
        assert changes["dataset.size"] == changes["trainer.ema"] == changes["seed"] == "never"

    def test_stand_on_the_page(self) -> None:
        page = (Path(__file__).parents[2] / "docs/train.md").read_text(encoding="utf-8")
        for rule in resume_rules.RULES:
            keys = ", ".join(f"`{key}`" for key in rule.keys)
            assert f"| {keys} | {rule.change} | {rule.follows} |" in page
