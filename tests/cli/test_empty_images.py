"""A set in which most images show nothing to find: what is chosen, scored and ranked first.

Two networks stand against each other. The eager one finds both lesions and takes an artefact in
each empty image for one; the shy one finds one lesion of two and is silent on the empty images.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import compare
import evaluate
import numpy as np
import pytest
import torch
import train
import yaml
from torch import nn

from medt.checkpoint import Checkpoint
from medt.io.files import write_png
from medt.training import trainer
from medt.training.run_folder import RunFolder
from medt.training.validation import network_for_use

SIDE, EMPTY_IMAGES = 32, 4
EAGER, SHY = 0.3, 0.8  # how bright a pixel has to be to be taken for a lesion
NAME = "lesions-test-native"
BRIGHT, DIM, ARTEFACT = 250, 160, 100


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """Overrides of a dataset whose splits have a bright and a dim lesion, and empty images."""
    rows = []
    for split in ("train", "val", "test"):
        for i, grey in enumerate([BRIGHT, DIM] + EMPTY_IMAGES * [ARTEFACT]):
            name, image = f"{split}_{i}", np.full((SIDE, SIDE, 3), 10, np.uint8)
            image[8:16, 8 : 16 + 4 * (i > 1)] = grey
            mask = np.where(image[..., 0] > ARTEFACT, 1, 0).astype(np.uint8)
            write_png(tmp_path / "lesions/images" / f"{name}.png", image)
            write_png(tmp_path / "lesions/masks" / f"{name}.png", mask)
            rows.append(f"{name},{name},{split}")
    splits = tmp_path / "splits.csv"
    splits.write_text("\n".join(["case,group,split", *rows]) + "\n")
    return [
        "dataset=folder",
        f"dataset.images={tmp_path}/lesions/images",
        f"dataset.masks={tmp_path}/lesions/masks",
        "dataset.classes=[background,lesion]",
        f"dataset.splits_file={splits}",
        "dataset.normalize=unit",
    ]


def by_brightness(limit: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Logits that say lesion where an image, 0..1, is brighter than the limit."""

    def logits(x: torch.Tensor) -> torch.Tensor:
        grey = 50 * (x.mean(dim=1) - limit)
        return torch.stack([-grey, grey], dim=1)

    return logits


def trained(images: list[str], run: Path, limits: list[float], *more: str) -> dict[str, Any]:
    """Train so that each epoch's validated network is one of these; the run's metrics."""
    epochs = iter(limits)

    def scripted(*arguments: Any) -> tuple[nn.Module, float]:
        network, seconds = network_for_use(*arguments)
        network.forward = by_brightness(next(epochs))
        return network, seconds

    settings = [f"trainer.epochs={len(limits)}", "trainer.device=cpu", "trainer.panels=2"]
    settings += ["model=gated_axial_unet", "model.depths=[1,1]", f"dataset.image_size={SIDE}"]
    settings += ["augmentation=none", "check=false", f"run_dir={run}", *more]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "network_for_use", scripted)
        assert train.main([*images, *settings]) == 0
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return found


@contextmanager
def scored_as(limit: float) -> Iterator[None]:
    """Let every checkpoint's network be one of these."""
    with pytest.MonkeyPatch.context() as patch:
        build = Checkpoint.build_model

        def scripted(checkpoint: Checkpoint) -> nn.Module:
            model = build(checkpoint)
            model.register_forward_hook(lambda _, given, out: by_brightness(limit)(given[0]))
            return model

        patch.setattr(Checkpoint, "build_model", scripted)
        yield


