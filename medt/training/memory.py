"""How much memory a training step will take, before it takes it."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medt.losses import ObjectLoss, loss_of

# What the process takes beyond its tensors: workspaces of the libraries and gaps of the allocator.
# A CPU step's resident memory was 1.1 to 1.5 times its tensors for the networks of configs/model.
SLACK = {"cpu": 1.5, "cuda": 1.2}


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes.

    Attributes:
        tensors: of a training step at its peak.
        needed: by the step in all, the process's present memory not included.
        available: on the device; None where the system does not tell.
    """

    tensors: int
    needed: int
    available: int | None

    def describe(self) -> str:
        """Such as: about 0.6 GB (21.3 GB available)."""
        available = "" if self.available is None else f" ({_gigabytes(self.available)} available)"
        return f"about {_gigabytes(self.needed)}{available}"

    def is_tight(self) -> bool:
        """Whether the step may not fit."""
        return self.available is not None and self.needed > self.available

    def check(self, settings: str) -> None:
        """Raises MemoryError if the step cannot fit; `settings` says what makes it so large."""
        if self.available is not None and self.tensors > self.available:
            raise MemoryError(f"a training step with {settings} takes {self.describe()}")


def estimate_memory(
    model: nn.Module,
    loss: nn.Module,
    image_shape: Sequence[int],
    classes: int,
    batch_size: int,
    left_over: int,
    kept: int,
    device: torch.device,
) -> MemoryEstimate:
    """Run forward and backward on two images and on three, and extrapolate to the batch.

    Args:
        model: as it is trained, on `device`; a copy of it is run.
        loss: of logits and class ids.
        image_shape: (C, H, W) of the network's input.
        classes: of the dataset.
        batch_size: images of one step.
        left_over: images of the last batch of an epoch; a single one is tried, too, since norms may
            refuse it.
        kept: numbers beside each parameter, of the optimizer and of averaged weights.
        device: where the training will run.
    """
    available = available_bytes(device)
    model = copy.deepcopy(model)
    with torch.random.fork_rng():
        if left_over == 1 < batch_size:
            _peak_of_step(model, loss, image_shape, classes, 1, device)
        counts = (min(batch_size, 2), min(batch_size, 3))
        first, second = (
            _peak_of_step(model, loss, image_shape, classes, count, device) for count in counts
        )
    tensors = first + (second - first) * (batch_size - counts[0])
    tensors += kept * sum(p.numel() * p.element_size() for p in model.parameters())
    needed = int(tensors * SLACK.get(device.type, 1.2))
    return MemoryEstimate(tensors, needed, available)


def available_bytes(device: torch.device) -> int | None:
    """Memory that can be taken on a device; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    known = [_meminfo_available(), _cgroup_available()]
    return min((value for value in known if value is not None), default=None)


def _meminfo_available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # only Linux has it
        return None
    kilobytes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(kilobytes[0]) * 1024 if kilobytes else None


def _cgroup_available() -> int | None:
    """What a container's limit leaves; its page cache can be reclaimed and is not counted."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        statistics = (group / "memory.stat").read_text(encoding="ascii").split()
    except (OSError, ValueError):  # no container, or another version of cgroups
        return None
    cached = dict(zip(statistics[::2], statistics[1::2], strict=False)).get("file", "0")
    return None if limit == "max" else int(limit) - used + int(cached)


class _LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self.known: set[int] = set()

    def add(self, value: Any) -> None:
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            self.add(value)
        return result


def _peak_of_step(
    model: nn.Module,
    loss: nn.Module,
    image_shape: Sequence[int],
    classes: int,
    count: int,
    device: torch.device,
) -> int:
    """The most bytes that tensors take during forward and backward, weights and gradients too."""
    images = torch.rand(count, *image_shape, device=device)
    masks = torch.randint(classes, (count, *image_shape[1:]), device=device)
    objects = torch.zeros_like(masks, dtype=torch.uint8) if isinstance(loss, ObjectLoss) else None
    model.train()
    model.zero_grad(set_to_none=True)
    storages = _LiveStorages()
    for value in (*model.parameters(), *model.buffers(), images, masks):
        storages.add(value)
    with storages:
        value = loss_of(loss, model(images), masks, classes, objects)
        value.backward()  # type: ignore[no-untyped-call]
    return storages.peak


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
