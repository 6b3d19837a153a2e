"""Values of a stranger's file are of the kind that opening a dataset needs, or refused by key."""

from __future__ import annotations

from typing import Any

import pytest

from medt.data.open import open_dataset
from medt.errors import UserError

NAN, INFINITE = float("nan"), float("inf")
ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)
WRONG: list[tuple[str, Any]] = [
    *[("seed", wrong) for wrong in (True, "12", 1.0, -1, 2**32, NAN, [1], 10**5000)],
    *[(key, wrong) for key in ("train", "val", "test") for wrong in (False, 10**9, "8", [])],
    *[("size", wrong) for wrong in (31, 100_000, "64", [64, 64])],
    *[("page", wrong) for wrong in (-1, True, "0", 0.0)],
    *[(key, wrong) for key in ("folds", "fold") for wrong in (True, "5", 10**9, 2.0)],
    *[("pixel_size", wrong) for wrong in (NAN, INFINITE, 0, -0.5, True, "0.5", 10**400)],
    *[
        ("pixel_size", wrong)
        for wrong in ("0mm", "5cm", [0.5], [0.5, "1mm"], ENDLESS, {}, "9" * 99)
    ],
    *[("image_size", wrong) for wrong in (0, 100_000, "64", [], [64, 64, 64], [64, NAN])],
    *[("channels", wrong) for wrong in (0, True, "3", 10**9)],
    *[(key, wrong) for key in ("root", "splits_file") for wrong in (7, ["a"], "a\0b", "a" * 9999)],
    *[("classes", wrong) for wrong in ("ab", {"a": 1}, ["a"] * 256, ENDLESS, [ENDLESS, "b"])],
    ("classes", [{"name": "a", "value": ENDLESS}, "b"]),
    ("classes", ["a", {"name": "b", "value": 1, "color": 2, "more": 3}]),
    *[("ignore", wrong) for wrong in ({}, ENDLESS, [1, 2, 3, 4])],
    *[(key, wrong) for key in ("mask", "mask_suffix") for wrong in (1, ["_m"], {})],
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=lambda value: str(type(value).__name__))
def test_a_value_of_another_kind_is_refused_by_key(key: str, value: Any) -> None:
    settings = {"name": "folder", "images": "i", "masks": "m", "root": "r", key: value}
    with pytest.raises(UserError, match=rf"dataset\.{key}=.* cannot be used") as raised:
        open_dataset(settings)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("name", [None, 7, "gals", "g" * 10**6, ENDLESS, {}])
def test_a_name_is_one_of_the_known(name: Any) -> None:
    with pytest.raises(UserError, match=r"No dataset .*choose dataset=") as raised:
        open_dataset({"name": name})
    assert len(str(raised.value)) < 300
