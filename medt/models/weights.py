"""Weights of other code: state dicts, and the names of the official code mapped to ours.

https://github.com/jeya-maria-jose/Medical-Transformer

A checkpoint of the official code is a flat state dict. Its names differ from ours, its norm of the
two output terms interleaves their channels, and it carries buffers and parameters that no output
depends on; these are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from medt.errors import UserError
from medt.io.files import read_tensors


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name, without DataParallel's prefix ``module.``.

    A file that holds the state dict under the key ``state_dict`` or ``model`` is taken too.

    Raises:
        UserError: the file is missing, damaged, or no state dict.
    """
    content = read_tensors(path, "file of a network's weights")
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise UserError(
            f"{path} holds no state dict", "give a file that torch.save(model.state_dict()) wrote"
        )
    return {str(name).removeprefix("module."): value for name, value in content.items()}


_GATES = ("f_qr", "f_kr", "f_sv", "f_sve")
_NORM_STATE = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_NEVER_USED = re.compile(r"^layer\d_p\.\d+\.conv1\.|^adjust_p\.|\.flatten_index$")
_BLOCK_PARTS = {
    "conv_down": "down",
    "bn1": "down_norm",
    "conv_up": "up",
    "bn2": "up_norm",
    "downsample": "shortcut",
}


