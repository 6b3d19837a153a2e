"""How a command ends: an error becomes one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

from medt.cli.error_lines import error_line
from medt.errors import FailedElsewhereError
from medt.interruption import Stopped, exit_code, is_gone
from medt.io.text import for_error

BROKEN_PIPE = 141  # 128 + SIGPIPE, as the shell counts it
LAST_WORD = 30  # seconds that a process gives the first one to say what all have met


def guarded(
    action: Callable[[], int],
    config: str,
    overrides: list[str],
    speaks: bool = True,
    composing: bool = False,
) -> int:
    """The action's exit code, or that of the error that ended it, of which it says one line."""
    try:
        return action()
    except FailedElsewhereError as error:
        return error.code
    except (Stopped, KeyboardInterrupt) as error:
        return say_stopped(error)
    except BrokenPipeError:  # whoever read the output, such as head, has gone
        return BROKEN_PIPE
    except Exception as error:
        stop = None if error.__suppress_context__ else error.__context__
        if isinstance(stop, (Stopped, KeyboardInterrupt)):
            return say_stopped(stop)  # cleaning up after it failed, too
        if os.environ.get("MEDT_DEBUG") == "1":
            traceback.print_exc()
        if speaks or not _is_ended_by_its_launcher():
            _say(f"error: {for_error(error_line(error, config, overrides, composing))}")
        return 1


def is_first_process() -> bool:
    """Whether this is the first of several processes, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def _is_ended_by_its_launcher() -> bool:
    """Wait for what torchrun does when the first process has said what is wrong, and has ended.

    Whoever ended before it would let torchrun stop that process while it still looks for words.
    """
    try:
        time.sleep(LAST_WORD)
    except (Stopped, KeyboardInterrupt):
        return True
    return False


def say_stopped(error: Stopped | KeyboardInterrupt) -> int:
    if is_first_process():  # torchrun stops the others once the first one has said what is wrong
        if isinstance(error, Stopped):
            _say(f"stopped by {signal.Signals(error.signal).name}")
        else:
            _say("interrupted")
    return exit_code(error)


def _say(line: str) -> None:
    with suppress(OSError):  # the terminal may have gone
        print(line, file=sys.stderr, flush=True)


def flushed(code: int) -> int:
    """Write out what was printed; the exit code, another one if that fails.

    What cannot be written is given up, as Python would fail once more at the end.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if not is_gone(error):
                _say(f"error: the output cannot be written: {error.strerror} (check free space)")
            code = code or (BROKEN_PIPE if is_gone(error) else 1)
    return code


def thread_failed(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread hands a full disk's error on to the next write, which reports it."""
    if os.environ.get("MEDT_DEBUG") == "1" or not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)
