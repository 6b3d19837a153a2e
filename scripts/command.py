"""How every script runs: Hydra composes its config, errors become one line and an exit code."""

from __future__ import annotations

import difflib
import io
import itertools
import os
import re
import shlex
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from medt.config import register_schema
from medt.config.ranges import check_ranges
from medt.errors import UserError
from medt.terminal import safe_output
from medt.text import for_error

# rich is imported where something is drawn: --help does not need it.
if TYPE_CHECKING:
    from rich.table import Table

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
INTERRUPTED = 130
BROKEN_PIPE = 141  # 128 + SIGPIPE, as the shell counts it
# Of Hydra's command line.
FLAGS = ("--help", "-h", "--multirun", "-m", "--resolve", "--hydra-help", "--version")
FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--info", "-i")
# What to do about too little memory, by script.
LOWER_MEMORY = {
    "train": "lower trainer.batch_size, with trainer.accumulate=N to keep the step's size, or "
    "dataset.image_size; dry_run=true estimates the need",
    "evaluate": "lower batch_size",
    "predict": "give smaller images, or device=cpu",
    "benchmark": "lower sizes or batches",
}
CLOSE_OTHERS = "close other programs"
PATH_KEYS = {
    *("source", "glas", "checkpoint", "input", "output", "run_dir", "resume"),
    *("weights", "model.weights", "model.encoder_weights"),
    *("dataset.root", "dataset.images", "dataset.masks", "dataset.splits_file"),
    *("paths.root", "paths.data", "paths.runs", "hydra.sweep.dir"),
}
SEVERAL_PATHS = {"checkpoint"}


class _StoppedError(BaseException):
    """A run was stopped by a signal, and has said so; no other run follows it."""


