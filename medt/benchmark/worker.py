"""The processes of benchmark.py: each holds one piece of work and does a step of it when asked."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from medt.errors import is_out_of_memory
from medt.interruption import STOPPING

# A process is started from its module's name: what it needs of torch it imports itself.
if TYPE_CHECKING:
    from torch import Tensor, nn

# The formulation of a network's limit: its convolutions and nothing else.
LIMIT = "limit"
DOES_NOT_FIT = "does not fit"
# What oneDNN makes of memory that it does not get.
ONEDNN_FAILS = ("could not create a primitive", "could not execute a primitive")


@dataclass(frozen=True)
class Job:
    """A network in one formulation, and what it is given.

    Attributes:
        spec: of `medt.checkpoint.build_model`.
        backend: naive, torch, fused or LIMIT; None for a network that has one formulation only.
        size: of the square images, in pixels.
        batch: images.
        threads: of PyTorch; None keeps its own choice.
    """

    spec: dict[str, Any]
    backend: str | None
    size: int
    batch: int
    threads: int | None


class Work(NamedTuple):
    """Steps by name, each returning the seconds it took, and the network's parameters."""

    steps: dict[str, Callable[[], float]]
    parameters: int


class Ready(NamedTuple):
    """A process's first answer: its threads are PyTorch's, for its memory see `memory_source`."""

    parameters: int
    threads: int
    memory_source: str | None


class Step(NamedTuple):
    """Seconds, and the most bytes resident so far in this phase above those of the idle process.

    `memory` is None where the system does not tell.
    """

    seconds: float
    memory: int | None


class Failure(NamedTuple):
    """Why there is no answer, in one line."""

    reason: str


def serve(connection: Connection, prepare: Callable[[Any], Work], job: Any) -> None:
    """Prepare the work, then do what comes over the connection, until it is closed.

    First comes the limit in bytes of what may be taken beyond the idle process, or None, then names
    of steps.
    """
    for number in STOPPING:  # the parent decides when to stop
        signal.signal(number, signal.SIG_IGN)
    if os.environ.get("MEDT_DEBUG") != "1":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    work = attempt(lambda: prepare(job))
    if isinstance(work, Failure):
        connection.send(work)
        return
    connection.send(attempt(lambda: Ready(work.parameters, started_threads(), memory_source())))
    phase, idle = None, None
    try:
        limit_memory(connection.recv())
        while True:
            wanted = connection.recv()
            if wanted != phase:
                gc.collect()
                idle = resident() if phase is None else idle
                reset_peak()
                phase = wanted
            seconds = attempt(work.steps[phase])
            failed = isinstance(seconds, Failure)
            connection.send(seconds if failed else Step(seconds, above(idle)))
    except EOFError:
        return


def attempt(action: Callable[[], Any]) -> Any:
    """The action's result, or the Failure it ended in."""
    try:
        return action()
    except Exception as error:
        text = " ".join(str(error).split())
        if is_out_of_memory(error) or "bad_alloc" in text or any(t in text for t in ONEDNN_FAILS):
            return Failure(DOES_NOT_FIT)
        return Failure(f"{type(error).__name__}: {text[:160]}")


def started_threads() -> int:
    """Start PyTorch's threads and load its libraries, which belong to the idle process.

    A thread that the memory limit keeps from starting would end the process.
    """
    import torch
    from torch.nn.functional import conv2d

    weight = torch.randn(8, 8, 3, 3, requires_grad=True)
    columns = conv2d(torch.randn(1, 8, 64, 64), weight).flatten(2)
    torch.einsum("bci,bcj->bij", columns, columns).mean().backward()  # type: ignore[no-untyped-call]
    return torch.get_num_threads()


def network_work(job: Job) -> Work:
    """Training step and inference of a network, or of its convolutions alone."""
    import torch

    from medt.checkpoint import build_model
    from medt.ops import Backend, set_backend

    if job.threads is not None:
        torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    network = build_model(job.spec, allow=(job.spec["_target_"],))
    if job.backend == "naive":
        from medt.benchmark.naive import naive_network

        network = naive_network(network)
    if job.backend is not None:
        plain = {"naive": "torch", LIMIT: "auto"}.get(job.backend, job.backend)
        set_backend(cast("Backend", plain))
        load_attention()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    images = torch.randn(job.batch, 3, job.size, job.size)
    if job.backend == LIMIT:
        return Work(convolution_steps(network, images), parameters)
    labels = torch.randint(2, (job.batch, job.size, job.size))
    steps = {
        "training": lambda: training_step(network, images, labels),
        "inference": lambda: inference(network, images),
    }
    return Work(steps, parameters)


