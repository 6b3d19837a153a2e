"""Networks of other libraries to compare with, behind one adapter.

MONAI's and torchvision's come with the installation; segmentation_models_pytorch is the optional
extra ``medt[smp]``. The libraries take seconds to import, so each is imported where it is used.
"""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from medt.errors import UserError
from medt.models.encoders import ENCODER, check_forward, smp_unet
from medt.models.recorded import Recorded
from medt.models.sizes import as_size, check_size
from medt.models.without_memory import without_memory

# Below this the deepest feature map of MONAI's networks has one pixel, which their norms refuse.
SMALLEST = 32
REFERENCE_CHANNELS, REFERENCE_CLASSES = 3, 2
UNET_FEATURES = (32, 32, 64, 128, 256, 32)
RES_UNET_FEATURES = (16, 32, 64, 128, 256)

Builder = Callable[..., nn.Module]


class Baseline(Recorded):
    """A network of another library: an image (N, channels, H, W) to logits (N, classes, H, W).

    Every parameter takes part in the logits.

    Args:
        architecture: "fcn" (ResNet-50, torchvision), "unet" (BasicUNet), "unet_plus_plus"
            (BasicUNetPlusPlus), "res_unet" (UNet with residual units), "attention_unet"
            (AttentionUnet, all MONAI) or "smp_unet" (Unet of segmentation_models_pytorch).
        channels: channels of the image.
        classes: classes, background included.
        image_size: the size in pixels that will be given, checked at once; None checks it in
            ``forward`` only.
        parameters: learnable parameters that the network must have when it is built with the
            library's own ``features`` for 3 channels and 2 classes, so that another version of the
            library is not taken for the same network; None does not check, nor is one of other
            ``features`` checked.
        features: the channels of MONAI's networks from stage to stage (see there); None leaves
            them their own.
        encoder: of ``smp_unet``, see `smp_unet`; None is resnet34.

    Raises:
        UserError: an unknown architecture or encoder, an option that the architecture does not
            have, a library that is not installed, another number of parameters, or a size that
            does not fit, here and in ``forward``.
    """

    def __init__(
        self,
        architecture: str,
        channels: int = 3,
        classes: int = 2,
        image_size: int | Sequence[int] | None = None,
        parameters: int | None = None,
        features: Sequence[int] | None = None,
        encoder: str | None = None,
    ) -> None:
        super().__init__()
        if architecture not in BUILDERS:
            raise UserError(
                f"there is no baseline {architecture}", f"choose one of {', '.join(BUILDERS)}"
            )
        if architecture == "smp_unet" and encoder is None:
            encoder = ENCODER
        self.architecture = architecture
        options: dict[str, Any] = {"features": features, "encoder": encoder}
        given = {name: value for name, value in options.items() if value is not None}
        _check_options(architecture, given)
        stages = features or RES_UNET_FEATURES
        strides = 2 ** (len(stages) - 1) if architecture in STRIDED else 1
        self.multiples, self.smallest = (strides, strides), max(SMALLEST, 2 * strides)
        size = None if image_size is None else as_size(image_size)
        if size is not None:
            self._check_size(size)
        if architecture == "smp_unet":
            given["image_size"] = size
        if parameters is not None and features is None:
            self._check_parameters(parameters, given)
        self.network = BUILDERS[architecture](channels, classes, **given)
        self.built: dict[str, Any] = {"channels": channels, "encoder": encoder, "image_size": size}
        self.fitting = {size}  # sizes that need no further check

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2], x.shape[3]
        self._check_size(size)
        if self.architecture == "smp_unet" and size not in self.fitting:
            check_forward(self.network, size=size, **self.built)
            self.fitting.add(size)
        output = self.network(x)
        if isinstance(output, dict):
            output = output["out"]
        elif isinstance(output, list):
            (output,) = output
        logits: Tensor = output
        return logits

    def _check_size(self, size: tuple[int, int]) -> None:
        check_size(size, self.multiples, self.architecture, self.smallest)

    def _check_parameters(self, expected: int, options: dict[str, Any]) -> None:
        with without_memory():
            network = BUILDERS[self.architecture](REFERENCE_CHANNELS, REFERENCE_CLASSES, **options)
        found = sum(parameter.numel() for parameter in network.parameters())
        if found != expected:
            raise UserError(
                f"model.parameters={expected}, but {self.architecture} has {found} with 3 channels "
                "and 2 classes",
                f"if that is meant, give model.parameters={found} or null; "
                "else install the version of the library that has the former",
            )


def _check_options(architecture: str, options: Mapping[str, Any]) -> None:
    """Raises UserError unless the architecture has the options, and channels are of some number."""
    known = inspect.signature(BUILDERS[architecture]).parameters
    if unknown := [name for name in options if name not in known]:
        raise UserError(f"{architecture} has no model.{unknown[0]}", "leave it out")
    features = options.get("features", (1,))
    if not features or min(features) < 1:
        raise UserError(f"model.features={list(features)} is out of range", "give at least 1 each")


def _fcn(channels: int, classes: int) -> nn.Module:
    from torchvision.models.segmentation import fcn_resnet50

    network: nn.Module = fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=classes, aux_loss=False
    )
    if channels != 3:
        first = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
        network.get_submodule("backbone").conv1 = first
    return network


def _unet(channels: int, classes: int, features: Sequence[int] = UNET_FEATURES) -> nn.Module:
    from monai.networks.nets.basic_unet import BasicUNet

    return _quietly(BasicUNet, 2, channels, classes, tuple(features))


def _unet_plus_plus(
    channels: int, classes: int, features: Sequence[int] = UNET_FEATURES
) -> nn.Module:
    from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus

    network = _quietly(BasicUNetPlusPlus, 2, channels, classes, tuple(features))
    for depth in (1, 2, 3):  # the heads of deep supervision, which is off
        setattr(network, f"final_conv_0_{depth}", nn.Identity())
    return network


def _res_unet(
    channels: int, classes: int, features: Sequence[int] = RES_UNET_FEATURES
) -> nn.Module:
    from monai.networks.nets.unet import UNet

    strides = (2,) * (len(features) - 1)
    network: nn.Module = UNet(2, channels, classes, tuple(features), strides, num_res_units=2)
    return network


def _attention_unet(
    channels: int, classes: int, features: Sequence[int] = RES_UNET_FEATURES
) -> nn.Module:
    from monai.networks.nets.attentionunet import AttentionUnet

    strides = (2,) * (len(features) - 1)
    network: nn.Module = AttentionUnet(2, channels, classes, tuple(features), strides)
    return network


def _quietly(network: Builder, *arguments: Any) -> nn.Module:
    with contextlib.redirect_stdout(io.StringIO()):  # these networks print their widths
        return network(*arguments)


BUILDERS: dict[str, Builder] = {
    "fcn": _fcn,
    "unet": _unet,
    "unet_plus_plus": _unet_plus_plus,
    "res_unet": _res_unet,
    "attention_unet": _attention_unet,
    "smp_unet": smp_unet,
}
# Networks whose strides must divide height and width; the others take any size.
STRIDED = ("res_unet", "attention_unet")
