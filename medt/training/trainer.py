"""The training loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from medt.checkpoint import Checkpoint, check_finite_weights, save_checkpoint
from medt.data.dataset import SegmentationDataset
from medt.data.layout import SegmentationClass
from medt.data.loader import EpochBatches, make_loader
from medt.errors import UserError
from medt.evaluation.evaluate import NotFiniteCaseError
from medt.inference.predictor import Predictor
from medt.interruption import StopRequest, stop_request
from medt.losses import loss_of
from medt.metrics.pixel import count_pixels
from medt.models.synced_norms import synchronise_norms
from medt.processes import Processes
from medt.training.data_watch import DataWatch
from medt.training.determinism import random_states, restore_random_states
from medt.training.facts import Facts
from medt.training.optimization import Optimization
from medt.training.progress import EpochBar, epoch_line, run_line
from medt.training.run_folder import GATE_PREFIX, RunFolder
from medt.training.save_schedule import SaveSchedule
from medt.training.settings import TrainerSettings
from medt.training.state import EpochSums, Row, TrainingState, of_training
from medt.training.tensorboard import TensorBoardLog
from medt.training.validation import (
    check_sets,
    checkpoint_of,
    network_for_use,
    validation_row,
)

log = logging.getLogger("medt")

SKIPS_LOGGED = 5  # of an epoch; the log stays small


class Trainer:
    """Trains one network on one dataset into one run folder.

    Args:
        model: returns logits (N, classes, H, W).
        loss: of logits and class ids (N, H, W), 255 = ignored.
        optimizer: over the model's parameters; its learning rates are the schedule's peak.
        schedule: factor of the learning rates for (step, steps of the run).
        train_set, val_set: the cases; `val_set` without augmentation.
        classes: of the dataset, background first.
        settings: of the loop.
        run: the folder that is written to.
        device: where to train.
        console: where the progress bar is drawn.
        seed: of order and augmentation.
        loading: how many processes load images, and the seconds after which they are late.
        facts: what checkpoints and log tell about the run.
        processes: that train together; each works on its share of every batch, and only the first
            one writes.
        watch: over the files of the dataset.

    Raises:
        UserError: a batch is larger than the training set, or no validation case shows a
            foreground class.
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
        device: torch.device,
        console: Console,
        seed: int = 0,
        loading: tuple[int, float] = (0, 300.0),
        facts: Facts | None = None,
        processes: Processes | None = None,
        watch: DataWatch | None = None,
    ) -> None:
        self.processes = processes or Processes()
        check_sets(train_set, val_set, settings.batch_size)
        self.processes.check_batches(len(train_set), settings.batch_size)
        self.model = model.to(device)
        if settings.sync_norms:
            synchronise_norms(self.model, self.processes.pool)
        self.parallel = self.processes.parallel(self.model)
        trained = self.parallel or self.model
        self.step_model = torch.compile(trained) if settings.compile else trained
        self.loss = loss.to(device)
        self.optimization = Optimization(self.model, optimizer, schedule, settings, device)
        self.train_set = train_set
        self.val_set = val_set
        self.watch = watch or DataWatch()
        self.classes = tuple(classes)
        self.settings = settings
        self.run = run
        self.facts = facts or Facts()
        self.seed = seed
        self.device = device
        rank, count = self.processes.rank, self.processes.count
        self.batches = EpochBatches(
            len(train_set), settings.batch_size, seed, rank=rank, processes=count
        )
        self.loader = make_loader(train_set, self.batches, *loading)
        self.steps_per_epoch = -(-len(self.batches) // settings.accumulate)
        self.bar = EpochBar(console)
        self.clock = 0.0  # when the run would have begun without pauses
        self.state = TrainingState()
        self.stop = StopRequest()
        self.stopping = False  # as all processes agree
        self.skips = False  # whether the running step is left out
        self.saves = SaveSchedule.parse(settings.checkpoint_every)
        self.validated: Checkpoint | None = None

    def fit(self) -> TrainingState:
        """Train to the last epoch, until `patience` runs out, or until a signal asks to stop.

        In the last case the run is saved where it stands and `state.finished` is False.
        """
        writes = self.processes.writes
        board = TensorBoardLog(self.run.tensorboard, len(self.state.history)) if writes else None
        self.clock = time.perf_counter() - self.state.seconds
        with stop_request(announced=self.processes.count == 1) as self.stop, self.loader:
            while not self.state.finished and not self.stopping:
                row = self.train_epoch()
                if row is None:
                    break
                network = self.validate(row) if self.validation_due() else None
                is_best = self.update_state(row)
                log.info(epoch_line(row, self.state, self.settings.epochs, is_best))
                if board is not None:
                    self.write(board, network, row, is_best)
                self.stopping = self.processes.any(self.stop.signal is not None)[0]
            if not self.state.finished:
                self.save_progress()
        if board is not None:
            if self.state.finished:
                epoch = self.state.best_epoch if self.use == "best" else self.state.epoch
                dice = self.state.history[epoch - 1]["val_dice"]
                board.write_hyperparameters(self.facts.config, dice, self.state.epoch)
            board.close()
        return self.state

    def write(
        self, board: TensorBoardLog, network: nn.Module | None, row: Row, is_best: bool
    ) -> None:
        """Write what an epoch has brought; `network` is the validated one, if there is any."""
        if network is not None:
            self.save(network, row, is_best)
            predictor, shown = self.predictor(network), self.settings.panels
            board.write_panels(self.state.epoch, predictor, self.val_set, shown)
        elif self.saves.due_after_epoch(self.state.epoch):
            self.save_progress()
        board.write_epoch(row, self.optimization.gates())

    def describe(self) -> str:
        """One line: network, parameters, cases, device."""
        parameters = sum(p.numel() for p in self.model.parameters())
        sets = self.train_set, self.val_set
        return run_line(self.facts, parameters, *sets, self.device, self.steps_per_epoch)

    def train_epoch(self) -> Row | None:
        """One pass over the training cases, or what is left of it; returns its measurements.

        None if a signal asked to stop; `state.sums` then says how far the epoch has come.
        """
        if self.state.sums is None:
            self.state.epoch += 1
            self.state.sums = EpochSums.of(len(self.classes))
        sums, total = self.state.sums, len(self.batches)
        self.model.train()
        self.batches.set_epoch(self.state.epoch, skip=sums.batches)
        cases: list[str] = []
        earlier, started = sums.seconds, time.perf_counter()
        asked = started
        with self.bar.epoch(f"epoch {self.state.epoch}/{self.settings.epochs}", total):
            for index, batch in enumerate(self.loader, start=sums.batches):
                waited = time.perf_counter() - asked
                logits, masks, loss = self.accumulate(batch, index)
                cases += batch["case"]
                norm = 0.0
                if self.closes_step(index):
                    norm = self.step(cases)
                    cases.clear()
                of_classes = logits.detach()[:, : len(self.classes)]
                predicted = of_classes.argmax(dim=1).to("cpu", torch.uint8).numpy()
                counts = count_pixels(predicted, masks.cpu().numpy(), len(self.classes))
                sums.add(loss, counts, norm, waited)
                asked = time.perf_counter()
                sums.seconds = earlier + asked - started
                left = (self.settings.epochs - self.state.epoch + 1) * total - sums.batches
                self.bar.advance(sums, left, self.settings.batch_size)
                if not cases and index + 1 < total and self.pauses():
                    return None
        self.state.sums = None
        if not sums.finite:
            self.stop_not_finite("loss was no number in any batch", "all cases")
        skipped = {"skipped": float(sums.skipped)} if sums.skipped else {}
        return {
            "epoch": self.state.epoch,
            "train_loss": sums.mean_loss,
            "train_dice": sums.dice,
            "lr": self.optimization.rate,
            "gradient_norm": sums.gradient_norm / self.steps_per_epoch,
            "images_per_second": len(self.train_set) / sums.seconds,
            "loader_wait": sums.waited / sums.seconds,
            **skipped,
        }

    def pauses(self) -> bool:
        """Between two steps: save if it is due; whether to stop here."""
        due = self.processes.writes and self.saves.due_in_epoch()
        self.stopping, save = self.processes.any(self.stop.signal is not None, due)
        if save and not self.stopping:
            self.save_progress()
        return self.stopping

    def accumulate(self, batch: dict[str, Any], index: int) -> tuple[Tensor, Tensor, float]:
        """Add a batch's gradient, weighted as its share of the optimizer step.

        Returns:
            Logits, masks and loss of the whole batch, whichever processes have its images.
        """
        images = batch["image"].to(self.device, non_blocking=True)
        masks = batch["mask"].to(self.device, non_blocking=True)
        if index % self.settings.accumulate == 0:
            self.optimization.begin_step()
        left = len(self.train_set) - index * self.settings.batch_size
        total = min(self.settings.batch_size, left)
        with self.processes.batch(self.parallel, len(images), total, self.closes_step(index)):
            with self.optimization.precision.autocast():
                own: Tensor = self.step_model(images)
            logits = self.processes.gather_batch(own.float(), total)
            masks = self.processes.gather_batch(masks, total)
            objects = batch.get("objects")
            if objects is not None:
                objects = objects.to(self.device, non_blocking=True)
                objects = self.processes.gather_batch(objects, total)
            loss: Tensor = loss_of(self.loss, logits, masks, len(self.classes), objects)
            value = float(loss.detach())
            if not np.isfinite(value):
                self.not_finite(f"loss is {value}", batch["case"])
                return logits, masks, value
            first = index - index % self.settings.accumulate
            parts = min(self.settings.accumulate, len(self.batches) - first)
            # Its gradient is averaged over the processes, but each has only its own part of it.
            self.optimization.precision.backward(loss * self.processes.count / parts)
        return logits, masks, value

    def closes_step(self, index: int) -> bool:
        """Whether the optimizer steps after the batch of this index."""
        return (index + 1) % self.settings.accumulate == 0 or index + 1 == len(self.batches)

    def step(self, cases: Sequence[str]) -> float:
        """One optimizer step on the gradient of `cases`; returns its norm before clipping."""
        norm = 0.0 if self.skips else self.optimization.gradient_norm(self.state.epoch)
        if not self.optimization.precision.tolerates(norm):
            self.not_finite(f"gradient's norm is {norm}", cases)
        if self.skips:
            self.optimization.skip_step()
        else:
            self.optimization.step(self.state.step, self.settings.epochs * self.steps_per_epoch)
        self.skips = False
        self.state.step += 1
        return norm if np.isfinite(norm) else 0.0  # fp16 left that step out

    def not_finite(self, what: str, cases: Sequence[str]) -> None:
        """Stop, or leave this step out, as `on_nonfinite` says."""
        where = f"cases {', '.join(cases)}"
        if self.settings.on_nonfinite == "stop":
            self.stop_not_finite(what, where)
        self.skips = True
        sums = self.state.sums
        assert sums is not None  # within an epoch
        sums.skipped += 1
        if sums.skipped <= SKIPS_LOGGED:
            log.warning(f"step {self.state.step + 1} is left out: the {what}, {where}")

    def stop_not_finite(self, what: str, where: str) -> None:
        kept = f"the last good checkpoint is {self.run.last}" if self.run.last.is_file() else ""
        raise UserError(
            f"the {what} in epoch {self.state.epoch}, step {self.state.step + 1}, {where}",
            "; ".join(filter(None, ["look at these images, or lower optimizer.lr", kept])),
        )

    def validation_due(self) -> bool:
        last = self.state.epoch >= self.settings.epochs
        return last or self.state.epoch % self.settings.validate_every == 0

    def validate(self, row: Row) -> nn.Module:
        """Make a network for use, enter its validation scores into `row`, and return it."""
        average = self.optimization.average
        source = self.model if average is None else average.module
        cases = self.settings.precise_norm_cases
        network, seconds = network_for_use(
            source, self.train_set, cases, self.seed, self.state.epoch, self.device
        )
        if seconds:
            row["norm_seconds"] = seconds
        self.processes.copy_from_first(network.state_dict().values())
        self.watch.look(self.state.epoch)
        predictor, empty = self.predictor(network), self.settings.empty
        try:
            row |= validation_row(predictor, self.val_set, self.loss, self.processes, empty)
        except NotFiniteCaseError as error:
            self.stop_not_finite("output of a validation is not finite", error.message)
        if not np.isfinite(row["val_loss"]):
            self.stop_not_finite(f"validation loss is {row['val_loss']}", "validation cases")
        return network

    @property
    def use(self) -> str:
        """Which weights the run stands for: the last ones are good at the end of the schedule."""
        ended = self.state.epoch >= self.settings.epochs
        return self.settings.use if ended else "best"

    def predictor(self, network: nn.Module) -> Predictor:
        target = self.val_set.objects
        kind = None if target is None else target.kind
        return Predictor(
            *(network, self.val_set.preprocessing, self.classes, self.device), objects=kind
        )

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
        gates = {GATE_PREFIX + name: value for name, value in self.optimization.gates().items()}
        self.state.history.append(row | gates)
        self.state.seconds = time.perf_counter() - self.clock
        patience = self.settings.patience
        stopped = patience is not None and self.state.validations_without_best >= patience
        self.state.finished = stopped or self.state.epoch >= self.settings.epochs
        return is_best

    def save(self, network: nn.Module, row: Row, is_best: bool) -> None:
        """Write the checkpoints and tables of a validated epoch."""
        self.validated = self.checkpoint(network, row)
        if is_best:
            save_checkpoint(self.validated, self.run.best)
        self.run.write_tables(self.state, self.settings.monitor, self.use)
        # Last: whatever is lost with a torn run is made again from the one before.
        save_checkpoint(replace(self.validated, training=self.state_dict()), self.run.last)
        self.saves.restart()

    def save_progress(self) -> None:
        """Write last.pt so that the run goes on from this very step.

        The network for use stays the last validated one; where there is none yet, it is the network
        as it stands.
        """
        self.state.seconds = time.perf_counter() - self.clock
        if self.processes.writes:
            kept = self.validated or self.checkpoint(self.model, {})
            save_checkpoint(replace(kept, training=self.state_dict()), self.run.last)
        self.saves.restart()

    def checkpoint(self, network: nn.Module, row: Row) -> Checkpoint:
        """A network for use and all that belongs to it."""
        epoch = len(self.state.history)
        return checkpoint_of(network, self.facts, self.train_set, self.classes, epoch, row)

    def state_dict(self) -> dict[str, Any]:
        """All that `resume` needs to go on as if never interrupted."""
        return {
            **self.state.to_dict(),
            "model": self.model.state_dict(),
            **self.optimization.state_dict(),
            "data": self.watch.began,
            **random_states(self.device),
        }

    def resume(self, checkpoint: Checkpoint) -> list[str]:
        """Continue from a last.pt; returns what to say about it.

        Raises:
            UserError: it is not the state of such a training.
        """
        values = checkpoint.training or {}
        optimizers = {Facts(config=checkpoint.config).optimizer, self.facts.optimizer}
        with of_training(checkpoint.file):
            check_finite_weights(values["model"], checkpoint.file)
            self.model.load_state_dict(values["model"])
            self.optimization.load_state_dict(values, same_optimizer=len(optimizers) == 1)
            restore_random_states(values)
            self.state = TrainingState.from_dict(values)
        if checkpoint.scores:
            self.validated = replace(checkpoint, training=None)
        self.state.finished = self.state.finished and self.state.epoch >= self.settings.epochs
        former = checkpoint.config.get("trainer", {}).get("epochs", self.settings.epochs)
        spans = [each * self.steps_per_epoch for each in (int(former), self.settings.epochs)]
        changed = self.watch.resumed(values.get("data"))
        if len(optimizers) > 1:
            changed.append("another class of optimizer, or other groups: its state starts afresh")
        return changed + self.optimization.rescheduled(self.state.step, *spans)
