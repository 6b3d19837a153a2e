"""Two networks over three seeds: the mean of their validation Dice, and how much it varies.

python examples/compare_networks.py [EPOCHS] [SEEDS]
"""

from __future__ import annotations

import statistics
import sys

import medt


def main(epochs: int = 5, seeds: int = 3) -> None:
    data = medt.open_dataset("synthetic", train=32, val=16, test=8, size=128)
    for name in ("unet", "gated_axial_unet"):
        runs = [medt.train(name, data, epochs=epochs, seed=seed) for seed in range(seeds)]
        scores = [medt.evaluate(run, data, split="val").dice for run in runs]
        mean, deviation = statistics.mean(scores), statistics.pstdev(scores)
        print(f"{name}: validation Dice {mean:.3f} +- {deviation:.3f} over {seeds} seeds")
        print(f"medt compare {' '.join(str(run.root) for run in runs)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
