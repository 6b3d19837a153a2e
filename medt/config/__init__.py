"""The typed schema of every config, registered for Hydra.

A file in configs/ names its dataclass in its defaults list, so that a misspelt key or a wrong type
stops when the config is composed.
"""

from __future__ import annotations

from functools import cache
from typing import NoReturn

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from medt import shipped
from medt.config.groups import GROUPS
from medt.config.scripts import SCRIPTS
from medt.errors import UserError


def register_schema(home: str | None = None) -> None:
    """Make the schema known to Hydra, as `<group>/schema_<name>` and `schema_<script>`.

    And the resolvers `${required:key}`, which stands for a value that an experiment cannot know (a
    `???` does not replace a default), `${count:list}`, the length of a list, and `${home:}`.

    Args:
        home: where data and runs lie; None is what `medt.shipped.home` says.
    """
    root = str(home or shipped.home())
    OmegaConf.register_new_resolver("home", lambda: root, replace=True)
    _register_once()


@cache
def _register_once() -> None:
    OmegaConf.register_new_resolver("required", _required, replace=True)
    OmegaConf.register_new_resolver("count", len, replace=True)
    store = ConfigStore.instance()
    for group, options in GROUPS.items():
        for name, schema in options.items():
            store.store(group=group, name=f"schema_{name}", node=schema)
    for name, schema in SCRIPTS.items():
        store.store(name=f"schema_{name}", node=schema)


def _required(key: str) -> NoReturn:
    raise UserError(f"{key} has no value", f"this experiment needs {key}=...")
