"""Soft edges of one class are told from object numbers and from further classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medt.data.folder.soft_edges import has_areas_between, has_soft_edges, solid_pixels

SIZE = 96


def disks(seed: int, count: int = 6, least: int = 4, most: int = 16) -> np.ndarray:
    """The numbers of disks on 0, later ones before earlier ones."""
    rng = np.random.default_rng(seed)
    numbers = np.zeros((SIZE, SIZE), np.uint16)
    for number in range(1, count + 1):
        x, y = (int(n) for n in rng.integers(0, SIZE, 2))
        cv2.circle(numbers, (x, y), int(rng.integers(least, most)), number, -1)
    return numbers


def counted(masks: Sequence[np.ndarray]) -> tuple[Counter[int], Counter[int]]:
    found: Counter[int] = Counter()
    solid: Counter[int] = Counter()
    for mask in masks:
        values, counts = np.unique(mask, return_counts=True)
        found.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        solid.update(solid_pixels(mask))
    return found, solid


def binary(seed: int) -> np.ndarray:
    return (disks(seed) > 0).astype(np.uint8) * 255


def blurred(seed: int) -> np.ndarray:
    return cv2.GaussianBlur(binary(seed), (0, 0), 1)


def drawn(seed: int) -> np.ndarray:
    """With the anti-aliased lines that drawing programs make."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    corners = np.random.default_rng(seed).integers(0, SIZE, (5, 2)).astype(np.int32)
    cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA)
    return mask


def shrunk(seed: int) -> np.ndarray:
    return cv2.resize(binary(seed), (SIZE // 3, SIZE // 3), interpolation=cv2.INTER_AREA)


def grown(seed: int) -> np.ndarray:
    return cv2.resize(binary(seed), (3 * SIZE, 3 * SIZE), interpolation=cv2.INTER_LINEAR)


def jpeg(seed: int) -> np.ndarray:
    encoded = cv2.imencode(".jpg", binary(seed), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)


def deep(seed: int) -> np.ndarray:
    return cv2.GaussianBlur(binary(seed).astype(np.uint16) * 257, (0, 0), 1)


@pytest.mark.parametrize("make", [blurred, drawn, shrunk, grown, jpeg, deep])
def test_masks_with_soft_edges(make) -> None:
    found, solid = counted([make(seed) for seed in range(16)])
    assert len(found) > 8
    assert has_soft_edges(found, solid)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 200), st.integers(3, 12), st.integers(1, 6))
def test_object_numbers_are_none(seed: int, count: int, most: int, masks: int) -> None:
    found, solid = counted([disks(seed + i, count, 2, most) for i in range(masks)])
    assert not has_soft_edges(found, solid)


def test_masks_of_one_object_each_are_none() -> None:
    found, solid = counted([(disks(i) > 0).astype(np.uint16) * i for i in range(1, 40)])
    assert not has_soft_edges(found, solid)


def test_further_classes_are_none_with_soft_edges_or_without() -> None:
    classes = [np.where(disks(i) % 2, 255, (disks(i) > 0) * 128).astype(np.uint8) for i in range(9)]
    assert not has_soft_edges(*counted(classes))
    soft = [cv2.GaussianBlur(mask, (0, 0), 0.6) for mask in classes]
    assert not has_soft_edges(*counted(soft))
    assert has_areas_between(*counted(soft))
    assert not has_areas_between(*counted([blurred(i) for i in range(9)]))


def test_thin_lines_of_several_classes_are_none() -> None:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for i in range(12):
        cv2.line(mask, (0, 8 * i), (SIZE, 8 * i + 3), 1 + i % 4, 1)
    found, solid = counted([mask])
    assert set(solid) == {0}
    assert not has_soft_edges(found, solid)


def test_an_unlabelled_border_is_none() -> None:
    mask = binary(0) // 255
    border = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    assert not has_soft_edges(*counted([np.where(border, 128, mask * 255)]))


def test_pictures_of_all_shades_are_none() -> None:
    """Whoever gives grey images as masks shall not be told that they have edges."""
    rng = np.random.default_rng(0)
    noise = [cv2.GaussianBlur(rng.integers(0, 256, (SIZE, SIZE), np.uint8), (0, 0), 2)]
    assert not has_soft_edges(*counted(noise))


def test_only_what_has_eight_equal_neighbours_is_solid() -> None:
    mask = np.zeros((5, 6), np.uint8)
    mask[1:4, 1:4] = 7
    assert solid_pixels(mask) == {7: 1}
    assert solid_pixels(np.ones((4, 4), int)) == {1: 4}
    assert solid_pixels(np.ones((1, 2), int)) == {}
