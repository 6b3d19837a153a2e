"""What a run shows in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from medt.data.dataset import SegmentationDataset
from medt.drawing import contact_sheet, panel
from medt.inference.predictor import Predictor, most_probable
from medt.metrics.pixel import count_pixels, dice, foreground

# A measurement's name in the table to its tag, in the order in which TensorBoard shall show them.
TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/val",
    "train_dice": "dice/train",
    "val_dice": "dice/val",
    "val_iou": "iou/val",
    "lr": "step/learning_rate",
    "gradient_norm": "step/gradient_norm",
    "images_per_second": "speed/images_per_second",
    "loader_wait": "speed/loader_wait",
    "norm_seconds": "speed/norm_seconds",
}
CLASS_TAGS = {"val_dice_": "dice/val/", "val_iou_": "iou/val/"}


class TensorBoardLog:
    """Writes events below `folder`, by epoch; events after epoch `resumed_at` are superseded."""

    def __init__(self, folder: Path, resumed_at: int) -> None:
        self.writer = SummaryWriter(str(folder), purge_step=resumed_at + 1)

    def write_epoch(self, row: Mapping[str, float], gates: Mapping[str, float]) -> None:
        """The measurements of one epoch and the gates at its end."""
        epoch = int(row["epoch"])
        for name, value in row.items():
            tag = TAGS.get(name)
            for prefix, class_tag in CLASS_TAGS.items():
                if tag is None and name.startswith(prefix):
                    tag = class_tag + name.removeprefix(prefix)
            if tag is not None:
                self.writer.add_scalar(tag, value, epoch)
        for name, value in gates.items():
            self.writer.add_scalar(f"gates/{name.replace('.', '/')}", value, epoch)

    def write_panels(
        self, epoch: int, predictor: Predictor, dataset: SegmentationDataset, count: int
    ) -> None:
        """image | truth | prediction of `count` cases, always the same, at the network's size."""
        if not count:
            return
        spread = np.linspace(0, len(dataset) - 1, min(count, len(dataset)))
        cases = [int(index) for index in spread.round()]
        pairs = [dataset.pair(index) for index in cases]
        preprocessing = predictor.preprocessing
        logits = predictor.logits(torch.stack([preprocessing.tensor(image) for image, _ in pairs]))
        colors = [c.color for c in predictor.classes]
        panels = []
        for (image, truth), one, index in zip(pairs, logits.cpu().numpy(), cases, strict=True):
            predicted = most_probable(one)
            score = foreground(dice(count_pixels(predicted, truth, len(colors))))
            caption = f"{dataset.cases[index].name}  Dice {score:.3f}"
            panels.append(panel(image, truth, predicted, colors, caption))
        sheet = contact_sheet(panels)
        self.writer.add_image("panels/val", np.ascontiguousarray(sheet), epoch, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
