"""Ctrl-C and the scheduler's SIGTERM: finish the step, save, and go."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

MESSAGE = b"\nstopping after this step, then saving (once more to stop at once)\n"


class StopRequest:
    """Whether the user or the system has asked the run to stop.

    Attributes:
        signal: the signal's number; None while nobody has asked.
    """

    def __init__(self) -> None:
        self.signal: int | None = None


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Within the context the first SIGINT or SIGTERM is only noted; a second one acts as ever.

    Outside the main thread Python handles no signals, and none is ever noted.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def note(number: int, _: FrameType | None) -> None:
        request.signal = number
        restore()
        os.write(2, MESSAGE)  # a print may be what the signal has interrupted

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
