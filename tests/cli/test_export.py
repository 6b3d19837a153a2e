"""scripts/export.py: files for other programs give the checkpoint's logits, and say how."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import evaluate
import export
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import TINY
from safetensors import safe_open

import medt
from medt.checkpoint import load_checkpoint
from medt.export import formats
from medt.io.images import read_image

IMAGE = TINY / "images/test_1.png"


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run, to be written into."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.mark.parametrize("kind", formats.FORMATS)
def test_is_verified_and_says_so(run: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    assert export.main([f"checkpoint={run}", f"format={kind}"]) == 0
    printed = capsys.readouterr().out
    why = "after 2 epochs: those at the end of its schedule"
    first = f"exporting weights {run}/checkpoints/last.pt, {why}, as {kind}"
    assert printed.splitlines()[0] == first
    name = f"last{formats.FORMATS[kind][0]}"
    assert {p.name for p in (run / "export").iterdir()} == {name, f"{name}.md"}
    difference = float(printed.partition("the checkpoint's: ")[2].split()[0])
    assert 0 <= difference < 1e-4
    assert f"written to {run}/export/{name}, with the model card {name}.md" in printed


def test_onnx_gives_the_mask_by_following_the_card(run: Path) -> None:
    assert export.main([f"checkpoint={run}", "format=onnx"]) == 0
    card = (run / "export/last.onnx.md").read_text()
    steps = load_checkpoint(run).preprocessing
    assert f"mean {[round(x, 6) for x in steps['mean']]}" in card
    image = cv2.resize(read_image(IMAGE), (32, 32), interpolation=cv2.INTER_AREA)
    values = (image / 255 - np.array(steps["mean"])) / np.array(steps["std"])
    batch = values.transpose(2, 0, 1).astype(np.float32)[None].repeat(5, axis=0)
    session = onnxruntime.InferenceSession(str(run / "export/last.onnx"))
    (logits,) = session.run(["logits"], {"image": batch})
    assert logits.shape == (5, 2, 32, 32)
    shares = torch.from_numpy(logits[:1]).softmax(dim=1)
    large = torch.nn.functional.interpolate(shares, (64, 64), mode="bilinear")
    expected = medt.load(run / "checkpoints/last.pt").predict(IMAGE)
    assert (large[0].argmax(dim=0).numpy() == expected).mean() > 0.999
    stored = onnx.load(run / "export/last.onnx").metadata_props
    properties = {one.key: json.loads(one.value) for one in stored}
    assert properties["preprocessing"] == steps
    assert [c["name"] for c in properties["classes"]] == ["background", "gland"]


def test_torch_export_needs_nothing_of_medt(run: Path) -> None:
    assert export.main([f"checkpoint={run}", "format=torch_export"]) == 0
    code = (
        "import sys, torch; sys.modules['medt'] = None; "
        f"network = torch.export.load({str(run / 'export/last.pt2')!r}).module(); "
        "print(tuple(network(torch.zeros(4, 3, 32, 32)).shape))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(4, 2, 32, 32)", done.stderr


def test_safetensors_hold_the_weights_and_what_to_build(run: Path) -> None:
    assert export.main([f"checkpoint={run}/checkpoints/last.pt", "format=safetensors"]) == 0
    checkpoint = load_checkpoint(run / "checkpoints/last.pt")
    with safe_open(run / "export/last.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["model"]) == checkpoint.model
        for name, value in checkpoint.weights.items():
            torch.testing.assert_close(file.get_tensor(name), value, rtol=0, atol=0)


def test_the_card_tells_data_scores_and_limits(run: Path) -> None:
    assert evaluate.main([f"checkpoint={run}", "split=test"]) == 0
    assert export.main([f"checkpoint={run}", "format=safetensors", f"output={run}/there"]) == 0
    card = (run / "there/last.safetensors.md").read_text()
    checkpoint = load_checkpoint(run)
    metrics = json.loads((run / "evaluation/synthetic-test-native/metrics.json").read_text())
    dice = metrics["mean_over_cases"]["dice"]["foreground"]
    assert "6 cases of dataset synthetic (split train)" in card
    assert f"Foreground Dice {checkpoint.scores['val_dice']:.4f} on the validation" in card
    assert f"synthetic-test-native, 2 cases, protocol native: foreground Dice {dice:.4f} (" in card
    assert "## Limits" in card
    assert str(run) not in card


def test_a_wrong_network_leaves_no_file(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., None]
) -> None:
    monkeypatch.setattr(formats, "_compare", lambda *_: (0.5, 1.0))
    arguments = [f"checkpoint={tiny_run}", "format=safetensors", f"output={tmp_path}"]
    refused(export.main, arguments, "differ from the checkpoint's by 0.5")


def test_a_network_that_cannot_be_exported_is_one_line(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., None]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("data-dependent\ncontrol flow")

    monkeypatch.setattr(torch.export, "export", fails)
    arguments = [f"checkpoint={tiny_run}", "format=torch_export", f"output={tmp_path}"]
    refused(export.main, arguments, "cannot be exported as torch_export: data-dependent control")


def test_a_missing_library_is_named(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., None]
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    arguments = [f"checkpoint={tiny_run}", "format=safetensors", f"output={tmp_path}"]
    refused(export.main, arguments, "format=safetensors needs safetensors", "'.[export]'")


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["format=caffe"], "format=caffe"),
        ([], "format has no value (choose one of onnx, torch_export, safetensors)"),
        (["format=onnx", "checkpoint=nowhere.pt"], "nowhere.pt"),
        (["format=safetensors", "output=/dev/null/x"], "/dev/null/x"),
    ],
)
def test_wrong_settings_are_one_line(
    tiny_run: Path, refused: Callable[..., None], arguments: list[str], culprit: str
) -> None:
    refused(export.main, [f"checkpoint={tiny_run}", *arguments], culprit)
