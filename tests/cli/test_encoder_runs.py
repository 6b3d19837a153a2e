"""model=smp_unet with an encoder of each kind, from training to a file for other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import evaluate
import export
import predict
import pytest
import train
from conftest import QUICK, TINY, tiny

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
