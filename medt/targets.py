"""Building what a config names: the one place where text becomes a class that is called.

A config may be a file from anybody, a checkpoint or the folder of a run. So what may be built is a
closed list, a config holds plain values, and both are checked before anything is called.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from medt.errors import UserError
from medt.signatures import (
    DECAY,
    NOT_NEGATIVE,
    Range,
    check_arguments,
    check_range,
    described,
    fits,
    shortened,
)
from medt.transform_targets import PARTS, TRANSFORMS, is_transform, strictly, types_of

TARGET = "_target_"
# Where the classes of each group are, of which the public ones may be built.
GROUPS = {
    "model": "medt.models",
    "loss": "medt.losses",
    "optimizer": "torch.optim",
    "scheduler": "medt.training.schedules",
    "augmentation": "medt.data.augmentation",
}
# Keys of a group that are for medt itself, with their types.
NOT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "model": {"name": str, "weights": str | None, "encoder_weights": str | None},
    "augmentation": {"name": str},
    "optimizer": {"encoder_factor": float},
}
# Arguments that no config holds.
GIVEN = {"optimizer": ("params",)}
OF_FUNCTIONS = ("loss", "scheduler")
# What a network has in common with its data, and what that is called there.
FOLLOWED = {"channels": "channels", "classes": "num_classes", "image_size": "image_size"}
# Of torch.optim, whose classes do not say theirs.
OPTIMIZER_RANGES: dict[str, Range] = {
    "lr": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "momentum": DECAY,
    "betas": DECAY,
}
# Of torch.optim those that step without a closure, on dense gradients of any shape.
OPTIMIZERS = (
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam"),
    *("RMSprop", "Rprop", "SGD"),
)
_FAILURES = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError)


def build(spec: Any, group: str, allow: Collection[str] = (), **given: Any) -> Any:
    """Build what a group of a config describes.

    A function that is named as a loss or a scheduler becomes one that is called with its first two
    arguments, the others as the config has them.

    Args:
        spec: `_target_`, the full name of a class, and its keyword arguments: plain values or, of
            an augmentation, the specs in `PARTS`.
        group: a key of `GROUPS`.
        allow: full names of other classes that may be built, or of packages and modules of them, as
            the user gave them.
        given: arguments that are not in the config, such as an optimizer's parameters.

    Raises:
        UserError: as `check_spec`, or the class does not take the values.
    """
    check_spec(spec, group, allow, given)
    return _built(spec, group, group, allow, given)


def check_group(
    spec: Any, group: str, allow: Collection[str] = (), given: Collection[str] = ()
) -> None:
    """As `check_spec`, of a whole group of a config: with the keys that are for medt itself.

    Args:
        spec, group, allow: as there.
        given: names of arguments whose values come later.
    """
    own = NOT_ARGUMENTS.get(group, {})
    for name, hint in own.items():
        if isinstance(spec, dict) and name in spec and not fits(spec[name], hint):
            raise UserError(f"{group}.{name} is not {described(hint)}", "see its config")
    arguments = without_own(spec, group) if isinstance(spec, dict) else spec
    check_spec(arguments, group, allow, (*GIVEN.get(group, ()), *given))


def without_own(spec: Mapping[str, Any], group: str) -> dict[str, Any]:
    """What of a group describes the class, without the keys that are for medt itself."""
    return {key: value for key, value in spec.items() if key not in NOT_ARGUMENTS.get(group, {})}


def check_spec(
    spec: Any, group: str, allow: Collection[str] = (), given: Collection[str] = ()
) -> None:
    """Whether a group of a config names a class whose arguments the config's values may be.

    Raises:
        UserError: the class is not in the closed list and not allowed, or there is none of the
            name; a value at any depth names something to build, where no part of an augmentation
            stands; an argument is missing, unknown, of another type or out of its range.
    """
    waiting = [(group, spec)]
    while waiting:
        where, one = waiting.pop()
        found, _, parts = _taken_apart(one, group, where, allow)
        arguments = {key: value for key, value in one.items() if key != TARGET}
        others = tuple(given) if where == group else ()
        if not isinstance(found, type):
            others += tuple(inspect.signature(found).parameters)[:2]
        check_arguments(found, arguments, where, others, hints=types_of(found))
        if group == "optimizer":
            _check_optimizer(one[TARGET], arguments)
        for key, named in parts.items():
            waiting += [(f"{where}.{key}.{name}", part) for name, part in named.items()]


def followed_by(network: Callable[..., Any]) -> dict[str, str]:
    """Of `FOLLOWED` what a network's class takes."""
    taken = inspect.signature(network).parameters
    takes_all = any(one.kind is one.VAR_KEYWORD for one in taken.values())
    return {key: name for key, name in FOLLOWED.items() if takes_all or key in taken}