@safe_output()
def run(task: Callable[[DictConfig], int], config: str, argv: Sequence[str] | None) -> int:
    """Compose configs/<config>.yaml with the overrides in `argv` and call `task` with it.

    With --multirun `task` is called for every combination of the values given. A run that fails
    does not keep the next one from starting; values that cannot be composed stop all of them.

    Returns:
        The exit code: the task's, the highest of several, or 1 after an error, of which one line
        went to stderr. With MEDT_DEBUG=1 in the environment its traceback goes there too.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    sweeping = not {"-m", "--multirun"}.isdisjoint(given)  # commas then part the values
    overrides = [text if sweeping and "," in text else _quoted(text) for text in given]
    register_schema()
    codes: list[int] = []
    sweeps: list[Path] = []
    started_by = os.getpid()

    def checked(cfg: DictConfig) -> int:
        check_ranges(OmegaConf.to_container(cfg, resolve=False))
        return task(cfg)

    @safe_output()  # of a launcher's process, too
    def job(cfg: DictConfig) -> None:
        if sweep := sweep_folder():
            sweeps.append(sweep)
            print(f"\nrun {len(sweeps)}: {sweep.name}", flush=True)
        codes.append(_guarded(lambda: checked(cfg), config, overrides))
        if os.getpid() != started_by:  # a launcher's process, whose code nobody would see
            if sweep and codes[-1]:
                raise UserError(f"the run {sweep.name} failed", "what it said stands above")
        elif codes[-1] > 128:
            raise _StoppedError

    def composed() -> int:
        flags, settings = _flags_and_settings(overrides)
        own = _hydra_settings(flags, settings, config)
        start = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config)(job)
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
            code = _guarded(composed, config, overrides)
        except _StoppedError:
            code = codes[-1]
    if sweeps:
        folder = shlex.quote(str(shown(sweeps[0].parent)))
        print(f"\n{codes.count(0)} of {len(codes)} runs ended well")
        if sum(code == 0 for code in codes) > 1:
            print(f"to compare them: python scripts/compare.py {folder}")
    return code


def sweep_folder() -> Path | None:
    """The folder of one run of a --multirun, named by what is varied; else None."""
    settings = HydraConfig.get()
    if settings.mode != RunMode.MULTIRUN:
        return None
    name = re.sub(r"[^\w.,=+-]+", "_", settings.job.override_dirname)
    return Path(settings.sweep.dir) / name


def command_line(script: str) -> str:
    """What to type to run a script as it is being run."""
    return f"python scripts/{script}.py {shlex.join(HydraConfig.get().overrides.task)}".rstrip()


def shown(path: Path) -> Path:
    """The path as the user would type it: relative where it lies below the working folder."""
    path, here = path.absolute(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def quoted(text: str) -> str:
    """`text` as a string of Hydra's override grammar, whatever characters it holds.

    A backslash is itself, unless it stands before what is escaped.
    """
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", text) + "'"


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

    from medt.console import safe_console

    console = safe_console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    with bar, safe_output():
        task = bar.add_task(escape(description), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_table(table: Table) -> None:
    """To the terminal; where that is too narrow its lines break, but no number is cut off."""
    from rich.cells import cell_len

    from medt.console import safe_console

    for column in table.columns:
        if column.no_wrap:  # rich would cut off behind a blank
            cells = [
                line for cell in (column.header, *column.cells) for line in str(cell).split("\n")
            ]
            column.min_width = max(map(cell_len, cells))
    console = safe_console(soft_wrap=True)
    unlimited = console.options.update(max_width=sys.maxsize)
    console.width = max(console.width, console.measure(table, options=unlimited).minimum)
    console.print(table)


def is_out_of_memory(error: BaseException) -> bool:
    """Of Python and NumPy, of PyTorch on a GPU, on the CPU, or of OpenCV."""
    said = ("can't allocate memory", "not enough memory", "Insufficient memory", "out of memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in said)


def _guarded(action: Callable[[], int], config: str, overrides: list[str]) -> int:
    try:
        return action()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if os.environ.get("MEDT_DEBUG") == "1":
            traceback.print_exc()
        print(f"error: {for_error(_one_line(error, config, overrides))}", file=sys.stderr)
        return 1


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


def _one_line(error: Exception, config: str, overrides: list[str]) -> str:
    cause: BaseException | None = error
    while cause is not None:  # Hydra wraps what it meets while it builds or resolves
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    if "Expected more than 1" in str(error):
        return (
            "a batch is too small for the network's norms: they see one value per channel (give a "
            "larger dataset.image_size, or a trainer.batch_size that leaves no single image over)"
        )
    if is_out_of_memory(error):
        hint = LOWER_MEMORY.get(config, CLOSE_OTHERS)
        return f"out of memory: {' '.join(str(error).split())[:120]} ({hint})"
    if isinstance(error, OSError) and error.strerror:
        where = error.filename or "a file of the run"
        return f"{where}: {error.strerror} (check the path, free space and permissions)"
    if isinstance(error, MissingMandatoryValue):
        key = error.full_key
        return f"{key} has no value (give it as {key}=...)"
    if isinstance(error, OverrideParseException):
        reason = str(error).splitlines()[0]
        return f"{error.override} cannot be read: {reason} (lists are key=[a,b], see --help)"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _composition_error(error, config, overrides)
    return (
        f"{type(error).__name__}: {' '.join(str(error).split())} "
        "(not foreseen: MEDT_DEBUG=1 shows the traceback)"
    )


def _composition_error(error: Exception, config: str, overrides: list[str]) -> str:
    lines = f"{error}\n{error.__cause__ or ''}"
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", lines):
        group, option = match.groups()
        offered = re.findall(r"^\t(?!schema_)(\S+)$", lines, re.MULTILINE)
        return f"{group}={option} is not known ({_nearest(option, offered)})"
    text = " ".join(lines.split())
    if match := re.search(r"Error locating target '([^']+)'", text):
        return f"there is no class {match[1]} (check the _target_ that names it)"
    if match := re.search(r"Error in call to target '([^']+)': \w+\((.+?)\) ", text):
        return f"{match[1]} does not take its settings: {match[2]} (see its group in the config)"
    if match := re.search(r"Could not override '([^']+)'", text):
        keys = _keys(config, overrides)
        return f"there is no key {match[1]} ({_nearest(match[1], keys)})"
    if match := re.search(r"Key '([^']+)' (?:is )?not in '?\w+'?.*full_key: (\S+)", text):
        return f"there is no key {match[2]} ({_nearest(match[2], _keys(config, overrides))})"
    wrong_value = r"((?:Value '|Invalid value assigned: |Incompatible value ).*?) full_key: (\S+)"
    if match := re.search(wrong_value, text):
        kinds = "lists are key=[a,b], nothing is key=null, see --help"
        return f"{match[2]}: {match[1].rstrip('.')} ({kinds})"
    return text


def _quoted(override: str) -> str:
    """Quote the value of a key that is a path, so that any path can be given as it is."""
    key, equals, value = override.partition("=")
    plain_path = re.fullmatch(r"[\w./\\:@%+-]*", value, re.ASCII)
    if not equals or key not in PATH_KEYS or plain_path or value[0] in "'\"":
        return override
    if key in SEVERAL_PATHS and value[0] + value[-1] == "[]" and not Path(value).exists():
        paths = [part.strip() for part in value[1:-1].split(",")]
        return f"{key}=[{','.join(_quoted(f'{key}={path}').partition('=')[2] for path in paths)}]"
    return f"{key}={quoted(str(Path(value).expanduser()))}"


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


def _flags_and_settings(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags with their values, and the key=value.

    Anything else Hydra would answer in its parser's terms; and its +key=value would add a key that
    nothing reads, its ~key take one away that is needed.
    """
    flags: list[str] = []
    settings: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if "\0" in argument:
            raise UserError(f"{argument!r} holds a null character", "give text without it")
        if argument.startswith("-"):
            if argument.partition("=")[0] not in (*FLAGS, *FLAGS_WITH_VALUE):
                raise UserError(
                    f"there is no option {argument}", "settings are given as key=value, see --help"
                )
            flags.append(argument)
        elif before in FLAGS_WITH_VALUE:
            flags.append(argument)
        elif argument.startswith(("+", "~")) or "=" not in argument:
            raise UserError(f"{argument!r} is no setting", "give key=value, see --help")
        else:
            settings.append(argument)
    return flags, settings


def _nearest(name: str, known: list[str]) -> str:
    """A hint: the most similar of the known names, else all of them."""
    similar = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    leaf = name.rpartition(".")[2]
    similar += [key for key in known if key.rpartition(".")[2] == leaf and key not in similar]
    if similar:
        return f"did you mean {' or '.join(similar)}?"
    return f"choose one of {', '.join(sorted(known))}"


def _keys(config: str, overrides: list[str]) -> list[str]:
    """All dotted keys of the config with the groups of `overrides` but none of its values.

    Of several options of a group, as --multirun takes them, the keys that all of them have.
    """
    groups = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    chosen = [text.partition("=") for text in overrides]
    options = [
        [f"{group}={option}" for option in named.split(",")]
        for group, _, named in chosen
        if group in groups
    ]
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        configs = [compose(config, list(combined)) for combined in itertools.product(*options)]
    first, *others = [_dotted(OmegaConf.to_container(cfg, resolve=False), "") for cfg in configs]
    return [key for key in first if all(key in other for other in others)]


def _dotted(node: Any, prefix: str) -> list[str]:
    if not isinstance(node, dict):
        return [prefix.rstrip(".")]
    return [key for name, child in node.items() for key in _dotted(child, f"{prefix}{name}.")]
