"""A network and a loss of one's own in the training loop of medt.

python examples/own_network.py [EPOCHS]
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

import medt


class TwoScales(nn.Module):
    """Convolutions at full and at half resolution, added: (N, channels, H, W) to logits."""

    def __init__(self, channels: int, classes: int, width: int = 16) -> None:
        super().__init__()
        self.fine = nn.Conv2d(channels, width, 5, padding=2)
        self.coarse = nn.Conv2d(channels, width, 5, padding=2, stride=2)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        size = images.shape[2:]
        coarse = nn.functional.interpolate(self.coarse(images), size, mode="bilinear")
        logits: Tensor = self.head(torch.relu(self.fine(images) + coarse))
        return logits


def squared_error(logits: Tensor, target: Tensor, foreground: float = 1.0) -> Tensor:
    """Brier score of the foreground; pixels of 255 are ignored."""
    error = logits.softmax(dim=1)[:, 1] - (target == 1).float()
    weight = torch.where(target == 1, foreground, 1.0) * (target != 255)
    return (weight * error**2).sum() / weight.sum().clamp(min=1)


def main(epochs: int = 5) -> None:
    data = medt.open_dataset("synthetic", train=32, val=8, test=8, size=128)
    here = "own_network" if __name__ == "__main__" else __name__
    run = medt.train(
        {"_target_": f"{here}.TwoScales", "width": 8},
        data,
        loss={"_target_": f"{here}.squared_error", "foreground": 2.0},
        augmentation="flip",
        epochs=epochs,
    )
    # Whoever loads the run says that this code may be imported.
    scores = medt.evaluate(run, data, split="test", allow=here)
    print(f"Dice {scores.dice:.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
