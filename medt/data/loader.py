"""Batches of cases, in this process or by workers; a worker's failure names its case."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Iterator
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from medt.data.dataset import Key, SegmentationDataset
from medt.errors import UserError
from medt.interruption import STOPPING

IDLE = -1
# What usually kills a worker, by signal.
CAUSES = {
    "SIGKILL": "the system kills what takes too much memory: lower dataset.workers, "
    "dataset.cache or trainer.batch_size",
    "SIGBUS": "shared memory is too small: give the container more (docker run "
    "--shm-size=2g), or lower dataset.workers",
}
OTHER_CAUSE = "try dataset.workers=0, which reads in the training process; look at the case's files"


class EpochBatches(Sampler[list[Key]]):
    """Batches of (epoch, index) keys; ``epoch`` says which ones iterating gives.

    Args:
        size: number of items.
        batch_size: items per batch.
        seed: of the order.
        shuffle: a new order every epoch; else 0, 1, 2, ...
        rank, processes: of every batch this process gets the keys rank, rank + processes, ...; an
            iteration leaves out batches of which it gets none.

    Raises:
        UserError: there would not be a single batch.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        if batch_size < 1 or size < 1:
            raise UserError(
                f"{size} cases make no batch of {batch_size}",
                "use a smaller batch size or more cases",
            )
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.shuffle = shuffle
        self.rank, self.processes = rank, processes
        self.epoch = self.skip = 0

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """Choose the epoch of the next iteration, and how many of its batches are left out."""
        self.epoch, self.skip = epoch, skip

    def batches(self, epoch: int) -> list[list[Key]]:
        """All batches of an epoch, a pure function of (seed, epoch)."""
        order = np.arange(self.size)
        if self.shuffle:
            np.random.default_rng((self.seed, epoch)).shuffle(order)
        keys = [(epoch, index) for index in order.tolist()]
        return [keys[i * self.batch_size : (i + 1) * self.batch_size] for i in range(len(self))]

    def __iter__(self) -> Iterator[list[Key]]:
        shares = (keys[self.rank :: self.processes] for keys in self.batches(self.epoch))
        return iter([share for share in shares if share][self.skip :])

    def __len__(self) -> int:
        whole, rest = divmod(self.size, self.batch_size)
        return whole + (rest > 0)


class CaseLoader(DataLoader[dict[str, Any]]):
    """A DataLoader to be used as a context: ``with loader: for batch in loader: ...``.

    Leaving the context ends the workers, also those that hang. An error that leaves it and comes
    from a worker, be it raised, or that the worker died or delivered nothing, is one line that
    names the case; what the worker raised is its cause, with the original traceback.

    Torch reports a dead worker wherever the process is just then, not only where it waits for a
    batch: hence a context and not a check around ``next``.
    """

    def __init__(self, dataset: SegmentationDataset, workers: int, **settings: Any) -> None:
        # one number a worker: the item it is working on
        self.busy = torch.full((workers,), IDLE)
        self.busy.share_memory_()  # type: ignore[no-untyped-call]
        self.cases = dataset.cases
        super().__init__(
            _Watched(dataset, self.busy),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # else each epoch would draw from the global one
            worker_init_fn=_start_worker,
            **settings,
        )

    def __enter__(self) -> CaseLoader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        explained = None
        try:
            if isinstance(error, Exception):
                explained = self._explained(error)
            self._end_workers()
        except RuntimeError as late:  # a death that torch reports only here
            explained = explained or self._explained(late)
            self._end_workers()
            if explained is None:
                raise
        if explained is not None:
            raise explained from error

    def _explained(self, error: Exception) -> Exception | None:
        """The error as one line, if it comes from a worker."""
        text = str(error)
        if text.startswith("Caught ") and "in DataLoader worker process" in text:
            last = text.strip().splitlines()[-1]
            return type(error)(re.sub(r"^[\w.]+: ", "", last))
        if text.startswith("DataLoader worker (pid"):
            return self._death()
        if isinstance(error, ConnectionError | EOFError):  # it died while it handed a batch over
            wait([worker.sentinel for worker in self._workers()], timeout=2)
            return self._death()
        if text.startswith("DataLoader timed out"):
            return UserError(
                f"no batch came for {self.timeout:g} s, {self._at_work(range(self.num_workers))}",
                "look at the case's files and the disk they lie on; dataset.timeout=SECONDS waits "
                "longer, dataset.workers=0 for ever",
            )
        return None

    def _death(self) -> UserError | None:
        """Of one of this loader's workers; None if it is another's."""
        workers = self._workers()
        dead = [number for number, worker in enumerate(workers) if not worker.is_alive()]
        if not dead:
            return None
        dead = [number for number in dead if workers[number].exitcode] or dead
        code = workers[dead[0]].exitcode or 0
        killer = signal.Signals(-code).name if code < 0 else ""
        how = f"was killed by {killer}" if killer else f"ended with code {code}"
        return UserError(
            f"a worker of the loader {how}, {self._at_work(dead)}", CAUSES.get(killer, OTHER_CAUSE)
        )

    def _workers(self) -> list[BaseProcess]:
        return [] if self._iterator is None else self._iterator._workers  # type: ignore[attr-defined]

    def _at_work(self, workers: Iterable[int]) -> str:
        items = [int(self.busy[number]) for number in workers]
        names = sorted({self.cases[i % len(self.cases)].name for i in items if i != IDLE})
        return f"at case {', '.join(names)}" if names else "between two cases"

    def _end_workers(self) -> None:
        """Ask the workers to end, and kill what has not after 5 seconds: they ignore SIGTERM."""
        if self._iterator is None or not self.num_workers:
            return
        workers = self._iterator._workers  # type: ignore[attr-defined]
        self._iterator._shutdown_workers()  # type: ignore[attr-defined]
        self._iterator = None
        for worker in workers:
            if worker.is_alive():
                worker.kill()
                worker.join(timeout=5)


def make_loader(
    dataset: SegmentationDataset,
    batches: EpochBatches,
    workers: int = 0,
    timeout: float = 300.0,
) -> CaseLoader:
    """Load the batches in ``workers`` processes that live as long as the loader, or in this one.

    Images and masks come stacked, ``case`` as a list of names, ``index`` as an int64 tensor. Set
    ``batches.set_epoch(epoch)`` before each iteration. Workers that deliver nothing for ``timeout``
    seconds are an error; one's own process is not watched.
    """
    return CaseLoader(dataset, workers, batch_sampler=batches, timeout=timeout if workers else 0)


class _Watched(Dataset[dict[str, Any]]):
    """The items of a dataset; in a worker `busy` says which one it is at."""

    def __init__(self, dataset: SegmentationDataset, busy: Tensor) -> None:
        self.items = dataset
        self.busy = busy

    def __getitem__(self, key: Key) -> dict[str, Any]:
        worker = get_worker_info()
        if worker is None:
            return self.items[key]
        self.busy[worker.id] = key[1]
        item = self.items[key]
        self.busy[worker.id] = IDLE
        return item


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # workers are the parallelism
    for number in STOPPING:  # the training process decides when to stop
        signal.signal(number, signal.SIG_IGN)
