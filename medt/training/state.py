"""Where a run stands, apart from its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from torch import Tensor

from medt.errors import UserError
from medt.metrics.pixel import PixelCounts, dice, foreground
from medt.metrics.sums import add
from medt.signatures import check_arguments

Row = dict[str, float]
# What PyTorch raises of a state that is not one.
UNFIT = (LookupError, TypeError, ValueError, AttributeError, RuntimeError)


@dataclass
class EpochSums:
    """What has been measured of the running epoch.

    Attributes:
        batches: worked off so far.
        finite: of these the ones whose loss is a number.
        skipped: times that something was no number and its step was left out.
        loss: sum over the finite batches.
        gradient_norm: sum over the optimizer steps.
        counts: pixels by class, pooled over the batches.
        waited: seconds for the loader.
        seconds: in all.
    """

    counts: PixelCounts
    batches: int = 0
    finite: int = 0
    skipped: int = 0
    loss: float = 0.0
    gradient_norm: float = 0.0
    waited: float = 0.0
    seconds: float = 0.0

    @classmethod
    def of(cls, classes: int) -> EpochSums:
        """The sums of no batch yet."""
        none = np.zeros(classes, np.int64)
        return cls(PixelCounts(none, none, none, none))

    def add(self, loss: float, counts: PixelCounts, gradient_norm: float, waited: float) -> None:
        """Enter one more batch; `gradient_norm` is 0 where no step followed it."""
        self.batches += 1
        if np.isfinite(loss):
            self.finite += 1
            self.loss += loss
        self.counts = add([self.counts, counts])
        self.gradient_norm += gradient_norm
        self.waited += waited

    @property
    def mean_loss(self) -> float:
        return self.loss / self.finite if self.finite else float("nan")

    @property
    def dice(self) -> float:
        """Over the foreground classes, pooled."""
        return foreground(dice(self.counts))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints."""
        counts = {key: value.tolist() for key, value in vars(self.counts).items()}
        return {**vars(self), "counts": counts}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EpochSums:
        """The inverse of `to_dict`."""
        counts = {key: np.array(value, np.int64) for key, value in values["counts"].items()}
        return cls(**{**values, "counts": PixelCounts(**counts)})


@dataclass
class TrainingState:
    """Counters, the best score, the history, and the epoch that was interrupted, if any.

    Attributes:
        epoch: the running or last epoch, from 1.
        step: optimizer steps so far.
        validations_without_best: since the best one.
        seconds: of training and validation.
        finished: whether the run has ended.
        history: the measurements of every whole epoch.
        sums: of the epoch in whose middle the run stands; None between epochs.
    """

    epoch: int = 0
    step: int = 0
    best_score: float | None = None
    best_epoch: int = 0
    validations_without_best: int = 0
    seconds: float = 0.0
    finished: bool = False
    history: list[Row] = field(default_factory=list)
    sums: EpochSums | None = None

    def position(self, batches: int) -> str:
        """Where the run stands, such as: in epoch 3 after 7 of 17 batches."""
        if self.sums is None:
            return f"after epoch {self.epoch}"
        return f"in epoch {self.epoch} after {self.sums.batches} of {batches} batches"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints."""
        return {**vars(self), "sums": None if self.sums is None else self.sums.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingState:
        """The inverse of `to_dict`; other values are left alone."""
        own = {field.name: values[field.name] for field in fields(cls)}
        sums = None if own["sums"] is None else EpochSums.from_dict(own["sums"])
        return cls(**{**own, "sums": sums})


@dataclass(frozen=True)
class SavedTraining:
    """What `Checkpoint.training` holds, by name and type: the state, and what else goes on.

    Attributes:
        model: weights as they were last trained to, which are not those for use.
        optimizer, precision, average: see `medt.training.optimization.Optimization`.
        torch_random, cuda_random: states of the generators.
        data: see `medt.training.data_watch.DataWatch.began`; None of a version without it.
    """

    epoch: int
    step: int
    best_score: float | None
    best_epoch: int
    validations_without_best: int
    seconds: float
    finished: bool
    history: list[dict[str, float]]
    sums: dict[str, Any] | None
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    precision: dict[str, Any]
    average: dict[str, Any] | None
    torch_random: Tensor
    cuda_random: list[Tensor]
    data: str | None = None


def check_saved(training: Mapping[str, Any], file: str) -> None:
    """Hold what a file says of a training against `SavedTraining`.

    Raises:
        UserError: a value is missing, unknown, of another type, or does not agree with others.
    """
    with of_training(file):
        _check_saved(training)


@contextmanager
def of_training(file: str) -> Iterator[None]:
    """Within the context what a file's values cannot be used for is a UserError that names it."""
    try:
        yield
    except (UserError, *UNFIT) as error:
        said = error.message if isinstance(error, UserError) else f"{error}"
        raise UserError(
            f"{file} does not fit this training: {' '.join(said.split())[:300]}",
            "restore it, or start a new run from its best.pt with model.weights=FILE",
        ) from error


def _check_saved(training: Mapping[str, Any]) -> None:
    check_arguments(SavedTraining, training, "training")
    whole = len(training["history"]) + (training["sums"] is not None)
    if not training["epoch"] == whole or not 0 <= training["best_epoch"] <= whole:
        raise UserError("its history is not that of its epochs")
    if training["step"] < 0 or training["seconds"] < 0:
        raise UserError("its steps or seconds are negative")
    if any("epoch" not in row or "train_loss" not in row for row in training["history"]):
        raise UserError("its history lacks an epoch or a loss")
    if training["sums"] is not None:
        sums = {name: value for name, value in training["sums"].items() if name != "counts"}
        check_arguments(EpochSums, sums, "sums", given=("counts",))
        check_arguments(_counts, training["sums"].get("counts", {}), "sums.counts")


def _counts(tp: list[int], fp: list[int], fn: list[int], tn: list[int]) -> None:
    """What `EpochSums.to_dict` makes of `PixelCounts`."""
