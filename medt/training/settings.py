"""The settings of the training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medt.errors import UserError
from medt.io.runs_below import USES
from medt.metrics.empty import DEFAULT_EMPTY, checked_empty
from medt.training.save_schedule import SaveSchedule

# Keys of a run's config that say where and how it is computed, not what: runs that differ in them
# are equal.
CIRCUMSTANCES = (
    *("run_dir", "resume", "resume_force", "dry_run", "check", "allow", "paths"),
    *("trainer.device", "dataset.workers", "dataset.cache", "dataset.timeout"),
)
MONITORS = ("dice", "iou", "loss")
PRECISIONS = ("fp32", "bf16", "fp16")
ON_NONFINITE = ("stop", "skip")


@dataclass
class TrainerSettings:
    """The `trainer` group of the config.

    Attributes:
        epochs: passes over the training cases, or over `dataset.crops_per_case` crops of each.
        batch_size: images of one forward pass.
        accumulate: batches of one optimizer step.
        on_nonfinite: stop, or skip the step, where a loss or gradient is no number.
        clip_norm: gradients are scaled down to this norm; null leaves them.
        ema: decay of the averaged weights that are validated and saved; null for none.
        object_weight: of the part of the loss for objects, where these are a target.
        gate_epoch: the gates of gated attention train after this epoch.
        validate_every: epochs between validations; the last epoch is always validated.
        precise_norm_cases: at most so many training images or crops re-estimate the norm statistics
            before a validation; 0 validates the running statistics.
        checkpoint_every: how often last.pt is written beside the validations: epochs ("2 epochs")
            or minutes ("10 min", in the middle of an epoch, too).
        sync_norms: with several processes, let batch norms see the whole batch.
        monitor: the validation score that chooses the best checkpoint: dice, iou or loss.
        use: the weights that a run's folder stands for: last, those at the end of the schedule, or
            best, those of the best validation; a run that ends before has only the latter.
        empty: what a class scores in a validation case whose truth does not have it: skip (left
            out), alarms (0 if it was predicted, else left out) or one (1 if it was not predicted).
        patience: stop after so many validations without a better score; null never stops.
        panels: validation cases that TensorBoard shows.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: fp32, or bf16 or fp16 where it is enough (autocast); attention stays fp32.
        compile: let torch.compile make the training step; takes a minute and a C++ compiler.
        deterministic: only algorithms that repeat to the bit, and an error where there is none.
        tf32: float32 products in TensorFloat-32 on NVIDIA GPUs, faster and a little less exact.

    Raises:
        UserError: a value out of its range.
    """

    epochs: int = 120
    batch_size: int = 4
    accumulate: int = 1
    on_nonfinite: str = "stop"
    clip_norm: float | None = 1.0
    ema: float | None = None
    object_weight: float = 1.0
    gate_epoch: int = 10
    validate_every: int = 1
    precise_norm_cases: int = 256
    checkpoint_every: Any = "10 min"
    sync_norms: bool = False
    monitor: str = "dice"
    use: str = "last"
    empty: str = DEFAULT_EMPTY
    patience: int | None = None
    panels: int = 4
    device: str = "auto"
    precision: str = "fp32"
    compile: bool = False
    deterministic: bool = False
    tf32: bool = False

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "accumulate", "validate_every"):
            self._check(key, getattr(self, key) >= 1, "at least 1")
        for key in ("gate_epoch", "precise_norm_cases", "panels"):
            self._check(key, getattr(self, key) >= 0, "at least 0")
        self._check("object_weight", 0 < self.object_weight < float("inf"), "above 0")
        self._check("clip_norm", self.clip_norm is None or self.clip_norm > 0, "above 0, or null")
        self._check("ema", self.ema is None or 0 < self.ema < 1, "between 0 and 1, or null")
        self._check("patience", self.patience is None or self.patience >= 1, "at least 1, or null")
        checked_empty(self.empty, "trainer.empty")
        SaveSchedule.parse(self.checkpoint_every)
        choices = {
            "use": tuple(USES),
            "monitor": MONITORS,
            "precision": PRECISIONS,
            "on_nonfinite": ON_NONFINITE,
        }
        for key, names in choices.items():
            self._check(key, getattr(self, key) in names, f"one of {', '.join(names)}")

    def _check(self, key: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise UserError(f"trainer.{key}={getattr(self, key)} is out of range", f"give {wanted}")
