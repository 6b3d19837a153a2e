"""Where crops lie: inside the image, on foreground in the share asked for, on each class alike."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medt.data.crops import Crops, Sample, cut, mirrored
from medt.errors import UserError


def centre_ids(mask: np.ndarray, share: float, draws: int = 400) -> Counter[int]:
    """How often the centre of a crop of 9 x 9 pixels lies on each class."""
    crops, rng = Crops(share), np.random.default_rng(0)
    corners = [crops.place(mask, (9, 9), rng) for _ in range(draws)]
    return Counter(int(mask[top + 4, left + 4]) for top, left in corners)


def sparse_mask() -> np.ndarray:
    """One pixel of class 3, nine of class 7, nothing else for 97 % but ignored ones."""
    mask = np.zeros((80, 100), np.uint8)
    mask[20, 30] = 3
    mask[50:53, 60:63] = 7
    mask[:, 80:83] = 255
    return mask


def test_every_class_that_is_there_has_the_same_share_of_the_crops_on_foreground() -> None:
    centres = centre_ids(sparse_mask(), 1.0)
    assert set(centres) == {3, 7}
    assert 160 < centres[3] < 240


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_share_of_crops_on_foreground_is_the_one_asked_for(share: float) -> None:
    centres = centre_ids(sparse_mask(), share)
    assert centres[3] + centres[7] == pytest.approx(400 * share, abs=40)


def test_other_crops_may_lie_anywhere() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((8, 6), np.uint8)
    corners = {Crops(0.5).place(mask, (6, 5), rng) for _ in range(200)}
    assert corners == {(top, left) for top in range(3) for left in range(2)}


def test_ignored_pixels_are_no_foreground() -> None:
    mask = np.full((12, 12), 255, np.uint8)
    rng = np.random.default_rng(0)
    assert len({Crops(1.0).place(mask, (4, 4), rng) for _ in range(200)}) > 50


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_crop_lies_inside_and_shows_the_pixel_it_was_drawn_for(data: st.DataObject) -> None:
    height, width = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    size = data.draw(st.tuples(st.integers(1, height), st.integers(1, width)))
    mask = np.zeros((height, width), np.uint8)
    mask[data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))] = 1
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    top, left = Crops(1.0).place(mask, size, rng)
    assert 0 <= top <= height - size[0]
    assert 0 <= left <= width - size[1]
    assert mask[top : top + size[0], left : left + size[1]].any()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_margin_beyond_the_image_is_its_mirror_and_ignored(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    size = data.draw(st.tuples(st.integers(1, shape[0]), st.integers(1, shape[1])))
    corner = tuple(data.draw(st.integers(0, n - s)) for n, s in zip(shape, size, strict=True))
    margin = data.draw(st.tuples(st.integers(0, 30), st.integers(0, 30)))
    image = np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(*shape, 1)
    mask = image[..., 0] % 3
    numbers = mask.astype(np.uint16)
    crop, ids, instances = cut(Sample(image, mask, numbers), corner, size, margin)
    room = [(m, m) for m in margin]
    padded = np.pad(image, [*room, (0, 0)], mode="reflect")
    padded_ids = np.pad(mask, room, constant_values=255)
    window = tuple(slice(c, c + n + 2 * m) for c, n, m in zip(corner, size, margin, strict=True))
    np.testing.assert_array_equal(crop, padded[window])
    np.testing.assert_array_equal(ids, padded_ids[window])
    np.testing.assert_array_equal(instances, np.pad(mask, room, mode="reflect")[window])
    assert not np.shares_memory(crop, image)
    assert not np.shares_memory(ids, mask)


def test_an_axis_is_continued_by_its_mirror_image() -> None:
    assert mirrored(-3, 8, 4).tolist() == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    assert mirrored(-2, 2, 1).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("settings", [{"foreground": 1.5}, {"per_case": 0}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match="at least one crop"):
        Crops(**settings)
