"""The report of an evaluation: its pictures, and where its numbers come from."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import torch
import yaml
from omegaconf import DictConfig

import medt
from medt.checkpoint import Checkpoint
from medt.cli.settings import command_line, plain
from medt.data.dataset import SegmentationDataset
from medt.data.layout import DatasetIndex
from medt.evaluation.evaluate import Evaluation
from medt.inference.instances import InstanceRule
from medt.inference.predictor import Predictor
from medt.report.charts import Curves
from medt.report.page import Origin, render_report
from medt.report.panels import choose_cases, draw_panel


def report_of(
    cfg: DictConfig,
    evaluation: Evaluation,
    checkpoints: Sequence[Checkpoint],
    predictor: Predictor,
    index: DatasetIndex,
    dataset: SegmentationDataset,
    curves: Curves | None,
) -> str:
    """The page of an evaluation, with pictures of its worst, median and best cases."""
    rule = predictor.rule_of(plain(cfg.postprocess))
    panels = [
        draw_panel(predictor, dataset, i, rank, evaluation.rows[i]["foreground"]["dice"], rule)
        for i, rank in choose_cases(evaluation.rows, cfg.panels)
    ]
    config = checkpoints[0].config
    origin = Origin(
        title=f"{index.name} {cfg.split}",
        facts=facts(cfg, evaluation, checkpoints, index),
        config=yaml.safe_dump(config, sort_keys=False) if config else "",
        curves=curves,
    )
    return render_report(evaluation, predictor.classes, panels, origin)


def facts(
    cfg: DictConfig,
    evaluation: Evaluation,
    checkpoints: Sequence[Checkpoint],
    index: DatasetIndex,
) -> dict[str, str]:
    """Where the numbers come from, and how to have them again."""
    first, summary = checkpoints[0], evaluation.summary
    size = " x ".join(map(str, summary["image_size"]))
    how = f"for {first.epoch} epochs on {first.dataset['name']}" if first.dataset else "imported"
    files = [
        f"{one.file} (SHA-256 {sha256(Path(one.file).read_bytes()).hexdigest()})"
        for one in checkpoints
    ]
    elsewhere = summary["external"]
    external = f", external: the network was trained on {elsewhere}" if elsewhere else ""
    return {
        "command": command_line("evaluate"),
        "checkpoint": "\n".join(files),
        "network": f"{first.model['_target_']}, {size}",
        "trained": f"{how}, {len(first.training_cases)} cases",
        "dataset": f"{index.name}, images in {index.cases[0].image.parent}",
        "split": f"{cfg.split}, {summary['cases']} cases{external}",
        "protocol": f"{evaluation.protocol}: {summary['protocol_means']}",
        "prediction": f"mode={summary['prediction']['mode']} tta={str(cfg.tta).lower()}",
        "objects": str(InstanceRule(**summary["postprocess"])),
        "versions": f"medt {medt.__version__}, PyTorch {torch.__version__}, "
        f"Python {platform.python_version()}",
        "written": datetime.now().astimezone().isoformat(" ", "seconds"),
    }
