"""Each real archive goes the whole way: prepared, checked, trained on for an epoch, evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import check_data
import evaluate
import pytest
import train
from conftest import ARCHIVES

TINY = ["model=gated_axial_unet", "model.depths=[1,1]", "dataset.image_size=32"]
TINY += ["dataset.sampling=resize"]
TINY += ["trainer.epochs=1", "trainer.device=cpu", "trainer.precise_norm_cases=0"]
VALIDATED = {"glas": 17, "monuseg": 3, "dsb2018": 18, "isbi2012": 4, "kvasir_seg": 12}


@pytest.mark.parametrize(
    "name",
    [
        n if n in ("isbi2012", "dsb2018") else pytest.param(n, marks=pytest.mark.slow)
        for n in ARCHIVES
    ],
)
def test_prepare_check_train_and_evaluate(
    name: str, real_dataset: Callable[[str], list[str]], tmp_path: Path
) -> None:
    dataset = real_dataset(name)
    assert check_data.main([*dataset, f"output={tmp_path / 'check'}"]) == 0
    check = json.loads((tmp_path / "check" / "check.json").read_text())
    assert not [f for f in check["findings"] if f["severity"] == "error"]
    assert (tmp_path / "check" / "cases.png").stat().st_size > 10_000
    assert train.main([*dataset, *TINY, f"run_dir={tmp_path / 'run'}"]) == 0
    assert evaluate.main([f"checkpoint={tmp_path / 'run'}", "split=val"]) == 0
    (metrics,) = (tmp_path / "run" / "evaluation").rglob("metrics.json")
    scores = json.loads(metrics.read_text())
    assert scores["cases"] == VALIDATED[name]
    assert 0 <= scores["mean_over_cases"]["dice"]["foreground"] <= 1
