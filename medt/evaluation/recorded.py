"""What was written of evaluations and trainings, read again: files that may come from anybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medt.errors import UserError
from medt.evaluation.evaluate import PROTOCOLS
from medt.io.plain import read_json

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
        classes: their names, background first; empty where it does not say.
        weights: the digest of each network's weights; None in files that do not record it.
        splits: the digest of the split file; empty where it is not recorded.
        external: the dataset trained on, where another one was scored; else empty.
        empty: the rule for cases without foreground; empty where it is not recorded.
        without: cases without foreground, as far as it is recorded.
        alarms: of these, those in which some was predicted.
    """

    cases: int
    protocol: str
    scores: dict[str, float]
    intervals: dict[str, Interval]
    classes: tuple[str, ...] = ()
    weights: tuple[str, ...] | None = None
    splits: str = ""
    external: str = ""
    empty: str = ""
    without: int = 0
    alarms: int = 0

    def is_of(self, digest: str | None) -> bool | None:
        """Whether it is of the weights with this digest alone; None where nobody can say."""
        return None if self.weights is None or digest is None else self.weights == (digest,)


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
    return Recorded(
        cases,
        protocol,
        scores,
        {key: value for key, value in intervals.items() if value is not None},
        tuple(map(str, means["dice"].get("classes", ()))),
        **_circumstances(metrics),
    )


def _circumstances(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What older files do not record."""
    weights = metrics.get("prediction", {}).get("weights")
    alarms = metrics.get("false_alarms", {}).get("foreground") or {}
    counts = {key: alarms.get(key, 0) for key in ("without", "alarms")}
    if not all(type(value) is int and value >= 0 for value in counts.values()):
        raise ValueError("its false alarms are no numbers of cases")
    texts = {
        "splits": metrics.get("splits_digest") or "",
        "external": metrics.get("external") or "",
        "empty": metrics.get("empty") or "",
    }
    if not all(isinstance(value, str) for value in (*texts.values(), *(weights or ()))):
        raise ValueError("it does not say what it is of")
    return {**texts, **counts, "weights": None if weights is None else tuple(weights)}


def _interval(values: Any) -> Interval | None:
    """None where there is a single case, or group of cases."""
    low, high = values
    if low is None and high is None:
        return None
    if share(low, "interval") > share(high, "interval"):
        raise ValueError("its interval ends before it begins")
    return float(low), float(high)
