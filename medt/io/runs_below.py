"""The runs below a folder that was given where a checkpoint is needed."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from medt.errors import UserError
from medt.io.plain import read_json

BEST = Path("checkpoints", "best.pt")
METRICS = "metrics.json"
DEEPEST = 4  # folders down to a run; of runs/DATASET/MODEL/TIME there are three
MOST_READ = 1000  # runs
MOST_SHOWN = 3


def told_of_folder(path: Path, key: str) -> tuple[str, str]:
    """What an error says of a folder that is no finished run, and what to give instead of it.

    Args:
        path: of the folder.
        key: of the setting that names it.
    """
    files = [path / name for name in ("best.pt", "last.pt", "checkpoints/last.pt")]
    if there := [str(file) for file in files if file.is_file()]:
        return f"{path} is a folder without {BEST}", f"give {shlex.quote(f'{key}={there[0]}')}"
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
    """The runs below a folder with what they were chosen by, such as "val dice 0.8123", or "".

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
    """The best validation score of a run, or the mean over the runs right below a folder.

    None where there is no score.
    """
    below = [folder / METRICS]
    if not below[0].is_file():
        below = sorted(folder.glob(f"*/{METRICS}"))
    scores = [score for kind, score in (_score(file.parent) for file in below) if kind]
    return sum(scores) / len(scores) if scores else None


def _score(run: Path) -> tuple[str, float]:
    """Which validation score the run was chosen by, and its best; ("", 0) where that is unknown."""
    try:
        metrics = read_json(run / METRICS)
        kind = metrics["monitor"]
        score = metrics["best"][f"val_{kind}"]
    except (UserError, KeyError, TypeError):
        return "", 0.0
    known = isinstance(kind, str) and isinstance(score, int | float) and math.isfinite(score)
    return (kind, score) if known else ("", 0.0)
