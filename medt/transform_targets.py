"""What of albumentations a config may name: transforms of one image by plain values."""

from __future__ import annotations

import importlib
import typing
from typing import Any

TRANSFORMS = "albumentations"
# Arguments of an augmentation that are made of specs themselves: a list, or a mapping of names.
PARTS = ("geometry", "appearance", "transforms")
COMPOSITIONS = ("OneOf", "RandomOrder", "Sequential", "SomeOf")
# What needs functions, files, other images or boxes, or makes other types.
REFUSED = (
    *("AtLeastOneBBoxRandomCrop", "BBoxSafeRandomCrop", "FDA", "HistogramMatching", "Lambda"),
    *("MixUp", "Mosaic", "OverlayElements", "PixelDistributionAdaptation", "RandomCropNearBBox"),
    *("RandomSizedBBoxSafeCrop", "TemplateTransform", "TextImage", "ToTensor3D", "ToTensorV2"),
    *("BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D"),
)


def is_transform(found: type) -> bool:
    """Whether a class of albumentations changes an image by plain values alone."""
    package = importlib.import_module(TRANSFORMS)
    if found.__name__ in COMPOSITIONS:
        return True
    return (
        issubclass(found, package.BasicTransform)
        and not issubclass(found, package.Transform3D)
        and found.__name__ not in REFUSED
    )


def types_of(found: Any) -> dict[str, Any] | None:
    """The types of a transform's arguments, which a wrapper hides; None for other classes."""
    if not found.__module__.startswith(f"{TRANSFORMS}."):
        return None
    if found.__name__ in COMPOSITIONS:
        return {"n": int, "replace": bool, "p": float}
    return typing.get_type_hints(found.InitSchema)


def strictly(found: type) -> dict[str, bool]:
    """What tells a class not to warn, and take its own defaults, where it cannot read a value."""
    constructor = next(one for one in found.__mro__ if "__init__" in vars(one))
    return {"strict": True} if "InitSchema" in vars(constructor) else {}
