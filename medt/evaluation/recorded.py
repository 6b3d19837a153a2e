"""What was written of evaluations and trainings, read again: files that may come from anybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medt.errors import UserError
from medt.evaluation.evaluate import PROTOCOLS
from medt.plain import read_json

OVERLAPS = ("dice", "iou")
ROUNDING = 1e-9  # of means of shares
Interval = tuple[float, float]


@dataclass(frozen=True)
class Recorded:
    """What the model card and the comparison take of an evaluation's metrics.json.

    Attributes:
        cases: their number.
        protocol: a key of PROTOCOLS.
        scores: dice and iou of the foreground, mean over cases; without those that no case has.
        intervals: of the scores that have one.
    """

    cases: int
    protocol: str
    scores: dict[str, float]
    intervals: dict[str, Interval]


def read_recorded(file: Path) -> Recorded:
    """Read an evaluation's metrics.json.

    Raises:
        UserError: it is no JSON, or a value is not what an evaluation writes.
    """
    metrics = read_json(file)
    try:
        return _recorded(metrics)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f": {error}" if isinstance(error, ValueError) else ""
        hint = "restore it, or move its folder away"
        raise UserError(f"{file} is damaged{said}", hint) from error


def share(value: Any, name: str) -> float:
    """A score from 0 to 1.

    Raises:
        ValueError: it is none.
    """
    if type(value) not in (int, float) or not 0 <= value <= 1 + ROUNDING:
        raise ValueError(f"its {name} is no score from 0 to 1")
    return float(value)


def _recorded(metrics: Mapping[str, Any]) -> Recorded:
    cases, protocol = metrics["cases"], metrics["protocol"]
    if type(cases) is not int or cases < 1:
        raise ValueError("its number of cases is not a possible number")
    if protocol not in PROTOCOLS:
        raise ValueError("there is no such protocol")
    means = metrics["mean_over_cases"]
    found = {key: means[key]["foreground"] for key in OVERLAPS}
    scores = {key: share(value, key) for key, value in found.items() if value is not None}
    drawn = metrics.get("intervals", {}).get("mean_over_cases", {})
    intervals = {key: _interval(drawn[key]["foreground"]) for key in scores if key in drawn}
    known = {key: value for key, value in intervals.items() if value is not None}
    return Recorded(cases, protocol, scores, known)


def _interval(values: Any) -> Interval | None:
    """None where there is a single case, or group of cases."""
    low, high = values
    if low is None and high is None:
        return None
    if share(low, "interval") > share(high, "interval"):
        raise ValueError("its interval ends before it begins")
    return float(low), float(high)
