"""The command line: Hydra's flags, and key=value with paths as they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from medt.errors import UserError
from medt.shipped import shipped

CONFIGS = shipped("configs")
# Of Hydra's command line.
FLAGS = ("--help", "-h", "--multirun", "-m", "--resolve", "--hydra-help", "--version")
FOLDER_FLAGS = ("--config-dir", "-cd")
FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--info", "-i", *FOLDER_FLAGS)
PATH_KEYS = {
    *("source", "glas", "checkpoint", "input", "output", "roi", "run_dir", "resume", "write"),
    *("weights", "model.weights", "model.encoder_weights"),
    *("dataset.root", "dataset.images", "dataset.masks", "dataset.splits_file", "dataset.group"),
    *("paths.root", "paths.data", "paths.runs", "hydra.sweep.dir"),
}
SEVERAL_PATHS = {"checkpoint"}
OF_COMPARE = ("runs", "output")
OF_REPRODUCE = ("table", "rows", "output", "dry_run", "more", "paths", "hydra")  # and below them
WITH_UNITS = ("pixel_size", "dataset.pixel_size", "tolerance")
MICRO = re.compile("[\u00b5\u03bc]")  # the sign and the Greek letter


def given_to(command: str, arguments: Sequence[str]) -> list[str]:
    """What was given to a command as Hydra takes it.

    The paths of compare become its `runs`, and the settings of trainings that reproduce starts its
    `more`.

    Raises:
        UserError: arguments of this command do not go together.
    """
    if command == "compare":
        paths, others = _paths_and_others(arguments)
        if paths and any(text.startswith("runs=") for text in others):
            raise UserError("runs=... and paths are both given", "give paths alone")
        return [*others, f"runs=[{','.join(map(quoted, paths))}]"] if paths else others
    if command == "reproduce":
        more, others = _trainings_and_others(arguments)
        return [*others, f"more=[{','.join(map(quoted, more))}]"] if more else others
    keys = {text.partition("=")[0] for text in arguments}
    of_dataset = any(key.startswith("dataset.") for key in keys)
    if command == "evaluate" and of_dataset and "dataset" not in keys:
        raise UserError("dataset.* needs dataset=NAME", "such as dataset=glas")
    return list(arguments)


def _paths_and_others(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The paths among the arguments of compare, and the others.

    A path may look like an override (runs/sweep/seed=0): it is one if it exists, or has a slash
    before the first `=`.
    """
    paths: list[str] = []
    others: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        key, equals, _ = argument.partition("=")
        if argument.startswith("-") or before in FLAGS_WITH_VALUE or (equals and key in OF_COMPARE):
            is_path = False
        else:
            is_path = not equals or "/" in key or is_there(argument)
        (paths if is_path else others).append(argument)
    return paths, others


def _trainings_and_others(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of the arguments of reproduce those that are settings of its trainings, and the others."""
    trainings: list[str] = []
    others: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        key, equals, _ = argument.partition("=")
        own = argument.startswith("-") or before in FLAGS_WITH_VALUE or not equals
        own = own or key.split(".")[0] in OF_REPRODUCE
        (others if own else trainings).append(argument)
    return trainings, others


def flags_and_settings(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags with their values, and the key=value.

    Anything else Hydra would answer in its parser's terms; and its +key=value would add a key that
    nothing reads, its ~key take one away that is needed.

    Raises:
        UserError: anything else is given, or a folder of configs that is not there.
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
            hint = "give key=value without spaces around the =, see --help"
            raise UserError(f"{argument!r} is no setting", hint)
        elif argument.startswith("hydra.searchpath="):
            raise UserError("hydra.searchpath is not for the command line", "give --config-dir=...")
        elif argument.startswith("hydra.mode="):
            raise UserError("hydra.mode is not for the command line", "give --multirun, or nothing")
        else:
            settings.append(argument)
    if arguments and arguments[-1] in FLAGS_WITH_VALUE:
        raise UserError(f"{arguments[-1]} has no value", f"give {arguments[-1]}=...")
    folder = configs_given(arguments)
    if folder is not None and not folder.is_dir():
        raise UserError(f"there is no folder {folder}", "--config-dir names one with configs")
    return flags, settings


def configs_given(arguments: Sequence[str]) -> Path | None:
    """The folder of the user's own configs that --config-dir names."""
    found = None
    for before, argument in zip(["", *arguments], arguments, strict=False):
        flag, equals, value = argument.partition("=")
        if before in FOLDER_FLAGS:
            found = argument
        elif flag in FOLDER_FLAGS and equals:
            found = value
    return None if found is None else Path(found)


def search_path(arguments: Sequence[str]) -> list[str]:
    """What a composition is told of the folder that --config-dir names."""
    folder = configs_given(arguments)
    if folder is None:
        return []
    return [f"hydra.searchpath=[{quoted(f'file://{folder.resolve()}')}]"]


def quoted(text: str) -> str:
    """`text` as a string of Hydra's override grammar, whatever characters it holds.

    A backslash is itself, unless it stands before what is escaped.
    """
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", text) + "'"


def quoted_path(override: str) -> str:
    """Quote the value of a key that is a path, so that any path can be given as it is.

    And write micrometres with a u, since the grammar of overrides knows no other.
    """
    key, equals, value = override.partition("=")
    if key in WITH_UNITS:
        return f"{key}{equals}{MICRO.sub('u', value)}"
    plain_path = re.fullmatch(r"[\w./\\:@%+-]*", value, re.ASCII)
    if not equals or key not in PATH_KEYS or plain_path or value[0] in "'\"":
        return override
    if key in SEVERAL_PATHS and value[0] + value[-1] == "[]" and not is_there(value):
        paths = [part.strip() for part in value[1:-1].split(",")]
        parts = [quoted_path(f"{key}={path}").partition("=")[2] for path in paths]
        return f"{key}=[{','.join(parts)}]"
    with suppress(RuntimeError):  # of a user whom there is not: it is the name of a file
        value = str(Path(value).expanduser())
    return f"{key}={quoted(value)}"


def is_there(text: str) -> bool:
    """Whether there is a file or folder of this path, which may be any text."""
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # no system has such a path, or may look there
        return False
