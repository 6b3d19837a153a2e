"""Learning rate schedules: a factor of the optimizer's rate for every step of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from medt.signatures import POSITIVE, SHARE


@dataclass(frozen=True)
class Constant:
    """1 after a linear warm-up over the share `warmup` (0..1) of all steps."""

    warmup: Annotated[float, SHARE] = 0.0

    def __call__(self, step: int, steps: int) -> float:
        return _warmup(step, steps, self.warmup) or 1.0


@dataclass(frozen=True)
class Cosine:
    """From 1 down to `final` along half a cosine (arXiv 1608.03983), after a linear warm-up.

    With `final` = 0 this is the one-cycle schedule in its two-phase form.
    """

    warmup: Annotated[float, SHARE] = 0.05
    final: Annotated[float, SHARE] = 0.0

    def __call__(self, step: int, steps: int) -> float:
        wave = (1 + math.cos(math.pi * _progress(step, steps, self.warmup))) / 2
        return _warmup(step, steps, self.warmup) or self.final + (1 - self.final) * wave


@dataclass(frozen=True)
class Polynomial:
    """(1 - progress) ** `power` after a linear warm-up (arXiv 1606.00915, section 3.1)."""

    warmup: Annotated[float, SHARE] = 0.0
    power: Annotated[float, POSITIVE] = 0.9

    def __call__(self, step: int, steps: int) -> float:
        decay = (1 - _progress(step, steps, self.warmup)) ** self.power
        return _warmup(step, steps, self.warmup) or decay


def _warmup(step: int, steps: int, share: float) -> float:
    """The factor during the warm-up, 0 after it."""
    length = round(share * steps)
    return (step + 1) / (length + 1) if step < length else 0.0


def _progress(step: int, steps: int, share: float) -> float:
    """0 at the end of the warm-up to just below 1 at the last step."""
    length = round(share * steps)
    return min(1.0, max(0, step - length) / max(1, steps - length))
