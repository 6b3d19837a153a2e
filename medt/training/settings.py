"""The settings of the training loop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TrainerSettings:
    """The `trainer` group of the config.

    Attributes:
        epochs: passes over the training cases.
        batch_size: images of one forward pass.
        accumulate: batches of one optimizer step.
        clip_norm: gradients are scaled down to this norm; null leaves them.
        ema: decay of the averaged weights that are validated and saved; null for none.
        gate_epoch: the gates of gated attention train after this epoch.
        validate_every: epochs between validations; the last epoch is always validated.
        precise_norm_cases: at most so many training images re-estimate the norm statistics
            before a validation; 0 validates the running statistics.
        monitor: the validation score that chooses the best checkpoint: dice, iou or loss.
        patience: stop after so many validations without a better score; null never stops.
        panels: validation cases that TensorBoard shows.
        device: auto, cpu, cuda, cuda:N or mps.
    """

    epochs: int = 120
    batch_size: int = 4
    accumulate: int = 1
    clip_norm: float | None = 1.0
    ema: float | None = None
    gate_epoch: int = 10
    validate_every: int = 1
    precise_norm_cases: int = 256
    monitor: str = "dice"
    patience: int | None = None
    panels: int = 4
    device: str = "auto"
