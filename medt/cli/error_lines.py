"""What an error says: one line that names the culprit and what to do about it."""

from __future__ import annotations

import difflib
import errno
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import MissingMandatoryValue
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

import medt
from medt.cli.arguments import CONFIGS, configs_given
from medt.cli.config_files import comments_of, groups_of, keys_of, options_of
from medt.data.former_augmentation import PLACES
from medt.errors import UserError, is_out_of_memory
from medt.io.plain import read_yaml
from medt.io.text import LONGEST_NAME, abridged, shown
from medt.targets import GROUPS, target_of, targets_in

# What to do about too little memory, by script.
LOWER_MEMORY = {
    "train": "lower trainer.batch_size, with trainer.accumulate=N to keep the step's size, or "
    "dataset.image_size; dry_run=true estimates the need",
    "evaluate": "lower batch_size",
    "predict": "give smaller images, or device=cpu",
    "benchmark": "lower sizes or batches",
}
CLOSE_OTHERS = "close other programs"
FIRST_LINE = "the first line of an experiment is: # @package _global_"
CHOICE = "in a file its option is chosen under defaults: - override /{}: NAME"
KINDS = "lists are key=[a,b], nothing is key=null, see --help"
LONGEST = 1000  # characters of a line; what a file holds may be in it
MOST_CAUSES = 20
LARGEST = sys.float_info.max
# What options are called elsewhere, without case and signs; "pp" stands for "++".
OTHER_NAMES = {
    "unetpp": "unet_plus_plus",
    "nestedunet": "unet_plus_plus",
    "attunet": "attention_unet",
    "medicaltransformer": "medt",
    "bce": "cross_entropy",
    "ce": "cross_entropy",
    "bcedice": "dice_ce",
    "dicebce": "dice_ce",
    "poly": "polynomial",
}
# Options of Hydra's plug-ins, and the extra of medt that brings each.
EXTRAS = {
    "joblib": "joblib",
    "optuna": "optuna",
    "submitit_local": "submitit",
    "submitit_slurm": "submitit",
}
MOST_NAMES = 30  # of longer lists a hint shows the parts before the dot


def error_line(error: Exception, script: str, arguments: Sequence[str], composing: bool) -> str:
    """One line about an error; to find it raises nothing, whatever has been raised.

    Args:
        error: what ended the script, or a run of it.
        script: whose config was composed.
        arguments: of the command line.
        composing: whether that went wrong while the config was composed, so that only what was
            given can be at fault.
    """
    try:
        line = _line(error, script, arguments, composing)
    except Exception:  # Hydra's and OmegaConf's errors are theirs, and so is what they say
        line = f"{type(error).__name__} (not foreseen: MEDT_DEBUG=1 shows the traceback)"
    if len(line) <= LONGEST:
        return line
    return f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


def _line(error: Exception, script: str, arguments: Sequence[str], composing: bool) -> str:
    causes = _causes(error)
    for cause in causes:  # Hydra wraps what it meets while it builds or resolves
        if isinstance(cause, UserError):
            return str(cause)
    if "Expected more than 1" in str(error):
        return (
            "a batch is too small for the network's norms: they see one value per channel (give a "
            "larger dataset.image_size, or a trainer.batch_size that leaves no single image over)"
        )
    if is_out_of_memory(error):
        hint = LOWER_MEMORY.get(script, CLOSE_OTHERS)
        return f"out of memory: {' '.join(str(error).split())[:120]} ({hint})"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG and composing:
        long = [text for text in arguments if len(text) > LONGEST_NAME]  # Hydra looks for its file
        return f"{' '.join(map(abridged, long))} is too long for a name (see --help)"
    if isinstance(error, OSError) and error.strerror:
        where = error.filename or "a file of the run"
        return f"{where}: {error.strerror} (check the path, free space and permissions)"
    if isinstance(error, MissingMandatoryValue):
        key = error.full_key
        return f"{key} has no value (give it as {key}=...)"
    if isinstance(error, OverrideParseException):
        reason = str(error).splitlines()[0]
        return f"{error.override} cannot be read: {reason} (lists are key=[a,b], see --help)"
    if composing or isinstance(error, (HydraException, OmegaConfBaseException)):
        return _composition_line(causes, script, arguments)
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if place := _own_place(error):
        return f"{place}: {said} (correct it; MEDT_DEBUG=1 shows the traceback)"
    return f"{said} (not foreseen: MEDT_DEBUG=1 shows the traceback)"


