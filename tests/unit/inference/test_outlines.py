"""Outlines along pixel edges: shapely and skimage as oracles, on random and awkward masks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from shapely.geometry import Point, shape
from skimage.measure import label

from medt.data.layout import SegmentationClass
from medt.inference.outlines import feature_collection, polygons

CLASSES = [
    SegmentationClass(0, "background", (0, 0, 0)),
    SegmentationClass(1, "gland", (0, 158, 115)),
    SegmentationClass(2, "lumen", (230, 159, 0)),
]
MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def collection(ids, objects=None):
    numbers = label(ids, connectivity=2) if objects is None else objects
    return feature_collection(ids.astype(np.uint8), numbers.astype(np.int32), CLASSES)


@settings(max_examples=200, deadline=None)
@given(MASKS)
def test_every_outline_is_valid_and_encloses_exactly_its_pixels(mask):
    objects = label(mask, connectivity=2)
    features = collection(mask)["features"]
    assert len(features) == objects.max()
    for number, feature in enumerate(features, start=1):
        geometry = shape(feature["geometry"])
        assert geometry.is_valid
        assert geometry.area == (objects == number).sum()
        inside = [
            (y, x)
            for y in range(mask.shape[0])
            for x in range(mask.shape[1])
            if geometry.contains(Point(x + 0.5, y + 0.5))
        ]
        np.testing.assert_array_equal(inside, np.argwhere(objects == number))


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_outer_rings_turn_one_way_and_holes_the_other(mask):
    for outer, *holes in polygons(mask):
        assert area(outer) > 0
        assert all(area(hole) < 0 for hole in holes)
        for ring in (outer, *holes):
            assert (ring[0] == ring[-1]).all()
            steps = np.diff(ring, axis=0)
            assert ((steps == 0).sum(axis=1) == 1).all()  # along rows and columns in turn
            assert ((steps[1:] == 0) != (steps[:-1] == 0)).all()


def area(ring):
    x, y = ring.T
    return (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2


def test_by_hand():
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    ((outer, hole),) = polygons(ring)
    assert outer.tolist() == [[0, 0], [3, 0], [3, 3], [0, 3], [0, 0]]
    assert sorted(map(tuple, hole[1:].tolist())) == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_pixels_that_touch_at_a_corner_are_parts_of_one_object():
    (feature,) = collection(np.eye(2, dtype=bool))["features"]
    assert feature["geometry"]["type"] == "MultiPolygon"
    assert shape(feature["geometry"]).area == 2


def test_touching_objects_keep_their_own_outlines_and_classes():
    ids = np.array([[1, 1, 2], [0, 1, 2]])
    objects = np.array([[1, 1, 3], [0, 1, 3]])  # 2 was removed
    first, second = collection(ids, objects)["features"]
    assert shape(first["geometry"]).area == 3
    assert shape(second["geometry"]).area == 2
    properties = second["properties"]
    assert properties["objectType"] == "annotation"
    assert properties["classification"] == {"name": "lumen", "color": [230, 159, 0]}
    assert properties["name"] == "lumen 3"


@pytest.mark.parametrize("mask", [np.zeros((4, 5), bool), np.ones((4, 5), bool)])
def test_nothing_and_everything(mask):
    found = collection(mask)
    assert len(found["features"]) == int(mask.any())
    assert json.loads(json.dumps(found)) == found
