"""Score a checkpoint: python scripts/evaluate.py checkpoint=runs/.../best.pt split=test"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from medt.checkpoint import load_checkpoint
from medt.cli.evaluation_data import (
    cases_trained_on,
    open_index,
    split_otherwise,
    trained_elsewhere,
)
from medt.cli.evaluation_report import report_of
from medt.cli.screen import print_table, progress
from medt.cli.settings import allowed, checkpoint_files, plain
from medt.compare.past_run import read_curves
from medt.data.dataset import SegmentationDataset
from medt.errors import UserError
from medt.evaluation.evaluate import evaluate as score
from medt.evaluation.parts import parts_of
from medt.evaluation.tables import claimed_result, render, write_evaluation
from medt.evaluation.tuning import GOAL, tune
from medt.inference.device import choose_device
from medt.inference.predictor import Predictor
from medt.io.links import check_unlinked
from medt.io.text import shown
from medt.metrics.empty import checked_empty
from medt.training.run_folder import RunFolder, home_of


def evaluate(cfg: DictConfig) -> int:
    if cfg.tune and cfg.split != "val":
        raise UserError(
            f"tune=true with split={cfg.split} would choose on other cases than the validation's",
            "give split=val",
        )
    if cfg.tune and cfg.output is not None:
        raise UserError("tune=true writes no results", "leave output out")
    empty = checked_empty(cfg.empty)
    device = choose_device(cfg.device)
    checkpoints = [load_checkpoint(file, allowed(cfg)) for file in checkpoint_files(cfg)]
    path = Path(checkpoints[0].file)  # of an ensemble the first says where results go
    predictor = Predictor.from_checkpoints(checkpoints, device, cfg.mode, cfg.tta)
    index = open_index(cfg, checkpoints[0], predictor)
    tolerance = index.pixel_size.distance(cfg.tolerance, "tolerance")
    parts = parts_of(cfg.scores, index.name, cfg.protocol.name)
    dataset = SegmentationDataset(
        index.split(cfg.split),
        predictor.preprocessing,
        index.labels,
        cache_megabytes=0,  # each case is read once
    )
    if cfg.tune:
        return tune_postprocessing(cfg, predictor, dataset)
    home = home_of(path)
    history = RunFolder(home).history
    name = (
        f"{index.name}-{cfg.split}-{cfg.protocol.name}{variant(cfg, predictor, len(checkpoints))}"
    )
    if cfg.output is None:
        check_unlinked(home, "evaluation")
    asked = home / "evaluation" / name if cfg.output is None else Path(cfg.output)
    with claimed_result(asked) as folder:
        curves = read_curves(history) if history.exists() else None
        with progress(f"evaluating {index.name} {cfg.split}") as advance:
            evaluation = score(
                predictor,
                dataset,
                cfg.protocol.name,
                cfg.batch_size,
                advance,
                rule=predictor.rule_of(plain(cfg.postprocess)),
                detail=True,
                tolerance=tolerance,
                pixel_size=index.pixel_size,
                empty=empty,
                grouped_by=index.grouped_by,
                parts=parts,
            )
        evaluation.summary["prediction"] = {
            "checkpoints": [one.file for one in checkpoints],
            "weights": [one.digest for one in checkpoints],
            "mode": predictor.mode,
            "tta": cfg.tta,
        }
        evaluation.summary["splits_digest"] = index.splits_digest
        evaluation.summary["external"] = trained_elsewhere(checkpoints[0], cfg)
        print(*(one.describe() for one in checkpoints), sep="\n")
        print_table(render(evaluation, cfg.details))
        report = report_of(cfg, evaluation, checkpoints, predictor, index, dataset, curves)
        write_evaluation(evaluation, folder, report)
    if other := split_otherwise(checkpoints[0], index):
        print(f"\nwarning: {other}")
    if seen := cases_trained_on(cfg, checkpoints, dataset):
        print(f"\nwarning: {len(seen)} of these cases were trained on, such as {min(seen)}")
    print(f"\nwritten to {shown(folder)}, see report.html there")
    if not cfg.details:
        print("details=true prints all scores and their rules")
    return 0


def variant(cfg: DictConfig, predictor: Predictor, networks: int) -> str:
    """What tells a result from the plain one of the first network, for the folder's name."""
    rules = [predictor.rule_of(one) for one in (plain(cfg.postprocess), {"method": "auto"})]
    parts = [
        "" if rules[0] == rules[1] else cfg.postprocess.method,
        cfg.mode or "",
        "tta" if cfg.tta else "",
        f"{networks}_networks" if networks > 1 else "",
    ]
    return "".join(f"+{part}" for part in parts if part)


def tune_postprocessing(cfg: DictConfig, predictor: Predictor, dataset: SegmentationDataset) -> int:
    """Print the best numbers of the method asked for, or of all methods, as overrides to paste."""
    asked = cfg.postprocess.method
    methods = ["none", asked]
    if asked in ("none", "auto"):
        parting = ["seeds"] if predictor.objects is not None else []
        methods = ["none", "components", "watershed", *parting]
    with progress("tuning") as advance:
        trials = tune(predictor, dataset, methods, advance)
    print(f"{len(dataset)} cases ({cfg.split}), by the {GOAL}")
    for trial in trials:
        print(f"{trial.score:.4f}  {trial.rule}")
    best = max(trials, key=lambda trial: trial.score)
    print(f"\nbest, for evaluate.py and predict.py: {best.rule}")
    return 0
