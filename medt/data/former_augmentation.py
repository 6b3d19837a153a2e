"""The augmentation of a run of version 0.1, which named a class, as the list that it is now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from medt.errors import UserError
from medt.io.plain import read_yaml
from medt.shipped import shipped
from medt.signatures import described, fits, shortened

FORMER = {
    f"medt.data.augmentation.{name.title()}": name
    for name in ("flip", "grey", "histology", "strong", "ultrasound")
} | {None: "none"}
FLIPS = ("geometry.horizontal_flip.p", "geometry.vertical_flip.p")
BOXES = ("appearance.dropout.hole_height_range", "appearance.dropout.hole_width_range")
# Of each argument the keys that hold it now.
PLACES: dict[str, tuple[str, ...]] = {
    "probability": FLIPS,
    "affine_probability": ("geometry.affine.p",),
    "rotation": ("geometry.affine.rotate",),
    "zoom": ("geometry.affine.scale",),
    "shift": ("geometry.affine.translate_percent",),
    "elastic_probability": ("geometry.elastic.p",),
    "elastic_strength": ("geometry.elastic.strength",),
    "color_probability": ("appearance.color.p",),
    "color_gain": ("appearance.color.gain",),
    "color_shift": ("appearance.color.shift",),
    "contrast_probability": ("appearance.contrast.p",),
    "contrast": ("appearance.contrast.gain",),
    "brightness": ("appearance.contrast.shift",),
    "blur_probability": ("appearance.blur.p",),
    "noise_probability": ("appearance.noise.p",),
    "gamma_probability": ("appearance.gamma.p",),
    "gamma": ("appearance.gamma.gamma_limit",),
    "dropout_probability": ("appearance.dropout.p",),
    "dropout_size": BOXES,
    "gain_probability": ("appearance.gain.p",),
    "gain": ("appearance.gain.strength",),
    "speckle_probability": ("appearance.speckle.p",),
    "speckle": ("appearance.speckle.strength",),
    "shadow_probability": ("appearance.shadow.p",),
    "shadow": ("appearance.shadow.strength",),
    "upright": ("geometry.vertical_flip.p", "geometry.quarter_turns.p"),
}
ONLY = {"probability": "flip", "upright": "grey"}
KINDS = {"zoom": tuple[float, float], "gamma": tuple[float, float], "upright": bool}
NEW: dict[str, Callable[[Any], Any]] = {  # where it is another value now
    "rotation": lambda degrees: [-degrees, degrees],
    "shift": lambda share: [-share, share],
    "gamma": lambda exponents: [100 * exponent for exponent in exponents],
    "dropout_size": lambda side: [side / 3, side],
    "upright": lambda _: 0.0,
}


def present_form(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The augmentation of a stored config as it is said now; what is said so already is returned.

    Raises:
        UserError: an argument is unknown, or of another type.
    """
    target = spec.get("_target_", "")
    name = FORMER.get(target) if isinstance(target, str | None) else None
    if name is None:
        return dict(spec)
    form: dict[str, Any] = read_yaml(shipped("configs") / "augmentation" / f"{name}.yaml")
    for argument, value in spec.items():
        if argument == "_target_":
            continue
        places = [place.split(".") for place in PLACES.get(argument, ())]
        parents = [form[part].get(transform) for part, transform, _ in places]
        if not parents or None in parents or ONLY.get(argument, name) != name:
            raise UserError(f"there is no augmentation.{argument}", "restore the file")
        hint = KINDS.get(argument, float)
        if not fits(value, hint):
            raise UserError(
                f"augmentation.{argument} is {shortened(value)}, which is not {described(hint)}",
                "restore the file",
            )
        if argument == "upright" and not value:
            continue
        for (*_, key), parent in zip(places, parents, strict=True):
            parent[key] = NEW.get(argument, lambda same: same)(value)
        if argument == "zoom":
            form["geometry"]["affine"]["balanced_scale"] = value[0] < 1 < value[1]
    return form
