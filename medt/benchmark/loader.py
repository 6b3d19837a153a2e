"""The loader's share of a training: an epoch with it beside the same epoch from memory."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from medt.benchmark.worker import Work

IMAGES = 40
SAMPLINGS = ("resize", "crop")
EPOCHS = ("loader", "memory")


class LoaderJob(NamedTuple):
    """`config` is the whole of configs/train.yaml, resolved; `threads` as in `Job`."""

    config: dict[str, Any]
    threads: int | None


def loader_work(job: LoaderJob) -> Work:
    """An epoch of training as `Trainer` runs it, always the first one.

    "loader" augments the images that the loader keeps decoded, "memory" finds the batches ready.
    """
    import torch

    from medt.build import build_trainer, new_network
    from medt.data.open import open_dataset
    from medt.inference.device import choose_device
    from medt.io.console import safe_console
    from medt.processes import Processes
    from medt.training.run_folder import RunFolder
    from medt.training.state import TrainingState

    if job.threads is not None:
        torch.set_num_threads(job.threads)
    config = job.config
    index = open_dataset(config["dataset"], draws=True)
    network, _ = new_network(config, allow=())
    run_folder = RunFolder(Path(config["run_dir"]))
    device = choose_device(config["trainer"]["device"])
    trainer = build_trainer(
        config, index, network, None, run_folder, safe_console(quiet=True), device, Processes(), ()
    )
    trainer.batches.set_epoch(1)
    batches: dict[str, Any] = {"loader": trainer.loader, "memory": list(trainer.loader)}

    def epoch(source: str) -> float:
        trainer.loader = batches[source]
        trainer.state = TrainingState()
        start = time.perf_counter()
        trainer.train_epoch()
        return time.perf_counter() - start

    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Work({name: partial(epoch, name) for name in EPOCHS}, parameters)
