"""Images of the same thing are found, whatever was done to the file; others are not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from lookalikes import CHANGES, GENERATED, Image, fundus

from medt.data.duplicates import NearDuplicate, joined_groups, near_duplicates, thumbnail
from medt.data.synthetic.images import synthetic_case

CASES = 10


def glands(index: int) -> Image:
    return synthetic_case(seed=0, index=index, size=128).image


KINDS = {"glands": glands, **GENERATED}


@pytest.fixture(scope="module", params=KINDS)
def images(request: pytest.FixtureRequest) -> dict[str, Image]:
    return {f"case_{index}": KINDS[request.param](index) for index in range(CASES)}


def found(images: dict[str, Image]) -> list[tuple[str, str]]:
    pairs = near_duplicates({name: thumbnail(image) for name, image in images.items()})
    return [(pair.first, pair.second) for pair in pairs]


def test_images_of_different_things_are_none(images: dict[str, Image]) -> None:
    assert found(images) == []
    assert found(dict(list(images.items())[:3])) == []


def test_a_changed_copy_is_a_near_duplicate_of_its_origin_only(images: dict[str, Image]) -> None:
    for what, change in CHANGES.items():
        pairs = found({**images, "copy": change(images["case_2"])})
        assert pairs == [("case_2", "copy")], what


@pytest.mark.parametrize(
    "change",
    [lambda image: image.astype(np.uint16) * 257, lambda image: image.astype(np.float32) / 255],
    ids=["16 bits", "floating point"],
)
def test_a_copy_of_another_type_is_one(images: dict[str, Image], change) -> None:
    assert found({**images, "copy": change(images["case_2"])}) == [("case_2", "copy")]


def test_a_grey_copy_is_one() -> None:
    images = {f"case_{index}": glands(index) for index in range(CASES)}
    images["copy"] = cv2.cvtColor(images["case_2"], cv2.COLOR_RGB2GRAY)
    assert found(images) == [("case_2", "copy")]


def test_of_two_images_there_is_nothing_in_common_to_leave_out() -> None:
    assert found({"a": fundus(0), "b": fundus(1)}) == []
    assert found({"a": fundus(0), "b": CHANGES["JPEG"](fundus(0))}) == [("a", "b")]
    assert found({"a": fundus(0)}) == []


def test_what_only_a_later_channel_shows_tells_images_apart() -> None:
    images = {}
    for index in range(CASES):
        images[f"case_{index}"] = np.zeros((128, 128, 5), np.uint8)
        images[f"case_{index}"][..., 4] = glands(index)[..., 1] // 8
    assert found(images) == []
    assert found({**images, "copy": images["case_2"]}) == [("case_2", "copy")]


def test_frames_of_one_scene_are_alike_although_all_have_it_in_common() -> None:
    random = np.random.default_rng(0)
    scene = glands(0).astype(float)
    frames = {
        f"frame_{index}": np.clip(scene + random.normal(0, 8, scene.shape), 0, 255).astype(np.uint8)
        for index in range(50)
    }
    thumbnails = {name: thumbnail(frame) for name, frame in frames.items()}
    joined = joined_groups(dict.fromkeys(frames, ""), near_duplicates(thumbnails))
    assert set(joined.values()) == {frozenset(frames)}


def test_images_with_hardly_any_detail_are_not_alike_by_chance() -> None:
    random = np.random.default_rng(0)
    coarse = [random.integers(0, 256, (8, 8, 3), np.uint8) for _ in range(16)]
    images = {
        f"case_{i}": cv2.resize(one, (192, 192), interpolation=cv2.INTER_CUBIC)[:96, :96]
        for i, one in enumerate(coarse)
    }
    assert found(images) == []


def test_an_image_without_any_structure_has_a_thumbnail() -> None:
    assert thumbnail(np.zeros((20, 30), np.uint8)).shape == (64, 64)
    assert found({f"case_{index}": np.zeros((20, 30), np.uint8) for index in range(CASES)}) == []


def test_photographs_of_different_eyes_are_none(shared: Path) -> None:
    with np.load(shared / "data/drive_thumbnails.npz") as content:
        eyes = dict(zip(content["names"].tolist(), content["rgb"], strict=True))
    assert found(eyes) == []
    copies = {f"{name} {what}": (name, what) for name, what in zip(eyes, CHANGES, strict=False)}
    changed = {copy: CHANGES[what](eyes[name]) for copy, (name, what) in copies.items()}
    assert found({**eyes, **changed}) == [(name, copy) for copy, (name, _) in copies.items()]


def test_groups_and_pairs_link_cases_through_each_other() -> None:
    groups = {"a": "p1", "b": "p1", "c": "", "d": "", "e": "p2"}
    linked = joined_groups(groups, [NearDuplicate("b", "c", 0.9)])
    assert linked["a"] == linked["b"] == linked["c"] == {"a", "b", "c"}
    assert linked["d"] == {"d"}
    assert linked["e"] == {"e"}
