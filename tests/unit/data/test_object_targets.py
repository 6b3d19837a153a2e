"""Objects as a target: what a perfect network would say gives the objects back."""

from __future__ import annotations

from dataclasses import replace

import albumentations as A
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medt.data import objects
from medt.data.augmentation import Pipeline
from medt.data.dataset import SegmentationDataset
from medt.data.layout import Case
from medt.data.objects import FULL, KINDS, ObjectTarget, typical_area
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError
from medt.inference.instances import InstanceRule, find_objects
from medt.io.files import write_png
from medt.metrics.pixel import IGNORE_INDEX

SIZE = 160
LARGE = 200  # pixels of an object that is drawn


def discs(rng, count, classes=1):
    """Numbered discs, the later ones behind the former, and the class of each pixel."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    instances, mask = np.zeros((SIZE, SIZE), np.uint16), np.zeros((SIZE, SIZE), np.uint8)
    number = 0
    for _ in range(count):
        row, column = rng.integers(0, SIZE, 2)
        radius = rng.integers(10, 28)
        free = ((rows - row) ** 2 + (columns - column) ** 2 <= radius**2) & (instances == 0)
        pieces, found = ndimage.label(free)
        areas = np.bincount(pieces.ravel(), minlength=found + 1)[1:]
        if found and areas.max() >= LARGE:
            body = ndimage.binary_opening(pieces == 1 + areas.argmax(), iterations=4)
            pieces, found = ndimage.label(body)
            if not found:
                continue
            body = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
            number += 1
            instances[body], mask[body] = number, rng.integers(1, classes + 1)
    return instances, mask


def said(kind, instances, mask, width=2):
    """The depths of a network that has learnt the target."""
    target = ObjectTarget(kind, width).of(instances, mask).astype(np.float32) / FULL
    return 1 - target if kind == "borders" else target


def dices(instances, found):
    """Of each object with the one that covers it most."""
    scores = []
    for number in range(1, int(instances.max()) + 1):
        true = instances == number
        covering = np.bincount(found[true])
        covering[0] = 0
        predicted = found == covering.argmax() if covering.any() else np.zeros_like(true)
        scores.append(2 * (true & predicted).sum() / (true.sum() + predicted.sum()))
    return np.array(scores)


@pytest.mark.parametrize("kind", KINDS[1:])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 25), classes=st.integers(1, 3))
def test_a_perfect_network_gives_the_objects_back(kind, seed, count, classes):
    instances, mask = discs(np.random.default_rng(seed), count, classes)
    rule = InstanceRule("seeds", smoothing=0, depth=0.5)
    cleaned, found = find_objects(mask, rule, said(kind, instances, mask))
    np.testing.assert_array_equal(cleaned, mask)
    if instances.any():
        assert dices(instances, found).mean() > 0.98


@pytest.mark.parametrize("kind", KINDS[1:])
def test_touching_objects_are_parted(kind):
    instances = np.zeros((40, 60), np.uint16)
    instances[5:35, 5:30], instances[5:35, 30:55] = 1, 2
    mask = (instances > 0).astype(np.uint8)
    depths = said(kind, instances, mask)
    _, found = find_objects(mask, InstanceRule("seeds", smoothing=1, depth=0.3), depths)
    assert found.max() == 2
    assert dices(instances, found).min() > 0.98
    _, together = find_objects(mask, InstanceRule("components"))
    assert together.max() == 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_an_object_is_of_one_class_whatever_the_network_says(seed):
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 4, (30, 30)).astype(np.uint8)
    depths = rng.random((30, 30), np.float32)
    cleaned, found = find_objects(mask, InstanceRule("seeds", depth=0.1), depths)
    np.testing.assert_array_equal(cleaned, mask)
    assert all(len(np.unique(mask[found == n])) == 1 for n in range(1, found.max() + 1))
    np.testing.assert_array_equal(found > 0, mask > 0)


def test_borders_lie_within_the_object_and_twice_as_wide_where_another_is_near():
    instances = np.zeros((40, 60), np.uint16)
    instances[5:35, 5:28], instances[5:35, 30:55] = 1, 2
    mask = (instances > 0).astype(np.uint8)
    border = ObjectTarget("borders", 2).of(instances, mask)[20] > 0
    expected = np.zeros(60, bool)
    expected[[5, 6, 53, 54]] = True  # far from the other one: two pixels
    expected[26:32] = True  # near it: up to four, and the background between
    np.testing.assert_array_equal(border[:20], expected[:20])
    np.testing.assert_array_equal(border[40:], expected[40:])
    assert border[26:32].all()
    assert not border[20:24].any()


def test_the_distance_is_relative_to_each_object():
    instances = np.zeros((64, 64), np.uint16)
    instances[2:23, 2:23], instances[30:61, 30:61] = 1, 2
    target = ObjectTarget("distance").of(instances, (instances > 0).astype(np.uint8))
    assert target[12, 12] == target[45, 45] == FULL
    assert target[2, 12] == round(FULL / 11)
    assert target[30, 45] == round(FULL / 16)
    assert not target[instances == 0].any()


def test_the_image_edge_is_no_edge_of_an_object():
    instances = np.ones((20, 20), np.uint16)
    assert not ObjectTarget("borders").of(instances, np.ones((20, 20), np.uint8)).any()
    instances[:, 10:] = 0
    border = ObjectTarget("borders").of(instances, (instances > 0).astype(np.uint8))
    np.testing.assert_array_equal(border[0], border[10])


def test_ignored_pixels_are_ignored_and_belong_to_no_object():
    instances = np.ones((20, 20), np.uint16)
    mask = np.ones((20, 20), np.uint8)
    mask[:, :8] = IGNORE_INDEX
    target = ObjectTarget("distance").of(instances, mask)
    assert (target[:, :8] == IGNORE_INDEX).all()
    assert target[:, 8:].max() <= FULL


def test_a_thin_object_keeps_an_interior():
    instances = np.zeros((20, 40), np.uint16)
    instances[8:11, 5:35] = 1
    target = ObjectTarget("borders", 4).of(instances, (instances > 0).astype(np.uint8))
    assert (target[9, 6:34] == 0).all()


@pytest.mark.parametrize(("kind", "width"), [("edges", 2), ("none", 2), ("borders", 0)])
def test_unknown_kinds_and_widths_are_refused(kind, width):
    with pytest.raises(UserError, match=r"dataset\.(objects|border_width)="):
        ObjectTarget(kind, width)


class TestTraining:
    """What a dataset gives a training whose target are objects."""

    def dataset(self, tmp_path, **options):
        case = make_case(tmp_path)
        steps = Preprocessing((SIZE, SIZE), 3, (0.5,) * 3, (0.25,) * 3)
        return SegmentationDataset([case], steps, objects=ObjectTarget("distance"), **options)

    def test_an_item_has_the_target_of_its_transformed_instances(self, tmp_path):
        plain = self.dataset(tmp_path)
        dataset = self.dataset(tmp_path, augmentation=Pipeline([A.HorizontalFlip(p=1)]))
        item = dataset[1, 0]
        np.testing.assert_array_equal(item["objects"], plain[0, 0]["objects"].flip(1))
        np.testing.assert_array_equal(item["mask"], plain[0, 0]["mask"].flip(1))

    def test_what_a_transform_fills_is_ignored_and_no_object(self, tmp_path):
        shift = A.Affine(translate_percent=0.5, rotate=0, scale=1, fill_mask=255, p=1)
        item = self.dataset(tmp_path, augmentation=Pipeline([shift]))[1, 0]
        filled = item["mask"] == IGNORE_INDEX
        assert filled.any()
        assert (item["objects"][filled] == IGNORE_INDEX).all()
        assert (item["objects"][~filled] <= FULL).all()

    def test_an_image_of_nothing_but_objects_keeps_them_all(self, tmp_path):
        case = make_case(tmp_path)
        instances = np.full((SIZE, SIZE), 700, np.uint16)
        instances[:, SIZE // 2 :] = 900
        write_png(case.instances, instances)
        write_png(case.mask, np.ones((SIZE, SIZE), np.uint8))
        steps = Preprocessing((SIZE, SIZE), 3, (0.5,) * 3, (0.25,) * 3)
        dataset = SegmentationDataset([case], steps, objects=ObjectTarget("distance"))
        np.testing.assert_array_equal(dataset.pair(0).instances[0, [0, -1]], [1, 2])
        assert dataset[0, 0]["objects"].min() > 0

    def test_a_dataset_without_instances_is_refused(self, tmp_path):
        case = replace(make_case(tmp_path), instances=None)
        steps = Preprocessing((SIZE, SIZE), 3, (0.5,) * 3, (0.25,) * 3)
        with pytest.raises(UserError, match=r"dataset\.objects=borders needs numbered objects"):
            SegmentationDataset([case], steps, objects=ObjectTarget("borders"))


class TestTypicalArea:
    """How large the objects of cases are."""

    def case(self, folder, name, *areas):
        numbers = np.repeat(np.arange(len(areas) + 1), [5, *areas]).astype(np.uint16)[None]
        write_png(folder / f"{name}.png", numbers)
        return Case(name, folder / "image.png", None, folder / f"{name}.png", "", "train")

    def test_is_the_median_over_the_objects_of_all_cases(self, tmp_path):
        cases = [self.case(tmp_path, "a", 2, 3), self.case(tmp_path, "b", 90)]
        assert typical_area(cases, None) == 3

    def test_cases_are_spread_evenly(self, tmp_path, monkeypatch):
        monkeypatch.setattr(objects, "LOOKED_AT", 2)
        cases = [self.case(tmp_path, str(i), 10 + i) for i in range(3)]
        assert typical_area(cases, None) == 11  # of the first and the third

    def test_without_an_object_there_is_none(self, tmp_path):
        assert typical_area([self.case(tmp_path, "a")], None) is None
        assert typical_area([], None) is None

    def test_a_file_that_cannot_be_read_is_named(self, tmp_path):
        case = self.case(tmp_path, "a", 2)
        case.instances.write_bytes(b"none")
        with pytest.raises(UserError, match=r"a\.png"):
            typical_area([case], None)


def make_case(folder):
    rng = np.random.default_rng(0)
    instances, mask = discs(rng, 12)
    files = {name: folder / f"{name}.png" for name in ("image", "mask", "instances")}
    write_png(files["image"], rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8))
    write_png(files["mask"], mask)
    write_png(files["instances"], instances)
    return Case("a", files["image"], files["mask"], files["instances"], "", "train")
