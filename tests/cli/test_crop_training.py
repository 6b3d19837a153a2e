"""dataset.sampling=crop from training to prediction: parts of images at their own resolution."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import evaluate
import numpy as np
import predict
import pytest
import torch
import train
from conftest import tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_resume import stop_after, timeless

from medt.checkpoint import load_checkpoint
from medt.inference.predictor import Predictor
from medt.io.files import write_png
from medt.io.images import read_image, read_mask

CROPS = (
    *("dataset.sampling=crop", "dataset.crops_per_case=2", "augmentation=histology"),
    *("trainer.batch_size=4", "trainer.epochs=3"),
)


def crop_run(folder: Path, *more: str) -> list[str]:
    kept = [o for o in tiny(folder) if not o.startswith(("augmentation", "trainer.epochs"))]
    return [*kept, f"run_dir={folder}/run", *CROPS, *more]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network trained on crops of 32 x 32 of images of 64 x 64."""
    folder = tmp_path_factory.mktemp("crops")
    assert train.main(crop_run(folder)) == 0
    return folder / "run"


def test_an_epoch_takes_so_many_crops_of_each_case(run: Path) -> None:
    log = (run / "train.log").read_text()
    assert "6 training (12 crops an epoch) and 2 validation cases, 3 steps an epoch" in log


def test_the_checkpoint_records_the_sampling(run: Path) -> None:
    preprocessing = load_checkpoint(run / "checkpoints/best.pt").preprocessing
    assert preprocessing["sampling"] == "crop"
    assert preprocessing["image_size"] == [32, 32]


def test_validation_is_native_and_is_what_evaluate_says(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([f"checkpoint={run}", "split=val", "details=true"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "averaged logits of overlapping windows" in printed
    folder = run / "evaluation/synthetic-val-native"
    rows = list(csv.DictReader((folder / "per_case.csv").open()))
    assert {(row["height"], row["width"]) for row in rows} == {("64", "64")}
    scored = json.loads((folder / "metrics.json").read_text())["mean_over_cases"]["dice"]
    logged = json.loads((run / "metrics.json").read_text())["best"]["val_dice"]
    assert scored["foreground"] == pytest.approx(logged, abs=1e-9)


@pytest.mark.parametrize("protocol", ["paper", "paper_official"])
def test_the_papers_protocols_need_a_network_of_resized_images(
    run: Path, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    assert evaluate.main([f"checkpoint={run}", "split=val", f"protocol={protocol}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: protocol={protocol} scores at the network's size")
    assert error.count("\n") == 1


def test_images_of_any_size_are_predicted_at_their_own(run: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for height, width in ((64, 64), (97, 50), (20, 70), (1, 1)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        write_png(tmp_path / "in" / f"{height}.png", image)
    inputs = [f"checkpoint={run}", f"input={tmp_path}/in", f"output={tmp_path}/out"]
    assert predict.main([*inputs, "overlays=true"]) == 0
    predictor = Predictor.load(run / "checkpoints/best.pt")
    for path in (tmp_path / "in").iterdir():
        mask = read_mask(tmp_path / "out" / path.name)
        assert mask.shape == read_image(path).shape[:2]
        np.testing.assert_array_equal(mask, predictor.predict(path) * 255)
        assert read_image(tmp_path / "out/overlays" / path.name).shape == read_image(path).shape


def test_panels_show_whole_images(run: Path) -> None:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    panels = events.Images("panels/val")
    assert [event.step for event in panels] == [1, 2, 3]
    assert (panels[0].width, panels[0].height > 500) == (3 * 256 + 2 * 6, True)


@pytest.mark.parametrize(("steps", "workers"), [(1, 0), (5, 2)])
def test_a_run_on_crops_resumes_to_the_bit(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, workers: int
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        assert train.main(crop_run(tmp_path, f"dataset.workers={workers}")) == 130
    assert train.main([f"resume={tmp_path}/run", "dataset.timeout=60"]) == 0
    expected = load_checkpoint(run / "checkpoints/last.pt")
    resumed = load_checkpoint(tmp_path / "run/checkpoints/last.pt")
    for name, value in expected.weights.items():
        torch.testing.assert_close(resumed.weights[name], value, rtol=0, atol=0)
    assert timeless(tmp_path / "run") == timeless(run)


def test_a_dry_run_describes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(crop_run(tmp_path, "dry_run=true")) == 0
    output = capsys.readouterr().out
    assert "6 training (12 crops an epoch) and 2 validation cases" in output
    assert "input      4 x 3 x 32 x 32" in output
    assert "an epoch of 3 batches" in output
    assert re.search(r"batch      (train_\d+(, )?){4}\n", output)


def test_a_network_of_both_branches_sees_images_larger_than_its_size(tmp_path: Path) -> None:
    smaller = ["model.grid=[2,2]", "model.local_depths=[1,1]", "model.global_depths=[1,1]"]
    overrides = [o for o in crop_run(tmp_path, *smaller) if not o.startswith(("model=", "model.d"))]
    assert train.main([*overrides, "model=medt", "trainer.epochs=1"]) == 0
    image = np.random.default_rng(0).integers(0, 256, (70, 131, 3), dtype=np.uint8)
    assert Predictor.load(tmp_path / "run/checkpoints/last.pt").predict(image).shape == (70, 131)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("dataset.sampling=tiles", "dataset.sampling=tiles is not known (choose one of resize"),
        ("dataset.crop_foreground=1.5", "dataset.crop_foreground=1.5 is out of range (give at"),
        ("dataset.crops_per_case=0", "dataset.crops_per_case=0 is out of range (give at least 1"),
        ("dataset.timeout=0", "dataset.timeout=0.0 is out of range (give above 0"),
        ("trainer.batch_size=13", "training set, which has 12 crops an epoch (give at most 12"),
    ],
)
def test_wrong_settings_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, said: str
) -> None:
    assert train.main(crop_run(tmp_path, override)) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
