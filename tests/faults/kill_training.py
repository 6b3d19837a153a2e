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
from pathlib import Path
from typing import Any

import torch

from medt.checkpoint import load_checkpoint

TRAIN = Path(__file__).parents[2] / "scripts" / "train.py"
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


def main(kills: int, seed: int) -> int:
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="medt-faults-") as name:
        folder = Path(name)
        began = time.monotonic()
        assert start(folder / "data", folder / "first").wait() == 0
        began = time.monotonic()  # the images are made by now
        assert start(folder / "data", folder / "whole").wait() == 0
        duration = time.monotonic() - began
        expected = outcome(folder / "whole/run")
        failures = early = 0
        for number in range(1, kills + 1):
            runs = folder / f"killed{number}"
            moment = draw.uniform(0.4, 1.0) * duration
            process = start(folder / "data", runs)
            time.sleep(moment)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            saved = (runs / "run/checkpoints/last.pt").is_file()
            early += not saved
            process = start(folder / "data", runs)
            _, error = process.communicate()
            good = process.returncode == 0 and equal(outcome(runs / "run"), expected)
            failures += not good
            print(
                f"kill {number}/{kills} after {moment:.1f} of {duration:.1f} s: "
                f"{'resumed' if saved else 'started again'}, "
                + ("equal to the bit" if good else f"WRONG {error.decode().strip()}"),
                flush=True,
            )
    print(f"{kills - failures} of {kills} kills survived, {early} of them before the first save")
    return 1 if failures else 0


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    sys.exit(main(*(numbers + [50, 0][len(numbers) :])))
