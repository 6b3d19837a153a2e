"""Encoders that start from weights of ImageNet: from the libraries' own, or from a file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from medt.errors import UserError
from medt.models.baselines import Baseline
from medt.models.encoders import pretrained_encoder
from medt.models.weights import read_state_dict

IMAGENET = "imagenet"  # in place of a file: the weights that the library names


def encoder_of(model: nn.Module) -> nn.Module | None:
    """The part of a network that weights of ImageNet are for; None where it has none."""
    encoder = getattr(getattr(model, "network", None), "encoder", None)
    return encoder if isinstance(encoder, nn.Module) else None


def load_encoder(model: nn.Module, source: str | Path) -> str:
    """Start the encoder of a ``smp_unet`` from weights.

    Args:
        model: a `Baseline`.
        source: "imagenet", which the library downloads once, or a file: a state dict of the
            encoder, or of the classifier that it is part of. Names may be the encoder's own,
            those of torchvision or timm, or others where the weights come in the same order.

    Returns:
        What was loaded: the source and the first 12 digits of the SHA-256 of the weights.

    Raises:
        UserError: the network has no encoder, the file is unreadable, or its names or shapes are
            not the encoder's; the first of them are named; or nothing can be downloaded.
    """
    encoder = encoder_of(model)
    if encoder is None:
        raise UserError("this model has no encoder to load", "leave model.encoder_weights out")
    own = encoder.state_dict()
    if str(source) == IMAGENET:
        if not isinstance(model, Baseline):
            raise UserError(
                "model.encoder_weights=imagenet is for model=smp_unet only",
                "give a file of weights",
            )
        weights: Mapping[str, Tensor] = pretrained_encoder(**model.built).state_dict()
    else:
        weights = _by_names_of(own, read_state_dict(Path(source)))
        _check_channels(own, weights, source)
        _check_shapes(own, weights, source)
    encoder.load_state_dict({name: weights[name] for name in own})
    return f"{source} (SHA-256 {_digest(weights, own)})"


def _digest(weights: Mapping[str, Tensor], names: Collection[str]) -> str:
    found = hashlib.sha256()
    for name in names:
        found.update(weights[name].detach().cpu().contiguous().reshape(-1).numpy().tobytes())
    return found.hexdigest()[:12]


def _by_names_of(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Weights by the encoder's names.

    In these timm's begin with "model." and stages_0 is one. Where not one name is known, the
    weights may be those of the same network written by others: in the same order, with the
    classifier's at the end.
    """
    found = {}
    for name in own:
        short = name.removeprefix("model.")
        for given in (name, short, re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", short)):
            if given in weights:
                found[name] = weights[given]
                break
    shapes = [value.shape for value in own.values()]
    if not found and [value.shape for value in weights.values()][: len(own)] == shapes:
        return dict(zip(own, weights.values(), strict=False))
    return found


def _check_shapes(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: str | Path
) -> None:
    """Raises UserError unless there is a weight of its shape for each of the encoder's."""
    wrong = [f"{name} is missing" for name in own if name not in weights]
    wrong += [
        f"{name} is {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if wrong:
        raise UserError(
            f"{source} does not fit this encoder: {'; '.join(wrong[:3])} ({len(wrong)} in all)",
            "use weights of the same encoder and number of image channels",
        )


def _check_channels(
    own: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], source: str | Path
) -> None:
    """Raises UserError if the first convolutions take images of different channels."""
    first = next((name for name, value in own.items() if value.ndim == 4), "")
    if first in weights and weights[first].ndim == 4:
        found, wanted = weights[first].shape[1], own[first].shape[1]
        if found != wanted:
            raise UserError(
                f"{source} takes images of {found} channels, this network of {wanted}",
                f"give dataset.channels={found}",
            )
