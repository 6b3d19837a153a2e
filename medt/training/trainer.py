"""The training loop."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medt.checkpoint import Checkpoint, model_spec, save_checkpoint
from medt.data.dataset import EpochBatches, SegmentationDataset, make_loader
from medt.data.layout import SegmentationClass
from medt.errors import UserError
from medt.evaluation.evaluate import evaluate
from medt.inference.predictor import Predictor
from medt.metrics.pixel import IGNORE_INDEX, PixelCounts, count_pixels, dice, foreground, pool
from medt.models.axial_attention import AxialAttention
from medt.training.precise_norm import reestimate_norms, tracked_norms
from medt.training.progress import EpochBar, duration
from medt.training.run_folder import GATE_PREFIX, RunFolder
from medt.training.settings import TrainerSettings
from medt.training.tensorboard import TensorBoardLog

log = logging.getLogger("medt")

GATE_NAMES = ("qr", "kr", "sv", "sve")
NORM_BATCH = 8

Row = dict[str, float]


@dataclass
class TrainingState:
    """Where a run stands, apart from its tensors."""

    epoch: int = 0
    step: int = 0
    best_score: float | None = None
    best_epoch: int = 0
    validations_without_best: int = 0
    seconds: float = 0.0
    finished: bool = False
    history: list[Row] = field(default_factory=list)


class Trainer:
    """Trains one network on one dataset into one run folder.

    Args:
        model: returns logits (N, classes, H, W).
        loss: of logits and class ids (N, H, W), 255 = ignored.
        optimizer: over the model's parameters; its learning rates are the schedule's peak.
        schedule: factor of the learning rates for (step, steps of the run).
        train_set, val_set: the cases; `val_set` without augmentation.
        classes: of the dataset, background first.
        settings: the `trainer` group of the config.
        run: the folder that is written to.
        config: the whole resolved config; its `model` and `dataset` parts go into checkpoints.
        device: where to train.
        console: where the progress bar is drawn.

    Raises:
        UserError: no validation case shows a foreground class.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        optimizer: Optimizer,
        schedule: Callable[[int, int], float],
        train_set: SegmentationDataset,
        val_set: SegmentationDataset,
        classes: Sequence[SegmentationClass],
        settings: TrainerSettings,
        run: RunFolder,
        config: Mapping[str, Any],
        device: torch.device,
        console: Console,
    ) -> None:
        if not any((val_set.pair(i)[1] % IGNORE_INDEX).any() for i in range(len(val_set))):
            raise UserError(
                "no validation case shows a foreground class, so there is nothing to score",
                "put cases with foreground into the val split",
            )
        self.model = model.to(device)
        self.loss = loss.to(device)
        self.optimizer = optimizer
        self.schedule = schedule
        self.train_set = train_set
        self.val_set = val_set
        self.classes = tuple(classes)
        self.settings = settings
        self.run = run
        self.config = dict(config)
        self.device = device
        seed = int(config["seed"])
        self.batches = EpochBatches(len(train_set), settings.batch_size, seed)
        self.loader = make_loader(train_set, self.batches, int(config["dataset"]["workers"]))
        self.steps_per_epoch = -(-len(self.batches) // settings.accumulate)
        self.peak_rates = [group["lr"] for group in optimizer.param_groups]
        self.average: AveragedModel | None = None
        if settings.ema is not None:
            average = get_ema_multi_avg_fn(settings.ema)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(self.model, multi_avg_fn=average)
        self.layers = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, AxialAttention) and module.position == "gated"
        }
        self.bar = EpochBar(console)
        self.state = TrainingState()

    def fit(self) -> TrainingState:
        """Train to the last epoch, or until `patience` runs out."""
        board = TensorBoardLog(self.run.tensorboard, self.state.epoch)
        while not self.state.finished:
            started = time.perf_counter()
            self.state.epoch += 1
            row = self.train_epoch()
            network = self.network_for_use(row) if self.validation_due() else None
            if network is not None:
                row |= self.validate(network)
            self.state.seconds += time.perf_counter() - started
            is_best = self.update_state(row)
            self.report(row, is_best)
            board.write_epoch(row, self.gates())
            if network is not None:
                self.save(network, row, is_best)
                shown = self.panel_cases()
                board.write_panels(self.state.epoch, self.predictor(network), self.val_set, shown)
        board.close()
        return self.state

    def describe(self) -> str:
        """One line: network, parameters, cases, device."""
        parameters = sum(p.numel() for p in self.model.parameters())
        size = " x ".join(str(n) for n in self.train_set.preprocessing.image_size)
        name = self.config["model"]["name"]
        return (
            f"{name} ({parameters:,} parameters) at {size} on {self.device}: "
            f"{len(self.train_set)} training and {len(self.val_set)} validation cases, "
            f"{self.steps_per_epoch} steps an epoch"
        )

    def train_epoch(self) -> Row:
        """One pass over the training cases; returns the epoch's measurements."""
        self.model.train()
        self.batches.set_epoch(self.state.epoch)
        losses = norms = 0.0
        cases: list[str] = []
        none = np.zeros(len(self.classes), np.int64)
        counts = PixelCounts(none, none, none)
        waited = 0.0
        started = asked = time.perf_counter()
        with self.bar.epoch(f"epoch {self.state.epoch}/{self.settings.epochs}", len(self.batches)):
            for index, batch in enumerate(self.loader):
                waited += time.perf_counter() - asked
                logits, value = self.accumulate(batch, index)
                cases += batch["case"]
                if self.closes_step(index):
                    norms += self.step(cases)
                    cases.clear()
                losses += value
                predicted = logits.detach().argmax(dim=1).to("cpu", torch.uint8).numpy()
                masks = batch["mask"].numpy()
                counts = pool([counts, count_pixels(predicted, masks, len(self.classes))])
                asked = time.perf_counter()
                rate = (index + 1) / (asked - started)
                self.bar.advance(
                    f"loss {losses / (index + 1):.4f}  dice {foreground(dice(counts)):.4f}  "
                    f"{rate * self.settings.batch_size:.1f} images/s  "
                    f"{duration(self.batches_left(index + 1) / rate)} left"
                )
        seconds = time.perf_counter() - started
        return {
            "epoch": self.state.epoch,
            "train_loss": losses / len(self.batches),
            "train_dice": foreground(dice(counts)),
            "lr": self.optimizer.param_groups[0]["lr"],
            "gradient_norm": norms / self.steps_per_epoch,
            "images_per_second": len(self.train_set) / seconds,
            "loader_wait": waited / seconds,
        }

    def batches_left(self, done: int) -> int:
        """Training batches to come when `done` of this epoch's are worked off."""
        return (self.settings.epochs - self.state.epoch + 1) * len(self.batches) - done

    def accumulate(self, batch: dict[str, Any], index: int) -> tuple[Tensor, float]:
        """Add a batch's gradient, weighted as its share of the optimizer step."""
        images = batch["image"].to(self.device, non_blocking=True)
        masks = batch["mask"].to(self.device, non_blocking=True)
        logits: Tensor = self.model(images)
        loss: Tensor = self.loss(logits, masks)
        value = float(loss.detach())
        if not np.isfinite(value):
            self.stop_not_finite(f"loss is {value}", f"cases {', '.join(batch['case'])}")
        first = index - index % self.settings.accumulate
        parts = min(self.settings.accumulate, len(self.batches) - first)
        (loss / parts).backward()  # type: ignore[no-untyped-call]
        return logits, value

    def closes_step(self, index: int) -> bool:
        """Whether the optimizer steps after the batch of this index."""
        return (index + 1) % self.settings.accumulate == 0 or index + 1 == len(self.batches)

    def step(self, cases: Sequence[str]) -> float:
        """One optimizer step on the gradient of `cases`; returns its norm before clipping."""
        if self.state.epoch <= self.settings.gate_epoch:
            for layer in self.layers.values():
                layer.gates.grad = None
        limit = self.settings.clip_norm
        parameters = list(self.model.parameters())
        norm = float(clip_grad_norm_(parameters, float("inf") if limit is None else limit))
        if not np.isfinite(norm):
            self.stop_not_finite(f"gradient's norm is {norm}", f"cases {', '.join(cases)}")
        factor = self.schedule(self.state.step, self.settings.epochs * self.steps_per_epoch)
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * factor
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.state.step += 1
        return norm

    def stop_not_finite(self, what: str, where: str) -> None:
        kept = f"the last good checkpoint is {self.run.last}" if self.run.last.is_file() else ""
        raise UserError(
            f"the {what} in epoch {self.state.epoch}, step {self.state.step + 1}, {where}",
            "; ".join(filter(None, ["look at these images, or lower optimizer.lr", kept])),
        )

    def validation_due(self) -> bool:
        last = self.state.epoch >= self.settings.epochs
        return last or self.state.epoch % self.settings.validate_every == 0

    def network_for_use(self, row: Row) -> nn.Module:
        """A copy of the trained (or averaged) network with re-estimated norm statistics.

        The time that these took is entered into `row`.
        """
        source = self.model if self.average is None else self.average.module
        network = copy.deepcopy(source).requires_grad_(False)
        if self.settings.precise_norm_cases and tracked_norms(network):
            started = time.perf_counter()
            reestimate_norms(network, self.norm_batches())
            row["norm_seconds"] = time.perf_counter() - started
        return network.eval()

    def norm_batches(self) -> Iterator[Tensor]:
        """Training images without augmentation, drawn anew each epoch, in batches."""
        generator = np.random.default_rng((int(self.config["seed"]), self.state.epoch, 1))
        drawn = generator.permutation(len(self.train_set))[: self.settings.precise_norm_cases]
        to_tensor = self.train_set.preprocessing.tensor
        for start in range(0, len(drawn), NORM_BATCH):
            indices = drawn[start : start + NORM_BATCH].tolist()
            images = [to_tensor(self.train_set.pair(index)[0]) for index in indices]
            yield torch.stack(images).to(self.device)

    def validate(self, network: nn.Module) -> Row:
        """Score a network on the validation cases at its own input size."""
        evaluation = evaluate(self.predictor(network), self.val_set, "paper", loss=self.loss)
        row = {"val_loss": evaluation.summary["loss"]}
        for score in ("dice", "iou"):
            part = evaluation.summary["mean_over_cases"][score]
            row[f"val_{score}"] = part["foreground"]
            row |= {f"val_{score}_{name}": value for name, value in part["classes"].items()}
        if not np.isfinite(row["val_loss"]):
            self.stop_not_finite(f"validation loss is {row['val_loss']}", "validation cases")
        return {name: value for name, value in row.items() if not np.isnan(value)}

    def predictor(self, network: nn.Module) -> Predictor:
        return Predictor(network, self.val_set.preprocessing, self.classes, self.device)

    def panel_cases(self) -> list[int]:
        """Indices of the validation cases that TensorBoard shows, the same every time."""
        wanted = min(self.settings.panels, len(self.val_set))
        return [int(i) for i in np.linspace(0, len(self.val_set) - 1, wanted).round()]

    def gates(self) -> Row:
        """The value of every gate, by layer."""
        return {
            f"{name}.{gate}": float(value)
            for name, layer in self.layers.items()
            for gate, value in zip(GATE_NAMES, layer.gates.detach(), strict=True)
        }

    def update_state(self, row: Row) -> bool:
        """Enter an epoch into the state; returns whether its network is the best so far."""
        is_best = False
        if "val_dice" in row:
            score = row[f"val_{self.settings.monitor}"]
            best = self.state.best_score
            lower = self.settings.monitor == "loss"
            is_best = best is None or (score < best if lower else score > best)
            if is_best:
                self.state.best_score, self.state.best_epoch = score, self.state.epoch
                self.state.validations_without_best = 0
            else:
                self.state.validations_without_best += 1
        gates = {GATE_PREFIX + name: value for name, value in self.gates().items()}
        self.state.history.append(row | gates)
        patience = self.settings.patience
        stopped = patience is not None and self.state.validations_without_best >= patience
        self.state.finished = stopped or self.state.epoch >= self.settings.epochs
        return is_best

    def report(self, row: Row, is_best: bool) -> None:
        """One line about an epoch."""
        left = (self.settings.epochs - self.state.epoch) * self.state.seconds / self.state.epoch
        parts = [
            f"epoch {self.state.epoch}/{self.settings.epochs}",
            f"loss {row['train_loss']:.4f}",
            f"dice {row['train_dice']:.4f}",
        ]
        if "val_dice" in row:
            parts += [f"val loss {row['val_loss']:.4f}", f"val dice {row['val_dice']:.4f}"]
        parts.append(f"{row['images_per_second']:.1f} images/s")
        parts.append(f"{duration(left)} left" if not self.state.finished else "done")
        log.info("  ".join(parts) + ("  (best)" if is_best else ""))

    def save(self, network: nn.Module, row: Row, is_best: bool) -> None:
        """Write the run's checkpoints and tables."""
        checkpoint = Checkpoint(
            model=model_spec(self.config["model"]),
            weights={name: value.cpu() for name, value in network.state_dict().items()},
            preprocessing=self.val_set.preprocessing.to_dict(),
            classes=[{"id": c.id, "name": c.name, "color": list(c.color)} for c in self.classes],
            dataset=self.config["dataset"],
            config=self.config,
            epoch=self.state.epoch,
            scores={key: value for key, value in row.items() if key.startswith("val_")},
            training_cases=[case.name for case in self.train_set.cases],
        )
        if is_best:
            save_checkpoint(checkpoint, self.run.best)
        save_checkpoint(replace(checkpoint, training=self.state_dict()), self.run.last)
        self.run.write_history(self.state.history)
        self.run.write_metrics(
            {
                "epoch": self.state.epoch,
                "finished": self.state.finished,
                "monitor": self.settings.monitor,
                "best_epoch": self.state.best_epoch,
                "best": self.measurements(self.state.best_epoch),
                "last": self.measurements(self.state.epoch),
                "seconds": self.state.seconds,
            }
        )

    def measurements(self, epoch: int) -> Row:
        """What the history holds of an epoch, gates apart."""
        row = self.state.history[epoch - 1]
        return {name: value for name, value in row.items() if not name.startswith(GATE_PREFIX)}

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if never interrupted."""
        return {
            **self.state.__dict__,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "torch_random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.model.load_state_dict(values["model"])
        self.optimizer.load_state_dict(values["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(values["average"])
        torch.set_rng_state(values["torch_random"])
        if values["cuda_random"]:
            torch.cuda.set_rng_state_all(values["cuda_random"])
        self.state = TrainingState(**{name: values[name] for name in TrainingState().__dict__})
