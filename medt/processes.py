"""The processes of one training, as torchrun starts them: who they are and what they exchange."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from medt.errors import FailedElsewhereError, UserError
from medt.interruption import Stopped, exit_code, on_stop
from medt.ops import Moments

Item = TypeVar("Item")
# How long a process waits for one that hangs; one that dies is noticed at once.
TIMEOUT = timedelta(minutes=30)
FAILED = "medt/failed"  # in the store: rank and exit code of the first process that failed


class Processes:
    """This process among those of the training.

    Attributes:
        rank: from 0; only 0 writes.
        count: of the processes.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count
        self.pool = MomentsPool() if count > 1 else None

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def check_batches(self, cases: int, batch_size: int) -> None:
        """Every process needs an image of every batch.

        Raises:
            UserError: a batch has fewer images than there are processes.
        """
        least = min(batch_size, cases % batch_size or batch_size)
        if least < self.count:
            raise UserError(
                f"trainer.batch_size={batch_size} leaves {least} of {cases} images for the last "
                f"batch, but there are {self.count} processes",
                "choose a batch size of which at least as many are left over, or none",
            )

    def gather_items(self, own: Sequence[Item]) -> list[Item]:
        """The items of all processes, rank by rank."""
        if self.count == 1:
            return list(own)
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, list(own))
        return [item for part in parts for item in part]

    def gather_batch(self, own: Tensor, total: int) -> Tensor:
        """A batch (total, ...) of which this process holds its share, in order.

        The gradient of the result reaches this process's own part only; added over the processes
        it is whole.
        """
        if self.count == 1:
            return own
        largest = -(-total // self.count)
        padded = own.detach().new_zeros((largest, *own.shape[1:]))
        padded[: len(own)] = own.detach()
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(parts, padded)
        whole = torch.stack(parts, dim=1).flatten(0, 1)[:total].clone()
        whole[self.rank :: self.count] = own
        return whole

    def parallel(self, model: nn.Module) -> DistributedDataParallel | None:
        """The model with its gradients averaged over the processes; None for a single one."""
        if self.count == 1:
            return None
        with warnings.catch_warnings():  # its successor is not in every version that we allow
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            # Running statistics count in the first process, which copies them where they are used.
            return DistributedDataParallel(model, broadcast_buffers=False)

    @contextmanager
    def batch(
        self, model: DistributedDataParallel | None, own: int, total: int, exchange: bool
    ) -> Iterator[None]:
        """Forward and backward pass of a batch of which this process has `own` of `total` images.

        Args:
            model: what `parallel` returned.
            own, total: images.
            exchange: whether gradients are averaged, or still added up in each process.
        """
        if model is None or self.pool is None:
            yield
            return
        self.pool.set_batch(own, total)
        with nullcontext() if exchange else model.no_sync():
            yield

    def any(self, *flags: bool) -> list[bool]:
        """Of each flag, whether it is set in any process."""
        if self.count == 1:
            return list(flags)
        values = torch.tensor(flags, dtype=torch.int32, device=_device())
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return [bool(value) for value in values.tolist()]

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors with those of rank 0."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)


class MomentsPool:
    """See `medt.ops.Pool`; `set_batch` says how the images of a batch are dealt."""

    def __init__(self) -> None:
        self.group = dist.new_group(timeout=TIMEOUT)  # gradients travel in another at the same time
        self.own, self.total = 1, dist.get_world_size()

    def set_batch(self, own: int, total: int) -> None:
        self.own, self.total = own, total

    def __call__(self, moments: Moments) -> Moments:
        share = self.own / self.total
        mean = self._sum(share * moments.mean)
        # Not E[x^2] - mean^2, which cancels.
        variance = self._sum(share * (moments.variance + (moments.mean - mean).square()))
        return Moments(mean, variance)

    def images(self, own: int) -> int:
        return own * self.total // self.own

    def __deepcopy__(self, memo: dict[int, Any]) -> MomentsPool:
        return self

    def _sum(self, tensor: Tensor) -> Tensor:
        return cast(Tensor, _Sum.apply(tensor, self.group))


class _Sum(torch.autograd.Function):
    """The sum over processes; the gradient of each part is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total, None


def started_by_torchrun() -> bool:
    """Whether this is one of several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


class Meeting:
    """Where the processes of one training meet, before they exchange anything; see `meeting`.

    Attributes:
        store: what they all read and write; None for a single process.
    """

    def __init__(self, store: Store | None = None, rank: int = 0, count: int = 1) -> None:
        self.store, self.rank, self.count = store, rank, count

    @contextmanager
    def join(self, device: torch.device) -> Iterator[Processes]:
        """Connect the processes, by Gloo on CPUs and NCCL on GPUs, and leave them together."""
        if self.store is None:
            yield Processes()
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=self.store,
            rank=self.rank,
            world_size=self.count,
            timeout=TIMEOUT,
        )
        yield Processes(self.rank, self.count)
        dist.barrier()  # else the first to leave would break the others' last exchange


@contextmanager
def meeting() -> Iterator[Meeting]:
    """Meet the others that torchrun has started, if any; of all that fail one says why.

    An error that leaves the context is the first one's own. In any other process it becomes a
    FailedElsewhereError with the first one's exit code, whatever it met itself: mostly that the
    first one has gone. Of one that a signal ended rank 0 speaks, as that one says nothing.

    Raises:
        UserError: another process has gone and has not said why.
    """
    if not started_by_torchrun():
        yield Meeting()
        return
    store, rank, count = next(rendezvous("env://", timeout=TIMEOUT))
    try:
        yield Meeting(store, rank, count)
    except BaseException as error:
        with on_stop(lambda _: None):  # torchrun ends the others as soon as one has gone
            first = _first_to_fail(store, rank, exit_code(error))
            _leave()
        if first is not None and (rank > 0 or first <= 128):
            raise FailedElsewhereError(first) from error
        if _is_lost_peer(error):
            raise UserError(
                "another process of the training failed",
                "torchrun names it below; resume=RUN_DIR goes on from what was saved",
            ) from error
        raise
    _leave()


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _first_to_fail(store: Store, rank: int, code: int) -> int | None:
    """None if no other process has failed before; else what that one ends with."""
    try:
        said = store.compare_set(FAILED, "", f"{rank} {code}").decode()
    except RuntimeError:  # it was in the first process, which has gone
        said = f"1 {code}"
    by, _, its_code = said.partition(" ")
    return None if int(by) == rank else int(its_code)


def _is_lost_peer(error: BaseException) -> bool:
    """Whether this is what Gloo, NCCL or the store say when another process has gone.

    Torchrun's signal may follow while the process still cleans up after it.
    """
    if isinstance(error, Stopped) and error.__context__ is not None:
        return _is_lost_peer(error.__context__)
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and bool(
        re.search(r"gloo|NCCL|closed by peer|reset by peer", str(error))
    )


def local_device(name: str) -> str:
    """The name of this process's GPU among those of its machine, where `name` is auto or cuda."""
    shared = name in ("auto", "cuda") and torch.cuda.is_available()
    return f"cuda:{os.environ['LOCAL_RANK']}" if shared and started_by_torchrun() else name


def _device() -> torch.device:
    """Where the backend exchanges tensors."""
    on_gpu = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
