"""The official code's parameter names, mapped to ours.

https://github.com/jeya-maria-jose/Medical-Transformer

A checkpoint of the official code is a flat state dict. Its names differ from ours, its norm of the
two output terms interleaves their channels, and it carries buffers and parameters that no output
depends on; these are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

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
    official = {name.removeprefix("module."): value for name, value in official.items()}
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
