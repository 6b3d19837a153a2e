"""What a check finds, and how it says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from medt.check.cases import CaseFacts
from medt.data.layout import listed

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Finding:
    """Something wrong with a dataset, or suspicious.

    Attributes:
        severity: "error" stops a training, "warning" does not.
        code: one word for each kind of finding, see docs/your-images.md.
        message: one line that says what is the matter and names the cases.
        hint: what to do about it.
        cases: the cases concerned; none where it concerns all of them.
    """

    severity: str
    code: str
    message: str
    hint: str
    cases: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "severity": self.severity,
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "cases": list(self.cases),
        }


def about(
    severity: str, code: str, text: str, hint: str, cases: Iterable[CaseFacts]
) -> list[Finding]:
    """A finding about these cases, or none where there are none.

    Args:
        text: the message; ``{cases}`` in it stands for their names, ``{n}`` for their number.
    """
    names = tuple(facts.case.name for facts in cases)
    if not names:
        return []
    message = text.replace("{n}", str(len(names))).replace("{cases}", listed(names))
    return [Finding(severity, code, message, hint, names)]


def percent(share: float) -> str:
    """Such as 52 %, 0.4 % or 0.02 %."""
    digits = 0 if share >= 0.1 else 1 if share >= 0.001 else 2
    return f"{100 * share:.{digits}f} %"


def size_text(size: tuple[int, int]) -> str:
    """(H, W) as ``dataset.image_size`` takes it."""
    height, width = size
    return str(height) if height == width else f"[{height},{width}]"
