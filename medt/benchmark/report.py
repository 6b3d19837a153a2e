"""What the times of benchmark.py come to: shares, ratios, table and closing lines.

A record is what the JSON file holds of one variant: a network in one formulation at one size and
batch.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from medt.benchmark.timing import PHASES, Timing
from medt.benchmark.worker import DOES_NOT_FIT, LIMIT, Job, Ready

Record = dict[str, Any]

REFERENCE = ("unet", None)  # MONAI's BasicUNet
GROWING = ("gated_axial_unet", "fused")
# What the official code takes of BasicUNet's training step at batch 4, 128 x 128: a naive network
# outside this range is a straw man, or the machine was busy, and no ratio to it means anything.
VALID_RATIOS = (9.0, 11.5)
VALID_NETWORK, VALID_SIZE, VALID_BATCH = "medt", 128, 4


def record_of(name: str, job: Job, ready: Any, timings: Mapping[str, Timing]) -> Record:
    """Times and memory of a variant; `ready` is what its process first answered."""
    medians = {phase: median(timing) for phase, timing in timings.items()}
    measured = job.backend != LIMIT  # that one records a whole forward pass, too
    return {
        "network": name,
        "backend": job.backend,
        "image_size": job.size,
        "batch_size": job.batch,
        **dict.fromkeys(Ready._fields),
        **(ready._asdict() if isinstance(ready, Ready) else {}),
        "seconds": {phase: timing.seconds for phase, timing in timings.items()},
        "warm_up_seconds": {phase: timing.warm_up for phase, timing in timings.items()},
        "medians": medians,
        "images_per_second": {
            phase: None if value is None else job.batch / value for phase, value in medians.items()
        },
        "memory_bytes": {
            phase: timing.memory if measured and medians[phase] is not None else None
            for phase, timing in timings.items()
        },
        "share_of_limit": dict.fromkeys(timings),
        "failures": {phase: t.failure for phase, t in timings.items() if t.failure is not None},
    }


def median(timing: Timing) -> float | None:
    """Seconds, of a phase that went to its end."""
    return None if timing.failure is not None else statistics.median(timing.seconds)


def add_shares(records: Sequence[Record]) -> None:
    """Enter what percentage of each variant's time its network's convolutions alone take."""
    known = by_variant(records)
    for record in records:
        limit = known.get(variant(record, LIMIT))
        if limit is None or record is limit:
            continue
        for phase in PHASES:
            share = quotient(limit["medians"][phase], record["medians"][phase])
            record["share_of_limit"][phase] = None if share is None else 100 * share


def variant(record: Record, backend: str | None) -> tuple[Any, ...]:
    return record["network"], backend, record["image_size"], record["batch_size"]


def by_variant(records: Sequence[Record]) -> dict[tuple[Any, ...], Record]:
    """Records by (network, backend, image size, batch size)."""
    return {variant(record, record["backend"]): record for record in records}


def quotient(numerator: float | None, denominator: float | None) -> float | None:
    """None where either was not measured, or where there is nothing to divide by."""
    return numerator / denominator if numerator is not None and denominator else None


def ratios(records: Sequence[Record]) -> list[dict[str, Any]]:
    """naive/fused and fused/basic_unet, of time and memory, in the groups that have both."""
    known = by_variant(records)
    found = []
    for record in records:
        if record["backend"] != "fused":
            continue
        naive = known.get(variant(record, "naive"))
        unet = known.get((*REFERENCE, record["image_size"], record["batch_size"]))
        pairs = {"naive/fused": (naive, record), "fused/basic_unet": (record, unet)}
        for name, (over, under) in pairs.items():
            if over is None or under is None:
                continue
            found.append(
                {
                    "network": record["network"],
                    "image_size": record["image_size"],
                    "batch_size": record["batch_size"],
                    "pair": name,
                    "time": quotients(over, under, "medians"),
                    "memory": quotients(over, under, "memory_bytes"),
                }
            )
    return found


def quotients(over: Record, under: Record, key: str) -> dict[str, float | None]:
    return {phase: quotient(over[key][phase], under[key][phase]) for phase in PHASES}


def growth(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Exponents of a training step's time and memory in the image's side, size by size."""
    grown = sorted(
        (r for r in records if (r["network"], r["backend"]) == GROWING),
        key=lambda record: (record["batch_size"], record["image_size"]),
    )
    smallest = [r for r in grown if r["batch_size"] == grown[0]["batch_size"]]
    return [
        {
            "from": small["image_size"],
            "to": large["image_size"],
            "batch_size": small["batch_size"],
            "time": exponent(small, large, "medians"),
            "memory": exponent(small, large, "memory_bytes"),
        }
        for small, large in itertools.pairwise(smallest)
    ]


def exponent(small: Record, large: Record, key: str) -> float | None:
    ratio = quotient(large[key]["training"], small[key]["training"])
    return math.log(ratio, large["image_size"] / small["image_size"]) if ratio else None