def _own_place(error: BaseException) -> str:
    """File and line of the innermost call in the user's own code; empty where there is none."""
    libraries = (Path(medt.__file__).parent, Path(sysconfig.get_path("stdlib")))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        installed = {"site-packages", "dist-packages"} & set(file.parts)
        if file.is_file() and not installed and not any(map(file.is_relative_to, libraries)):
            return f"{shown(file)}, line {frame.lineno}"
    return ""


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what led to it, the last one first."""
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found and len(found) < MOST_CAUSES:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found


def _composition_line(
    causes: Sequence[BaseException], script: str, arguments: Sequence[str]
) -> str:
    text = "\n".join(str(cause)[: 100 * LONGEST] for cause in causes)
    named = re.search(r"In '([^']+)': ", text)
    where = "" if named is None or named[1] == script else f"{_file(named[1], arguments)}: "
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        group, option = match.groups()
        if option in EXTRAS:
            extra = EXTRAS[option]
            return f"{group}={option} needs a package more (pip install 'medt[{extra}]')"
        offered = re.findall(r"^\t(?!schema_|_)(\S+)$", text, re.MULTILINE)
        more = "" if configs_given(arguments) else " or, for one of your own, give --config-dir=..."
        return f"{where}{group}={option} is not known ({_nearest(option, offered)}{more})"
    if re.search(r"Could not override '[^']*@", text):  # else below the experiment's own name
        return f"{where}its choices are not those of the config ({FIRST_LINE})"
    if match := re.search(r"Could not override '([^']*)'\. No match in the defaults list", text):
        return f"{where}there is no group {match[1]} ({_nearest(match[1], groups_of(script))})"
    flat = " ".join(text.split())
    if match := re.search(r"Error locating target '([^']+)'", flat):
        return f"there is no class {match[1]} (check the _target_ that names it)"
    if match := re.search(r"Error in call to target '([^']+)': \w+\((.+?)\) ", flat):
        return f"{match[1]} does not take its settings: {match[2]} (see its group in the config)"
    for cause in causes:
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return where + _key_line(cause, script, arguments)
    for cause in causes:
        if isinstance(cause, yaml.YAMLError):
            return _yaml_line(cause)
    for argument in arguments:
        if line := _argument_line(argument):
            return line
    if any(isinstance(cause, RecursionError) for cause in causes):
        reason = "a file names or holds itself, or is nested too deep"
    else:
        innermost = str(causes[-1]).partition("\n    full_key:")[0]
        reason = " ".join(innermost.split()) or type(causes[0]).__name__
    return f"{where}the config cannot be composed: {reason} ({_chosen(arguments)})"


def _key_line(error: OmegaConfBaseException, script: str, arguments: Sequence[str]) -> str:
    """What is wrong about a key or its value."""
    key = str(error.full_key)
    said = str(error).partition("\n    full_key:")[0]
    unknown = isinstance(error, (ConfigAttributeError, ConfigKeyError))
    if unknown and re.search(r"Key '.*' (is )?not in", said, re.DOTALL):
        return f"there is no key {key} ({_key_hint(key, script, arguments)})"
    if said.startswith("Cannot assign") and key in groups_of(script):
        return f"{key} is a group ({CHOICE.format(key)})"
    kinds = KINDS if "nterpolation" not in said else "check what stands in its ${...}"
    return f"{key}: {' '.join(said.split()).rstrip('.')} ({kinds})"


def _key_hint(key: str, script: str, arguments: Sequence[str]) -> str:
    """Which option of the key's group has it, else the keys like it."""
    group, _, name = key.partition(".")
    if key == "experiment":
        return FIRST_LINE
    known = keys_of(script)
    groups = groups_of(script)
    if group not in groups:
        return _nearest(key, [*known, *groups])
    options = options_of(group, *filter(None, [configs_given(arguments)]))
    having = [option for option, path in options.items() if name in _keys_in(path)]
    if having:
        return f"it is a key of {', '.join(f'{group}={option}' for option in having)}"
    if group == "augmentation" and name in PLACES:
        return f"it is augmentation.{' and augmentation.'.join(PLACES[name])} now"
    chosen = [text.partition("=")[2] for text in arguments if text.startswith(f"{group}=")]
    files = [options[one] for one in chosen if one in options] or list(options.values())
    if len(files) == 1 and name in _taken_by(files[0], group):
        return f"its class takes it, but {files[0]} does not list it: add {name} there"
    own = list(dict.fromkeys(f"{group}.{one}" for file in files for one in _keys_in(file)))
    return _nearest(key, own, [one for one in known if one not in own])


