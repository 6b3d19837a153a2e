"""What choosing the weights of a run by few validation cases costs, from the tables of trial.py.

    python docs/experiments/weights.py NAME=FILE.csv[,FILE.csv...] ...

For each network (NAME) and number of validation cases: the Dice of the held-out cases by rule, less
that of "best": the weights of the highest validation Dice. Sets of so many validation cases are
drawn 200 times from the fold that is kept for choosing.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DRAWS = 200
COUNTS = (3, 5, 9, 17)
WINDOW = 2  # validations on each side of the one whose mean they are

Scores = dict[tuple[str, str], dict[int, dict[str, float]]]


def read(file: Path) -> Scores:
    """By weights and role, then epoch, then case."""
    found: Scores = defaultdict(lambda: defaultdict(dict))
    with file.open() as lines:
        for row in csv.DictReader(lines):
            if row["rule"] != "none":
                continue
            found[row["weights"], row["role"]][int(row["epoch"])][row["case"]] = float(row["dice"])
    return found


def means(scores: dict[int, dict[str, float]]) -> NDArray[np.float64]:
    return np.array([np.nanmean(list(scores[epoch].values())) for epoch in sorted(scores)])


def smooth(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    spans = [curve[max(0, i - WINDOW) : i + WINDOW + 1] for i in range(len(curve))]
    return np.array([span.mean() for span in spans])


def gains(file: Path, count: int, rng: np.random.Generator) -> dict[str, float]:
    """The mean Dice of each rule on the held-out cases, less that of "best"."""
    table = read(file)
    held = {kind: means(table[kind, "score"]) for kind in ("last", "ema", "tail")}
    rules: dict[str, list[float]] = defaultdict(list)
    for kind, name in (("last", "best"), ("ema", "best average")):
        epochs = table[kind, "choose"]
        cases = sorted(next(iter(epochs.values())))
        curves = np.array([[epochs[e][case] for case in cases] for e in sorted(epochs)])
        for _ in range(DRAWS):
            chosen = rng.permutation(len(cases))[:count]
            curve = np.nanmean(curves[:, chosen], axis=1)
            rules[name].append(held[kind][curve.argmax()])
            if kind == "last":
                rules["smoothed best"].append(held[kind][smooth(curve).argmax()])
    rules["last"], rules["last average"] = [held["last"][-1]], [held["ema"][-1]]
    rules["mean of the last quarter"] = [held["tail"][-1]]
    best = np.mean(rules["best"])
    return {name: float(np.mean(values) - best) for name, values in rules.items()}


def main() -> None:
    rng = np.random.default_rng(0)
    for argument in sys.argv[1:]:
        network, _, files = argument.partition("=")
        for count in COUNTS:
            found = [gains(Path(file), count, rng) for file in files.split(",")]
            shown = [
                f"{rule} {np.mean([one[rule] for one in found]):+.4f}"
                for rule in found[0]
                if rule != "best"
            ]
            print(f"{network}, {count} validation cases, {len(found)} folds: {', '.join(shown)}")


if __name__ == "__main__":
    main()
