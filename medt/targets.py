"""Building what a config names: the one place where text becomes a class that is called.

A config may be a file from anybody, a checkpoint or the folder of a run. So what may be built is a
closed list, a config holds plain values, and both are checked before anything is called.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from typing import Any

from medt.errors import UserError
from medt.signatures import check_arguments

TARGET = "_target_"
# Where the classes of each group are, of which the public ones may be built.
GROUPS = {
    "model": "medt.models",
    "loss": "medt.losses",
    "optimizer": "torch.optim",
    "scheduler": "medt.training.schedules",
    "augmentation": "medt.data.augmentation",
}
# Of torch.optim those that step without a closure, on dense gradients of any shape.
OPTIMIZERS = (
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam"),
    *("RMSprop", "Rprop", "SGD"),
)
_FAILURES = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError)


def build(spec: Any, group: str, allow: Collection[str] = (), **given: Any) -> Any:
    """Build what a group of a config describes.

    Args:
        spec: `_target_`, the full name of a class, and its keyword arguments: plain values.
        group: a key of `GROUPS`.
        allow: full names of other classes that may be built, as the user gave them.
        given: arguments that are not in the config, such as an optimizer's parameters.

    Raises:
        UserError: as `check_spec`, or the class does not take the values.
    """
    target = check_spec(spec, group, allow, given)
    arguments = {name: value for name, value in spec.items() if name != TARGET}
    try:
        return target(**arguments, **given)
    except _FAILURES as error:
        said = " ".join(str(error).split())[:300]
        raise UserError(
            f"{spec[TARGET]} cannot be built: {said}", f"see {group} in the config"
        ) from error


def check_spec(
    spec: Any, group: str, allow: Collection[str] = (), given: Collection[str] = ()
) -> type:
    """The class that a group of a config names, whose arguments the config's values may be.

    Raises:
        UserError: the class is not in the closed list and not allowed, or there is none of the
            name; a value at any depth names something to build; an argument is missing, unknown or
            of another type.
    """
    name = spec.get(TARGET) if isinstance(spec, dict) else None
    if not isinstance(name, str):
        raise UserError(f"{group} names no class", f"give {group}.{TARGET}, and its arguments")
    _check_parts(spec, group)
    module, _, own = name.rpartition(".")
    if name not in allow and (module != GROUPS[group] or own.startswith("_")):
        raise UserError(
            f"{group}.{TARGET}={name} is not one of {GROUPS[group]}",
            f"if you trust it, allow this very name: allow={name}",
        )
    try:
        found = getattr(importlib.import_module(module), own)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"there is no {group} {name}: {error}", "give the full name of a class"
        ) from error
    if not isinstance(found, type) or (name not in allow and not _is_ours(found, module)):
        raise UserError(f"{group}.{TARGET}={name} is not a class of {module}", "name one of them")
    if group == "optimizer" and module == GROUPS[group] and own not in OPTIMIZERS:
        raise UserError(f"{name} trains no network of ours", f"use one of {', '.join(OPTIMIZERS)}")
    check_arguments(found, {k: v for k, v in spec.items() if k != TARGET}, group, given)
    return found


def _is_ours(found: type, module: str) -> bool:
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
