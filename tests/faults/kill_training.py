"""Kill a real training at random moments by SIGKILL, and resume each to the end.

    python tests/faults/kill_training.py [KILLS] [SEED]

Every run must end with the weights, the optimizer's state and the history of one that nobody
killed, and no moment may leave a run that `resume=auto` cannot continue.
"""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from medt.checkpoint import load_checkpoint

TRAIN = Path(__file__).parents[2] / "scripts" / "train.py"
TOGETHER = 2  # trainings at a time, each of which keeps about one core busy
CLOCK = ("images", "loader", "norm")


def overrides(data: Path, runs: Path) -> list[str]:
    """Workers, augmentation, averaged weights, accumulation, a schedule: all that has a state."""
    return [
        *(f"paths.data={data}", f"paths.runs={runs}", f"run_dir={runs}/run", "resume=auto"),
        *("dataset.train=12", "dataset.val=3", "dataset.test=2", "dataset.size=64"),
        *("dataset.image_size=32", "model=gated_axial_unet", "model.depths=[1,1]"),
        *("trainer.epochs=20", "trainer.batch_size=2", "trainer.accumulate=2", "trainer.ema=0.9"),
        *("trainer.gate_epoch=2", "dataset.workers=1", "trainer.device=cpu", "check=false"),
        "trainer.checkpoint_every=0.005 min",
    ]


class Kill(NamedTuple):
    """A kill after `moment` seconds: was a checkpoint saved by then, was the end the same."""

    moment: float
    saved: bool
    good: bool
    error: str


def start(data: Path, runs: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(TRAIN), *overrides(data, runs)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def outcome(run: Path) -> dict[str, Any]:
    """What must not depend on interruptions."""
    training = load_checkpoint(run / "checkpoints/last.pt").training or {}
    rows = csv.DictReader((run / "history.csv").open())
    history = [{k: v for k, v in row.items() if k.split("_")[0] not in CLOCK} for row in rows]
    kept = {key: training[key] for key in ("model", "optimizer", "average", "step", "finished")}
    best = load_checkpoint(run / "checkpoints/best.pt").weights
    return {**kept, "best": best, "history": history}


def equal(one: Any, other: Any) -> bool:
    """Of nested dicts and lists of tensors and plain values."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def run_whole(folder: Path, name: str) -> float:
    """Train without an interruption, and give the seconds that it takes."""
    began = time.monotonic()
    _, error = (process := start(folder / "data", folder / name)).communicate()
    if process.returncode:
        sys.exit(error.decode())
    return time.monotonic() - began


def kill_and_resume(folder: Path, expected: dict[str, Any], name: str, moment: float) -> Kill:
    """Kill a new training after `moment` seconds, and let `resume=auto` take it to its end."""
    runs = folder / name
    process = start(folder / "data", runs)
    time.sleep(moment)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    saved = (runs / "run/checkpoints/last.pt").is_file()
    _, error = (process := start(folder / "data", runs)).communicate()
    good = process.returncode == 0 and equal(outcome(runs / "run"), expected)
    return Kill(moment, saved, good, error.decode().strip())


def main(kills: int, seed: int) -> int:
    draw = random.Random(seed)
    pool = ThreadPoolExecutor(TOGETHER)
    results: list[Kill] = []
    with tempfile.TemporaryDirectory(prefix="medt-faults-") as name:
        folder = Path(name)
        try:
            run_whole(folder, "first")  # makes the images, too
            duration = max(pool.map(partial(run_whole, folder), ["whole", "again"]))
            expected = outcome(folder / "whole/run")
            if not equal(outcome(folder / "again/run"), expected):
                sys.exit("error: two runs that nobody killed differ")
            moments = [draw.uniform(0.4, 1) * duration for _ in range(kills)]
            names = [f"killed{number}" for number in range(kills)]
            kill = partial(kill_and_resume, folder, expected)
            for result in pool.map(kill, names, moments):
                results.append(result)
                print(
                    f"kill {len(results)}/{kills} after {result.moment:.1f} of {duration:.1f} s: "
                    f"{'resumed' if result.saved else 'started again'}, "
                    + ("equal to the bit" if result.good else f"WRONG {result.error}"),
                    flush=True,
                )
        finally:
            pool.shutdown(cancel_futures=True)
    survived = sum(result.good for result in results)
    early = sum(not result.saved for result in results)
    print(f"{survived} of {kills} kills survived, {early} of them before the first save")
    return 0 if survived == kills else 1


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    sys.exit(main(*(numbers + [50, 0][len(numbers) :])))
