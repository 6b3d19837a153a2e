"""Time, memory and limit of the networks: python scripts/benchmark.py [networks=[medt,unet]]"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose
from omegaconf import DictConfig

from medt.benchmark.evaluation import measure_evaluation
from medt.benchmark.large import MODES, measure_large
from medt.benchmark.loader import (
    EPOCHS,
    IMAGES,
    SAMPLINGS,
    LoaderJob,
    loader_work,
)
from medt.benchmark.plot import draw
from medt.benchmark.preparation import measure_preparation
from medt.benchmark.report import (
    add_shares,
    closing_lines,
    failure_lines,
    growth,
    median,
    quotient,
    ratio_lines,
    ratios,
    record_of,
    table_of,
    validity,
)
from medt.benchmark.timing import PHASES, WARM_UP_ROUNDS, take_turns, time_group, workers_for
from medt.benchmark.worker import LIMIT, Job, network_work
from medt.checkpoint import build_model, model_spec
from medt.cli.arguments import CONFIGS, quoted
from medt.cli.screen import print_table, progress
from medt.cli.settings import plain
from medt.errors import UserError
from medt.io.files import atomic_write, write_text
from medt.io.locks import locked
from medt.io.text import shown
from medt.models import AxialAttention
from medt.ops import library
from medt.training.memory import available_bytes

BACKENDS = ("naive", "torch", "fused")
# Of the memory that is available, what a variant may take if nothing else is said.
SHARE_OF_MEMORY = 0.8
Variant = tuple[str, Any]  # a network's name, and the Job that times it


def benchmark(cfg: DictConfig) -> int:

    settings = plain(cfg)
    check_names("networks", settings["networks"], model_names())
    check_names("backends", settings["backends"], BACKENDS)
    given = {key: settings[key] is not None for key in ("checkpoint", "glas", "large")}
    if given["checkpoint"] and not given["glas"] and not given["large"]:
        raise UserError(
            "checkpoint=... without images to evaluate it on",
            "give glas=ARCHIVE or large=8000, too",
        )
    if given["large"] and not given["checkpoint"]:
        raise UserError("large=... without a network to predict with", "give checkpoint=FILE, too")
    groups, skipped = plan(settings)
    output = Path(settings["output"])
    with locked(output, "benchmark.py"):
        report = measure(settings, groups, skipped, output / "benchmark.json")

        with atomic_write(output / "benchmark.png") as temporary:
            temporary.write_bytes(draw(report["variants"]))
    show(report)
    print(f"\nbenchmark.json and benchmark.png written to {shown(output)}")
    return 0


def check_names(key: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown or not given:
        wrong = ", ".join(unknown) or "nothing"
        raise UserError(f"{key} names {wrong}", f"choose some of {', '.join(known)}")


def model_names() -> list[str]:
    return sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml"))


def plan(settings: dict[str, Any]) -> tuple[list[list[Variant]], list[str]]:
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
                jobs += jobs_of(name, size, settings)
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


def jobs_of(name: str, size: int, settings: dict[str, Any]) -> list[Variant]:
    """A network's formulations with batches of one image.

    Raises:
        UserError: the network does not take the size.
    """

    sized = [f"model={name}", f"dataset.image_size={size}"]
    config = train_config([*sized, "dataset.channels=3", "dataset.num_classes=2"])
    spec = model_spec(config["model"])
    with torch.device("meta"):
        network = build_model(spec, allow=(spec["_target_"],))
    axial = any(isinstance(module, AxialAttention) for module in network.modules())
    backends = [*dict.fromkeys(settings["backends"]), LIMIT] if axial else [None]
    return [(name, Job(spec, backend, size, 1, settings["threads"])) for backend in backends]


def train_config(overrides: Sequence[str]) -> dict[str, Any]:
    """configs/train.yaml as training would see it; Hydra knows the folder from this script."""
    config: dict[str, Any] = plain(compose("train", list(overrides)))
    return config


def measure(
    settings: dict[str, Any], groups: Sequence[list[Variant]], skipped: list[str], output: Path
) -> dict[str, Any]:
    """The report, written to `output` after each group: what is measured survives an interrupt."""

    report: dict[str, Any] = {"settings": settings, "machine": machine(), "skipped": skipped}
    samplings = SAMPLINGS if settings["loader"] else ()
    report |= {"variants": [], "loader": [], "preparation": None, "evaluation": None, "large": None}
    rounds = WARM_UP_ROUNDS + settings["rounds"]
    total = rounds * (len(PHASES) * len(groups) + len(samplings))
    total += settings["rounds"] * (settings["glas"] is not None)
    evaluated = settings["checkpoint"] is not None and settings["glas"] is not None
    total += evaluated + (len(MODES) if settings["large"] else 0)
    done = itertools.count(1)
    with progress("timing") as show_progress:

        def advance() -> None:
            show_progress(next(done), total)

        for group in groups:
            report["variants"] += measure_group(group, settings, advance)
            write_text(output, json.dumps(summarised(report), indent=2) + "\n")
        report["loader"] = [measure_loader(sampling, settings, advance) for sampling in samplings]
        if settings["glas"] is not None:
            archive = Path(settings["glas"])
            report["preparation"] = measure_preparation(archive, settings["rounds"], advance)
        if evaluated:
            files = Path(settings["glas"]), Path(settings["checkpoint"])
            report["evaluation"] = measure_evaluation(*files, advance)
        if settings["large"] is not None:
            checkpoint = Path(settings["checkpoint"])
            report["large"] = measure_large(checkpoint, settings["large"], advance)
    report = summarised(report)
    write_text(output, json.dumps(report, indent=2) + "\n")
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
    sampling: str, settings: dict[str, Any], advance: Callable[[], None]
) -> dict[str, Any]:
    """An epoch of the quick start's training with its loader, and with the batches in memory."""

    with tempfile.TemporaryDirectory(prefix="medt-benchmark-") as folder:
        config = train_config(loader_overrides(Path(folder), sampling))
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
        f"paths.data={quoted(str(folder))}",
        f"run_dir={quoted(str(folder / 'run'))}",
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


def show(report: dict[str, Any]) -> None:
    """A table and ratios for each size and batch, what was left out, and the closing lines."""

    for (size, batch), group in itertools.groupby(
        report["variants"], key=lambda record: (record["image_size"], record["batch_size"])
    ):
        records = list(group)
        print(f"{size} x {size}, batch {batch}")
        print_table(table_of(records))
        of_group = [
            ratio
            for ratio in report["ratios"]
            if (ratio["image_size"], ratio["batch_size"]) == (size, batch)
        ]
        lines = failure_lines(records) + [line for r in of_group for line in ratio_lines(r)]
        print("\n".join(["", *lines, ""] if lines else [""]))
    for line in report["skipped"]:
        print(f"skipped: {line}")
    print(machine_line(report))
    print("\n".join(closing_lines(report)))


def machine_line(report: dict[str, Any]) -> str:
    """Threads, processor, and how quiet the machine was."""
    records, machine = report["variants"], report["machine"]
    spread = max(
        (max(times) / min(times) for r in records for times in r["seconds"].values() if times),
        default=1.0,
    )
    return (
        f"{machine['threads']} threads on {machine['cores']} cores, {machine['processor']}; "
        f"medians of at most {report['settings']['rounds']} rounds, the slowest of a variant at "
        f"most {spread:.1f} times its fastest"
    )


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