def validity(records: Sequence[Record]) -> dict[str, Any]:
    """Whether the naive MedT is as slow as the official code; None where that was not measured."""
    known = by_variant(records)
    naive = known.get((VALID_NETWORK, "naive", VALID_SIZE, VALID_BATCH))
    unet = known.get((*REFERENCE, VALID_SIZE, VALID_BATCH))
    ratio = None
    if naive is not None and unet is not None:
        ratio = quotient(naive["medians"]["training"], unet["medians"]["training"])
    lowest, highest = VALID_RATIOS
    return {"naive/basic_unet": ratio, "valid": ratio and lowest <= ratio <= highest}


def table_of(records: Sequence[Record]) -> Table:
    """A row for each variant of a group; about 100 columns wide."""
    heads = ["network", "backend", "parameters", "train\nms", "images\n/s", "memory\nMB"]
    heads += ("% of\nlimit", "infer\nms", "images\n/s", "memory\nMB")
    table = Table(box=box.ASCII_DOUBLE_HEAD, show_edge=False, pad_edge=False)
    for index, head in enumerate(heads):
        table.add_column(head, justify="left" if index < 2 else "right", no_wrap=True)
    for record in records:
        parameters = record["parameters"]
        table.add_row(
            record["network"],
            record["backend"] or "-",
            "-" if parameters is None else f"{parameters:,}",
            *phase_cells(record, "training"),
            cell(record["share_of_limit"]["training"]),
            *phase_cells(record, "inference"),
        )
    return table


def phase_cells(record: Record, phase: str) -> list[str]:
    """Milliseconds, images a second and megabytes."""
    failure = record["failures"].get(phase)
    if failure is not None:
        return ["does\nnot fit" if failure == DOES_NOT_FIT else "failed", "-", "-"]
    return [
        cell(record["medians"][phase], 1000),
        cell(record["images_per_second"][phase]),
        cell(record["memory_bytes"][phase], 1e-6),
    ]


def cell(value: float | None, factor: float = 1) -> str:
    """Three digits that count, or more before the point."""
    if value is None:
        return "-"
    value *= factor
    decimals = 2 if value < 1 else 1 if value < 100 else 0
    return f"{value:.{decimals}f}"


def failure_lines(records: Sequence[Record]) -> list[str]:
    """A line for each phase of a variant that failed for another reason than too little memory."""
    return [
        f"failed: {name_of(record)}, {phase}: {reason}"
        for record in records
        for phase, reason in record["failures"].items()
        if reason != DOES_NOT_FIT
    ]


def name_of(record: Record) -> str:
    return " ".join(filter(None, [record["network"], record["backend"]]))


def closing_lines(report: Mapping[str, Any]) -> list[str]:
    """Growth, the loader, an archive, a large image and, last, whether the run is valid."""
    network, backend = GROWING
    lines = [
        f"{network} {backend}, batch {step['batch_size']}: from {step['from']} to {step['to']} "
        f"pixels a training step's time grows with size to the power {shown(step['time'])}, "
        f"its memory {shown(step['memory'])}"
        for step in report["growth"]
    ]
    lines += [loader_line(loader) for loader in report["loader"]]
    if (done := report["preparation"]) is not None:
        seconds = sorted(done["seconds"])[len(done["seconds"]) // 2]
        lines.append(
            f"preparing the {done['cases']} cases of {done['dataset']} takes {seconds:.1f} s"
        )
    if (done := report["evaluation"]) is not None:
        lines.append(
            f"evaluating {done['cases']} cases of {done['dataset']} with all scores takes "
            f"{done['seconds']:.1f} s"
        )
    if (done := report["large"]) is not None:
        lines += [
            f"predicting {done['side']} x {done['side']} pixels with mode={mode} takes "
            f"{found['seconds']:.0f} s and {found['memory'] / 1000:.1f} GB at most"
            for mode, found in done["modes"].items()
        ]
    return [*lines, validity_line(report["validity"])]


def ratio_lines(ratio: Mapping[str, Any]) -> list[str]:
    """A line for each phase that was measured."""
    over, under = ratio["pair"].split("/")
    return [
        f"{ratio['network']}, {phase}: {over} takes {shown(ratio['time'][phase])} times {under}'s "
        f"time, {shown(ratio['memory'][phase])} times its memory"
        for phase in reversed(PHASES)
        if ratio["time"][phase] is not None
    ]


def loader_line(loader: Mapping[str, Any]) -> str:
    if loader["failures"]:
        reasons = "; ".join(loader["failures"].values())
        return f"the loader was not timed ({loader['sampling']}): {reasons}"
    return (
        f"{loader['sampling']}: an epoch with the loader takes {shown(loader['epoch'])} s, "
        f"{shown(loader['ratio'])} times one on tensors in memory "
        f"({loader['images']} images at {loader['image_size']} x {loader['image_size']}, "
        f"batch {loader['batch_size']}, {loader['workers']} workers)"
    )


def validity_line(validity: Mapping[str, Any]) -> str:
    lowest, highest = VALID_RATIOS
    rule = (
        f"naive {VALID_NETWORK} must take {lowest:g} to {highest:g} times basic_unet's training "
        f"step at batch {VALID_BATCH}, {VALID_SIZE} x {VALID_SIZE}, as the official code does"
    )
    ratio = validity["naive/basic_unet"]
    if ratio is None:
        return f"validity not judged: {rule}; they were not both timed there"
    return f"{'valid' if validity['valid'] else 'not valid'}: {rule}; it takes {ratio:.2f}"


def shown(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"
