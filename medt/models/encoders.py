"""U-Net with an encoder of segmentation_models_pytorch, or through it of timm."""

from __future__ import annotations

import copy
import difflib
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medt.errors import UserError
from medt.models.without_memory import without_memory

ENCODER = "resnet34"
OF_TIMM = "tu-"  # how segmentation_models_pytorch marks the names that are timm's
# What the libraries raise for a network that they cannot build, or an image that one cannot take.
FAILURES = (
    *(RuntimeError, ValueError, TypeError, AssertionError, AttributeError, LookupError),
    ArithmeticError,
)
STRIDE, LARGEST = 32, 512  # of the square sizes that an error may name

Size = tuple[int, int]


def smp_unet(
    channels: int, classes: int, encoder: str = ENCODER, image_size: Size | None = None
) -> nn.Module:
    """A U-Net without pretrained weights.

    Parameters that take no part in the logits are not trained.

    Args:
        channels: of the image.
        classes: background included.
        encoder: a name of segmentation_models_pytorch, or ``tu-`` and one of timm.
        image_size: (height, width), which some encoders are built for; None leaves them theirs.

    Raises:
        UserError: the library is not installed, there is no such encoder, or it is none for a
            U-Net, or not for images of this size.
    """
    try:
        import segmentation_models_pytorch  # noqa: F401 - told before its names are asked for
    except ImportError as error:
        raise UserError(
            f"model=smp_unet needs segmentation_models_pytorch: {error}",
            "pip install -e '.[smp]'",
        ) from error
    timm_name = _timm_name(encoder)
    try:
        network = _built(channels, classes, encoder, timm_name, image_size)
        if image_size is not None:
            _freeze_unused(network, *_logits_without_memory(network, channels, image_size))
    except FAILURES as error:
        nearest = image_size and _nearest_size(channels, classes, encoder, timm_name, image_size)
        if image_size is None or nearest is None:
            raise UserError(
                f"model.encoder={encoder} cannot be built: {_said(error)}", "choose another encoder"
            ) from error
        raise UserError(
            f"image size {image_size[0]} x {image_size[1]} does not fit model.encoder={encoder}: "
            f"{_said(error)}",
            f"the nearest square that fits: {nearest} x {nearest}",
        ) from error
    return network


def pretrained_encoder(channels: int, encoder: str, image_size: Size | None) -> nn.Module:
    """The encoder with the weights of ImageNet that its library has for it, downloaded once.

    Of an image with other than 3 channels the first convolution gets the mean of its weights.

    Raises:
        UserError: there are none, or nothing can be downloaded.
    """
    timm_name = _timm_name(encoder)
    try:
        network = _built(channels, 2, encoder, timm_name, image_size, "imagenet")
    except (*FAILURES, OSError) as error:
        raise UserError(
            f"no weights of ImageNet for model.encoder={encoder}: {_said(error)}",
            "where there is no network give a file: model.encoder_weights=FILE",
        ) from error
    encoding: nn.Module = network.get_submodule("encoder")
    return encoding


def check_forward(
    network: nn.Module, channels: int, encoder: str, image_size: Size | None, size: Size
) -> None:
    """Raises UserError unless a network, which was built for `image_size`, takes another one."""
    try:
        if image_size is not None and _has_one_size(_timm_name(encoder)):
            raise ValueError(f"it is built for {image_size[0]} x {image_size[1]}")
        _logits_without_memory(network, channels, size)
    except FAILURES as error:
        raise UserError(
            f"image size {size[0]} x {size[1]} does not fit model.encoder={encoder}: "
            f"{_said(error)}",
            "give images of the size that it was trained with",
        ) from error


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _has_one_size(timm_name: str | None) -> bool:
    """Whether an encoder is built for images of one size."""
    import timm

    return bool(timm_name and timm.get_pretrained_cfg_value(timm_name, "fixed_input_size"))


def _built(
    channels: int,
    classes: int,
    encoder: str,
    timm_name: str | None,
    image_size: Size | None,
    weights: str | None = None,
) -> nn.Module:
    import segmentation_models_pytorch as smp

    options: dict[str, Any] = {}
    if image_size is not None and _has_one_size(timm_name):
        options["img_size"] = image_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of names such as timm-gernet_s
        network: nn.Module = smp.Unet(
            encoder, encoder_weights=weights, in_channels=channels, classes=classes, **options
        )
    return network


def _logits_without_memory(
    network: nn.Module, channels: int, size: Size
) -> tuple[Tensor, list[nn.Parameter]]:
    """Run a copy of a network on images, both without numbers; the logits, and its parameters.

    This raises whatever the network does for images of this size, other than for their values.
    """
    with without_memory(), torch.inference_mode(False), torch.enable_grad():
        parameters = [nn.Parameter(weight.to("meta")) for weight in network.parameters()]
        copies: dict[int, Tensor] = {id(value): value.to("meta") for value in network.buffers()}
        copies |= {id(w): c for w, c in zip(network.parameters(), parameters, strict=True)}
        copied = copy.deepcopy(network, copies)
        return copied(torch.empty(2, channels, *size)), parameters


def _freeze_unused(network: nn.Module, logits: Tensor, copies: Sequence[nn.Parameter]) -> None:
    """Do not train parameters without a gradient: several processes would wait for theirs."""
    gradients: Sequence[Tensor | None] = torch.autograd.grad(
        logits.sum(), copies, allow_unused=True
    )
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        if gradient is None:
            parameter.requires_grad_(False)


def _nearest_size(
    channels: int, classes: int, encoder: str, timm_name: str | None, image_size: Size
) -> int | None:
    """The side of the square nearest to a size that does not fit; None if none fits."""
    sides = range(STRIDE, LARGEST + 1, STRIDE)
    for side in sorted(sides, key=lambda side: abs(side - max(image_size))):
        try:
            with without_memory():
                network = _built(channels, classes, encoder, timm_name, (side, side))
            _logits_without_memory(network, channels, (side, side))
        except FAILURES:
            continue
        return side
    return None


def _timm_name(encoder: str) -> str | None:
    """What timm calls an encoder; None for those that are segmentation_models_pytorch's own.

    Raises:
        UserError: there is no such encoder.
    """
    import segmentation_models_pytorch as smp
    import timm

    own = smp.encoders.get_encoder_names()
    if encoder in own:
        return None
    name = encoder
    if smp.encoders.is_equivalent_to_timm_universal(name):  # its former names of some of timm's
        name = name.replace("timm-", OF_TIMM)
        name = name.replace(OF_TIMM, "tu-tf_") if "mobilenetv3" in name else name
    # Nor is a name one with a source, such as hf-hub:, since that would be downloaded.
    if name.startswith(OF_TIMM) and _is_registered(name.removeprefix(OF_TIMM)):
        return name.removeprefix(OF_TIMM)
    known = [*own, *(OF_TIMM + one for one in timm.list_models())]
    near = difflib.get_close_matches(encoder, known, n=3) or known[:10]
    raise UserError(f"there is no encoder {encoder}", f"such as {', '.join(near)}")


def _is_registered(name: str) -> bool:
    """Whether timm has a network of this name, and the weights if it names some."""
    import timm

    architecture, _, weights = name.partition(".")
    if not timm.is_model(architecture):
        return False
    return not weights or name in timm.list_models(f"{architecture}.*", pretrained=True)
