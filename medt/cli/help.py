"""What --help says: the groups with their options, and every key with its value and comment."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import hydra
import yaml
from omegaconf import OmegaConf

from medt.cli.arguments import CONFIGS, configs_given, search_path
from medt.cli.config_files import comments_of, groups_of, options_of

COLUMN = 44  # where comments begin, as far as the values let them
NARROWEST = 30  # characters of a comment's line


def help_text(command: str, settings: Sequence[str], flags: Sequence[str]) -> str:
    """The help of a command, with the config as the settings make it.

    Args:
        command: such as train.
        settings: key=value, as given.
        flags: as given, of which --config-dir counts.
    """
    folder = configs_given(flags)
    own = ["hydra/job_logging=none", "hydra/hydra_logging=none", *search_path(flags)]
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = hydra.compose(command, [*own, *settings], return_hydra_config=True)
    folders = [] if folder is None else [folder]
    chosen = {name: str(choice) for name, choice in cfg.hydra.runtime.choices.items() if choice}
    config = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=False))
    template: str = config.pop("hydra")["help"]["template"]
    options = {group: options_of(group, *folders) for group in [*groups_of(command), "experiment"]}
    if "experiment" not in cfg.hydra.runtime.choices:
        del options["experiment"]
    files = {group: names.get(chosen.get(group, "")) for group, names in options.items()}
    listed = "\n".join(f"{group}: {', '.join(sorted(names))}" for group, names in options.items())
    lines = "\n".join(_config(config, CONFIGS / f"{command}.yaml", files))
    return template.replace("$APP_CONFIG_GROUPS", listed).replace("$CONFIG", lines)


def _config(
    config: Mapping[str, Any], own: Path, files: Mapping[str, Path | None]
) -> Iterator[str]:
    """The lines of a config, of which the groups come last."""
    comments = comments_of(own)
    for key, value in config.items():
        if key not in files:
            yield from _lines(key, value, comments, 0)
    for group, file in files.items():
        if file is not None and group in config:
            yield f"\n{group}: # {file.stem}"
            below = comments_of(file)
            for key, value in (config[group] or {}).items():
                yield from _lines(key, value, below, 1)


def _lines(key: str, value: Any, comments: Mapping[str, str], depth: int) -> Iterator[str]:
    name = key.rpartition(".")[2]
    if isinstance(value, dict) and value:
        yield f"{'  ' * depth}{name}:" + (f" # {comments[key]}" if comments.get(key) else "")
        for below, part in value.items():
            yield from _lines(f"{key}.{below}", part, comments, depth + 1)
        return
    shown = yaml.safe_dump(value, default_flow_style=True, width=1e6, allow_unicode=True)
    text = f"{'  ' * depth}{name}: {shown.removesuffix('...' + chr(10)).strip()}"
    yield from _beside(text, comments.get(key, ""))


def _beside(text: str, comment: str) -> Iterator[str]:
    """A line with its comment, which is broken where the terminal ends."""
    if not comment:
        yield text
        return
    column = max(COLUMN, len(text) + 1)
    width = shutil.get_terminal_size((100, 24)).columns - column - 2
    first, *more = textwrap.wrap(comment, max(width, NARROWEST))
    yield f"{text:<{column}}# {first}"
    for line in more:
        yield f"{'':<{column}}# {line}"
