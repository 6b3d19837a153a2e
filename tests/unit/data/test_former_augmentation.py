"""The augmentation of a run of version 0.1 is translated, and draws as it did."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medt.data.former_augmentation import present_form
from medt.errors import UserError
from medt.targets import build

FORMER = json.loads(
    (Path(__file__).parents[2] / "fixtures" / "former_augmentation.json").read_text()
)


def scene(height: int, width: int, channels: int, dtype: str) -> tuple[Any, Any]:
    """The image and the mask that the former classes were given."""
    rng = np.random.default_rng(height)
    image = rng.random((height, width, channels)) * np.linspace(0.2, 1, width)[:, None]
    image = (image * 255).astype(np.uint8) if dtype == "uint8" else image.astype(np.float32)
    mask = rng.choice(np.array([0, 1, 2, 255], np.uint8), (height // 4 + 1, width // 4 + 1))
    return image, np.kron(mask, np.ones((4, 4), np.uint8))[:height, :width].copy()


def summary(image: Any, mask: Any) -> list[float]:
    ramp = np.linspace(0, 1, mask.size).reshape(mask.shape)
    values = image / 255 if image.dtype == np.uint8 else image.astype(float)
    return [values.mean(), (values * ramp[..., None]).mean(), (mask * ramp).mean() / 255]


@pytest.mark.parametrize("former", FORMER, ids=lambda one: str(one["spec"]["_target_"])[-10:])
def test_recipes_draw_as_the_classes_of_version_0_1_did(former: dict[str, Any]) -> None:
    """The fixture holds what these made, in numbers that no processor rounds to others."""
    form = present_form(former["spec"])
    del form["name"]
    augmentation = build(form, "augmentation")
    for result in former["results"]:
        *size, channels, dtype, wide = result["setup"]
        margin = augmentation.margin(*size)
        assert not wide or list(margin) == result["margin"]
        margin = margin if wide else (0, 0)
        larger = [side + 2 * more for side, more in zip(size, margin, strict=True)]
        pair = scene(*larger, channels, dtype)
        for seed, expected in enumerate(result["summaries"]):
            found = summary(*augmentation(*pair, seed, tuple(size)))
            assert found == pytest.approx(expected, abs=1e-4)


class TestFormerSpecs:
    def test_what_is_said_the_new_way_stays(self) -> None:
        for spec in ({"_target_": "own.Change", "p": 1}, {"name": "x"}, {"_target_": [1]}, {}):
            assert present_form(spec) == spec

    @pytest.mark.parametrize(
        ("name", "argument", "value"),
        [
            ("Flip", "rotation", 1.0),
            ("Histology", "probability", 1.0),
            ("Strong", "upright", True),
            ("Histology", "gamma", [0.5, 1.0]),
            ("Grey", "gamma", [0.5]),
            ("Grey", "upright", 1),
            ("Grey", "rotation", "45"),
            ("Ultrasound", "gain", {"_target_": "os.getcwd"}),
            ("Ultrasound", "_args_", []),
        ],
    )
    def test_others_are_refused(self, name: str, argument: str, value: Any) -> None:
        spec = {"_target_": f"medt.data.augmentation.{name}", argument: value}
        with pytest.raises(UserError, match=re.escape(f"augmentation.{argument}")):
            present_form(spec)
