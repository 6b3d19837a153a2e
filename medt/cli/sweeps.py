"""The folder of train.py --multirun, with a folder for each of its runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from medt.io.locks import LOCK_FILE, claimed_folder

HYDRAS_FILE = "multirun.yaml"
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


@contextmanager
def claimed_sweep(configs: Path, config: str, settings: Sequence[str]) -> Iterator[Path | None]:
    """Hold a new folder for a sweep; None where the user has named one.

    It is removed again if no run came to it.

    Args:
        configs: Hydra's folder.
        config: the script's.
        settings: what the user has given.
    """
    parsed = OverridesParser.create().parse_overrides(list(settings))
    of_place = [
        str(override.input_line)
        for override in parsed
        if override.key_or_group.partition(".")[0] in PLACE_KEYS
        and not override.is_sweep_override()
    ]
    own = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    with initialize_config_dir(config_dir=str(configs), version_base="1.3"):
        cfg = compose(config, [*own, *of_place], return_hydra_config=True)
    named = any(override.key_or_group == "hydra.sweep.dir" for override in parsed)
    if named or not is_named_by_time(cfg, "hydra.sweep.dir"):
        yield None
        return
    with claimed_folder(
        Path(cfg.hydra.sweep.dir), "train.py --multirun", other="hydra.sweep.dir=..."
    ) as folder:
        try:
            yield folder
        finally:
            if {path.name for path in folder.iterdir()} <= {HYDRAS_FILE, LOCK_FILE}:
                (folder / HYDRAS_FILE).unlink(missing_ok=True)
