"""How every script runs: Hydra composes its config, errors become one line and an exit code."""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import hydra
from arguments import CONFIGS, flags_and_settings, quoted, quoted_path
from error_lines import error_line
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import configure_log
from omegaconf import DictConfig, OmegaConf, open_dict
from sweeps import claimed_sweep, sweep_folder

from medt.config import register_schema
from medt.config.ranges import check_ranges
from medt.errors import FailedElsewhereError, UserError
from medt.interruption import STOPPING, Stopped, exit_code, is_gone, on_stop
from medt.io.terminal import safe_output
from medt.io.text import for_error

# rich is imported where something is drawn: --help does not need it.
if TYPE_CHECKING:
    from rich.console import RenderableType

LONGEST_NAME = 40  # longer ones are folded where the terminal is too narrow
BROKEN_PIPE = 141  # 128 + SIGPIPE, as the shell counts it
LAST_WORD = 30  # seconds that a process gives the first one to say what all have met


class _StoppedError(BaseException):
    """A run was stopped by a signal, and has said so; no other run follows it."""


@safe_output()
def run(task: Callable[[DictConfig], int], config: str, argv: Sequence[str] | None) -> int:
    """Compose configs/<config>.yaml with the overrides in `argv` and call `task` with it.

    With --multirun `task` is called for every combination of the values given. A run that fails
    does not keep the next one from starting; values that cannot be composed stop all of them.

    Returns:
        The exit code: the task's, the highest of several, 128 and the number of a signal that ended
        it, or 1 after an error; of these two one line went to stderr. With MEDT_DEBUG=1 in the
        environment an error's traceback goes there too.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    sweeping = not {"-m", "--multirun"}.isdisjoint(given)  # commas then part the values
    overrides = [text if sweeping and "," in text else quoted_path(text) for text in given]
    register_schema()
    codes: list[int] = []
    sweeps: list[Path] = []
    started_by = os.getpid()

    # Of several processes all are given the same, and one says what is wrong with it.
    speaks = _is_first_process()

    def check(cfg: DictConfig) -> int:
        OmegaConf.to_container(cfg, resolve=True)  # a reference to nothing: before all else
        check_ranges(OmegaConf.to_container(cfg, resolve=False))
        return 0

    def job(cfg: DictConfig) -> None:
        with safe_output():  # of a launcher's process, too, where a decorator could not follow
            if sweep := sweep_folder():
                sweeps.append(sweep)
                print(f"\nrun {len(sweeps)}: {sweep.name}", flush=True)
            refused = _guarded(lambda: check(cfg), config, overrides, speaks=speaks)
            codes.append(refused or _guarded(lambda: task(cfg), config, overrides))
        if os.getpid() != started_by:  # a launcher's process, whose code nobody would see
            if sweep and codes[-1]:
                raise UserError(f"the run {sweep.name} failed", "what it said stands above")
        elif codes[-1] > 128:
            raise _StoppedError

    def composed() -> int:
        flags, settings = flags_and_settings(overrides)
        own = _hydra_settings(flags, settings, config)
        if not flags:  # hydra.main would compose a second time, to see whether it is a sweep
            with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
                job(_composed(config, [*own, *settings]))
            return codes[-1]
        start = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config)(job)
        trains = sweeping and {"-h", "--help"}.isdisjoint(flags)
        with claimed_sweep(CONFIGS, config, settings) if trains else nullcontext() as folder:
            own += [f"hydra.sweep.dir={quoted(str(folder))}"] if folder else []
            with patch.object(sys, "argv", [f"{config}.py", *own, *settings, *flags]):
                if {"-h", "--help"}.isdisjoint(flags):
                    start()
                else:
                    _print_help(start)
        return max(codes, default=0)

    with (
        patch.dict(os.environ, {"HYDRA_FULL_ERROR": "1"}),
        patch.object(threading, "excepthook", _thread_failed),
    ):
        try:
            with on_stop(_stop, [number for number in STOPPING if number != signal.SIGINT]):
                code = _guarded(composed, config, overrides, speaks, composing=True)
        except _StoppedError:
            code = codes[-1]
        except (Stopped, KeyboardInterrupt) as error:  # while another error was being told
            code = _say_stopped(error)
    if sweeps:
        folder = shlex.quote(str(shown(sweeps[0].parent)))
        said = [f"\n{codes.count(0)} of {len(codes)} runs ended well"]
        if sum(code == 0 for code in codes) > 1:
            said.append(f"to compare them: python scripts/compare.py {folder}")
        with suppress(OSError):  # nobody may be left to read it
            print(*said, sep="\n")
    return _flushed(code)


def command_line(script: str) -> str:
    """What to type to run a script as it is being run."""
    return f"python scripts/{script}.py {shlex.join(HydraConfig.get().overrides.task)}".rstrip()


def shown(path: Path) -> Path:
    """The path as the user would type it: relative where it lies below the working folder."""
    path, here = path.absolute(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def plain(cfg: Any) -> Any:
    """A config, or part of one, resolved to dicts, lists and values."""
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def checkpoint_files(cfg: DictConfig) -> list[str]:
    """What `checkpoint` names: one file, or a list of them."""
    named = plain(cfg)["checkpoint"]
    files = named if isinstance(named, list) else [named]
    if not files or not all(isinstance(file, str) and file for file in files):
        raise UserError(f"checkpoint={named} names no file", "give a checkpoint, or several: [A,B]")
    return files


@contextmanager
def progress(description: str) -> Iterator[Callable[[float, int], None]]:
    """A bar with the time left, on a terminal; yields what to call with (done, in all)."""
    from rich.markup import escape
    from rich.progress import Progress

    from medt.io.console import safe_console

    console = safe_console(sys.stderr)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    with bar, safe_output():
        task = bar.add_task(escape(description), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_table(shown: RenderableType) -> None:
    """A table or a text, or a group of them, to the terminal; the only way to print a table.

    Where the terminal is too narrow their lines break there, but nothing is cut off.
    """
    from rich.cells import cell_len
    from rich.console import Group
    from rich.table import Table

    from medt.io.console import safe_console

    if isinstance(shown, Group):
        for part in shown.renderables:
            print_table(part)
        return
    console = safe_console(soft_wrap=True)
    if isinstance(shown, Table):
        for column in shown.columns:
            cells = "\n".join(map(str, (column.header, *column.cells))).split("\n")
            widest = max(map(cell_len, cells))
            column.min_width = min(widest, column.max_width or LONGEST_NAME)
            if column.no_wrap:  # rich would cut off behind a blank
                column.min_width = widest
        unlimited = console.options.update(max_width=sys.maxsize)
        console.width = max(console.width, console.measure(shown, options=unlimited).minimum)
    console.print(shown)


def terminal_width() -> int:
    """In characters; 80 where there is no terminal."""
    from medt.io.console import safe_console

    return safe_console().width


def _stop(number: int) -> None:
    raise Stopped(number)


def _guarded(
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
        return _say_stopped(error)
    except BrokenPipeError:  # whoever read the output, such as head, has gone
        return BROKEN_PIPE
    except Exception as error:
        stop = None if error.__suppress_context__ else error.__context__
        if isinstance(stop, (Stopped, KeyboardInterrupt)):
            return _say_stopped(stop)  # cleaning up after it failed, too
        if os.environ.get("MEDT_DEBUG") == "1":
            traceback.print_exc()
        if speaks or not _is_ended_by_its_launcher():
            _say(f"error: {for_error(error_line(error, config, overrides, composing))}")
        return 1


def _is_first_process() -> bool:
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


def _say_stopped(error: Stopped | KeyboardInterrupt) -> int:
    if _is_first_process():  # torchrun stops the others once the first one has said what is wrong
        stopped = isinstance(error, Stopped)
        _say(f"stopped by {signal.Signals(error.signal).name}" if stopped else "interrupted")
    return exit_code(error)


def _say(line: str) -> None:
    with suppress(OSError):  # the terminal may have gone
        print(line, file=sys.stderr, flush=True)


def _flushed(code: int) -> int:
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


def _composed(config: str, overrides: list[str]) -> DictConfig:
    """The config of one run, without Hydra's own part, which `HydraConfig` holds."""
    cfg = hydra.compose(config, overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    configure_log(cfg.hydra.job_logging, cfg.hydra.verbose)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def _hydra_settings(flags: list[str], settings: list[str], config: str) -> list[str]:
    """What Hydra itself is told: no log file and, for a sweep, which keys name its runs."""
    own = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    if {"-m", "--multirun"}.isdisjoint(flags):
        return own
    if config != "train":
        raise UserError("--multirun is for train.py only", f"run {config}.py for each value")
    parsed = OverridesParser.create().parse_overrides(settings)
    if "run_dir" in [override.key_or_group for override in parsed]:
        raise UserError("run_dir would be the same for all runs", "give hydra.sweep.dir=FOLDER")
    swept = {override.key_or_group for override in parsed if override.is_sweep_override()}
    if not swept:
        raise UserError("--multirun varies nothing", "give a key several values: seed=0,1")
    fixed = [quoted(o.key_or_group) for o in parsed if o.key_or_group not in swept]
    return [*own, f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]"]


def _print_help(start: Callable[[], None]) -> None:
    """Hydra's help without the schemas, which are no options of a group."""
    text = io.StringIO()
    try:
        with redirect_stdout(text):
            start()
    finally:  # it may leave by SystemExit
        print(re.sub(r"(, )?\bschema_\w+", "", text.getvalue()).strip())


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread hands a full disk's error on to the next write, which reports it."""
    if os.environ.get("MEDT_DEBUG") == "1" or not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)
