"""Networks that know the arguments they were built with, so that a checkpoint can say them."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

OF_DATA = ("channels", "classes", "image_size")  # which are told where they are not given, too


class Recorded(nn.Module):
    """A module with `arguments`, its constructor's by name, as they were given."""

    arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Recorded:
        made = super().__new__(cls)
        made.__dict__["arguments"] = _by_name(cls, args, kwargs)
        return made


def _by_name(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments, of which positional ones are named by the first class that names them."""
    for one in cls.__mro__:
        parameters = inspect.signature(vars(one).get("__init__", lambda *a: None)).parameters
        if "__init__" in vars(one) and not any(
            p.kind is p.VAR_POSITIONAL for p in parameters.values()
        ):
            given = dict(zip(list(parameters)[1:], args, strict=False)) | kwargs
            usual = {name: parameters[name].default for name in OF_DATA if name in parameters}
            return {name: value for name, value in usual.items() if value is not None} | given
    return dict(kwargs)
