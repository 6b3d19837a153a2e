"""Whether plain values are what a class says that it takes."""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union

from medt.errors import UserError, did_you_mean

PLURAL = {"a whole number": "whole numbers", "a number": "numbers", "text": "texts"}
CONTAINERS = (list, tuple, Sequence, Collection)


@dataclass(frozen=True)
class Range:
    """From `low` to `high`; an end that is `open` does not belong to it."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and not math.isinf(value)

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.open_low else f"at least {self.low:g}"
        if self.high == math.inf:
            return low
        return f"{low} and {'below' if self.open_high else 'at most'} {self.high:.10g}"


COUNT = Range(1)
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, open_low=True)
SHARE = Range(0, 1)
DECAY = Range(0, 1, open_high=True)


def check_arguments(
    target: Callable[..., Any],
    values: Mapping[str, Any],
    where: str,
    given: Collection[str] = (),
    others: bool = False,
    hints: Mapping[str, Any] | None = None,
) -> None:
    """Hold plain values against the signature of what they are meant for, which is not called.

    Args:
        target: a class or a function. What it does not annotate may be anything.
        values: its keyword arguments.
        where: they stand, for the error, such as "loss" or the name of a file.
        given: names of arguments that come from elsewhere.
        others: whether names that it does not take are passed over.
        hints: the types of the arguments; None for those that it is annotated with.

    Raises:
        UserError: an argument is missing, unknown or of another type.
    """
    parameters = inspect.signature(target).parameters
    hints = _hints(target) if hints is None else hints
    named = [
        name
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    title = getattr(target, "__name__", str(target))
    for name, value in values.items():
        if name in given:
            raise UserError(f"{where}.{name} is not a setting", "leave it out")
        if name not in named:
            if others or (any_name and isinstance(name, str)):
                continue
            hint = did_you_mean(str(name), named, f"it takes {', '.join(sorted(named))}")
            raise UserError(f"{title} takes no {where}.{name}", hint)
        if name in hints and not fits(value, hints[name]):
            raise UserError(
                f"{where}.{name} is {shortened(value)}, which is not {described(hints[name])}",
                "see its config",
            )
        if typing.get_origin(hints.get(name)) is Annotated:
            for allowed in typing.get_args(hints[name])[1:]:
                check_range(value, allowed, f"{where}.{name}")
    required = {n for n in named if parameters[n].default is inspect.Parameter.empty}
    if missing := sorted(required - set(values) - set(given)):
        raise UserError(f"{where} lacks {', '.join(missing)}", f"{title} needs it")


def check_range(value: Any, allowed: Range, key: str) -> None:
    """Refuse a number, or a list with one, out of a range; an empty list, too.

    Anything else, such as an unresolved reference, is left alone.

    Raises:
        UserError: with the key.
    """
    numbers = value if isinstance(value, list | tuple) else [value]
    wrong = [n for n in numbers if isinstance(n, int | float) and n not in allowed]
    if wrong or (isinstance(value, list | tuple) and not value):
        raise UserError(f"{key}={value} is out of range", f"give {allowed}")


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    is_class = isinstance(target, type) and not dataclasses.is_dataclass(target)
    try:
        return typing.get_type_hints(
            inspect.getattr_static(target, "__init__") if is_class else target,
            include_extras=True,
        )
    except (NameError, TypeError):  # of somebody's class that names what it does not import
        return {}


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of the type that an annotation names.

    As in JSON a list stands for any sequence and a whole number for a float; a bool is not a number
    and text is not a sequence. Of a class that is not plain only its own instances are.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return fits(value, arguments[0])
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if hint is None or hint is type(None):
        return value is None
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in arguments)
    if hint is float:
        return type(value) is float or (type(value) is int and abs(value) <= sys.float_info.max)
    if hint in (int, bool, str):
        return type(value) is hint
    if (origin or hint) in CONTAINERS:
        return isinstance(value, list | tuple) and _parts_fit(value, hint)
    if (origin or hint) in (dict, Mapping):
        keys, parts = arguments or (Any, Any)
        return isinstance(value, dict) and all(
            fits(key, keys) and fits(part, parts) for key, part in value.items()
        )
    return isinstance(hint, type) and isinstance(value, hint)


def _parts_fit(values: Sequence[Any], hint: Any) -> bool:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and (not arguments or arguments[-1] is not Ellipsis):
        return len(values) == len(arguments) and all(map(fits, values, arguments))
    return all(fits(value, arguments[0]) for value in values) if arguments else True


def described(hint: Any) -> str:
    """An annotation in words, such as: a list of numbers, or nothing (null)."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return described(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(described, filter(_is_plain, arguments))))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if (origin or hint) in CONTAINERS:
        parts = [described(one) for one in arguments if one is not Ellipsis]
        kinds = " or ".join(dict.fromkeys(parts))
        if len(parts) > 1:
            return f"a list of {len(parts)}, each {kinds}"
        return f"a list of {PLURAL.get(kinds, kinds)}" if parts else "a list"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    words |= {dict: "a mapping", type(None): "null"}
    return words.get(origin or hint, getattr(hint, "__name__", str(hint)))


def _is_plain(hint: Any) -> bool:
    if typing.get_origin(hint) is not None:  # which is a type as well before Python 3.11
        return True
    return not isinstance(hint, type) or hint in (int, float, str, bool, list, dict, type(None))


def shortened(value: Any) -> str:
    """A value as an error shows it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
