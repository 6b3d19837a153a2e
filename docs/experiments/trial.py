"""Train one recipe on folds of a dataset, and write what each validation says of every case.

    python docs/experiments/trial.py OUT.csv --score 0 [--choose 1] OVERRIDES...

OVERRIDES are those of train.py. Nothing is trained on the cases of the folds SCORE and CHOOSE. At
each validation both are scored, at their own size, by three kinds of weights:

    last  as they are then
    ema   an exponential average over the steps so far (decay 0.99, less in the first steps)
    tail  in the last epoch: the plain average over the last quarter of the steps

OUT.csv has a row for each of these and each case; role says which fold it is of. With --objects the
last weights are scored with each rule of post-processing, too, whose numbers the cases of CHOOSE
tune: F1 at an IoU of 0.5 and AJI of each case. OUT.csv appears when the training has ended; a trial
whose file exists does nothing, so that a list of trials can be started again.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict
from rich.console import Console
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medt import build
from medt.cli.arguments import CONFIGS
from medt.cli.open_groups import complete_and_check
from medt.cli.settings import plain
from medt.config import register_schema
from medt.data.dataset import SegmentationDataset
from medt.data.layout import DatasetIndex
from medt.data.open import open_dataset
from medt.evaluation.evaluate import Evaluation, evaluate
from medt.evaluation.tuning import tune
from medt.inference.instances import InstanceRule
from medt.inference.predictor import Predictor
from medt.metrics.sums import mean_of_present
from medt.processes import Processes
from medt.shipped import home
from medt.targets import GROUPS, targets_in
from medt.training.run_folder import RunFolder
from medt.training.state import Row
from medt.training.trainer import Trainer
from medt.training.validation import network_for_use

DECAY = 0.99
COLUMNS = (
    *("epoch", "weights", "rule", "role", "case", "dice", "iou"),
    *("f1", "aji", "true", "predicted", "train_dice", "seconds"),
)
OBJECTS = ("object_f1_iou50", "aji", "objects_true", "objects_predicted")
TUNED = 2  # each which of the cases of CHOOSE tunes: rules take long at 775 x 522
QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none")


class Recorder(Trainer):
    """A trainer that keeps averages of its weights, and a table of all that is validated."""

    scored: frozenset[str] = frozenset()
    objects = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ema, self.tail = AveragedModel(self.model), AveragedModel(self.model)
        self.table: list[tuple[Any, ...]] = []

    def step(self, cases: Sequence[str]) -> float:
        norm = super().step(cases)
        step = self.state.step
        average = get_ema_multi_avg_fn(min(DECAY, (1 + step) / (10 + step)))  # type: ignore[no-untyped-call]
        self.ema.multi_avg_fn = average
        self.ema.update_parameters(self.model)
        if step > 0.75 * self.settings.epochs * self.steps_per_epoch:
            self.tail.update_parameters(self.model)
        return norm

    def validate(self, row: Row) -> nn.Module:
        kinds: dict[str, nn.Module] = {"last": self.model, "ema": self.ema.module}
        if self.state.epoch >= self.settings.epochs:
            kinds["tail"] = self.tail.module
        networks = {name: self.enter(name, source, row) for name, source in kinds.items()}
        return networks["last"]

    def enter(self, kind: str, source: nn.Module, row: Row) -> nn.Module:
        """Score weights with norms that are estimated anew, as the trainer does."""
        cases = self.settings.precise_norm_cases
        network, _ = network_for_use(
            source, self.train_set, cases, self.seed, self.state.epoch, self.device
        )
        predictor = self.predictor(network)
        found = evaluate(predictor, self.val_set, loss=self.loss)
        if kind == "last":
            row |= {"val_dice": found.dice, "val_iou": found.iou, "val_loss": found.summary["loss"]}
        self.tell(kind, "none", found, row)
        if self.objects and kind == "last" and self.state.epoch >= self.settings.epochs:
            for rule in self.tuned(predictor):
                scores = evaluate(
                    predictor, self.val_set, rule=rule, detail=True, parts=("pixel", "objects")
                )
                print(rule, flush=True)
                self.tell(kind, rule.method, scores, row)
        return network

    def tuned(self, predictor: Predictor) -> list[InstanceRule]:
        """Of each method the rule that suits the cases of CHOOSE."""
        cases = [case for case in self.val_set.cases if case.name not in self.scored]
        chosen = SegmentationDataset(
            cases[::TUNED], self.val_set.preprocessing, self.val_set.labels
        )
        methods = ["components", "watershed", *(["seeds"] if predictor.objects else [])]
        return [trial.rule for trial in tune(predictor, chosen, methods)]

    def tell(self, weights: str, rule: str, found: Evaluation, row: Row) -> None:
        """Enter the scores of all cases into the table."""
        for one in found.rows:
            role = "score" if one["case"] in self.scored else "choose"
            scores = one["foreground"]
            classes = list(one["classes"].values())
            shown = [scores["dice"], scores["iou"]]
            shown += [
                mean_of_present(np.array([c.get(key, np.nan) for c in classes[1:]]))
                for key in OBJECTS
            ]
            said = [f"{value:.5f}" for value in shown]
            ended = f"{row['train_dice']:.4f}", f"{self.state.seconds:.0f}"
            self.table.append((self.state.epoch, weights, rule, role, one["case"], *said, *ended))

    def write(self, *_: object) -> None:
        """Nothing: the table is all that is kept."""

    def save_progress(self) -> None:
        """Nothing, as well."""


def composed(overrides: Sequence[str], folder: str | None) -> dict[str, Any]:
    """The resolved config of train.py with these overrides."""
    register_schema(str(home()))
    own = [f"hydra.searchpath=[file://{Path(folder).resolve()}]"] if folder else []
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = hydra.compose("train", [*QUIET, *own, *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            del config["hydra"]
        complete_and_check(config)
    found: dict[str, Any] = plain(config)
    return found


def opened(settings: dict[str, Any], score: int, choose: int | None) -> DatasetIndex:
    """The dataset, whose val split are the cases of both folds."""
    index = open_dataset(
        {**settings, "fold": score}, plan=build.plan_of(settings, False, fits=True)
    )
    if choose is None:
        return index
    other = open_dataset({**settings, "fold": choose}, plan=build.plan_of(settings, False))
    names = {case.name for case in other.split("val")}
    cases = [replace(one, split="val") if one.name in names else one for one in index.cases]
    return replace(index, cases=tuple(cases))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--score", type=int, required=True)
    parser.add_argument("--choose", type=int)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--every", type=int, default=3, help="epochs between validations")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--objects", action="store_true", help="score objects, too")
    parser.add_argument("--config-dir", help="a folder of configs of one's own")
    given, overrides = parser.parse_known_args()
    if given.out.exists():
        return
    torch.set_num_threads(given.threads)
    rounds = [f"dataset.folds={given.folds}", f"dataset.fold={given.score}"]
    config = composed([*overrides, *rounds], given.config_dir)
    index = opened(config["dataset"], given.score, given.choose)
    alone = opened(config["dataset"], given.score, None)
    Recorder.objects = given.objects
    Recorder.scored = frozenset(case.name for case in alone.split("val"))
    config["dataset"] |= {"channels": index.channels, "num_classes": len(index.classes)}
    config["model"] |= {"channels": index.channels, "classes": len(index.classes)}
    config["trainer"]["validate_every"] = given.every
    allow = tuple(targets_in([config[group] for group in GROUPS]))
    network, _ = build.new_network(config, allow)
    setattr(build, "Trainer", Recorder)  # noqa: B010 - which it then builds
    with tempfile.TemporaryDirectory() as folder:
        where = RunFolder(Path(folder)), Console(quiet=True), torch.device("cpu"), Processes()
        trainer = build.build_trainer(config, index, network, None, *where, allow)
        trainer.fit()
        if trainer.state.epoch < trainer.settings.epochs:
            raise SystemExit(f"stopped in epoch {trainer.state.epoch}: no table is written")
    temporary = given.out.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *trainer.table])  # type: ignore[attr-defined]
    temporary.replace(given.out)


if __name__ == "__main__":
    main()
