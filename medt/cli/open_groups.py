"""The open groups of a composed config: completed, and held against the classes that they name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from medt.cli.arguments import CONFIGS
from medt.cli.config_files import standing_in
from medt.cli.settings import allowed
from medt.errors import UserError
from medt.targets import GROUPS, TARGET, check_group, followed_by, target_of, targets_in


def complete_and_check(cfg: DictConfig) -> None:
    """Give the network what its file leaves out, and refuse what the named classes do not take.

    What a config says here is the user's own word, so that whatever it names may be built.

    Raises:
        UserError: a class is not there, or does not take a key or its value; the line names the
            file that the key stands in.
    """
    for group in (name for name in GROUPS if name in cfg):
        spec = cfg[group]
        allow = (*allowed(cfg), *targets_in(OmegaConf.to_container(spec, resolve=False)))
        try:
            if group == "model" and "dataset" in cfg:
                _complete(spec, allow)
            _check(spec, group, allow)
        except UserError as error:
            raise UserError(f"{_place(error, group)}{error.message}", error.hint) from error


def _complete(spec: DictConfig, allow: tuple[str, ...]) -> None:
    target = target_of({TARGET: OmegaConf.select(spec, TARGET)}, "model", allow)
    missing = {"name": str(spec[TARGET]).rpartition(".")[2]}
    missing |= {key: f"${{dataset.{name}}}" for key, name in followed_by(target).items()}
    with open_dict(spec):
        for key, value in missing.items():
            if key not in spec:
                spec[key] = value


def _check(spec: DictConfig, group: str, allow: tuple[str, ...]) -> None:
    values = cast("dict[str, Any]", OmegaConf.to_container(spec, resolve=False))
    later = [key for key, value in values.items() if _is_later(value)]
    known = {key: value for key, value in values.items() if key not in later}
    check_group(known, group, allow, later)


def _is_later(value: Any) -> bool:
    """Whether a value is not known before the dataset is open, or is yet to be given."""
    return isinstance(value, str) and ("${" in value or value == "???")


def _place(error: UserError, group: str) -> str:
    """The file that the key of an error stands in, unless it was given on the command line."""
    named = re.search(rf"\b{group}\.[\w.]*\w", error.message)
    key = named[0] if named else f"{group}.{TARGET}"
    settings = HydraConfig.get()
    if any(text.partition("=")[0] == key for text in settings.overrides.task):
        return ""
    choices = {name: choice for name, choice in settings.runtime.choices.items() if choice}
    folders = [
        Path(source.path)
        for source in settings.runtime.config_sources
        if source.schema == "file" and Path(source.path) != CONFIGS
    ]
    files = [
        folder / name / f"{choices[name]}.yaml"
        for name in (group, "experiment")
        if name in choices
        for folder in (CONFIGS, *folders)
    ]
    found = standing_in(key, files)
    return f"{found}: " if found else ""
