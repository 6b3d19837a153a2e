"""Building what a config names: the one place where text becomes a class that is called.

A config may be a file from anybody, a checkpoint or the folder of a run. So what may be built is a
closed list, a config holds plain values, and both are checked before anything is called.
"""

from __future__ import annotations

import difflib
import importlib
import math
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from medt.errors import UserError
from medt.signatures import check_arguments, shortened

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
# Arguments of an augmentation that are made of specs themselves: a list, or a mapping of names.
PARTS = ("geometry", "appearance", "transforms")
TRANSFORMS = "albumentations"
COMPOSITIONS = ("OneOf", "RandomOrder", "Sequential", "SomeOf")
# Of albumentations what needs functions, files, other images or boxes, or makes other types.
REFUSED = (
    *("AtLeastOneBBoxRandomCrop", "BBoxSafeRandomCrop", "FDA", "HistogramMatching", "Lambda"),
    *("MixUp", "Mosaic", "OverlayElements", "PixelDistributionAdaptation", "RandomCropNearBBox"),
    *("RandomSizedBBoxSafeCrop", "TemplateTransform", "TextImage", "ToTensor3D", "ToTensorV2"),
    *("BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D"),
)
_FAILURES = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError)


def build(spec: Any, group: str, allow: Collection[str] = (), **given: Any) -> Any:
    """Build what a group of a config describes.

    Args:
        spec: `_target_`, the full name of a class, and its keyword arguments: plain values or, of
            an augmentation, the specs in `PARTS`.
        group: a key of `GROUPS`.
        allow: full names of other classes that may be built, as the user gave them.
        given: arguments that are not in the config, such as an optimizer's parameters.

    Raises:
        UserError: as `check_spec`, or the class does not take the values.
    """
    check_spec(spec, group, allow, given)
    return _built(spec, group, group, allow, given)


def check_spec(
    spec: Any, group: str, allow: Collection[str] = (), given: Collection[str] = ()
) -> None:
    """Whether a group of a config names a class whose arguments the config's values may be.

    Raises:
        UserError: the class is not in the closed list and not allowed, or there is none of the
            name; a value at any depth names something to build, where no part of an augmentation
            stands; an argument is missing, unknown or of another type.
    """
    waiting = [(group, spec)]
    while waiting:
        where, one = waiting.pop()
        found, _, parts = _taken_apart(one, group, where, allow)
        arguments = {key: value for key, value in one.items() if key != TARGET}
        others = given if where == group else ()
        check_arguments(found, arguments, where, others, hints=_hints(found))
        for key, named in parts.items():
            waiting += [(f"{where}.{key}.{name}", part) for name, part in named.items()]


def targets_in(spec: Any) -> Iterator[str]:
    """The names of all classes that a spec names, at any depth."""
    if isinstance(spec, dict):
        if isinstance(spec.get(TARGET), str):
            yield spec[TARGET]
        spec = list(spec.values())
    if isinstance(spec, list | tuple):
        for part in spec:
            yield from targets_in(part)


def _built(
    spec: Any, group: str, where: str, allow: Collection[str], given: Mapping[str, Any]
) -> Any:
    target, arguments, parts = _taken_apart(spec, group, where, allow)
    for key, named in parts.items():
        made = {
            n: _built(part, group, f"{where}.{key}.{n}", allow, {}) for n, part in named.items()
        }
        keeps_names = isinstance(spec[key], dict) and key != "transforms"
        arguments[key] = made if keeps_names else list(made.values())
    # A class of albumentations else warns, and takes its own defaults for what it cannot read.
    constructor = next(one for one in target.__mro__ if "__init__" in vars(one))
    strict = {"strict": True} if "InitSchema" in vars(constructor) else {}
    try:
        return target(**arguments, **given, **strict)
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
) -> tuple[type, dict[str, Any], dict[str, dict[Any, Any]]]:
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
    return _class(name, group, where, allow), plain, parts


def _class(name: str, group: str, where: str, allow: Collection[str]) -> type:
    """The class of this name, which the group, or the user, allows."""
    module, _, own = name.rpartition(".")
    home, is_part = GROUPS[group], where != group
    homes = (home, TRANSFORMS) if is_part else (home,)
    if name not in allow and (module not in homes or own.startswith("_")):
        raise UserError(
            f"{where}.{TARGET}={name} is not one of {' or '.join(homes)}",
            f"if you trust it, allow this very name: allow={name}",
        )
    try:
        importlib.import_module(home)  # which must be there before albumentations is imported
        found = getattr(importlib.import_module(module), own)
    except (ImportError, AttributeError, ValueError) as error:
        what = f"{where}.{TARGET}: there is no" if is_part else f"there is no {group}"
        raise UserError(f"{what} {name}: {error}", _nearest(own, homes)) from error
    if not isinstance(found, type) or (name not in allow and not _is_ours(found, module)):
        raise UserError(f"{where}.{TARGET}={name} is not a class of {module}", "name one of them")
    if group == "optimizer" and module == home and own not in OPTIMIZERS:
        raise UserError(f"{name} trains no network of ours", f"use one of {', '.join(OPTIMIZERS)}")
    if module == TRANSFORMS and not _is_transform(found):
        raise UserError(
            f"{where}.{TARGET}={name} is none of its transforms of one image by plain values",
            "name another, such as albumentations.HorizontalFlip",
        )
    if group == "augmentation" and module == home and hasattr(found, "margin") == is_part:
        raise UserError(
            f"{where}.{TARGET}={name} stands in the wrong place",
            f"the group is {home}.Pipeline, transforms are in its geometry and appearance",
        )
    return found


def _is_transform(found: type) -> bool:
    """Whether a class of albumentations changes an image by plain values alone."""
    package = importlib.import_module(TRANSFORMS)
    if found.__name__ in COMPOSITIONS:
        return True
    return (
        issubclass(found, package.BasicTransform)
        and not issubclass(found, package.Transform3D)
        and found.__name__ not in REFUSED
    )


def _hints(found: type) -> dict[str, Any] | None:
    """The types of a transform's arguments, which a wrapper hides; None for other classes."""
    if not found.__module__.startswith(f"{TRANSFORMS}."):
        return None
    if found.__name__ in COMPOSITIONS:
        return {"n": int, "replace": bool, "p": float}
    return typing.get_type_hints(found.InitSchema)  # type: ignore[attr-defined]


def _nearest(own: str, homes: Sequence[str]) -> str:
    known = {name: home for home in homes for name in dir(importlib.import_module(home))}
    close = difflib.get_close_matches(own, [name for name in known if name[0].isupper()], n=3)
    names = [f"{known[name]}.{name}" for name in close]
    return f"did you mean {' or '.join(names)}?" if names else "give the full name of a class"


def _is_ours(found: type, module: str) -> bool:
    """Whether a class is defined in the module or below it, and not only imported there."""
    return found.__module__ == module or found.__module__.startswith(f"{module}.")


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
