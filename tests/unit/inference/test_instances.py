"""Objects of a mask: components, holes, small ones, and touching ones parted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import area_opening

from medt.errors import UserError
from medt.inference.instances import InstanceRule, find_objects

MASKS = arrays(
    np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 2)
)
BINARY = arrays(np.uint8, (16, 16), elements=st.integers(0, 1))
RULES = st.builds(
    InstanceRule,
    st.sampled_from(["none", "components", "watershed"]),
    smallest=st.integers(0, 12),
    largest_hole=st.integers(0, 12),
    smoothing=st.sampled_from([0.0, 1.0]),
    seed_distance=st.integers(1, 4),
)


def disks(*centres, radius=10, size=(40, 60)):
    rows, columns = np.ogrid[: size[0], : size[1]]
    inside = [(rows - y) ** 2 + (columns - x) ** 2 <= radius**2 for y, x in centres]
    return np.any(inside, axis=0).astype(np.uint8)


class TestNone:
    @given(MASKS)
    def test_leaves_the_mask_and_numbers_its_components(self, ids):
        cleaned, objects = find_objects(ids, InstanceRule())
        assert (cleaned == ids).all()
        for class_id in (1, 2):
            ours = objects * (ids == class_id)
            theirs = label(ids == class_id, connectivity=2)
            pairs = set(zip(ours.ravel().tolist(), theirs.ravel().tolist(), strict=True))
            assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})

    def test_uses_no_numbers(self):
        ids = disks((20, 20))
        ids[20, 20] = 0
        rule = InstanceRule(smallest=10_000, largest_hole=10_000)
        assert (find_objects(ids, rule)[0] == ids).all()
        assert rule.to_dict() == {"method": "none"}


class TestComponents:
    @given(BINARY, st.integers(0, 20), st.integers(0, 20))
    def test_is_what_scikit_image_does(self, ids, smallest, largest_hole):
        inside = ndimage.binary_fill_holes(ids) & (ids == 0)  # enclosed; 4-connected outside
        holes = inside & ~area_opening(inside, largest_hole + 1, connectivity=1)
        filled = (ids > 0) | holes
        expected = area_opening(filled, smallest, connectivity=2)
        cleaned, _ = find_objects(ids, InstanceRule("components", smallest, largest_hole))
        assert (cleaned == expected).all()

    def test_a_bay_at_the_image_edge_is_no_hole(self):
        ids = np.ones((9, 9), np.uint8)
        ids[0:3, 4] = 0
        assert (find_objects(ids, InstanceRule("components", 0, 50))[0] == ids).all()

    def test_a_hole_that_holds_another_class_keeps_it(self):
        ids = np.ones((9, 9), np.uint8)
        ids[3:6, 3:6] = 0
        ids[4, 4] = 2
        cleaned, _ = find_objects(ids, InstanceRule("components", 0, 9))
        assert cleaned[4, 4] == 2
        assert (np.delete(cleaned.ravel(), 40) == 1).all()

    def test_the_smallest_size_is_kept(self):
        ids = np.zeros((5, 9), np.uint8)
        ids[1, 1:4] = 1
        ids[3, 1:3] = 1
        ids[3, 7] = 1
        cleaned, objects = find_objects(ids, InstanceRule("components", 3))
        assert cleaned.sum() == 3
        assert objects.max() == 1


class TestWatershed:
    def test_parts_touching_disks(self):
        ids = disks((20, 15), (20, 33))
        _, together = find_objects(ids, InstanceRule("components"))
        cleaned, objects = find_objects(ids, InstanceRule("watershed"))
        assert together.max() == 1
        assert objects.max() == 2
        assert (cleaned == ids).all()
        assert objects[20, 15] != objects[20, 33]
        areas = np.bincount(objects.ravel())[1:]
        assert areas[0] == pytest.approx(areas[1], rel=0.05)

    def test_one_disk_stays_one(self):
        assert find_objects(disks((20, 30), radius=15), InstanceRule("watershed"))[1].max() == 1

    def test_centres_that_are_too_near_stay_together(self):
        ids = disks((20, 15), (20, 33))
        assert find_objects(ids, InstanceRule("watershed", seed_distance=30))[1].max() == 1

    @given(BINARY)
    def test_no_component_is_lost_or_joined(self, ids):
        _, objects = find_objects(ids, InstanceRule("watershed"))
        regions = label(ids, connectivity=2)
        assert ((objects > 0) == (ids > 0)).all()
        for number in range(1, objects.max() + 1):
            assert len(np.unique(regions[objects == number])) == 1


@given(MASKS, RULES)
def test_every_object_is_of_one_class_and_of_the_least_size(ids, rule):
    cleaned, objects = find_objects(ids, rule)
    assert ((objects > 0) == (cleaned > 0)).all()
    assert set(np.unique(objects)) - {0} == set(range(1, objects.max() + 1))
    for number in range(1, objects.max() + 1):
        assert len(np.unique(cleaned[objects == number])) == 1
        if rule.method != "none":
            assert (objects == number).sum() >= rule.smallest


@given(MASKS, RULES)
def test_only_background_is_filled_and_nothing_becomes_another_class(ids, rule):
    cleaned, _ = find_objects(ids, rule)
    changed = (cleaned != ids) & (ids > 0)
    assert (cleaned[changed] == 0).all()


def test_the_rule_reads_as_on_the_command_line():
    rule = InstanceRule("watershed", 30, 40)
    assert str(rule) == (
        "postprocess=watershed postprocess.smallest=30 postprocess.largest_hole=40 "
        "postprocess.smoothing=1.0 postprocess.seed_distance=5"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("method", "opening"),
        ("smallest", -1),
        ("largest_hole", -2),
        ("smoothing", float("nan")),
        ("seed_distance", 0),
    ],
)
def test_an_impossible_rule_is_refused(key, value):
    with pytest.raises(UserError, match=rf"postprocess\.{key}={value}"):
        InstanceRule(**{key: value})
