"""Signals that ask a program to end: what it is doing is finished or undone first."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TextIO

MESSAGE = b"\nstopping after this step, then saving\n"
INSISTING = b"\nstopping after this step, then saving (once more to stop at once)\n"
# Given again, they act at once.
URGENT = (signal.SIGINT, signal.SIGTERM)
# A closed terminal, a scheduler's warnings before the end, a limit of processor time. The system
# ends whoever does not handle them; some are sent more than once: a shell hands a hangup on that
# its children have had from the terminal.
OTHERS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
STOPPING = (*URGENT, *(getattr(signal, name) for name in OTHERS if hasattr(signal, name)))


class Stopped(BaseException):
    """A signal has asked the program to end.

    Attributes:
        signal: its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


def exit_code(error: BaseException) -> int:
    """Of a program that this error ends, as the shell counts: 128 and the signal, else 1."""
    if isinstance(error, Stopped):
        return 128 + error.signal
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1


class StopRequest:
    """Whether the user or the system has asked the run to stop.

    Attributes:
        signal: the first signal's number; None while nobody has asked.
    """

    def __init__(self) -> None:
        self.signal: int | None = None


@contextmanager
def stop_request(announced: bool = True) -> Iterator[StopRequest]:
    """Within the context signals that ask to stop are only noted; see `on_stop`.

    Args:
        announced: whether to say so on standard error.
    """
    request = StopRequest()

    def note(number: int) -> None:
        request.signal = number
        if announced:
            with suppress(OSError):  # the terminal may have gone
                # A print may be what the signal has interrupted.
                os.write(2, INSISTING if number in URGENT else MESSAGE)

    with on_stop(note):
        yield request


@contextmanager
def on_stop(act: Callable[[int], None], numbers: Sequence[int] = STOPPING) -> Iterator[None]:
    """Within the context the first signal that asks to stop calls `act` with its number.

    A second SIGINT or SIGTERM acts as it did outside; any other one that follows is passed over.
    What is ignored already, as SIGHUP is by nohup, stays so. Outside the main thread Python handles
    no signals, and `act` is never called.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    handled = [number for number in numbers if before[number] is not signal.SIG_IGN]
    came: list[int] = []

    def restore(numbers: Sequence[int]) -> None:
        for number in numbers:
            signal.signal(number, before[number] or signal.SIG_DFL)

    def note(number: int, _: FrameType | None) -> None:
        if number in URGENT:
            restore([urgent for urgent in URGENT if urgent in handled])
        came.append(number)
        if len(came) == 1:
            act(number)

    for number in handled:
        signal.signal(number, note)
    try:
        yield
    finally:
        restore(handled)


class Output:
    """A text stream until whoever reads it has gone: what follows is lost, and nothing fails.

    That is taken for a hangup, which ends the program unless SIGHUP is ignored or nobody handles
    it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:
        return "utf-8" if self._stream is None else self._stream.encoding

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def write(self, text: str) -> int:
        self._try(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(lambda stream: stream.flush())

    def _try(self, action: Callable[[TextIO], object]) -> None:
        if self._stream is None:
            return
        try:
            action(self._stream)
        except OSError as error:
            if not is_gone(error):
                raise
            self._stream = None
            hangup = getattr(signal, "SIGHUP", signal.SIGTERM)
            if callable(signal.getsignal(hangup)):
                signal.raise_signal(hangup)


def is_gone(error: OSError) -> bool:
    """Whether writing failed as nobody reads: a closed pipe, or the terminal of a lost session."""
    return error.errno in (errno.EPIPE, errno.EIO)
