"""A paired test between two networks, from the tables of trial.py.

    python docs/experiments/paired.py A.csv[,A2.csv...] B.csv[,B2.csv...] GROUPS.csv [RULE SCORE]

For the last weights and all held-out cases: the mean Dice of both, and B less A with its interval
and p; with a RULE of post-processing, such as watershed, its SCORE of objects: f1 or aji.
GROUPS.csv is the dataset's split file, case,group,split, as a patient's cases are not independent.
Of several tables with a case its mean counts.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from medt.data.splits import read_splits
from medt.metrics.paired import compare_pairs


def last_scores(files: str, rule: str, score: str) -> dict[str, float]:
    """The score of each case that has one, by the last weights."""
    found: dict[str, list[float]] = defaultdict(list)
    for file in files.split(","):
        with Path(file).open() as lines:
            rows = [row for row in csv.DictReader(lines) if row["weights"] == "last"]
        end = max(int(row["epoch"]) for row in rows)
        for row in rows:
            if int(row["epoch"]) == end and row["rule"] == rule and row[score] != "nan":
                found[row["case"]].append(float(row[score]))
    return {case: float(np.mean(values)) for case, values in found.items()}


def main() -> None:
    rule, score = sys.argv[4:6] or ("none", "dice")
    first, second = (last_scores(files, rule, score) for files in sys.argv[1:3])
    groups = {row.case: row.group for row in read_splits(Path(sys.argv[3]))}
    cases = sorted(first.keys() & second.keys())
    before, after = (np.array([of[case] for case in cases]) for of in (first, second))
    test = compare_pairs(after - before, [groups[case] for case in cases])
    low, high = test.interval
    print(f"{len(cases)} cases: {before.mean():.4f}, {after.mean():.4f}")
    print(f"difference {test.difference:+.4f} ({low:+.4f} to {high:+.4f}), p {test.p:.4f}")


if __name__ == "__main__":
    main()