def layer_state(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of one official attention layer under the names of `AxialAttention`."""
    positioned = "relative" in official
    terms = 3 if positioned else 1
    heads = official["bn_similarity.running_var"].numel() // terms
    state = {"qkv.weight": official["qkv_transform.weight"].unsqueeze(-1)}
    for name in _NORM_STATE:
        state[f"qkv_norm.{name}"] = official[f"bn_qkv.{name}"]
        similarity = official[f"bn_similarity.{name}"]
        output = official[f"bn_output.{name}"]
        per_channel = similarity.dim() > 0
        state[f"similarity_norm.{name}"] = (
            similarity.view(terms, heads) if per_channel else similarity
        )
        interleaved = positioned and per_channel
        state[f"value_norm.{name}"] = output[0::2] if interleaved else output
        if positioned:
            state[f"position_norm.{name}"] = output[1::2] if interleaved else output
    if positioned:
        state["relative"] = official["relative"]
    if _GATES[0] in official:
        state["gates"] = torch.stack([official[name] for name in _GATES])
    return state


def network_state(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of an official network under the names of `AxialUNet` or `LocalGlobalNet`.

    Raises:
        KeyError: for a name that the official networks do not have.
    """
    state: dict[str, Tensor] = {}
    layers: dict[str, dict[str, Tensor]] = {}
    decoders = [int(m[1]) for m in (re.match(r"decoder(\d)\.", name) for name in official) if m]
    first_decoder = min(decoders, default=1)
    for name, value in official.items():
        if _NEVER_USED.search(name):
            continue
        layer = re.match(r"layer(\d)(_p)?\.(\d+)\.(hight|width)_block\.(.+)", name)
        if layer:
            stage, local, block, axis, rest = layer.groups()
            ours = f"{_stage(stage, local)}.{block}.{axis.replace('hight', 'height')}."
            layers.setdefault(ours, {})[rest] = value
        else:
            state[_plain_name(name, first_decoder)] = value
    for prefix, values in layers.items():
        state.update({prefix + name: value for name, value in layer_state(values).items()})
    return state


def load_official(model: nn.Module, official: Mapping[str, Tensor], file: str) -> None:
    """Give `model`, one of ours, the weights of the same network of the official code.

    Args:
        model: an `AxialUNet` or `LocalGlobalNet`.
        official: a state dict under the official names.
        file: what an error calls it.

    Raises:
        UserError: the weights are those of another network or size; the names are given.
    """
    own = model.state_dict()
    expected = {name: ours for ours in own for name in _official_names(ours, own)}
    unexpected = [n for n in official if n not in expected and not _NEVER_USED.search(n)]
    faults = [f"missing {name}" for name in expected if name not in official]
    faults += [f"unexpected {name}" for name in unexpected]
    if faults:
        found = _kind(official)
        hint = f"its names are those of model={found}"
        if found is None:
            hint = "give a file of https://github.com/jeya-maria-jose/Medical-Transformer"
        elif found == _kind(expected):
            hint = "it is incomplete or was changed: copy it again"
        raise UserError(f"{file} does not hold this network's weights: {_shortened(faults)}", hint)
    state = network_state(official)
    faults = [
        f"{name} is {_shape(state[ours])} instead of {_shape(own[ours])}"
        for name, ours in expected.items()
        if state[ours].shape != own[ours].shape
    ]
    if faults:
        raise UserError(
            f"{file} has weights of other shapes: {_shortened(faults)}", _settings(official)
        )
    model.load_state_dict(state)


def _kind(official: Iterable[str]) -> str | None:
    """Our config's name of the official network that has these names."""
    layers = [name for name in official if re.match(r"layer\d(_p)?\.\d+\.hight_block", name)]
    if not layers:
        return None
    if not any("_p." in name for name in layers):
        gated = any(name.endswith("f_qr") for name in layers)
        return "gated_axial_unet" if gated else "axial_unet"
    local = any("_p." in name and name.endswith("relative") for name in layers)
    return "logo" if local else "medt"


def _settings(official: Mapping[str, Tensor]) -> str:
    """The settings that the shapes of a whole official network tell."""
    length = (official["layer1.0.hight_block.relative"].shape[1] + 1) // 2
    classes, channels = official["adjust.weight"].shape[0], official["conv1.weight"].shape[1]
    return (
        f"these weights are for image_size={2 * length} channels={channels} and {classes} classes"
    )


def _shortened(faults: list[str]) -> str:
    rest = len(faults) - 6
    return ", ".join(faults[:6]) + (f" and {rest} more" if rest > 0 else "")


def _shape(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "a number"


def _official_names(ours: str, own: Mapping[str, Tensor]) -> list[str]:
    """The official names of what a parameter or buffer of ours is made from."""
    if match := re.fullmatch(r"(local_)?branch\.stem\.([a-z]+\d)\.(\w+)", ours):
        return [f"{match[2]}{_suffix(match[1])}.{match[3]}"]
    if match := re.fullmatch(r"(local_)?branch\.stages\.(\d)\.(\d+)\.(\w+)\.(.+)", ours):
        local, stage, block, part, rest = match.groups()
        home = f"layer{int(stage) + 1}{_suffix(local)}.{block}"
        if part in ("height", "width"):
            axis = part.replace("height", "hight")
            return [f"{home}.{axis}_block.{name}" for name in _official_layer_names(rest)]
        official = {name: official for official, name in _BLOCK_PARTS.items()}
        return [f"{home}.{official[part]}.{rest}"]
    if match := re.fullmatch(r"(local_)?decoder\.convs\.(\d)\.(\w+)", ours):
        count = sum(re.match(r"decoder\.convs\.\d\.bias", name) is not None for name in own)
        first = 1 if match[1] else 6 - count
        return [f"decoder{first + int(match[2])}{_suffix(match[1])}.{match[3]}"]
    module, _, rest = ours.partition(".")
    return [f"{'decoderf' if module == 'fuse' else 'adjust'}.{rest}"]


def _official_layer_names(ours: str) -> list[str]:
    if ours == "gates":
        return list(_GATES)
    module, _, rest = ours.partition(".")
    norms = {"qkv_norm": "bn_qkv", "similarity_norm": "bn_similarity"}
    norms |= {"value_norm": "bn_output", "position_norm": "bn_output"}
    if module in norms:
        return [f"{norms[module]}.{rest}"]
    return [ours.replace("qkv.", "qkv_transform.")]


def _suffix(local: str | None) -> str:
    return "_p" if local else ""


def _stage(number: str, local: str | None) -> str:
    return f"{'local_' if local else ''}branch.stages.{int(number) - 1}"


def _plain_name(name: str, first_decoder: int) -> str:
    """Our name of a parameter or buffer that belongs to no attention layer."""
    if match := re.fullmatch(r"(conv|bn)([123])(_p)?\.(\w+)", name):
        module, number, local, rest = match.groups()
        return f"{'local_' if local else ''}branch.stem.{module}{number}.{rest}"
    if match := re.fullmatch(r"layer(\d)(_p)?\.(\d+)\.(\w+)\.(.+)", name):
        stage, local, block, part, rest = match.groups()
        return f"{_stage(stage, local)}.{block}.{_BLOCK_PARTS[part]}.{rest}"
    if match := re.fullmatch(r"decoder(\d)(_p)?\.(\w+)", name):
        number, local, rest = match.groups()
        index = int(number) - (1 if local else first_decoder)
        return f"{'local_' if local else ''}decoder.convs.{index}.{rest}"
    if match := re.fullmatch(r"(decoderf|adjust)\.(\w+)", name):
        return f"{'fuse' if match[1] == 'decoderf' else 'head'}.{match[2]}"
    raise KeyError(name)
