"""Run folders written by hand, whose numbers are known, for scripts/compare.py."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import compare
import yaml

CONFIG: dict[str, Any] = {
    "dataset": {"name": "glas", "image_size": 128, "cache": 1024, "workers": 0, "num_classes": 2},
    "model": {"_target_": "medt.models.LocalGlobalNet", "name": "medt", "image_size": 128},
    "loss": {"_target_": "medt.losses.DiceLoss", "batch": True},
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.001, "betas": [0.9, 0.999]},
    "augmentation": {"_target_": "medt.data.augmentation.Flip"},  # as version 0.1 wrote it
    "trainer": {"epochs": 3, "device": "cpu", "empty": "skip"},
    "paths": {"root": "here"},
    "seed": 0,
    "run_dir": "here",
    "resume": None,
    "overfit": None,
}


def config_of(changes: dict[str, Any]) -> dict[str, Any]:
    """CONFIG with some values changed, by dotted key."""
    config = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        *parents, last = key.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value
    return config


def make_run(
    root: Path, dice: float = 0.8, epochs: int = 3, finished: bool = True, **changes: Any
) -> Path:
    """A run folder; the validation Dice of its last epoch is `dice`, its IoU 0.1 below."""
    (root / "checkpoints").mkdir(parents=True)
    (root / "config.yaml").write_text(yaml.safe_dump(config_of(changes), sort_keys=False))
    rows = ["epoch,train_loss,val_loss,val_dice,gate.a"]
    for epoch in range(1, epochs + 1):
        validated = f"{2 / epoch},{dice * epoch / epochs}" if epoch != 2 else ","
        rows.append(f"{epoch},{1 / epoch},{validated},0.1")
    (root / "history.csv").write_text("\n".join(rows) + "\n")
    metrics = {
        "epoch": epochs,
        "finished": finished,
        "best_epoch": epochs,
        "best": {"val_dice": dice, "val_iou": dice - 0.1},
        "seconds": 100.0 * epochs,
    }
    (root / "metrics.json").write_text(json.dumps(metrics))
    return root


def add_evaluation(run: Path, name: str, dice: float | None, cases: int = 80) -> None:
    """The result of an evaluation without its cases."""
    folder = run / "evaluation" / name
    folder.mkdir(parents=True)
    means = {score: {"foreground": dice} for score in ("dice", "iou")}
    scores = {"cases": cases, "protocol": "native", "mean_over_cases": means}
    (folder / "metrics.json").write_text(json.dumps(scores))


def add_cases(run: Path, name: str, dice: dict[str, float], groups: dict[str, str]) -> None:
    """The result of an evaluation with the Dice and the group of each case."""
    add_evaluation(run, name, sum(dice.values()) / len(dice), len(dice))
    rows = [f"{case},{groups.get(case, case)},test,{value}" for case, value in dice.items()]
    text = "\n".join(["case,group,split,dice", *rows]) + "\n"
    (run / "evaluation" / name / "per_case.csv").write_text(text)


def compared(tmp_path: Path, *paths: Path) -> dict[str, Any]:
    """Run the script on `paths`; what it wrote as JSON."""
    assert compare.main([*map(str, paths), f"output={tmp_path}/out"]) == 0
    return dict(json.loads((tmp_path / "out/comparison.json").read_text()))
