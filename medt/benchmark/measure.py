"""What the benchmark measures: the variants of networks, one after the other, and what else."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from medt.benchmark.glas import measure_evaluation, measure_preparation
from medt.benchmark.large import MODES, measure_large
from medt.benchmark.loader import EPOCHS, IMAGES, SAMPLINGS, LoaderJob, loader_work
from medt.benchmark.naive import has_naive
from medt.benchmark.report import add_shares, growth, median, quotient, ratios, record_of, validity
from medt.benchmark.timing import PHASES, WARM_UP_ROUNDS, take_turns, time_group, workers_for
from medt.benchmark.worker import LIMIT, Job, network_work
from medt.checkpoint import build_model, model_spec
from medt.errors import UserError
from medt.models import AxialAttention
from medt.ops import library
from medt.training.memory import available_bytes

# Of the memory that is available, what a variant may take if nothing else is said.
SHARE_OF_MEMORY = 0.8
Variant = tuple[str, Any]  # a network's name, and the Job that times it
Compose = Callable[[Sequence[str]], dict[str, Any]]  # configs/train.yaml with these overrides


def plan(settings: dict[str, Any], compose: Compose) -> tuple[list[list[Variant]], list[str]]:
    """The variants of each size and batch, and why some networks are left out.

    Raises:
        UserError: no network takes any of the sizes.
    """
    groups: list[list[Variant]] = []
    skipped: list[str] = []
    sizes, batches = (list(dict.fromkeys(settings[key])) for key in ("sizes", "batches"))
    for size in sizes:
        jobs = []
        for name in dict.fromkeys(settings["networks"]):
            try:
                jobs += jobs_of(name, size, settings, compose)
            except UserError as error:
                skipped.append(f"{name} at {size} x {size}: {error.message}")
        if jobs:
            groups += [
                [(name, dataclasses.replace(job, batch=batch)) for name, job in jobs]
                for batch in batches
            ]
    if not groups:
        raise UserError(f"there is nothing to time: {skipped[0]}", "give other sizes")
    return groups, skipped


def jobs_of(name: str, size: int, settings: dict[str, Any], compose: Compose) -> list[Variant]:
    """A network's formulations with batches of one image.

    Raises:
        UserError: the network does not take the size.
    """
    sized = [f"model={name}", f"dataset.image_size={size}"]
    config = compose([*sized, "dataset.channels=3", "dataset.num_classes=2"])
    spec = model_spec(config["model"])
    with torch.device("meta"):
        network = build_model(spec, allow=(spec["_target_"],))
    layers = [module for module in network.modules() if isinstance(module, AxialAttention)]
    known = [b for b in settings["backends"] if b != "naive" or all(map(has_naive, layers))]
    backends = [*dict.fromkeys(known), LIMIT] if layers else [None]
    return [(name, Job(spec, backend, size, 1, settings["threads"])) for backend in backends]


def measure(
    settings: dict[str, Any],
    groups: Sequence[list[Variant]],
    skipped: Sequence[str],
    compose: Compose,
    progress: Callable[[float, int], None],
    save: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """The report, which is saved after each group, too: what is measured survives an interrupt."""
    rounds = settings["rounds"]
    archive, checkpoint = (settings[key] and Path(settings[key]) for key in ("glas", "checkpoint"))
    samplings = SAMPLINGS if settings["loader"] else ()
    total = (WARM_UP_ROUNDS + rounds) * (len(PHASES) * len(groups) + len(samplings))
    total += (rounds + bool(checkpoint) if archive else 0) + len(MODES) * bool(settings["large"])
    done = itertools.count(1)

    def advance() -> None:
        progress(next(done), total)

    report: dict[str, Any] = {"settings": settings, "machine": machine(), "skipped": skipped}
    report |= {"variants": [], "loader": [], "preparation": None, "evaluation": None, "large": None}
    for group in groups:
        report["variants"] += measure_group(group, settings, advance)
        save(summarised(report))
    report["loader"] = [measure_loader(one, settings, compose, advance) for one in samplings]
    if archive:
        report["preparation"] = measure_preparation(archive, rounds, advance)
        if checkpoint:
            report["evaluation"] = measure_evaluation(archive, checkpoint, advance)
    if settings["large"]:
        report["large"] = measure_large(checkpoint, settings["large"], advance)
    report = summarised(report)
    save(report)
    return report


def measure_group(
    group: Sequence[Variant], settings: dict[str, Any], advance: Callable[[], None]
) -> list[dict[str, Any]]:
    """The records of variants of one size and batch."""
    with workers_for(network_work, [job for _, job in group]) as workers:
        limit = memory_limit(settings["memory"])  # beside all these idle processes
        for worker in workers:
            worker.limit_memory(limit)
        timings = time_group(workers, settings["rounds"], settings["seconds"], advance)
    records = [
        record_of(name, job, worker.ready, timing) | {"memory_limit_bytes": limit}
        for (name, job), worker, timing in zip(group, workers, timings, strict=True)
    ]
    add_shares(records)
    return records


def memory_limit(gigabytes: float | None) -> int | None:
    """Bytes that a variant may take; None where nothing is said, by the system neither."""
    if gigabytes is not None:
        return int(gigabytes * 1e9)
    available = available_bytes(torch.device("cpu"))
    return None if available is None else int(SHARE_OF_MEMORY * available)


def measure_loader(
    sampling: str, settings: dict[str, Any], compose: Compose, advance: Callable[[], None]
) -> dict[str, Any]:
    """An epoch of the quick start's training with its loader, and with the batches in memory."""
    with tempfile.TemporaryDirectory(prefix="medt-benchmark-") as folder:
        config = compose(loader_overrides(Path(folder), sampling))
        with workers_for(loader_work, [LoaderJob(config, settings["threads"])]) as (worker,):
            worker.limit_memory(memory_limit(settings["memory"]))
            turns = [(worker, name) for name in EPOCHS]
            timed = take_turns(turns, settings["rounds"], settings["seconds"], advance)
    timings = dict(zip(EPOCHS, timed, strict=True))
    return {
        "sampling": sampling,
        "images": IMAGES,
        "image_size": config["dataset"]["image_size"],
        "batch_size": config["trainer"]["batch_size"],
        "workers": config["dataset"]["workers"],
        "seconds": {name: timing.seconds for name, timing in timings.items()},
        "epoch": median(timings["loader"]),
        "ratio": quotient(*(median(timings[name]) for name in EPOCHS)),
        "failures": {name: t.failure for name, t in timings.items() if t.failure is not None},
    }


def loader_overrides(folder: Path, sampling: str) -> list[str]:
    """For configs/train.yaml: the quick start's training on fewer images, made in `folder`.

    With sampling "crop" an epoch takes one crop of each image.
    """
    return [
        "experiment=quickstart",
        f"dataset.sampling={sampling}",
        "dataset.crops_per_case=1",
        f"dataset.train={IMAGES}",
        "dataset.val=2",
        "dataset.test=1",
        "dataset.channels=3",
        "dataset.num_classes=2",
        "trainer.batch_size=4",
        "trainer.device=cpu",
        f"paths.data={folder}",
        f"run_dir={folder / 'run'}",
    ]


def summarised(report: dict[str, Any]) -> dict[str, Any]:
    """The report with what follows from its times."""
    records = report["variants"]
    threads = next((r["threads"] for r in records if r["threads"] is not None), None)
    return report | {
        "machine": report["machine"] | {"threads": threads},
        "ratios": ratios(records),
        "growth": growth(records),
        "validity": validity(records),
    }


def machine() -> dict[str, Any]:
    kernel = library.instruction_set() if library.available() else None
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "kernel": kernel,
    }


def processor() -> str:
    """The processor's name as far as the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
