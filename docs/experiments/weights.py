"""What choosing the weights of a run by few validation cases costs, from the tables of trial.py.

    python docs/experiments/weights.py GROUPS.csv NAME=FILE.csv[,FILE.csv...] ...

For each network (NAME), each number of validation cases and each rule: the Dice of the held-out
cases of all tables by the weights that the rule takes, less that of "best": the weights of the
highest validation Dice. Sets of so many validation cases are drawn 200 times from the fold that is
kept for choosing. With the interval of the mean over the held-out cases; GROUPS.csv is the
dataset's split file, case,group,split, as a patient's cases are not independent.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medt.data.splits import read_splits
from medt.metrics.paired import compare_pairs

DRAWS = 200
COUNTS = (3, 5, 9, 17)
WINDOW = 2  # validations on each side of the one whose mean they are

Table = NDArray[np.float64]  # (validations, cases)


def read(file: Path) -> tuple[dict[tuple[str, str], Table], dict[str, list[str]]]:
    """The Dice by weights and role, and the cases of each role."""
    found: dict[tuple[str, str], dict[int, dict[str, float]]]
    found = defaultdict(lambda: defaultdict(dict))
    with file.open() as lines:
        for row in csv.DictReader(lines):
            if row["rule"] == "none":
                epochs = found[row["weights"], row["role"]]
                epochs[int(row["epoch"])][row["case"]] = float(row["dice"])
    cases = {role: sorted(epochs[max(epochs)]) for (_, role), epochs in found.items()}
    tables = {
        (kind, role): np.array([[epochs[e][case] for case in cases[role]] for e in sorted(epochs)])
        for (kind, role), epochs in found.items()
    }
    return tables, cases


def smooth(curve: Table) -> Table:
    spans = [curve[max(0, i - WINDOW) : i + WINDOW + 1] for i in range(len(curve))]
    return np.array([span.mean() for span in spans])


def gains(tables: dict[tuple[str, str], Table], count: int) -> dict[str, Table]:
    """By rule: of each held-out case, the mean over the draws of the Dice less that of "best"."""
    rng = np.random.default_rng(0)
    last, average, tail = (tables[kind, "score"] for kind in ("last", "ema", "tail"))
    choosing = tables["last", "choose"]
    best, smoothed = [], []
    for _ in range(DRAWS):
        chosen = rng.permutation(choosing.shape[1])[:count]
        curve = np.nanmean(choosing[:, chosen], axis=1)
        best.append(last[curve.argmax()])
        smoothed.append(last[smooth(curve).argmax()])
    kept = {
        "highest point of the smoothed curve": np.mean(smoothed, axis=0),
        "last weights": last[-1],
        "average of the last weights": average[-1],
        "mean of the last quarter": tail[-1],
    }
    return {rule: dice - np.mean(best, axis=0) for rule, dice in kept.items()}


def main() -> None:
    groups = {row.case: row.group or row.case for row in read_splits(Path(sys.argv[1]))}
    for argument in sys.argv[2:]:
        network, _, files = argument.partition("=")
        read_files = [read(Path(file)) for file in files.split(",")]
        held = [groups[case] for _, cases in read_files for case in cases["score"]]
        most = min(len(cases["choose"]) for _, cases in read_files)
        for count in sorted({min(count, most) for count in COUNTS}):
            found = [gains(tables, count) for tables, _ in read_files]
            for rule in found[0]:
                test = compare_pairs(np.concatenate([one[rule] for one in found]), held)
                low, high = test.interval
                print(
                    f"{network}, {count} validation cases, {len(held)} held out, {rule}: "
                    f"{test.difference:+.4f} ({low:+.4f} to {high:+.4f})"
                )


if __name__ == "__main__":
    main()