def target_of(spec: Any, group: str, allow: Collection[str] = ()) -> Callable[..., Any]:
    """The class, or function, that a group of a config names; its arguments are not looked at.

    Raises:
        UserError: as `check_spec`, of the name.
    """
    return _taken_apart({TARGET: spec.get(TARGET)}, group, group, allow)[0]


def targets_in(spec: Any) -> Iterator[str]:
    """The names of all classes that a spec names, at any depth."""
    if isinstance(spec, dict):
        if isinstance(spec.get(TARGET), str):
            yield spec[TARGET]
        spec = list(spec.values())
    if isinstance(spec, list | tuple):
        for part in spec:
            yield from targets_in(part)


def is_outside(name: str) -> bool:
    """Whether a class of this full name is built only where the user allows it."""
    return name.rpartition(".")[0] not in (*GROUPS.values(), TRANSFORMS)


def is_allowed(name: str, allow: Collection[str]) -> bool:
    """Whether a full name is among what the user trusts, or within it."""
    return any(name == one or name.startswith(f"{one}.") for one in allow)


def _built(
    spec: Any, group: str, where: str, allow: Collection[str], given: Mapping[str, Any]
) -> Any:
    target, arguments, parts = _taken_apart(spec, group, where, allow)
    if not isinstance(target, type):
        return partial(target, **arguments)
    for key, named in parts.items():
        made = {
            n: _built(part, group, f"{where}.{key}.{n}", allow, {}) for n, part in named.items()
        }
        keeps_names = isinstance(spec[key], dict) and key != "transforms"
        arguments[key] = made if keeps_names else list(made.values())
    try:
        return target(**arguments, **given, **strictly(target))
    except UserError as error:
        if group != "augmentation":
            raise
        raise UserError(f"{where}.{error.message}", error.hint) from error
    except _FAILURES as error:
        raise _not_built(spec, where, error) from error


def _not_built(spec: Mapping[str, Any], where: str, error: Exception) -> UserError:
    """What is wrong, with the dotted key where a schema of pydantic says which it is."""
    errors = getattr(error.__cause__, "errors", None)
    for fault in errors() if callable(errors) else ():
        said = fault["msg"].removeprefix("Value error, ")
        name = fault["loc"][0] if fault["loc"] else None
        key = where if name is None else f"{where}.{name}={shortened(spec.get(name))}"
        return UserError(f"{key}: {' '.join(said.split())[:200]}", f"see {spec[TARGET]}")
    said = " ".join(str(error).split())[:300]
    return UserError(f"{spec[TARGET]} cannot be built: {said}", f"see {where} in the config")


def _taken_apart(
    spec: Any, group: str, where: str, allow: Collection[str]
) -> tuple[Callable[..., Any], dict[str, Any], dict[str, dict[Any, Any]]]:
    """The class of a spec, its plain arguments and, of an augmentation, the specs in it by name."""
    name = spec.get(TARGET) if isinstance(spec, dict) else None
    if not isinstance(name, str):
        raise UserError(f"{where} names no class", f"give {where}.{TARGET}, and its arguments")
    plain = {key: value for key, value in spec.items() if key != TARGET}
    parts = {}
    for key in PARTS if group == "augmentation" else ():
        if key in plain:
            value = plain.pop(key)
            if not isinstance(value, dict | list | tuple):
                raise UserError(f"{where}.{key} holds no transforms", "give a list or a mapping")
            parts[key] = value if isinstance(value, dict) else dict(enumerate(value))
    _check_plain(plain, where, finite=group == "augmentation")
    return _named(name, group, where, allow), plain, parts


