"""What a training would be: its network, memory and time, and one batch to look at."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch

from medt.data.preview import picture_of
from medt.drawing import contact_sheet, panel
from medt.io.files import write_png, write_text
from medt.io.text import json_text
from medt.training.memory import MemoryEstimate
from medt.training.precise_norm import BATCH, image_batches
from medt.training.progress import duration
from medt.training.trainer import Trainer

TIMED_STEPS = 3
COLUMNS = 2


def dry_run(trainer: Trainer, memory: MemoryEstimate, picture: Path) -> str:
    """Take a few training steps, which the trainer is of no use after, and describe them.

    Args:
        trainer: of a run that has not begun.
        memory: of one of its steps.
        picture: where one augmented batch is drawn, image and truth side by side; the seconds of
            the whole training go into a .json beside it.

    Returns:
        Lines for the terminal.
    """
    settings, cases = trainer.settings, trainer.train_set
    channels, (height, width) = cases.preprocessing.channels, cases.preprocessing.image_size
    outputs = len(trainer.classes) + (cases.objects is not None)
    with trainer.loader:
        batch = draw_batch(trainer, picture)
        step = _step_seconds(trainer)
    epoch = step * len(trainer.batches)
    validation = _validation_seconds(trainer)
    validations = -(-settings.epochs // settings.validate_every)
    whole = epoch * settings.epochs + validation * validations
    write_text(picture.with_suffix(".json"), json_text({"seconds": whole}))
    return "\n".join(
        [
            *_parts(trainer),
            f"input      {settings.batch_size} x {channels} x {height} x {width}, "
            f"logits {settings.batch_size} x {outputs} x {height} x {width}",
            f"memory     {memory.describe()} at the peak of a training step",
            f"time       {step:.2f} s a batch, {duration(epoch)} an epoch of "
            f"{len(trainer.batches)} batches, {duration(validation)} a validation; "
            f"{settings.epochs} epochs {duration(whole)}",
            f"batch      {', '.join(batch)}",
            f"picture    {picture}",
        ]
    )


def draw_batch(trainer: Trainer, picture: Path) -> list[str]:
    """Draw the first batch of the first epoch, as the network gets it; returns its cases."""
    trainer.batches.set_epoch(1)
    batch: dict[str, Any] = next(iter(trainer.loader))
    colors = [c.color for c in trainer.classes]
    panels = [
        panel(picture_of(image, trainer.train_set.preprocessing), mask.numpy(), None, colors, name)
        for image, mask, name in zip(batch["image"], batch["mask"], batch["case"], strict=True)
    ]
    write_png(picture, contact_sheet(panels, COLUMNS))
    names: list[str] = batch["case"]
    return names


def _parts(trainer: Trainer) -> list[str]:
    """The network's parts with their parameters, and the number of cases."""
    parts = list(trainer.model.named_children())
    if len(parts) == 1:  # the adapter of a baseline
        parts = list(parts[0][1].named_children())
    rows = [(name, type(part).__name__, part) for name, part in parts]
    longest = max(len(name) for name, _, _ in rows)
    kinds = max(len(kind) for _, kind, _ in rows)
    lines = [trainer.describe()]
    for name, kind, part in rows:
        count = sum(parameter.numel() for parameter in part.parameters())
        lines.append(f"  {name:{longest}}  {kind:{kinds}}  {count:>12,}")
    return lines


def _step_seconds(trainer: Trainer) -> float:
    """The median time of a batch, its loading and its optimizer step included."""
    trainer.model.train()
    started = time.perf_counter()
    batches = list(islice(trainer.loader, 1 + TIMED_STEPS))
    loading = (time.perf_counter() - started) / len(batches)
    times = [_timed(partial(_step, trainer, batch), trainer.device) for batch in batches]
    return median(times[1:] or times) + loading


def _step(trainer: Trainer, batch: dict[str, Any]) -> None:
    trainer.accumulate(batch, 0)
    trainer.step(batch["case"])


def _validation_seconds(trainer: Trainer) -> float:
    """The time of re-estimated norms, from one batch, and of the validation, from one case."""
    count = min(BATCH, len(trainer.train_set))
    (images,) = image_batches(trainer.train_set, 1, range(count), trainer.device)
    case = trainer.val_set[0]["image"][None]
    predictor = trainer.predictor(trainer.model)
    predictor.logits(images[:1])  # what has to be imported is no part of the time
    seconds = _timed(partial(predictor.logits, images), trainer.device) / count
    each = seconds
    if predictor.mode != "resize":
        each = _timed(partial(predictor.logits, case), trainer.device)
    normed = min(trainer.settings.precise_norm_cases, len(trainer.train_set))
    return seconds * normed + each * len(trainer.val_set)


def _timed(action: Callable[[], Any], device: torch.device) -> float:
    started = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
