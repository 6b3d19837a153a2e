"""Time MedT beside its naive formulation and a U-Net: python scripts/benchmark.py [rounds=10]"""

from __future__ import annotations

import contextlib
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command import plain, progress, run
from omegaconf import DictConfig

# Only what --help does not need is imported inside functions: torch takes seconds.
if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor, nn

PHASES = ("training", "inference")
REFERENCE = "basic_unet"
# Times of a phase, in seconds, by network.
Times = dict[str, list[float]]

WARM_UP_ROUNDS = 2
# What the official code takes of BasicUNet's training step at batch 4, 128 x 128: a naive network
# outside this range is a straw man, or the machine was busy, and no ratio to it means anything.
VALID_RATIOS = (9.0, 11.5)


def main(argv: Sequence[str] | None = None) -> int:
    """Time as configs/benchmark.yaml and the overrides in `argv` say; returns the exit code."""
    return run(benchmark, "benchmark", argv)


def benchmark(cfg: DictConfig) -> int:
    import torch
    from rich.console import Console

    from medt.files import write_text
    from medt.models.sizes import as_size

    size = as_size(plain(cfg)["image_size"])
    torch.manual_seed(0)
    networks = build_networks(size)
    images = torch.randn(cfg.batch_size, 3, *size)
    labels = torch.randint(2, (cfg.batch_size, *size))
    with torch_threads(cfg.threads) as threads:
        times = measure(networks, images, labels, cfg.rounds)
    settings = {"batch_size": cfg.batch_size, "image_size": list(size), "rounds": cfg.rounds}
    report = {
        "settings": {**settings, "threads": threads},
        "machine": {"processor": processor(), "torch": torch.__version__},
        **summarise(networks, times),
    }
    if cfg.output is not None:
        write_text(cfg.output, json.dumps(report, indent=2) + "\n")
    console = Console(soft_wrap=True)
    console.print(table_of(report))
    print(closing_lines(report))
    return 0


def build_networks(size: tuple[int, int]) -> dict[str, nn.Module]:
    """The networks to compare, with the weights of `naive` equal to those of `medt`."""
    from naive import naive_network

    from medt.models import Baseline, MedT

    medt = MedT(image_size=size)
    return {"medt": medt, "naive": naive_network(medt), REFERENCE: Baseline("unet")}


def measure(
    networks: dict[str, nn.Module], images: Tensor, labels: Tensor, rounds: int
) -> dict[str, Times]:
    """The times of each phase. In each round the networks take turns, so that all of them meet
    the same state of the machine; the first rounds warm up and do not count."""
    steps: dict[str, Callable[[nn.Module], None]] = {
        "training": lambda network: training_step(network, images, labels),
        "inference": lambda network: inference(network, images),
    }
    times: dict[str, Times] = {phase: {name: [] for name in networks} for phase in PHASES}
    with progress("timing") as advance:
        for index in range(WARM_UP_ROUNDS + rounds):
            for phase in PHASES:
                for name, network in networks.items():
                    network.train(phase == "training").zero_grad(set_to_none=True)
                    start = time.perf_counter()
                    steps[phase](network)
                    elapsed = time.perf_counter() - start
                    if index >= WARM_UP_ROUNDS:
                        times[phase][name].append(elapsed)
            advance(index + 1, WARM_UP_ROUNDS + rounds)
    return times


def training_step(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Forward, loss and backward; the optimizer's share is left out."""
    from torch.nn.functional import cross_entropy

    cross_entropy(network(images), labels).backward()


def inference(network: nn.Module, images: Tensor) -> None:
    import torch

    with torch.inference_mode():
        network(images)


def summarise(networks: dict[str, nn.Module], times: dict[str, Times]) -> dict[str, Any]:
    """Parameters, times, medians, ratios of the medians, and whether the run is valid."""
    medians = {
        phase: {name: statistics.median(values) for name, values in of_phase.items()}
        for phase, of_phase in times.items()
    }
    ratios = {
        phase: {
            "naive/medt": median["naive"] / median["medt"],
            "naive/basic_unet": median["naive"] / median[REFERENCE],
            "medt/basic_unet": median["medt"] / median[REFERENCE],
        }
        for phase, median in medians.items()
    }
    lowest, highest = VALID_RATIOS
    return {
        "parameters": {
            name: sum(parameter.numel() for parameter in network.parameters())
            for name, network in networks.items()
        },
        "seconds": times,
        "medians": medians,
        "ratios": ratios,
        "valid": lowest <= ratios["training"]["naive/basic_unet"] <= highest,
    }


def table_of(report: dict[str, Any]) -> Table:
    """Parameters, medians, and the medians as multiples of BasicUNet's; fits 80 columns."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.ASCII_DOUBLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("network", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    for phase in PHASES:
        table.add_column(f"{phase} ms", justify="right", no_wrap=True)
        table.add_column("x U-Net", justify="right", no_wrap=True)
    for name, parameters in report["parameters"].items():
        cells = [f"{parameters:,}"]
        for phase in PHASES:
            medians = report["medians"][phase]
            cells += [f"{1000 * medians[name]:.0f}", f"{medians[name] / medians[REFERENCE]:.2f}"]
        table.add_row(name, *cells)
    return table


def closing_lines(report: dict[str, Any]) -> str:
    """The setting, the ratios and, last, whether the run is valid."""
    settings, ratios = report["settings"], report["ratios"]
    size = " x ".join(map(str, settings["image_size"]))
    lowest, highest = VALID_RATIOS
    verdict = "valid" if report["valid"] else "not valid"
    spread = max(
        max(seconds) / min(seconds)
        for of_phase in report["seconds"].values()
        for seconds in of_phase.values()
    )
    return "\n".join(
        [
            f"\nbatch {settings['batch_size']}, {size}, {settings['threads']} threads, "
            f"{report['machine']['processor']}; medians of {settings['rounds']} rounds, the "
            f"slowest of a network at most {spread:.1f} times its fastest",
            *(
                f"{phase}: naive takes {ratios[phase]['naive/medt']:.2f} times medt's time, "
                f"{ratios[phase]['naive/basic_unet']:.2f} times {REFERENCE}'s"
                for phase in PHASES
            ),
            f"{verdict}: naive must take {lowest:g} to {highest:g} times {REFERENCE}'s training "
            f"step, as the official code does at batch 4, 128 x 128; "
            f"it takes {ratios['training']['naive/basic_unet']:.2f}",
        ]
    )


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[int]:
    """Let PyTorch use `count` threads (None: as many as before); yields how many it uses."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def processor() -> str:
    """The processor's name as far as the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