def _named(name: str, group: str, where: str, allow: Collection[str]) -> Callable[..., Any]:
    """The class, or function, of this name, which the group, or the user, allows."""
    module, _, own = name.rpartition(".")
    home, is_part, allowed = GROUPS[group], where != group, is_allowed(name, allow)
    homes = (home, TRANSFORMS) if is_part else (home,)
    if not allowed and (module not in homes or own.startswith("_")):
        others = ",".join(filter(is_outside, allow))
        raise UserError(
            f"{where}.{TARGET}={name} is not one of {' or '.join(homes)}"
            + (f", and allow={others} does not cover it" if others else ""),
            f"if you trust it, allow this very name: allow={name}, or all of its package: "
            f"allow={name.partition('.')[0]}",
        )
    importlib.import_module(home)  # which must be there before albumentations is imported
    found = _imported(module, own, where if is_part else group, homes)
    is_function = group in OF_FUNCTIONS and inspect.isfunction(found)
    if not (isinstance(found, type) or is_function) or not (allowed or _is_ours(found, module)):
        raise UserError(f"{where}.{TARGET}={name} is not a class of {module}", "name one of them")
    if module == TRANSFORMS and not is_transform(found):
        raise UserError(
            f"{where}.{TARGET}={name} is none of its transforms of one image by plain values",
            "name another, such as albumentations.HorizontalFlip",
        )
    if group == "augmentation" and module == home and hasattr(found, "margin") == is_part:
        raise UserError(
            f"{where}.{TARGET}={name} stands in the wrong place",
            f"the group is {home}.Pipeline, transforms are in its geometry and appearance",
        )
    return cast("Callable[..., Any]", found)


def _imported(module: str, own: str, where: str, homes: Sequence[str]) -> Any:
    """What a full name stands for; of the user's own also what lies in the current folder."""
    outside = module not in homes
    if outside and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    missing = f"{where}.{TARGET}: there is no" if "." in where else f"there is no {where}"
    missing += f" {module}.{own}"
    try:
        found = importlib.import_module(module)
    except ValueError as error:  # the name is empty
        raise UserError(f"{missing}: {error}", _nearest(own, homes)) from error
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            hint = f"run in the folder that has {error.name}, install it, or set PYTHONPATH"
            raise UserError(f"{missing}: {error}", _nearest(own, homes, hint)) from error
        if not outside:
            raise
        raise UserError(
            f"{module} cannot be imported: {type(error).__name__}: {error}",
            "correct it; MEDT_DEBUG=1 shows the traceback",
        ) from error
    try:
        return getattr(found, own)
    except AttributeError as error:
        hint = _nearest(own, (module,) if outside else homes)
        raise UserError(f"{missing}: {error}", hint) from error


def _check_optimizer(name: str, arguments: Mapping[str, Any]) -> None:
    """Raises UserError of those of torch, unless it trains our networks, with possible numbers."""
    module, _, own = name.rpartition(".")
    if module != GROUPS["optimizer"]:
        return
    if own not in OPTIMIZERS:
        raise UserError(f"{name} trains no network of ours", f"use one of {', '.join(OPTIMIZERS)}")
    for key, allowed in OPTIMIZER_RANGES.items():
        check_range(arguments.get(key), allowed, f"optimizer.{key}")


def _nearest(
    own: str, modules: Sequence[str], otherwise: str = "give the full name of a class"
) -> str:
    known = {name: module for module in modules for name in dir(importlib.import_module(module))}
    alike = [n for n in known if n[0].isupper() == own[:1].isupper() and not n.startswith("_")]
    close = difflib.get_close_matches(own, alike, n=3)
    names = [f"{known[name]}.{name}" for name in close]
    return f"did you mean {' or '.join(names)}?" if names else otherwise


def _is_ours(found: Any, module: str) -> bool:
    """Whether a class is defined in the module or below it, and not only imported there."""
    return bool(found.__module__ == module or found.__module__.startswith(f"{module}."))


def _check_plain(arguments: Mapping[str, Any], where: str, finite: bool) -> None:
    """Refuse what Hydra would build or do on the way: it is not a plain value."""
    waiting: list[tuple[str, Any]] = [(f"{where}.{key}", v) for key, v in arguments.items()]
    while waiting:
        key, value = waiting.pop()
        if key.rpartition(".")[2].startswith("_"):
            raise UserError(f"{key} is not a setting", "a config's values are plain: leave it out")
        if finite and isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key}={value} is out of range", "give a finite number")
        if isinstance(value, dict):
            waiting += [(f"{key}.{name}", part) for name, part in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(f"{key}.{index}", part) for index, part in enumerate(value)]
