"""The config of a run that lies in its folder: a file that may come from anybody."""

from __future__ import annotations

import typing
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
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
from medt.io.text import is_folder_name, is_name
from medt.metrics.empty import former_empty
from medt.models.sizes import as_size
from medt.signatures import check_arguments, fits
from medt.targets import GROUPS as BUILT
from medt.targets import check_spec
from medt.training.settings import TrainerSettings

NOT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "model": {"name": str, "weights": str | None, "encoder_weights": str | None},
    "augmentation": {"name": str},
}
SCHEMAS: dict[str, type[DatasetConfig]] = {
    "synthetic": SyntheticConfig,
    "folder": FolderConfig,
    "monuseg": MonusegConfig,
}
GIVEN = {"optimizer": ("params",)}


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
        for group, schema in {"dataset": DatasetConfig, "trainer": TrainerSettings}.items():
            for setting in fields(schema):
                if setting.default is not MISSING:
                    config[group].setdefault(setting.name, setting.default)
        _check_values(config)
        check_arguments(TrainerSettings, config["trainer"], "trainer")
        TrainerSettings(**config["trainer"])
        for group in BUILT:
            _check_built(config[group], group, allow)
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
    check_arguments(schema, own, "dataset")
    if "image_size" in own:
        try:
            as_size(own["image_size"])
        except UserError as error:
            raise UserError(f"dataset.{error.message}", error.hint) from error
    check_ranges({"dataset": own})


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


def _check_built(spec: Mapping[str, Any], group: str, allow: Collection[str]) -> None:
    extra = NOT_ARGUMENTS.get(group, {})
    for name, hint in extra.items():
        if name in spec and not fits(spec[name], hint):
            raise UserError(f"{group}.{name} is not text", "restore the file")
    arguments = {key: value for key, value in spec.items() if key not in extra}
    check_spec(arguments, group, allow, GIVEN.get(group, ()))
