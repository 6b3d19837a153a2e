"""What every bad input raises, and what the other processes do then."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake the user can mend.

    Args:
        message: one line that names the file, key or value at fault.
        hint: what to do about it, printed behind the message.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class FailedElsewhereError(Exception):
    """Another process of this training has failed, and has said why.

    Attributes:
        code: what this one ends with, too.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """A hint: which of the names that are known are like the one given; `otherwise` if none is."""
    written = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), written, n=3)
    names = " or ".join(written[one] for one in close)
    return f"did you mean {names}?" if names else otherwise


def is_out_of_memory(error: BaseException) -> bool:
    """Of Python and NumPy, of PyTorch on a GPU, on the CPU, or of OpenCV."""
    said = ("can't allocate memory", "not enough memory", "Insufficient memory", "out of memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in said)
