"""Images of the same thing are found, whatever was done to the file; others are not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medt.data.duplicates import NearDuplicate, joined_groups, near_duplicates, perceptual_hash
from medt.data.synthetic import synthetic_case

IMAGES = {f"case_{i}": synthetic_case(seed=0, index=i, size=128).image for i in range(4)}


def jpeg(image: np.ndarray) -> np.ndarray:
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)


def noisy(image: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 10, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


CHANGES = {
    "the same": lambda image: image,
    "JPEG": jpeg,
    "smaller": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "brighter": lambda image: np.clip(image * 1.1 + 10, 0, 255).astype(np.uint8),
    "noisy": noisy,
    "cut off": lambda image: image[1:, 1:],
    "16 bit": lambda image: image.astype(np.uint16) * 257,
    "grey": lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_copy_is_a_near_duplicate_of_its_origin_only(change) -> None:
    images = {**IMAGES, "copy": change(IMAGES["case_2"])}
    pairs = list(near_duplicates({n: perceptual_hash(image) for n, image in images.items()}))
    assert [(pair.first, pair.second) for pair in pairs] == [("case_2", "copy")]


def test_an_image_without_any_structure_has_a_hash() -> None:
    assert perceptual_hash(np.zeros((20, 30), np.uint8)).shape == (256,)


@given(st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_pairs_are_those_of_a_direct_comparison(count: int, seed: int) -> None:
    bits = np.random.default_rng(seed).random((count, 256)) < 0.2
    hashes = {f"case_{i}": row for i, row in enumerate(bits)}
    expected = [
        NearDuplicate(f"case_{i}", f"case_{j}", int((bits[i] != bits[j]).sum()))
        for i in range(count)
        for j in range(i + 1, count)
        if (bits[i] != bits[j]).sum() <= 80
    ]
    assert list(near_duplicates(hashes, distance=80)) == expected


def test_groups_and_pairs_link_cases_through_each_other() -> None:
    groups = {"a": "p1", "b": "p1", "c": "", "d": "", "e": "p2"}
    linked = joined_groups(groups, [NearDuplicate("b", "c", 3)])
    assert linked["a"] == linked["b"] == linked["c"] == {"a", "b", "c"}
    assert linked["d"] == {"d"}
    assert linked["e"] == {"e"}


def test_many_equal_images_are_joined_pair_by_pair() -> None:
    hashes = {f"case_{i}": np.zeros(256, bool) for i in range(50)}
    assert sum(1 for _ in near_duplicates(hashes)) == 50 * 49 // 2
    joined = joined_groups(dict.fromkeys(hashes, ""), near_duplicates(hashes))
    assert set(joined.values()) == {frozenset(hashes)}