class TestTraining:
    @pytest.mark.parametrize(
        ("rule", "best", "dice"),
        [
            # Dice of the lesions: 1 and 1, or 1 and 0; of each empty image 0, or 1 if it counts.
            ("skip", 1, [1.0, 1 / 2]),
            ("one", 2, [2 / 6, 5 / 6]),
            ("alarms", 2, [2 / 6, 1 / 2]),
        ],
    )
    def test_the_best_epoch_is_the_one_that_finds_the_lesions(
        self,
        images: list[str],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        rule: str,
        best: int,
        dice: list[float],
    ) -> None:
        more = [] if rule == "skip" else [f"trainer.empty={rule}"]
        metrics = trained(images, tmp_path / "run", [EAGER, SHY], *more)
        assert metrics["best_epoch"] == best
        with (tmp_path / "run/history.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [float(row["val_dice"]) for row in rows] == pytest.approx(dice, abs=1e-5)
        assert [float(row["val_false_alarms"]) for row in rows] == [1, 0]
        printed = capsys.readouterr().out
        said = f"last dice {dice[-1]:.4f}, best {max(dice):.4f} in epoch {best}"
        assert f"{said} (trainer.empty={rule})" in printed
        assert "false alarms 100%" in printed

    def test_patience_waits_for_lesions(self, images: list[str], tmp_path: Path) -> None:
        epochs = [SHY, SHY, EAGER, EAGER, EAGER, EAGER]
        more = ["trainer.patience=2"]
        metrics = trained(images, tmp_path / "run", epochs, *more)
        assert (metrics["best_epoch"], metrics["epoch"]) == (3, 5)

    def test_without_foreground_in_validation_it_is_one_line(
        self, images: list[str], tmp_path: Path, refused: Callable[..., None]
    ) -> None:
        splits = Path(images[4].partition("=")[2])
        text = splits.read_text().replace("val_0,val_0,val\n", "").replace("val_1,val_1,val\n", "")
        splits.write_text(text)
        run = [*images, "check=false", f"dataset.image_size={SIDE}", f"run_dir={tmp_path}/run"]
        run += ["model=gated_axial_unet", "trainer.device=cpu"]
        for name in ("val_0", "val_1"):
            for folder in ("images", "masks"):
                (tmp_path / "lesions" / folder / f"{name}.png").unlink()
        refused(
            train.main, run, "no validation case shows a foreground class", "into the val split"
        )

    def test_an_unknown_rule_is_refused(
        self, images: list[str], refused: Callable[..., None]
    ) -> None:
        given = [*images, "check=false", "trainer.empty=nan"]
        refused(train.main, given, "trainer.empty=nan", "skip, alarms")


class TestEvaluation:
    @pytest.fixture
    def run(self, images: list[str], tmp_path: Path) -> Path:
        trained(images, tmp_path / "run", [EAGER])
        return tmp_path / "run"

    def test_the_screen_begins_with_what_was_found(
        self, run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        capsys.readouterr()
        with scored_as(SHY):
            assert evaluate.main([f"checkpoint={run}", "split=test"]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert (
            "foreground Dice 0.5000, mean over 2 cases with foreground (empty=skip) "
            "4 cases without foreground: false alarms in 0 (0.00 an image), 0.0 pixels an image "
            "objects of lesion: 1 found, 1 missed, 0 false at IoU 0.1; "
            "1 found, 1 missed, 0 false at IoU 0.5"
        ) in printed

    def test_the_rule_is_one_key(
        self, run: Path, capsys: pytest.CaptureFixture[str], refused: Callable[..., None]
    ) -> None:
        with scored_as(EAGER):
            assert evaluate.main([f"checkpoint={run}", "split=test", "empty=one"]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert "foreground Dice 0.3333, mean over 6 cases" in printed
        # Each artefact is 8 x 12 pixels.
        assert "false alarms in 4 (1.00 an image), 96.0 pixels an image" in printed
        refused(evaluate.main, [f"checkpoint={run}", "empty=two"], "empty=two", "skip, alarms, one")


class TestComparison:
    @pytest.fixture
    def runs(self, images: list[str], tmp_path: Path) -> list[Path]:
        """An eager run and a shy one, both chosen and scored as before there was a rule."""
        runs = [tmp_path / "eager", tmp_path / "shy"]
        for run, limit, rate in zip(runs, (EAGER, SHY), (1e-3, 2e-3), strict=True):
            more = [f"optimizer.lr={rate}", "trainer.empty=one"]
            trained(images, run, [limit], *more)
            with scored_as(limit):
                assert evaluate.main([f"checkpoint={run}", "split=test", "empty=one"]) == 0
        return runs

    def compared(self, tmp_path: Path, runs: list[Path]) -> dict[str, Any]:
        assert compare.main([*map(str, runs), f"output={tmp_path}/out"]) == 0
        return dict(json.loads((tmp_path / "out/comparison.json").read_text()))

    def test_lesions_decide_whatever_the_results_counted(
        self, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        recorded = [
            json.loads((run / "evaluation" / NAME / "metrics.json").read_text()) for run in runs
        ]
        before = [one["mean_over_cases"]["dice"]["foreground"] for one in recorded]
        assert before == pytest.approx([2 / 6, 5 / 6])  # the shy one is ahead by 0.5
        comparison = self.compared(tmp_path, runs)
        rows = {group["name"]: group for group in comparison["groups"]}
        after = [rows[f"optimizer.lr={rate}"]["evaluations"][NAME] for rate in ("0.001", "0.002")]
        assert [one["mean"] for one in after] == pytest.approx([1.0, 0.5])
        (pair,) = comparison["pairs"][NAME]
        assert pair["cases"] == 2
        assert pair["difference"] == pytest.approx(0.5)  # of the eager one to the shy one
        assert {n: row["false_alarms"][NAME] for n, row in rows.items()} == {
            "optimizer.lr=0.001": 1,
            "optimizer.lr=0.002": 0,
        }
        printed = capsys.readouterr().out
        assert (
            f"without foreground, {NAME}: optimizer.lr=0.002 0%, optimizer.lr=0.001 100%" in printed
        )

    def test_results_older_than_the_rule_are_read(self, runs: list[Path], tmp_path: Path) -> None:
        for run in runs:
            file = run / "evaluation" / NAME / "metrics.json"
            metrics = json.loads(file.read_text())
            for key in ("empty", "false_alarms", "lesions"):
                del metrics[key]
            file.write_text(json.dumps(metrics))
            config = yaml.safe_load((run / "config.yaml").read_text())
            del config["trainer"]["empty"]
            RunFolder(run).store_config(config)
        (pair,) = self.compared(tmp_path, runs)["pairs"][NAME]
        assert pair["difference"] == pytest.approx(0.5)
        (tmp_path / "eager/evaluation" / NAME / "per_case.csv").unlink()
        groups = self.compared(tmp_path, runs)["groups"]
        scores = {g["name"]: g["evaluations"][NAME]["mean"] for g in groups}
        assert scores["optimizer.lr=0.001"] == pytest.approx(2 / 6)

    def test_runs_chosen_by_different_rules_are_a_warning(
        self,
        images: list[str],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        for rule in ("skip", "one"):
            trained(images, tmp_path / rule, [SHY], f"trainer.empty={rule}")
        self.compared(tmp_path, [tmp_path / "skip", tmp_path / "one"])
        assert "warning: rows differ in trainer.empty" in capsys.readouterr().out
