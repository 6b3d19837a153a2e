"""Steps of several processes, timed in turns."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from medt.benchmark.worker import Failure, Ready, Step, Work, serve

WARM_UP_ROUNDS = 2
# Inference comes first: what a training step leaves allocated must not count as its memory.
PHASES = ("inference", "training")


class Worker:
    """The parent's end of a process that does `job`; see `medt.benchmark.worker.serve`.

    Attributes:
        ready: the process's first answer, once it has been waited for.
    """

    def __init__(self, prepare: Callable[[Any], Work], job: Any) -> None:
        self.job = job
        self.ready: Ready | Failure | None = None
        # A forked process would share the parent's threads and memory.
        context = multiprocessing.get_context("spawn")
        self.connection, other_end = context.Pipe()
        self.process = context.Process(target=serve, args=(other_end, prepare, job))
        self.process.start()
        other_end.close()

    def wait(self) -> None:
        self.ready = self.answer()

    def limit_memory(self, size: int | None) -> None:
        """Let the process take `size` bytes more than it has now; None for any number."""
        self.send(size)

    def step(self, phase: str) -> Step | Failure:
        if isinstance(self.ready, Failure):
            return self.ready
        self.send(phase)
        answered: Step | Failure = self.answer()
        return answered

    def send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except OSError:  # it has ended, as the next answer will say
            return

    def answer(self) -> Any:
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            return Failure(f"its process ended {how}")

    def stop(self) -> None:
        """At once, whatever it does: it holds nothing that would be lost."""
        self.connection.close()
        self.process.kill()
        self.process.join()


@dataclass
class Timing:
    """The steps of one worker in one phase.

    Attributes:
        seconds: of the steps that count.
        memory: the most bytes beyond the idle process, None where the system does not tell.
        failure: why there are no more, or none.
        warm_up: seconds of the steps that do not count.
    """

    seconds: list[float] = field(default_factory=list)
    memory: int | None = None
    failure: str | None = None
    warm_up: list[float] = field(default_factory=list)

    def wants_more(self, rounds: int, budget: float) -> bool:
        """One step at least counts; beyond it, as many as `rounds` and `budget` seconds allow."""
        if self.failure is not None:
            return False
        return not self.seconds or (self.spent() < budget and len(self.seconds) < rounds)

    def add(self, step: Step | Failure, budget: float) -> None:
        """Enter a step; the first ones warm up, but of a slow network only one."""
        if isinstance(step, Failure):
            self.failure = step.reason
            return
        warms_up = len(self.warm_up) < WARM_UP_ROUNDS and self.spent() < budget
        (self.warm_up if warms_up else self.seconds).append(step.seconds)
        self.memory = step.memory

    def spent(self) -> float:
        return sum(self.warm_up) + sum(self.seconds)


@contextmanager
def workers_for(prepare: Callable[[Any], Work], jobs: Sequence[Any]) -> Iterator[list[Worker]]:
    """A fresh process for each job, ready to be timed; they end with the block."""
    with ExitStack() as stack:
        workers = []
        for job in jobs:
            workers.append(Worker(prepare, job))
            stack.callback(workers[-1].stop)
        for worker in workers:
            worker.wait()
        yield workers


def take_turns(
    turns: Sequence[tuple[Worker, str]],
    rounds: int,
    budget: float,
    advance: Callable[[], None],
) -> list[Timing]:
    """Each (worker, phase) does one step a round, so that all meet the same state of the machine.

    Args:
        rounds: that count.
        budget: seconds that one turn may take in all, see `Timing.wants_more`.
        advance: called after each round.
    """
    timings = [Timing() for _ in turns]
    for _ in range(WARM_UP_ROUNDS + rounds):
        for (worker, phase), timing in zip(turns, timings, strict=True):
            if timing.wants_more(rounds, budget):
                timing.add(worker.step(phase), budget)
        advance()
    return timings


def time_group(
    workers: Sequence[Worker], rounds: int, budget: float, advance: Callable[[], None]
) -> list[dict[str, Timing]]:
    """The timings of each worker by phase."""
    by_phase = {
        phase: take_turns([(worker, phase) for worker in workers], rounds, budget, advance)
        for phase in PHASES
    }
    return [{phase: by_phase[phase][i] for phase in PHASES} for i in range(len(workers))]
