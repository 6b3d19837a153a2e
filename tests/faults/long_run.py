"""Train for 200 epochs and watch what must not grow: memory, open files, the log.

python tests/faults/long_run.py [EPOCHS]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medt.training.trainer import Trainer

MEGABYTES_OF_GROWTH = 8.0  # over the second half, of an allocator's noise


def main(epochs: int) -> int:
    memory: list[float] = []
    files: list[int] = []
    flushed: list[bool] = []
    update = Trainer.update_state

    def watched(self: Trainer, row: Any) -> bool:
        status = Path("/proc/self/status").read_text()
        memory.append(int(status.partition("VmRSS:")[2].split()[0]) / 1024)
        files.append(len(list(Path("/proc/self/fd").iterdir())))
        if self.state.epoch in (2, epochs // 2):  # what the epochs before have written is there
            events = EventAccumulator(str(self.run.tensorboard))
            events.Reload()
            steps = [event.step for event in events.Scalars("loss/train")]
            flushed.append(steps == list(range(1, self.state.epoch)))
        return update(self, row)

    Trainer.update_state = watched  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(prefix="medt-faults-") as name:
        folder = Path(name)
        given = [
            *(f"paths.data={folder}/data", f"run_dir={folder}/run", f"trainer.epochs={epochs}"),
            *("dataset.train=8", "dataset.val=2", "dataset.test=2", "dataset.size=64"),
            *("dataset.image_size=32", "model=gated_axial_unet", "model.depths=[1,1]"),
            *("trainer.device=cpu", "trainer.ema=0.9", "dataset.workers=1", "check=false"),
        ]
        assert train.main(given) == 0
        log = (folder / "run/train.log").stat().st_size
    half = len(memory) // 2
    before, after = (statistics.median(part) for part in (memory[half : half + 10], memory[-10:]))
    print(
        f"{epochs} epochs: memory {before:.1f} MB after {half} and {after:.1f} MB after {epochs}, "
        f"open files {files[half]} and {files[-1]}, log {log / epochs:.0f} bytes an epoch, "
        f"events flushed: {all(flushed)}"
    )
    grown = after - before > MEGABYTES_OF_GROWTH or files[-1] > files[half]
    return 1 if grown or not all(flushed) or log > 400 * epochs else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
