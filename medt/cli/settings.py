"""Plain values of a composed config, and how it came to be."""

from __future__ import annotations

import shlex
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from medt.errors import UserError
from medt.shipped import typed


def plain(cfg: Any) -> Any:
    """A config, or part of one, resolved to dicts, lists and values."""
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def allowed(cfg: DictConfig) -> tuple[str, ...]:
    """What `allow` names: full names of classes outside medt, or of packages of them."""
    found = OmegaConf.select(cfg, "allow")
    named = OmegaConf.to_container(found) if isinstance(found, ListConfig) else found
    names = [named] if isinstance(named, str) else named or []
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"allow={named} names no class", "give mypackage.MyNet, or a list: [A,B]")
    return tuple(names)


def checkpoint_files(cfg: DictConfig) -> list[str]:
    """What `checkpoint` names: one file, or a list of them."""
    named = plain(cfg)["checkpoint"]
    files = named if isinstance(named, list) else [named]
    if not files or not all(isinstance(file, str) and file for file in files):
        raise UserError(f"checkpoint={named} names no file", "give a checkpoint, or several: [A,B]")
    return files


def command_line(command: str) -> str:
    """What to type to run a command as it is being run."""
    return f"{typed(command)} {shlex.join(HydraConfig.get().overrides.task)}".rstrip()
