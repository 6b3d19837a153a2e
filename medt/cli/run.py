"""How every command runs: Hydra composes its config, and only then its module is imported."""

from __future__ import annotations

import importlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import configure_log
from omegaconf import DictConfig, OmegaConf, open_dict

import medt
from medt.cli.arguments import CONFIGS, flags_and_settings, given_to, quoted, quoted_path
from medt.cli.ending import flushed, guarded, is_first_process, say_stopped, thread_failed
from medt.cli.help import help_text
from medt.cli.sweeps import claimed_sweep, settings_of_study, sweep_folder
from medt.config import register_schema
from medt.config.ranges import check_ranges
from medt.errors import UserError
from medt.interruption import STOPPING, Stopped, on_stop
from medt.io.runs_below import best_runs, validation_score
from medt.io.terminal import safe_output
from medt.io.text import shown
from medt.shipped import home, typed

TOLD_ELSEWHERE = "what it said stands above, or in the log of its job"


class _StoppedError(BaseException):
    """A run was stopped by a signal, and has said so; no other run follows it."""


@safe_output()
def run(command: str, argv: Sequence[str] | None = None) -> int:
    """Compose configs/<command>.yaml with the overrides in `argv`, and do what it says.

    That is the function of the command's name in the module of its name beside this one, of which
    nothing is imported before: torch takes seconds, and --help does not need it. With --multirun
    it is called for every combination of the values given. A run that fails does not keep the next
    one from starting; values that cannot be composed stop all of them.

    Args:
        command: such as train.
        argv: what was given to it; None is what the process was given.

    Returns:
        The exit code: the command's, the highest of several, 128 and the number of a signal that
        ended it, or 1 after an error; of these two one line went to stderr. With MEDT_DEBUG=1 in
        the environment an error's traceback goes there too.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    sweeping = not {"-m", "--multirun"}.isdisjoint(given)  # commas then part the values
    overrides: list[str] = []
    codes: list[int] = []
    sweeps: list[Path] = []
    launched: list[Path] = []  # the folder of a sweep
    started_by, root = os.getpid(), str(home())
    # Of several processes all are given the same, and one says what is wrong with it.
    speaks = is_first_process()

    def check(cfg: DictConfig) -> int:
        from medt.cli.open_groups import complete_and_check  # imports the classes that are named

        complete_and_check(cfg)
        OmegaConf.to_container(cfg, resolve=True)  # a reference to nothing: before all else
        check_ranges(cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=False)))
        return 0

    def task(cfg: DictConfig) -> int:
        module = importlib.import_module(f"medt.cli.{command}")
        code: int = getattr(module, command)(cfg)
        return code

    def job(cfg: DictConfig) -> float | None:
        """Run one config; what the validation says of it goes to a sweeper that looks for it."""
        register_schema(root)  # of a launcher's process, too
        with safe_output():  # there, where a decorator could not follow
            if sweep := sweep_folder():
                sweeps.append(sweep)
                print(f"\nrun {len(sweeps)}: {sweep.name}", flush=True)
            refused = guarded(lambda: check(cfg), command, overrides, speaks=speaks)
            codes.append(refused or guarded(lambda: task(cfg), command, overrides))
        if os.getpid() != started_by:  # a launcher's process, whose code nobody would see
            if sweep and codes[-1]:
                raise UserError(f"the run {sweep.name} failed", TOLD_ELSEWHERE)
        elif codes[-1] > 128:
            raise _StoppedError
        return validation_score(sweep) if sweep and not codes[-1] else None

    def composed() -> int:
        texts = given_to(command, given)
        overrides.extend(text if sweeping and "," in text else quoted_path(text) for text in texts)
        flags, settings = flags_and_settings(overrides)
        if not {"-h", "--help"}.isdisjoint(flags):
            print(help_text(command, settings, flags))
            return 0
        if "--version" in flags:
            print(f"medt {medt.__version__}")
            return 0
        own = _hydra_settings(flags, settings, command)
        if not flags:  # hydra.main would compose a second time, to see whether it is a sweep
            with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
                job(_composed(command, [*own, *settings]))
            return codes[-1]
        start = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=command)(job)
        with claimed_sweep(command, settings, flags) if sweeping else nullcontext() as folder:
            if folder is not None:
                launched.append(folder)
                own.append(f"hydra.sweep.dir={quoted(str(folder))}")
                settings += settings_of_study(command, [*own, *settings], flags)
            with patch.object(sys, "argv", [sys.argv[0], *own, *settings, *flags]):
                try:
                    start()
                except ValueError as error:  # of Optuna, which has nothing to call the best
                    if codes and 0 not in codes:
                        raise UserError(
                            "no run of this sweep ended well", TOLD_ELSEWHERE
                        ) from error
                    raise
        return max(codes, default=0)

    register_schema(root)
    with (
        patch.dict(os.environ, {"HYDRA_FULL_ERROR": "1"}),
        patch.object(threading, "excepthook", thread_failed),
    ):
        try:
            with on_stop(_stop, [number for number in STOPPING if number != signal.SIGINT]):
                code = guarded(composed, command, overrides, speaks, composing=True)
        except _StoppedError:
            code = codes[-1]
        except (Stopped, KeyboardInterrupt) as error:  # while another error was being told
            code = say_stopped(error)
    if sweeps or launched:
        folder = sweeps[0].parent if sweeps else launched[0]
        ended = codes.count(0) if sweeps else len(best_runs(folder))
        total = f"of {len(codes)} " if sweeps else ""
        said = [f"\n{ended} {total}run{'s' * (ended != 1 or bool(sweeps))} ended well"]
        if ended > 1:
            said.append(f"to compare them: {typed('compare')} {shlex.quote(str(shown(folder)))}")
        with suppress(OSError):  # nobody may be left to read it
            print(*said, sep="\n")
    return flushed(code)


def _stop(number: int) -> None:
    raise Stopped(number)


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
    fixed.append("resume")  # which a study sets
    return [*own, f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]"]