def load_attention() -> None:
    """Run a small layer: what its first call imports of PyTorch belongs to the idle process."""
    import torch

    from medt.models import AxialAttention

    layer = AxialAttention(8, 8, heads=2, length=4)
    layer(torch.randn(1, 8, 4, 4)).sum().backward()
    with torch.inference_mode():
        layer.eval()(torch.randn(1, 8, 4, 4))


def training_step(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Seconds of forward, loss and backward; the optimizer's share is left out."""
    from torch.nn.functional import cross_entropy

    network.train().zero_grad(set_to_none=True)
    start = time.perf_counter()
    cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - start


def inference(network: nn.Module, images: Tensor) -> float:
    """Seconds of a forward pass without gradients."""
    import torch

    network.eval()
    with torch.inference_mode():
        start = time.perf_counter()
        network(images)
        return time.perf_counter() - start


class Convolution(NamedTuple):
    """One call of a layer: its input's shape and strides, and whether that wants a gradient."""

    layer: nn.Conv2d
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    inner: bool


def convolution_steps(network: nn.Module, images: Tensor) -> dict[str, Callable[[], float]]:
    """The steps of a network's limit; its calls are recorded, under the memory limit, at first."""
    calls: list[Convolution] = []

    def step(training: bool) -> float:
        if not calls:
            calls.extend(recorded_convolutions(network, images))
        return sum(convolution_seconds(call, training) for call in calls)

    return {"training": lambda: step(True), "inference": lambda: step(False)}


def recorded_convolutions(network: nn.Module, images: Tensor) -> list[Convolution]:
    """Every call of a convolution in a training step, in order."""
    from torch import nn

    calls: list[Convolution] = []

    def record(layer: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        (x,) = inputs
        calls.append(Convolution(layer, tuple(x.shape), x.stride(), x.requires_grad))

    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    hooks = [layer.register_forward_hook(record) for layer in layers]
    network.train()(images)
    for hook in hooks:
        hook.remove()
    return calls


def convolution_seconds(call: Convolution, training: bool) -> float:
    """Seconds of a convolution by itself on random numbers: forward and, in training, backward.

    Its input's gradient is computed only where the network needs it: not for the image.
    """
    import torch

    call.layer.zero_grad(set_to_none=True)
    with torch.inference_mode(not training):
        x = torch.empty_strided(call.shape, call.strides).normal_()
        x.requires_grad_(training and call.inner)
        start = time.perf_counter()
        out = call.layer(x)
        seconds = time.perf_counter() - start
        if training:
            gradient = torch.randn_like(out)
            start = time.perf_counter()
            out.backward(gradient)
            seconds += time.perf_counter() - start
    return seconds


def limit_memory(beyond: int | None) -> None:
    """Let the process take so many bytes more than now; what asks for more fails, and only that."""
    data = process_status("VmData")
    if beyond is None or data is None:
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or data + beyond < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (data + beyond, hard))


def memory_source() -> str | None:
    """Where peaks come from; that of getrusage is of the whole process, not of one phase."""
    if reset_peak():
        return "VmHWM"
    return None if os.name == "nt" else "ru_maxrss"


def reset_peak() -> bool:
    """Start the process's high-water mark anew; False where the system does not let us."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return process_status("VmHWM") is not None


def resident() -> int | None:
    """Bytes resident now, as far as the source of peaks tells."""
    return process_status("VmRSS") if memory_source() == "VmHWM" else peak_of_process()


def above(idle: int | None) -> int | None:
    """Bytes resident at the peak of this phase beyond `idle`."""
    peak = peak_of_process() if (marked := process_status("VmHWM")) is None else marked
    return None if peak is None or idle is None else max(0, peak - idle)


def peak_of_process() -> int | None:
    """Bytes resident at most since the process began; None on Windows."""
    if os.name == "nt":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def process_status(name: str) -> int | None:
    """A size in bytes from /proc/self/status, which only Linux has."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(sizes[0]) * 1024 if sizes else None
