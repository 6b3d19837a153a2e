"""Sums over cases, and the quotients that scores are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Sums = TypeVar("Sums")  # a dataclass of numbers and arrays


def add(parts: Sequence[Sums]) -> Sums:
    """Each number and each array of a dataclass added over several."""
    totals = (np.sum(values, axis=0) for values in zip(*map(_values, parts), strict=True))
    return type(parts[0])(*(total if total.ndim else total.item() for total in totals))


def _values(sums: Any) -> list[Any]:
    return [getattr(sums, field.name) for field in fields(sums)]


def quotient(
    part: ArrayLike, whole: ArrayLike, otherwise: float = float("nan")
) -> NDArray[np.float64]:
    """part / whole as float64, `otherwise` where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    out = np.full(np.broadcast(part, whole).shape, otherwise)
    return np.asarray(np.divide(part, whole, out=out, where=whole > 0))


def mean_of_present(scores: NDArray[np.float64]) -> float:
    """Mean of what is not NaN; NaN if nothing is."""
    present = scores[~np.isnan(scores)]
    return float(present.mean()) if present.size else float("nan")


def means_of_present(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row the mean of what is not NaN; NaN if nothing is."""
    present = ~np.isnan(table)
    return quotient(np.where(present, table, 0).sum(axis=1), present.sum(axis=1))
