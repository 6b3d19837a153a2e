"""The config of a run that lies in its folder: a file that may come from anybody."""

from __future__ import annotations

import typing
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from medt.config.groups import (
    DatasetConfig,
    FolderConfig,
    MonusegConfig,
    PreparedConfig,
    SyntheticConfig,
)
from medt.config.ranges import check_ranges
from medt.config.scripts import TrainConfig
from medt.data.former_augmentation import present_form
from medt.errors import UserError
from medt.io.plain import read_yaml
from medt.io.text import is_folder_name, is_name
from medt.metrics.empty import former_empty
from medt.models.sizes import as_size
from medt.shipped import shipped
from medt.signatures import check_arguments, fits
from medt.targets import GROUPS as BUILT
from medt.targets import check_group
from medt.training.settings import TrainerSettings

SCHEMAS: dict[str, type[DatasetConfig]] = {
    "synthetic": SyntheticConfig,
    "folder": FolderConfig,
    "monuseg": MonusegConfig,
}


def check_stored(config: dict[str, Any], file: str, allow: Collection[str] = ()) -> None:
    """Hold a stored config against the schema and the classes that it names; nothing is built.

    What a run of an earlier version lacks is set to its default, or to what held before.

    Args:
        config: plain values, as `medt.io.plain.read_yaml` gives them.
        file: they come from, for the error.
        allow: full names of classes outside medt that it may name.

    Raises:
        UserError: a group is missing, a value is of another type or out of its range, or names
            anything else to build.
    """
    for name in ("dataset", "trainer", *BUILT):
        if not isinstance(config.get(name), dict):
            raise UserError(f"{file} has no group {name}", "restore it, or start the run again")
    try:
        config["augmentation"] = present_form(config["augmentation"])
        _check_names(config)
        check_dataset(config["dataset"])
        # Its best score so far is by that rule.
        config["trainer"].setdefault("empty", former_empty(config["dataset"].get("num_classes")))
        config["trainer"].setdefault("use", "best")
        for group, values in defaults().items():
            config[group] |= {k: v for k, v in values.items() if k not in config[group]}
        _check_values(config)
        check_arguments(TrainerSettings, config["trainer"], "trainer")
        TrainerSettings(**config["trainer"])
        for group in BUILT:
            check_group(config[group], group, allow)
        check_ranges(config)
    except UserError as error:
        raise UserError(f"{file}: {error.message}", error.hint) from error


def check_dataset(settings: Mapping[str, Any]) -> None:
    """Hold the stored settings of a dataset against its schema, which knows no other keys.

    Raises:
        UserError: a value is of another type or out of its range.
    """
    name = settings["name"]
    schema = SCHEMAS.get(name, PreparedConfig)
    known = {field.name for field in fields(schema)}
    own = {key: value for key, value in settings.items() if key in known}
    check_arguments(schema, own, "dataset", given=known - set(own))
    if "image_size" in own:
        try:
            as_size(own["image_size"])
        except UserError as error:
            raise UserError(f"dataset.{error.message}", error.hint) from error
    check_ranges({"dataset": own})


def defaults() -> dict[str, dict[str, Any]]:
    """What the files of the configs say of all datasets, and of the trainer."""
    files = {"dataset": "dataset/_common.yaml", "trainer": "trainer/default.yaml"}
    found = {group: read_yaml(shipped("configs") / file) for group, file in files.items()}
    return {
        group: {key: value for key, value in values.items() if key != "defaults"}
        for group, values in found.items()
    }


def _check_names(config: Mapping[str, Any]) -> None:
    """They stand in logs, tables and pictures, and a dataset's in the names of folders."""
    for group, fitting in (("dataset", is_folder_name), ("model", is_name)):
        name = config[group].get("name")
        if not isinstance(name, str) or not fitting(name):
            raise UserError(f"{group}.name is no name", "restore the file")


def _check_values(config: Mapping[str, Any]) -> None:
    """What stands beside the groups."""
    for name, hint in typing.get_type_hints(TrainConfig).items():
        is_group = isinstance(hint, type) and hint not in (str, int, bool)
        if name in config and not is_group and not fits(config[name], hint):
            raise UserError(f"{name} is not what it was stored as", "restore the file")
    if not isinstance(config.get("seed"), int):
        raise UserError("seed is missing", "restore the file")
