"""Building what a config names: the one place where text becomes a class that is called.

A config may be a file from anybody, a checkpoint or the folder of a run. So what may be built is a
closed list, a config holds plain values, and both are checked before anything is called.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
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
)

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
    "model": {"name": str, "weights": str | None, "encoder_weights": str | None}
}
# Arguments that no config holds.
GIVEN = {"optimizer": ("params",)}
OF_FUNCTIONS = ("loss", "scheduler")
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
        spec: `_target_`, the full name of a class, and its keyword arguments: plain values.
        group: a key of `GROUPS`.
        allow: full names of other classes that may be built, or of packages and modules of them, as
            the user gave them.
        given: arguments that are not in the config, such as an optimizer's parameters.

    Raises:
        UserError: as `check_spec`, or the class does not take the values.
    """
    target = check_spec(spec, group, allow, given)
    arguments = {name: value for name, value in spec.items() if name != TARGET}
    if not isinstance(target, type):
        return partial(target, **arguments)
    try:
        return target(**arguments, **given)
    except _FAILURES as error:
        said = " ".join(str(error).split())[:300]
        raise UserError(
            f"{spec[TARGET]} cannot be built: {said}", f"see {group} in the config"
        ) from error


def check_group(
    spec: Any, group: str, allow: Collection[str] = (), given: Collection[str] = ()
) -> Callable[..., Any]:
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
    return check_spec(arguments, group, allow, (*GIVEN.get(group, ()), *given))


def without_own(spec: Mapping[str, Any], group: str) -> dict[str, Any]:
    """What of a group describes the class, without the keys that are for medt itself."""
    return {key: value for key, value in spec.items() if key not in NOT_ARGUMENTS.get(group, {})}


def check_spec(
    spec: Any, group: str, allow: Collection[str] = (), given: Collection[str] = ()
) -> Callable[..., Any]:
    """The class that a group of a config names, whose arguments the config's values may be.

    Raises:
        UserError: the class is not in the closed list and not allowed, or there is none of the
            name; a value at any depth names something to build; an argument is missing, unknown, of
            another type or out of its range.
    """
    found = target_of(spec, group, allow)
    _check_parts(spec, group)
    arguments = {k: v for k, v in spec.items() if k != TARGET}
    if not isinstance(found, type):
        given = (*given, *list(inspect.signature(found).parameters)[:2])
    check_arguments(found, arguments, group, given)
    if group == "optimizer":
        _check_optimizer(spec[TARGET], arguments)
    return found


def target_of(spec: Any, group: str, allow: Collection[str] = ()) -> Callable[..., Any]:
    """The class, or function, that a group of a config names; its arguments are not looked at.

    Raises:
        UserError: as `check_spec`, of the name.
    """
    name = spec.get(TARGET) if isinstance(spec, dict) else None
    if not isinstance(name, str):
        raise UserError(f"{group} names no class", f"give {group}.{TARGET}, and its arguments")
    module, _, own = name.rpartition(".")
    allowed = is_allowed(name, allow)
    if not allowed and (module != GROUPS[group] or own.startswith("_")):
        raise UserError(
            f"{group}.{TARGET}={name} is not one of {GROUPS[group]}",
            f"if you trust it, allow this very name: allow={name}",
        )
    found = _imported(module, own, group, outside=allowed)
    if not allowed and not _is_ours(found, module):
        raise UserError(f"{group}.{TARGET}={name} is not a class of {module}", "name one of them")
    return found


def is_outside(name: str) -> bool:
    """Whether a class of this full name is built only where the user allows it."""
    return name.rpartition(".")[0] not in GROUPS.values()


def is_allowed(name: str, allow: Collection[str]) -> bool:
    """Whether a full name is among what the user trusts, or within it."""
    return any(name == one or name.startswith(f"{one}.") for one in allow)


def _imported(module: str, own: str, group: str, outside: bool) -> Callable[..., Any]:
    """What a full name stands for; of the user's own also what lies in the current folder."""
    if outside and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), own)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"there is no {group} {module}.{own}: {error}", "give the full name of a class"
        ) from error
    except Exception as error:
        if not outside:
            raise
        raise UserError(
            f"{module} cannot be imported: {type(error).__name__}: {error}",
            "correct it; MEDT_DEBUG=1 shows the traceback",
        ) from error
    if isinstance(found, type) or (group in OF_FUNCTIONS and inspect.isfunction(found)):
        return cast("Callable[..., Any]", found)
    raise UserError(f"{group}.{TARGET}={module}.{own} is not a class of {module}", "name a class")


def _check_optimizer(name: str, arguments: Mapping[str, Any]) -> None:
    """Raises UserError of those of torch, unless it trains our networks, with possible numbers."""
    module, _, own = name.rpartition(".")
    if module != GROUPS["optimizer"]:
        return
    if own not in OPTIMIZERS:
        raise UserError(f"{name} trains no network of ours", f"use one of {', '.join(OPTIMIZERS)}")
    for key, allowed in OPTIMIZER_RANGES.items():
        check_range(arguments.get(key), allowed, f"optimizer.{key}")


def _is_ours(found: Callable[..., Any], module: str) -> bool:
    """Whether a class is defined in the module or below it, and not only imported there."""
    return found.__module__ == module or found.__module__.startswith(f"{module}.")


def _check_parts(spec: Mapping[str, Any], group: str) -> None:
    """Refuse what Hydra would build or do on the way: it is not a plain value."""
    waiting: list[tuple[str, Any]] = [(f"{group}.{k}", v) for k, v in spec.items() if k != TARGET]
    while waiting:
        key, value = waiting.pop()
        if key.rpartition(".")[2].startswith("_"):
            raise UserError(f"{key} is not a setting", "a config's values are plain: leave it out")
        if isinstance(value, dict):
            waiting += [(f"{key}.{name}", part) for name, part in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(f"{key}.{index}", part) for index, part in enumerate(value)]
