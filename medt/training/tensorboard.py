"""What a run shows in TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from medt.data.dataset import SegmentationDataset
from medt.drawing import contact_sheet, panel
from medt.errors import UserError
from medt.inference.predictor import Predictor, most_probable
from medt.io.text import for_terminal
from medt.metrics.pixel import count_pixels, dice, foreground

# A measurement's name in the table to its tag. TensorBoard orders tags by the alphabet: scores
# first, then loss, the optimizer, speed, and the many gates last, under "weights".
TAGS = {
    "train_dice": "dice/train",
    "val_dice": "dice/val",
    "val_iou": "iou/val",
    "val_false_alarms": "false_alarms/val",
    "train_loss": "loss/train",
    "val_loss": "loss/val",
    "lr": "optimizer/learning_rate",
    "gradient_norm": "optimizer/gradient_norm",
    "images_per_second": "speed/images_per_second",
    "loader_wait": "speed/loader_wait",
    "norm_seconds": "speed/norm_seconds",
}
CLASS_TAGS = {"val_dice_": "dice/val/", "val_iou_": "iou/val/"}
# What the table of hyperparameters shows of a config, in this order. Of a class its name; of an
# open group (*) all its values, so that those of one's own network or loss are among them.
HYPERPARAMETERS = (
    *("model.name", "model.*", "dataset.name", "dataset.image_size"),
    *("dataset.sampling", "dataset.normalize", "augmentation.name", "loss.*", "optimizer.*"),
    *("scheduler.*", "trainer.epochs", "trainer.batch_size", "trainer.accumulate"),
    *("trainer.clip_norm", "trainer.ema", "trainer.gate_epoch", "trainer.precision", "seed"),
)
# Values of open groups that follow from others, or do not change what is learnt.
FOLLOWING = (
    *("architecture", "channels", "checkpointing", "classes", "fused", "image_size", "name"),
    "parameters",
)
DICE = "score/dice"  # of the weights for use: a single point, apart from the curves


class TensorBoardLog:
    """Writes events below `folder`, by epoch; events after epoch `resumed_at` are superseded.

    Its methods raise UserError where the folder cannot be written.
    """

    def __init__(self, folder: Path, resumed_at: int) -> None:
        self.folder = folder
        with self._writing():
            self.writer = SummaryWriter(str(folder), purge_step=resumed_at + 1)

    def write_epoch(self, row: Mapping[str, float], gates: Mapping[str, float]) -> None:
        """The measurements of one epoch and the gates at its end."""
        epoch = int(row["epoch"])
        with self._writing():
            for name, value in row.items():
                if tag := _tag(name):
                    self.writer.add_scalar(tag, value, epoch)
            for name, value in gates.items():
                self.writer.add_scalar(f"weights/{name.replace('.', '/')}", value, epoch)
            self.writer.flush()

    def write_panels(
        self, epoch: int, predictor: Predictor, dataset: SegmentationDataset, count: int
    ) -> None:
        """image | truth | prediction of `count` cases, always the same, as preprocessed."""
        if not count:
            return
        spread = np.linspace(0, len(dataset) - 1, min(count, len(dataset)))
        cases = [int(index) for index in spread.round()]
        colors = [c.color for c in predictor.classes]
        panels = []
        for index in cases:
            image, truth, _ = dataset.pair(index)
            tensor = predictor.preprocessing.tensor(image)
            logits = predictor.logits(tensor[None])[0, : len(colors)]
            predicted = most_probable(logits.cpu().numpy())
            score = foreground(dice(count_pixels(predicted, truth, len(colors))))
            shown = "no foreground" if np.isnan(score) else f"Dice {score:.3f}"
            caption = f"{shown}  {dataset.cases[index].name}"
            panels.append(panel(image, truth, predicted, colors, caption))
        sheet = np.ascontiguousarray(contact_sheet(panels))
        with self._writing():
            self.writer.add_image("panels/val", sheet, epoch, dataformats="HWC")
            self.writer.flush()

    def write_hyperparameters(self, config: Mapping[str, Any], dice: float, epoch: int) -> None:
        """The run's line in the table of hyperparameters, with the Dice of its weights for use."""
        with self._writing():
            writer: Any = self.writer.file_writer
            summaries = hparams(hyperparameters(config), {DICE: dice})  # type: ignore[no-untyped-call]
            for summary in summaries:
                writer.add_summary(summary)
            self.writer.add_scalar(DICE, dice, epoch)
            self.writer.flush()

    def close(self) -> None:
        with self._writing():
            self.writer.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"Cannot write {self.folder}: {error}", "check free space and permissions"
            ) from error


def hyperparameters(config: Mapping[str, Any]) -> dict[str, str | float]:
    """What HYPERPARAMETERS names of a config, as far as it has them; the network first."""
    values: dict[str, str | float] = {}
    for key in HYPERPARAMETERS:
        group, _, last = key.rpartition(".")
        node = config.get(group) if group else config
        if not isinstance(node, Mapping):
            continue
        if last == "*":
            names = [name for name in node if name not in (*FOLLOWING, "_target_")]
            values |= {} if group == "model" else {group: _class_name(node)}
        else:
            names = [last]
        found = {name: node.get(name) for name in names}
        if key == "model.name":
            found["name"] = found["name"] or _class_name(node)
        for name, value in found.items():
            if value is not None:
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                values[f"{group}.{name}".lstrip(".")] = (
                    value if number else for_terminal(str(value))
                )
    return values


def _class_name(spec: Mapping[str, Any]) -> str:
    return for_terminal(str(spec.get("_target_") or "none")).rpartition(".")[2]


def _tag(name: str) -> str | None:
    for prefix, class_tag in CLASS_TAGS.items():
        if name not in TAGS and name.startswith(prefix):
            return class_tag + name.removeprefix(prefix)
    return TAGS.get(name)
