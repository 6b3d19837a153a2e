"""Where a run stands, apart from its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medt.metrics.pixel import PixelCounts, dice, foreground, pool

Row = dict[str, float]


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
        self.counts = pool([self.counts, counts])
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
        """The inverse of `to_dict`."""
        sums = values["sums"]
        return cls(**{**values, "sums": None if sums is None else EpochSums.from_dict(sums)})
