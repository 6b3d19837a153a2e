"""scripts/train.py: from a config to a run folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import predict
import pytest
import torch
import train
import yaml
from conftest import TINY, tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from medt.checkpoint import load_checkpoint
from medt.inference.predictor import Predictor
from medt.io.images import read_mask


def run(folder: Path, *more: str) -> Path:
    """Train below `folder` into `folder`/run."""
    assert train.main(tiny(folder, f"run_dir={folder}/run", *more)) == 0
    return folder / "run"


def test_a_run_folder_holds_exactly_what_is_promised(tiny_run: Path) -> None:
    files = {str(p.relative_to(tiny_run)) for p in tiny_run.rglob("*") if p.is_file()}
    events = {name for name in files if name.startswith("tensorboard/events.")}
    assert len(events) == 1
    assert files - events == {
        "config.yaml",
        "checkpoints/best.pt",
        "checkpoints/last.pt",
        "metrics.json",
        "history.csv",
        "train.log",
    }


def test_the_resolved_config_is_kept(tiny_run: Path) -> None:
    config = yaml.safe_load((tiny_run / "config.yaml").read_text())
    assert config["dataset"]["num_classes"] == config["model"]["classes"] == 2
    assert config["dataset"]["channels"] == config["model"]["channels"] == 3
    assert config["model"]["image_size"] == 32
    assert "${" not in (tiny_run / "config.yaml").read_text()


def test_history_has_a_row_an_epoch_with_scores_and_gates(tiny_run: Path) -> None:
    rows = list(csv.DictReader((tiny_run / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row in rows:
        assert float(row["train_loss"]) > 0
        assert 0 <= float(row["val_dice_gland"]) <= 1
        assert float(row["gate.branch.stages.0.0.height.qr"]) == pytest.approx(0.1)


def test_metrics_name_the_best_epoch(tiny_run: Path) -> None:
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    assert metrics["finished"] is True
    rows = list(csv.DictReader((tiny_run / "history.csv").open()))
    best = max(rows, key=lambda row: float(row["val_dice"]))
    assert metrics["best"]["val_dice"] == pytest.approx(float(best["val_dice"]), rel=1e-5)
    assert load_checkpoint(tiny_run / "checkpoints/best.pt").epoch == metrics["best_epoch"]


def test_tensorboard_shows_curves_gates_and_panels(tiny_run: Path) -> None:
    events = EventAccumulator(str(tiny_run / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {
        "loss/train",
        "loss/val",
        "dice/train",
        "dice/val",
        "dice/val/gland",
        "iou/val/gland",
        "optimizer/learning_rate",
        "optimizer/gradient_norm",
        "speed/images_per_second",
        "weights/branch/stages/0/0/height/qr",
        "score/dice",
    } <= scalars
    assert [event.step for event in events.Scalars("loss/train")] == [1, 2]
    assert [event.step for event in events.Images("panels/val")] == [1, 2]
    last = json.loads((tiny_run / "metrics.json").read_text())["last"]["val_dice"]
    assert events.Scalars("score/dice")[0].value == pytest.approx(last)


def test_tensorboard_lists_the_hyperparameters_with_the_score(tiny_run: Path) -> None:
    events = EventAccumulator(str(tiny_run / "tensorboard"))
    events.Reload()
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    known = HParamsPluginData.FromString(content).session_start_info.hparams
    assert known["model.name"].string_value == "gated_axial_unet"
    assert known["model.depths"].string_value == "[1, 1]"
    assert known["optimizer"].string_value == "AdamW"
    assert known["optimizer.lr"].number_value == 2e-3
    assert known["seed"].number_value == 0
    content = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    (metric,) = HParamsPluginData.FromString(content).experiment.metric_infos
    assert metric.name.tag == "score/dice"


def test_the_log_tells_each_epoch(tiny_run: Path) -> None:
    log = (tiny_run / "train.log").read_text()
    assert "epoch 1/2" in log
    assert "images/s" in log
    assert " left" in log


def test_every_norm_of_a_checkpoint_was_re_estimated(tiny_run: Path) -> None:
    weights = load_checkpoint(tiny_run / "checkpoints/best.pt").weights
    batches = {name: int(v) for name, v in weights.items() if name.endswith("batches_tracked")}
    assert any("similarity_norm" in name for name in batches)
    assert set(batches.values()) == {1}  # six training images are one batch


def test_an_existing_run_is_not_overwritten(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tiny_run / "config.yaml").stat().st_mtime_ns
    assert train.main(tiny(tiny_run.parents[1], f"run_dir={tiny_run}")) == 1
    assert "is not empty (choose another run_dir, or continue" in capsys.readouterr().err
    assert (tiny_run / "config.yaml").stat().st_mtime_ns == before


def test_training_starts_from_given_weights_and_names_a_changed_head(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tiny_run / "checkpoints/best.pt"
    run(tmp_path, f"model.weights={weights}", "optimizer.lr=0", "trainer.epochs=1")
    started = load_checkpoint(tmp_path / "run/checkpoints/last.pt").weights
    given = load_checkpoint(weights).weights
    for name in ("head.weight", "branch.stem.conv1.weight"):
        torch.testing.assert_close(started[name], given[name])
    assert "starts afresh" not in capsys.readouterr().out

    images, masks = three_classes(tmp_path)
    assert (
        train.main(
            [
                *(
                    o
                    for o in tiny(tmp_path)
                    if not o.startswith(("dataset.t", "dataset.v", "dataset.size"))
                ),
                "dataset=folder",
                f"dataset.images={images}",
                f"dataset.masks={masks}",
                "dataset.classes=[background,gland,lumen]",
                f"model.weights={weights}",
                f"run_dir={tmp_path}/three",
            ]
        )
        == 0
    )
    assert (
        "the class head differs and starts afresh: head.weight, head.bias"
        in capsys.readouterr().out
    )


def three_classes(folder: Path) -> tuple[Path, Path]:
    """Six images with masks of the classes 0, 1 and 2."""
    import numpy as np

    from medt.io.files import write_png

    generator = np.random.default_rng(0)
    for number in range(6):
        mask = np.zeros((40, 36), np.uint8)
        mask[5:25, 5:25], mask[10:15, 10:15] = 1, 2
        image = (mask[..., None] * 60 + generator.integers(0, 60, (40, 36, 3))).astype(np.uint8)
        write_png(folder / "images" / f"{number}.png", image)
        write_png(folder / "masks" / f"{number}.png", mask)
    return folder / "images", folder / "masks"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (5, "the loss is nan in epoch 2, step 3, cases "),
        (7, "the validation loss is nan in epoch 2, step 5, validation cases"),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    call: int,
    message: str,
) -> None:
    from medt.losses import DiceCrossEntropyLoss

    forward = DiceCrossEntropyLoss.forward
    calls = -2  # the estimate of the memory takes two steps first

    def breaks(
        self: DiceCrossEntropyLoss, logits: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        nonlocal calls
        calls += 1  # an epoch is two training batches and two validation cases
        loss = forward(self, logits, target)
        return loss * float("nan") if calls == call else loss

    monkeypatch.setattr(DiceCrossEntropyLoss, "forward", breaks)
    assert train.main(tiny(tmp_path, f"run_dir={tmp_path}/run")) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "the last good checkpoint is" in error
    assert error.count("\n") == 1
    if "validation" not in message:
        assert any(path.stem in error for path in (TINY / "images").iterdir())
    assert load_checkpoint(tmp_path / "run/checkpoints/last.pt").epoch == 1


def test_early_stopping_is_off_by_default_and_counts_validations(tmp_path: Path) -> None:
    folder = run(tmp_path, "trainer.epochs=6", "trainer.patience=1", "optimizer.lr=0")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["finished"] is True
    assert metrics["epoch"] < 6


@pytest.mark.parametrize("monitor", ["iou", "loss"])
def test_the_monitor_chooses_the_best_checkpoint(tmp_path: Path, monitor: str) -> None:
    folder = run(tmp_path, f"trainer.monitor={monitor}", "trainer.epochs=3")
    rows = list(csv.DictReader((folder / "history.csv").open()))
    scores = [float(row[f"val_{monitor}"]) for row in rows]
    best = scores.index(min(scores) if monitor == "loss" else max(scores)) + 1
    assert load_checkpoint(folder / "checkpoints/best.pt").epoch == best


@pytest.mark.parametrize("loss", ["cross_entropy", "dice", "focal", "tversky"])
@pytest.mark.parametrize("optimizer", ["sgd"])
def test_every_loss_trains(tmp_path: Path, loss: str, optimizer: str) -> None:
    run(tmp_path, f"loss={loss}", f"optimizer={optimizer}", "trainer.epochs=1")


@pytest.mark.parametrize("scheduler", ["constant", "polynomial"])
def test_every_schedule_trains(tmp_path: Path, scheduler: str) -> None:
    run(tmp_path, f"scheduler={scheduler}", "optimizer=adam", "trainer.epochs=1")


@pytest.mark.parametrize("augmentation", ["none", "histology", "ultrasound", "grey", "strong"])
def test_every_augmentation_trains(tmp_path: Path, augmentation: str) -> None:
    run(tmp_path, f"augmentation={augmentation}", "trainer.epochs=1")


def test_images_of_any_range_train_and_are_predicted_with_percentile(tmp_path: Path) -> None:
    """Float TIFF as a scanner might write it, from -2000 to 7500."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for i in range(8):
        mask = np.zeros((40, 40), np.uint8)
        mask[5:20, 5 + i : 30] = 255
        image = (rng.normal(0, 300, mask.shape) + np.where(mask, 5000, -500)).astype(np.float32)
        cv2.imwrite(str(tmp_path / f"images/scan {i}.tif"), image)
        cv2.imwrite(str(tmp_path / f"masks/scan {i}.png"), mask)
    kept = [o for o in tiny(tmp_path) if o.startswith(("model", "dataset.image", "paths.runs"))]
    folders = [f"dataset.{name}={tmp_path}/{name}" for name in ("images", "masks")]
    overrides = ["dataset=folder", *folders, *kept, "dataset.channels=1", "augmentation=grey"]
    overrides += ["trainer.epochs=6", "trainer.device=cpu", "optimizer.lr=1e-2"]
    run_dir = tmp_path / "run"
    assert train.main([*overrides, f"run_dir={run_dir}", "dataset.normalize=percentile"]) == 0
    checkpoint = load_checkpoint(run_dir / "checkpoints/best.pt")
    assert checkpoint.preprocessing["percentile"] == 0.5
    arguments = [f"checkpoint={run_dir}", f"input={tmp_path}/images", f"output={tmp_path}/out"]
    assert predict.main([*arguments, "overlays=true"]) == 0
    predictor = Predictor.load(run_dir / "checkpoints/best.pt")
    for i in range(8):
        expected = predictor.predict(tmp_path / f"images/scan {i}.tif") * 255
        np.testing.assert_array_equal(read_mask(tmp_path / f"out/scan {i}.png"), expected)


def test_workers_change_nothing(tiny_run: Path, tmp_path: Path) -> None:
    folder = run(tmp_path, "dataset.workers=2")
    expected = load_checkpoint(tiny_run / "checkpoints/last.pt").weights
    for name, value in load_checkpoint(folder / "checkpoints/last.pt").weights.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("model", ["medt", "logo"])
def test_two_branch_models_train_at_their_size(tmp_path: Path, model: str) -> None:
    smaller = ["model.grid=[2,2]", "model.local_depths=[1,1]", "model.global_depths=[1,1]"]
    overrides = [o for o in tiny(tmp_path) if not o.startswith("model")]
    overrides += [f"model={model}", *smaller, f"run_dir={tmp_path}/run", "trainer.epochs=1"]
    assert train.main(overrides) == 0


def test_debug_shows_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEDT_DEBUG", "1")
    assert train.main(["trainer.epoch=3"]) == 1
    assert "Traceback" in capsys.readouterr().err
