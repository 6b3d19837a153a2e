"""Relative position tables laid out by query and key position."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PositionTables(NamedTuple):
    """The three tables of one axis of length L, for `d` channels per head.

    query: (L, d, L) indexed [i, c, j], the vector that query i meets at key j.
    key: (L, d, L) indexed [j, c, i], the vector that key j meets at query i.
    value: (L, 2d, L) indexed [i, c, j], what key j adds to the output at query i.
    """

    query: Tensor
    key: Tensor
    value: Tensor


def position_tables(relative: Tensor, length: int) -> PositionTables:
    """Expand `relative` (4d, 2T - 1) to the tables of an axis of `length` <= T positions.

    Rows are [query (d), key (d), value (2d)]; column p - p' + T - 1 belongs to the offset p - p',
    so a shorter axis uses the middle of the table.
    """
    channels = relative.shape[0] // 4
    center = relative.shape[1] // 2
    position = torch.arange(length, device=relative.device)
    columns = position[:, None] - position[None, :] + center
    expanded = relative[:, columns].transpose(0, 1)
    query, key, value = torch.split(expanded, [channels, channels, 2 * channels], dim=1)
    return PositionTables(query, key, value)
