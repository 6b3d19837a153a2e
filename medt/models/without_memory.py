"""Building a network whose weights take no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

READ = 1_000  # numbers of a row that a constructor may read; drop rates have one a layer, 200


@contextmanager
def without_memory() -> Iterator[None]:
    """Within the context new tensors are on the device meta: shapes without numbers.

    But for short rows of numbers, which constructors read: `[r.item() for r in linspace(0, 0.1,
    12)]`. Where they meet a tensor without numbers the result has none.
    """
    with torch.device("meta"), _ShortRows():
        yield


class _ShortRows(TorchFunctionMode):
    """Leaves short rows on the CPU, on top of a device context for all else."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is torch.linspace and given.get("device") is None:
            row: Tensor = func(*args, **given)
            return func(*args, **given, device="cpu") if row.numel() <= READ else row
        if any(_is_meta(value) for value in tree_leaves((args, given))):
            args, given = tree_map(_to_meta, (args, given))
        return func(*args, **given)


def _is_meta(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_meta


def _to_meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) and not value.is_meta else value
