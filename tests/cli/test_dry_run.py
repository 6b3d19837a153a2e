"""dry_run=true: what a training would be, and nothing of it is begun."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import train
from conftest import tiny

from medt.checkpoint import load_checkpoint
from medt.io.images import read_image


@pytest.mark.parametrize("model", ["gated_axial_unet", "unet"])
def test_says_network_memory_and_time_and_draws_a_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    depths = "model.depths=[1,1]"
    overrides = [o for o in tiny(tmp_path, "dry_run=true") if model != "unet" or o != depths]
    assert train.main([*overrides, f"model={model}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{model} (" in lines[0]
    assert "parameters) at 32 x 32 on cpu: 6 training and 2 validation cases" in lines[0]
    said = {line.split()[0]: line for line in lines[1:]}
    total = int(lines[0].split("(")[1].split()[0].replace(",", ""))
    parts = [line for line in lines[1:] if line.startswith("  ")]
    assert sum(int(line.split()[-1].replace(",", "")) for line in parts) == total
    assert "input      4 x 3 x 32 x 32, logits 4 x 2 x 32 x 32" in lines
    assert "GB available) at the peak of a training step" in said["memory"]
    assert "an epoch of 2 batches" in said["time"]
    assert "2 epochs" in said["time"]
    picture = Path(said["picture"].split(maxsplit=1)[1])
    assert said["batch"].count("train_") == 4
    height, width, channels = read_image(picture).shape
    assert (channels, height > 500, width > 1000) == (3, True, True)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert sorted(files) == [picture.with_suffix(".json"), picture]


def test_a_dry_run_changes_nothing_of_the_run_that_follows(tiny_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert train.main(tiny(tmp_path, f"run_dir={folder}", "dry_run=true")) == 0
    assert not folder.exists()
    assert train.main(tiny(tmp_path, f"run_dir={folder}")) == 0
    expected = load_checkpoint(tiny_run / "checkpoints/last.pt").weights
    for name, value in load_checkpoint(folder / "checkpoints/last.pt").weights.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