def _keys_in(path: Path) -> Collection[str]:
    """The keys of a config file; none of one that is broken, which is not what was asked about."""
    try:
        return comments_of(path)
    except (UserError, yaml.YAMLError):
        return ()


def _taken_by(path: Path, group: str) -> Collection[str]:
    """The arguments of the class that a file of an open group names, as far as it can be had."""
    try:
        spec = read_yaml(path)
        named = target_of(spec, group, tuple(targets_in(spec))) if group in GROUPS else None
    except UserError:
        return ()
    return () if named is None else inspect.signature(named).parameters


def _yaml_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    file = getattr(mark, "name", None) or getattr(error, "name", None) or "a config"
    line = "" if mark is None else f", line {mark.line + 1}"
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it is broken"
    return f"{file}{line}: {problem} (correct this YAML)"


def _argument_line(argument: str) -> str | None:
    """What is wrong with an argument that Hydra refuses without naming it; None if nothing is."""
    key, equals, value = argument.partition("=")
    if not equals or argument.startswith("-"):
        return None
    try:
        parsed = OverridesParser.create().parse_override(argument).value()
    except ValueError as error:
        return f"{key}={value[:40]}... cannot be read: {error} (see --help)"
    folder = CONFIGS / key
    is_group = key and ("/" in key or folder.is_dir())
    if not key or (is_group and not _is_choice(parsed)):
        options = sorted(options_of(key)) if key else []
        hint = f"choose one of {', '.join(options)}" if options else "give GROUP=OPTION"
        return f"{argument} is no choice ({hint})"
    if _is_too_large(parsed):
        return f"{key}={value[:40]}... is too large for a number (give one below {LARGEST:g})"
    return None


def _is_choice(value: Any) -> bool:
    """Whether a group takes it: an option's name, or a list of them."""
    return all(isinstance(one, str) for one in (value if isinstance(value, list) else [value]))


def _is_too_large(value: Any) -> bool:
    """Whether it is, or holds, a whole number that is no float, as which Hydra may store it."""
    parts = list(value.values()) if isinstance(value, dict) else value
    if isinstance(parts, list):
        return any(map(_is_too_large, parts))
    return isinstance(parts, int) and abs(parts) > LARGEST


def _file(name: str, arguments: Sequence[str]) -> str:
    """Where the config of this name lies, as far as it can be told."""
    for folder in (configs_given(arguments), CONFIGS):
        if folder is not None and (folder / f"{name}.yaml").is_file():
            return str(folder / f"{name}.yaml")
    return name


def _chosen(arguments: Sequence[str]) -> str:
    """What to look at, where nothing says more: choices of groups, and what Hydra itself takes."""
    folder = configs_given(arguments)
    keys = {text: text.partition("=")[0] for text in arguments}
    choices = [text for text, key in keys.items() if (CONFIGS / key).is_dir()]
    choices += [text for text, key in keys.items() if re.match(r"hydra\b", key)]
    parts = [*([] if folder is None else [f"the files in {folder}"]), *choices]
    return f"check {', '.join(parts) or 'the files in configs'}"


def _nearest(name: str, known: Sequence[str], others: Sequence[str] = ()) -> str:
    """A hint: the names with this last part, and the most similar ones; else all that are known.

    Args:
        name: what was given.
        known: what could stand in its place.
        others: what stands elsewhere, of which only those count whose last part is the same.
    """
    meant = [one for one in known if _bare(one) == _bare(OTHER_NAMES.get(_bare(name), name))]
    if len(meant) == 1:
        return f"did you mean {meant[0]}?"
    written = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), written, n=3, cutoff=0.5)
    leaf = name.rpartition(".")[2]
    same = [key for key in (*known, *others) if key.rpartition(".")[2] == leaf]
    if similar := list(dict.fromkeys([*same, *(written[one] for one in close)])):
        return f"did you mean {' or '.join(similar)}?"
    if len(known) > MOST_NAMES:
        known = list({key.partition(".")[0] for key in known})
    return f"choose one of {', '.join(sorted(known))}"


def _bare(name: str) -> str:
    """A name without case and signs."""
    return re.sub(r"[^a-z0-9.]", "", name.lower().replace("+", "p"))
