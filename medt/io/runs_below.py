"""Runs that are given where a checkpoint is needed: which weights they stand for."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

from medt.errors import UserError
from medt.io.plain import read_json

BEST = Path("checkpoints", "best.pt")
METRICS = "metrics.json"
# The weights that a run's folder may stand for, and what is said of them.
USES = {"last": "those at the end of its schedule", "best": "those of its best validation"}
DEEPEST = 4  # folders down to a run; of runs/DATASET/MODEL/TIME there are three
MOST_READ = 1000  # runs
MOST_SHOWN = 3


def use_of(metrics: Any) -> str:
    """Which of a run's weights are used, by its metrics.json; "best" where that does not say."""
    use = metrics.get("use") if isinstance(metrics, dict) else None
    return use if isinstance(use, str) and use in USES else "best"


def weights_of(run: Path) -> tuple[Path, str]:
    """The checkpoint that the folder of a run stands for, and why; it may be absent."""
    try:
        use = use_of(read_json(run / METRICS))
    except UserError:  # none yet, or damaged: what can be used is used
        use = "best"
    return run / "checkpoints" / f"{use}.pt", USES[use]


def told_of_folder(path: Path, key: str) -> tuple[str, str]:
    """What an error says of a folder that is no finished run, and what to give instead of it.

    Args:
        path: of the folder.
        key: of the setting that names it.
    """
    names = ("best.pt", "last.pt", "checkpoints/last.pt", str(BEST))
    if there := [str(path / name) for name in names if (path / name).is_file()]:
        missing = weights_of(path)[0].relative_to(path)
        return f"{path} is a folder without {missing}", f"give {shlex.quote(f'{key}={there[0]}')}"
    runs = best_runs(path)
    if not runs:
        return f"{path} is a folder without runs", "give a checkpoint, or a run's folder"
    shown = [
        f"{shlex.quote(f'{key}={run}')}{f' ({score})' if score else ''}"
        for run, score in runs[:MOST_SHOWN]
    ]
    problem = f"{path} is no run, but a folder of runs ({len(runs)})"
    return problem, f"give one of them: {', '.join(shown)}"


def best_runs(folder: Path) -> list[tuple[Path, str]]:
    """The runs below a folder with their validation scores, such as "val dice 0.8123", or "".

    The best come first; where their scores are of several kinds, or not known, the newest.
    """
    patterns = [str(Path(*["*"] * depth, BEST)) for depth in range(1, DEEPEST + 1)]
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern))][:MOST_READ]
    runs = [file.parent.parent for file in files]
    scores = {run: _score(run) for run in runs}
    kinds = {kind for kind, _ in scores.values()}
    if len(kinds) == 1 and kinds != {""}:
        runs.sort(key=lambda run: scores[run][1], reverse=kinds != {"loss"})
    else:
        runs.sort(key=lambda run: (run / BEST).stat().st_mtime, reverse=True)
    return [
        (run, f"val {kind} {s:.4f}" if kind else "") for run in runs for kind, s in [scores[run]]
    ]


def validation_score(folder: Path) -> float | None:
    """The validation score of a run's weights for use, or the mean over runs right below a folder.

    None where there is no score.
    """
    below = [folder / METRICS]
    if not below[0].is_file():
        below = sorted(folder.glob(f"*/{METRICS}"))
    scores = [score for kind, score in (_score(file.parent) for file in below) if kind]
    return sum(scores) / len(scores) if scores else None


def _score(run: Path) -> tuple[str, float]:
    """Which validation score the run watches, and that of its weights for use; ("", 0) where that
    is unknown."""
    try:
        metrics = read_json(run / METRICS)
        kind = metrics["monitor"]
        score = metrics[use_of(metrics)][f"val_{kind}"]
    except (UserError, KeyError, TypeError):
        return "", 0.0
    known = isinstance(kind, str) and isinstance(score, int | float) and math.isfinite(score)
    return (kind, score) if known else ("", 0.0)
