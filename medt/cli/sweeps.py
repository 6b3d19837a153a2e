"""The folder of train.py --multirun, with a folder for each of its runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from medt.cli.arguments import CONFIGS, quoted, search_path
from medt.io.locks import LOCK_FILE, claimed_folder

HYDRAS_FILE = "multirun.yaml"
OPTUNA = "hydra_plugins.hydra_optuna_sweeper."
STUDY = "study.db"
# What says where a sweep lies.
PLACE_KEYS = ("paths", "experiment")


def sweep_folder() -> Path | None:
    """The folder of one run of a --multirun, named by what is varied; else None."""
    settings = HydraConfig.get()
    if settings.mode != RunMode.MULTIRUN:
        return None
    name = re.sub(r"[^\w.,=+-]+", "_", settings.job.override_dirname)
    return Path(settings.sweep.dir) / name


def is_named_by_time(cfg: DictConfig, key: str) -> bool:
    """Whether a folder has its name of the clock, so that two commands may come to the same."""
    node = OmegaConf.to_container(cfg, resolve=False)
    for part in key.split("."):
        node = node[part]  # type: ignore[index, call-overload]
    return "${now:" in str(node)


def settings_of_study(command: str, settings: Sequence[str], flags: Sequence[str]) -> list[str]:
    """What Optuna's sweeper is told where the user says nothing else.

    The best validation score is what it looks for; the study lies in the sweep's folder, where the
    same command goes on to the number of trials that it names; a run that fails does not end it.

    Args:
        command: whose config is composed.
        settings: Hydra's own and those given.
        flags: given, of which --config-dir counts.
    """
    parsed = OverridesParser.create().parse_overrides(list(settings))
    fixed = [override.input_line for override in parsed if not override.is_sweep_override()]
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        cfg = compose(command, [*map(str, fixed), *search_path(flags)], return_hydra_config=True)
    if not str(cfg.hydra.sweeper.get("_target_")).startswith(OPTUNA):
        return []
    given = {str(override.key_or_group) for override in parsed}
    study = Path(cfg.hydra.sweep.dir).absolute() / STUDY
    study.parent.mkdir(parents=True, exist_ok=True)
    import optuna  # an extra, which sets the level of its log when it is imported

    for name in (optuna.__name__, "hydra_plugins.hydra_optuna_sweeper"):  # they tell what runs tell
        logging.getLogger(name).setLevel(logging.ERROR)
    own = {
        "hydra.sweeper.direction": "minimize" if cfg.trainer.monitor == "loss" else "maximize",
        "hydra.sweeper.storage": quoted(f"sqlite:///{study}"),
        "hydra.sweeper.study_name": "medt",
        "hydra.sweeper.max_failure_rate": "1.0",
        "resume": "auto",
    }
    wanted = [f"{key}={value}" for key, value in own.items() if key not in given]
    left = max(0, int(cfg.hydra.sweeper.n_trials) - _tried(study))
    return [*wanted, f"hydra.sweeper.n_trials={left}"]


def _tried(study: Path) -> int:
    """The trials of a study that have come to an end."""
    if not study.is_file():
        return 0
    import optuna  # an extra

    trials = optuna.load_study(study_name="medt", storage=f"sqlite:///{study}").trials
    return sum(trial.state.is_finished() for trial in trials)


def _says_where(key: str) -> bool:
    return key == "hydra.sweep.dir" or key.partition(".")[0] in PLACE_KEYS


@contextmanager
def claimed_sweep(config: str, settings: Sequence[str], flags: Sequence[str]) -> Iterator[Path]:
    """Hold a new folder for a sweep, or give the one that the user has named.

    It is removed again if no run came to it.

    Args:
        config: the script's.
        settings, flags: what the user has given.
    """
    parsed = OverridesParser.create().parse_overrides(list(settings))
    of_place = [
        str(override.input_line)
        for override in parsed
        if _says_where(str(override.key_or_group)) and not override.is_sweep_override()
    ]
    own = ["hydra/job_logging=none", "hydra/hydra_logging=none", *search_path(flags)]
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        cfg = compose(config, [*own, *of_place], return_hydra_config=True)
    named = any(override.key_or_group == "hydra.sweep.dir" for override in parsed)
    if named or not is_named_by_time(cfg, "hydra.sweep.dir"):
        yield Path(cfg.hydra.sweep.dir)
        return
    with claimed_folder(
        Path(cfg.hydra.sweep.dir), "train.py --multirun", other="hydra.sweep.dir=..."
    ) as folder:
        try:
            yield folder
        finally:
            if {path.name for path in folder.iterdir()} <= {HYDRAS_FILE, LOCK_FILE}:
                (folder / HYDRAS_FILE).unlink(missing_ok=True)
