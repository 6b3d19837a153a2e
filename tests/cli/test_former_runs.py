"""What version 0.1 wrote goes on: tests/former holds a run that was stopped after two of its three
epochs, and what that version made of it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import predict
import pytest
import train
import yaml
from conftest import DATA, TINY, tiny_dataset

from medt.data.former_augmentation import present_form
from medt.io.images import read_mask

FORMER = Path(__file__).parents[1] / "former"
# Other processors and versions of PyTorch round differently.
CLOSE = {"rel": 2e-3, "abs": 2e-3}
# Keys that have come since, with values that leave everything as it was.
ADDED = {
    "dataset": {"objects": "none", "border_width": 2, "object_area": None},
    "optimizer": {"encoder_factor": 1.0},
    "trainer": {"object_weight": 1.0},
    "postprocess": {"depth": 0.0},
    "check_data": {"write": None},
}
# And what has changed: a schedule is trained to its end, and then its last weights are used.
CHANGED = {"trainer": {"use": "last", "patience": None}}
NETWORK = ["model=medt"]  # of experiments that name none; train takes medt_plus now
CLOCK = ("images_per_second", "loader_wait", "norm_seconds", "seconds")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    tiny_dataset()
    return Path(shutil.copytree(FORMER / "run", tmp_path / "run"))


def rows(file: Path) -> list[dict[str, float]]:
    with file.open() as lines:
        found = list(csv.DictReader(lines))
    return [{k: float(v) for k, v in row.items() if k not in CLOCK} for row in found]


def numbers(value: Any, key: str = "") -> dict[str, float]:
    """All numbers of nested values, by dotted key."""
    if isinstance(value, dict):
        parts = [numbers(part, f"{key}.{name}") for name, part in value.items()]
    elif isinstance(value, list):
        parts = [numbers(part, f"{key}.{index}") for index, part in enumerate(value)]
    else:
        return {key: value} if isinstance(value, (int, float)) else {}
    return {name: number for part in parts for name, number in part.items()}


def test_a_former_run_resumes_to_the_same_numbers(run: Path) -> None:
    assert train.main([f"resume={run}", f"paths.data={DATA}"]) == 0
    found, expected = rows(run / "history.csv"), rows(FORMER / "history.csv")
    assert len(found) == len(expected) == 3
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, **CLOSE)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["finished"]
    former = json.loads((FORMER / "run" / "metrics.json").read_text())
    assert set(metrics) == {*former, "use"}
    assert metrics["use"] == "best"  # as it was when the run was started


def test_a_new_run_writes_the_config_that_it_wrote(run: Path, tmp_path: Path) -> None:
    overrides = [
        *("dataset.train=6", "dataset.val=2", "dataset.test=2", "dataset.size=64"),
        *("dataset.image_size=32", "model=gated_axial_unet", "model.depths=[1,1]"),
        *("model.width_factor=0.0625", "model.heads=4", "augmentation=histology"),
        *("trainer.epochs=3", "trainer.batch_size=3", "trainer.gate_epoch=1"),
        *(f"paths.data={DATA}", f"paths.runs={tmp_path}", f"run_dir={tmp_path}/new"),
    ]
    assert train.main([*overrides, "trainer.device=cpu"]) == 0
    new = yaml.safe_load((tmp_path / "new" / "config.yaml").read_text())
    former = yaml.safe_load((run / "config.yaml").read_text())
    former["augmentation"] = present_form(former["augmentation"])
    for config in (new, former):
        del config["paths"], config["run_dir"], config["dataset"]["root"]
        config["trainer"].pop("use", None)
    assert as_before(new) == former
    found, expected = rows(tmp_path / "new" / "history.csv"), rows(FORMER / "history.csv")
    assert [row["lr"] for row in found] == pytest.approx([row["lr"] for row in expected])
    # What follows the first steps goes another way on each kind of processor.
    assert found[0]["train_loss"] == pytest.approx(expected[0]["train_loss"], rel=1e-2)


@pytest.mark.parametrize(
    ("overrides", "file"),
    [([], "metrics.json"), (["mode=sliding_window", "tta=true"], "metrics_windows_flips.json")],
)
def test_a_former_checkpoint_scores_the_same(
    run: Path, tmp_path: Path, overrides: list[str], file: str
) -> None:
    given = [f"checkpoint={run}", "split=test", f"output={tmp_path}/out", f"paths.data={DATA}"]
    assert evaluate.main([*given, *overrides]) == 0
    found = numbers(json.loads((tmp_path / "out" / "metrics.json").read_text()))
    expected = numbers(json.loads((FORMER / file).read_text()))
    assert set(found) == set(expected)
    assert found == pytest.approx(expected, **CLOSE)


def test_a_former_checkpoint_predicts_the_same(run: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    assert predict.main([f"checkpoint={run}", f"input={TINY}/images", f"output={masks}"]) == 0
    files = sorted((FORMER / "masks").glob("*.png"))
    assert len(files) == 10
    for file in files:
        assert np.mean(read_mask(masks / file.name) != read_mask(file)) < 0.002


def test_the_configs_hold_the_values_that_they_held() -> None:
    """Of every option of every group, and of every script beside its groups."""
    former = yaml.safe_load((FORMER / "configs.yaml").read_text())
    for choice, config in former.items():
        if choice.startswith("augmentation="):
            former[choice] = present_form(config)
        elif "augmentation" in config and isinstance(config["augmentation"], dict):
            config["augmentation"] = present_form(config["augmentation"])
        trainer = config if choice.startswith("trainer=") else config.get("trainer", {})
        if isinstance(trainer, dict) and "patience" in trainer:
            trainer |= CHANGED["trainer"]
        if choice == "benchmark":
            config["networks"].insert(1, "medt_plus")  # which is new
    found = {}
    for choice, config in composed(list(former)).items():
        group = choice.partition("=")[0]
        found[choice] = as_before({group: config})[group] if group in ADDED else as_before(config)
    assert found == former


def as_before(config: dict[str, Any]) -> dict[str, Any]:
    """A config without the keys that have come since, which must have their neutral values."""
    kept = dict(config)
    for group, added in ADDED.items():
        if isinstance(config.get(group), dict):
            for key, value in added.items():
                assert config[group].get(key, value) == value
            kept[group] = {k: v for k, v in config[group].items() if k not in added}
    return kept


def composed(choices: list[str]) -> dict[str, Any]:
    import hydra
    from omegaconf import OmegaConf

    from medt.cli.arguments import CONFIGS
    from medt.config import register_schema

    register_schema()
    found: dict[str, Any] = {}
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        for choice in choices:
            group, equals, _ = choice.partition("=")
            if not equals:
                script, overrides = choice, []
            else:
                script = "evaluate" if group in ("protocol", "postprocess") else "train"
                overrides = [choice, *(NETWORK if group == "experiment" else [])]
            config = OmegaConf.to_container(hydra.compose(script, overrides), resolve=False)
            assert isinstance(config, dict)
            if not equals:
                found[choice] = {k: v for k, v in config.items() if not isinstance(v, dict)}
            elif group == "experiment":
                found[choice] = {k: v for k, v in config.items() if k != "paths"}
            else:
                found[choice] = config[group]
    return found
