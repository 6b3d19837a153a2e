"""The data of a training: what train.py trains on, checked first, and what check_data.py shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from hydra import compose
from omegaconf import OmegaConf

from medt.build import check_settings
from medt.check import Check, check_dataset
from medt.cli.arguments import quoted
from medt.cli.screen import progress
from medt.cli.settings import command_line
from medt.data.layout import DatasetIndex
from medt.data.stored import AbsentDatasetError, locate
from medt.errors import UserError
from medt.shipped import typed

WARNINGS_SHOWN = 5
FOLDER_KEYS = ("root", "images", "masks", "splits_file")
# Of the dataset, but of no concern to its check.
UNCHECKED = (
    *("name", "num_classes", "object_area", "splits_digest"),
    *("cache", "workers", "timeout"),
)
KEYWORDS = ("null", "true", "false", "nan", "inf")  # of Hydra's override grammar


def check_of(settings: Mapping[str, Any], index: DatasetIndex) -> Check:
    """Check a dataset under its resolved config, behind a progress bar."""
    channels = settings["channels"] or index.channels
    with progress(f"checking {index.name}") as advance:
        return check_dataset(index, check_settings(settings, channels), advance)


def warnings_before_training(settings: Mapping[str, Any], index: DatasetIndex) -> list[str]:
    """Check a dataset before it is trained on; what to tell of it, a line each.

    Raises:
        UserError: it has errors; all of them in one line.
    """
    check = check_of(settings, index)
    lines = [f"warning: {finding}" for finding in check.warnings[:WARNINGS_SHOWN]]
    more = len(check.warnings) - len(lines)
    if not check.errors and not more:
        return lines
    command = f"{typed('check_data')} {dataset_arguments(settings)}"
    if errors := check.errors:
        hint = f"{errors[0].hint}; more" if len(errors) == 1 else "what to do about each"
        raise UserError(
            f"Dataset {index.name} cannot be trained on: {'; '.join(e.message for e in errors)}",
            f"{hint}: {command}",
        )
    return [*lines, f"and {more} more: {command}"]


def located(
    settings: Mapping[str, Any], data: str, owner: Path | str, script: str
) -> dict[str, Any]:
    """The dataset settings of a file with the paths of what is there; see `locate`.

    Only evaluate draws what synthetic images are absent: a resumed run may yet be refused.

    Args:
        settings: resolved, as the file has them.
        data: the user's own data folder.
        owner: the file, which errors name.
        script: evaluate or train.

    Raises:
        UserError: the data are not there, with a command that goes on from elsewhere, or a setting
            is impossible.
    """
    try:
        return locate(settings, Path(data), draws=script == "evaluate")
    except AbsentDatasetError as error:
        if settings["name"] != "synthetic":
            arguments = dataset_arguments(settings, elsewhere=error.keys)
            hint = f"say where it lies: {command_line(script)} {arguments}"
            if settings["name"] != "folder":
                hint += ", or give paths.data=FOLDER with the prepared dataset in it"
        else:
            arguments = dataset_arguments({k: v for k, v in settings.items() if k != "root"})
            drawing = command_line(script)
            if script == "train":
                drawing = f"{typed('prepare_data')} {shlex.quote(f'paths.data={data}')}"
            hint = f"have it drawn: {drawing} {arguments}"
        raise UserError(f"{owner}: {error.message}", hint) from error
    except UserError as error:
        raise UserError(f"{owner}: {error.message}", error.hint) from error


def dataset_arguments(settings: Mapping[str, Any], elsewhere: Collection[str] = ()) -> str:
    """The overrides that name a dataset, for the shell: all that differs from its defaults.

    Args:
        settings: resolved.
        elsewhere: keys of paths for which a word to be replaced is written.
    """
    given = [
        f"dataset.{key}={value if key in FOLDER_KEYS else in_grammar(value)}"
        for key, value in own_settings(settings).items()
        if key not in elsewhere
    ]
    given += [f"dataset.{key}={'FILE' if key == 'splits_file' else 'FOLDER'}" for key in elsewhere]
    return shlex.join([f"dataset={settings['name']}", *given])


def own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What differs, of a resolved dataset config, from the defaults of the option it is of."""
    composed = compose("check_data", [f"dataset={settings['name']}"])  # by the Hydra that runs
    defaults = cast("dict[str, Any]", OmegaConf.to_container(composed.dataset, resolve=True))
    keys = [key for key in FOLDER_KEYS if key in settings]
    keys += [key for key in settings if key in defaults and key not in (*FOLDER_KEYS, *UNCHECKED)]
    return {key: settings[key] for key in keys if settings[key] != defaults.get(key)}


def in_grammar(value: Any) -> str:
    """A plain value as Hydra's override grammar writes it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{in_grammar(v)}" for key, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(in_grammar, value)) + "]"
    if isinstance(value, str):
        bare = re.fullmatch(r"[a-z_][\w-]*", value, re.ASCII | re.IGNORECASE)
        return value if bare and value.lower() not in KEYWORDS else quoted(value)
    return "null" if value is None else str(value).lower()
