"""Starting a network from the weights of a checkpoint."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from medt.checkpoint import Checkpoint, load_checkpoint
from medt.errors import UserError
from medt.models.sizes import as_size

OF_DATA = ("channels", "image_size")  # what a network takes from its dataset


def load_weights(model: nn.Module, path: Path, spec: Mapping[str, Any]) -> list[str]:
    """Start `model` from a checkpoint's weights; a class head of other shape keeps its own.

    Args:
        model: the network.
        path: of the checkpoint.
        spec: what the network was built from, see `model_spec`.

    Returns:
        The names of the parameters that were left as they were, all of them in the last layer.

    Raises:
        UserError: anything but the last layer differs; it names the settings that do.
    """
    checkpoint = load_checkpoint(path, key="model.weights")
    weights = checkpoint.weights
    own = model.state_dict()
    head = list(own)[-1].rpartition(".")[0] + "."
    missing = sorted(own.keys() ^ weights.keys())
    differing = [n for n in own if n in weights and own[n].shape != weights[n].shape]
    wrong = missing + [name for name in differing if not name.startswith(head)]
    if wrong:
        _check_same_network(spec, checkpoint, path)
        raise UserError(
            f"the weights of {path} do not fit this network: {', '.join(wrong[:5])}"
            + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""),
            "use the same model, width, depths and image size",
        )
    model.load_state_dict({**weights, **{name: own[name] for name in differing}})
    return differing


def _check_same_network(spec: Mapping[str, Any], checkpoint: Checkpoint, path: Path) -> None:
    """Raises UserError if the checkpoint's network was built from settings other than `spec`."""
    there = checkpoint.model
    if any(spec.get(key) != there.get(key) for key in ("_target_", "architecture")):
        name = checkpoint.config.get("model", {}).get("name")
        hint = f"give {shlex.quote(f'model={name}')}" if name else "use the same model"
        raise UserError(f"the weights of {path} are of another network, {there['_target_']}", hint)
    differing = [key for key in spec if key in there and _differ(key, spec[key], there[key])]
    if differing:
        theirs, own = (
            " ".join(f"{key}={_as_setting(values[key])}" for key in differing)
            for values in (there, spec)
        )
        settings = shlex.join(
            f"{'dataset' if key in OF_DATA else 'model'}.{key}={_as_setting(there[key])}"
            for key in differing
        )
        raise UserError(
            f"the weights of {path} are of a network with {theirs}, this one has {own}",
            f"give {settings}",
        )


def _differ(key: str, own: Any, other: Any) -> bool:
    if key == "image_size" and own is not None and other is not None:
        return as_size(own) != as_size(other)
    return key != "classes" and own != other


def _as_setting(value: Any) -> str:
    """A plain value as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
