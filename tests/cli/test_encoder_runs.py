"""model=smp_unet with an encoder of each kind, from training to a file for other programs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import evaluate
import export
import predict
import pytest
import torch
import train
from conftest import QUICK, TINY, tiny, tiny_dataset

from medt.checkpoint import load_checkpoint

pytest.importorskip("segmentation_models_pytorch")

# By the norm of the encoder. Those of timm called test_ are tiny.
KINDS = {
    "batch norm with its activation": "tu-test_efficientnet",
    "layer norm": "mit_b0",
    "batch norm": "mobilenet_v2",
    "batch norm with its activation, unused weights": "timm-efficientnet-b0",
    "batch and layer norm, of one size": "tu-test_maxvit",
    "group norm": "tu-test_efficientnet_gn",
    "no norm": "vgg11",
}
SLOW = list(KINDS)[1:]
CASES = [pytest.param(k, marks=pytest.mark.slow) if k in SLOW else k for k in KINDS]


def training(folder: Path, encoder: str, *more: str) -> list[str]:
    given = [one for one in tiny(folder) if not one.startswith(("model", "dataset.image_size"))]
    given += ["model=smp_unet", f"model.encoder={encoder}", "dataset.image_size=64", QUICK]
    return [*given, "trainer.epochs=1", f"run_dir={folder}/run", *more]


@pytest.mark.parametrize("kind", CASES)
def test_goes_from_training_to_export(tmp_path: Path, kind: str) -> None:
    run = tmp_path / "run"
    assert train.main(training(tmp_path, KINDS[kind], "trainer.ema=0.9")) == 0
    assert train.main([f"resume={run}", "trainer.epochs=2", "resume_force=true"]) == 0
    assert len((run / "history.csv").read_text().splitlines()) == 3
    assert evaluate.main([f"checkpoint={run}", "split=test"]) == 0
    image, out = TINY / "images/test_1.png", tmp_path / "out"
    assert predict.main([f"checkpoint={run}", f"input={image}", f"output={out}"]) == 0
    assert export.main([f"checkpoint={run}", "format=torch_export"]) == 0
    assert (run / "export/last.pt2").stat().st_size > 1_000_000


@pytest.mark.parametrize(
    ("encoder", "culprits"),
    [
        ("tu-resnet19", ["there is no encoder tu-resnet19", "tu-resnet18"]),
        ("tu-resnet18.nobody", ["there is no encoder tu-resnet18.nobody"]),
        ("'tu-hf-hub:timm/resnet18'", ["there is no encoder tu-hf-hub:timm/resnet18"]),
        ("tu-test_vit", ["model.encoder=tu-test_vit cannot be built: Unsupported"]),
        ("tu-inception_v4", ["image size 64 x 64 does not fit", "that fits: 96 x 96"]),
    ],
)
def test_that_is_none_is_one_line(
    refused: Callable[..., None], tmp_path: Path, encoder: str, culprits: list[str]
) -> None:
    refused(train.main, training(tmp_path, encoder), *culprits)


@pytest.fixture
def slower(tmp_path: Path) -> list[str]:
    """A training of two epochs in which the encoder starts from a file, and learns more slowly."""
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "tiny.pth")
    given = training(tmp_path, "tu-test_efficientnet", f"model.encoder_weights={tmp_path}/tiny.pth")
    return [*given, "optimizer.encoder_factor=0.25", "trainer.epochs=2", "scheduler=constant"]


def rates(run: Path) -> list[float]:
    training = load_checkpoint(run / "checkpoints/last.pt").training
    assert training is not None
    return [group["lr"] for group in training["optimizer"]["param_groups"]]


def test_a_run_says_what_its_encoder_starts_from_and_keeps_two_rates(
    slower: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(slower) == 0
    said = f"the encoder starts from {tmp_path}/tiny.pth (SHA-256 "
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "run/train.log").read_text()
    assert rates(tmp_path / "run") == pytest.approx([0.002, 0.0005])
    with (tmp_path / "run/history.csv").open() as file:
        assert {float(row["lr"]) for row in csv.DictReader(file)} == {0.002}  # of the others
    assert train.main([f"resume={tmp_path}/run", "trainer.epochs=3", "resume_force=true"]) == 0
    printed = capsys.readouterr().out
    assert "the encoder starts from" not in printed
    assert "starts afresh" not in printed
    assert rates(tmp_path / "run") == pytest.approx([0.002, 0.0005])


def test_on_resume_other_groups_start_the_optimizer_afresh(
    slower: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train.main(slower) == 0
    more = [f"resume={run}", "resume_force=true"]
    assert train.main([*more, "trainer.epochs=3", "optimizer.encoder_factor=0.5"]) == 0
    assert "starts afresh" not in capsys.readouterr().out
    assert rates(run) == pytest.approx([0.002, 0.001])
    assert train.main([*more, "trainer.epochs=4", "optimizer.encoder_factor=1.0"]) == 0
    assert "or other groups: its state starts afresh" in capsys.readouterr().out
    assert rates(run) == pytest.approx([0.002])


@pytest.mark.parametrize("factor", ["0", "-1", "fast", ".nan", ".inf"])
def test_a_factor_that_is_none_is_one_line(
    refused: Callable[..., None], tmp_path: Path, factor: str
) -> None:
    given = training(tmp_path, "tu-test_efficientnet", f"optimizer.encoder_factor={factor}")
    refused(train.main, given, "optimizer.encoder_factor")


def test_a_factor_without_an_encoder_is_one_line(
    refused: Callable[..., None], tmp_path: Path
) -> None:
    tiny_dataset()
    given = tiny(tmp_path, "optimizer.encoder_factor=0.5")
    refused(train.main, given, "optimizer.encoder_factor=0.5, but this network has no encoder")
    refused(train.main, tiny(tmp_path, "+model.encoder_weights=imagenet"), "encoder")


def test_imagenet_without_a_network_is_one_line(
    refused: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("[Errno 101] Network is unreachable")

    for place in ("timm.models._builder", "timm.models._hub"):
        monkeypatch.setattr(f"{place}.load_state_dict_from_hf", fails)
    given = training(tmp_path, "tu-test_efficientnet", "model.encoder_weights=imagenet")
    culprits = ["no weights of ImageNet for model.encoder=tu-test_efficientnet: ", "unreachable"]
    refused(train.main, given, *culprits, "model.encoder_weights=FILE")
