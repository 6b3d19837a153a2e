"""Augmentation depends on the seed alone, keeps image and mask together, and varies."""

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
from conftest import recipe
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medt.data.augmentation import ColorJitter, Pipeline, Shadow
from medt.data.synthetic.images import synthetic_case
from medt.errors import UserError
from medt.shipped import shipped

CASE = synthetic_case(0, 1, 128)
MASK = (CASE.instances > 0).astype(np.uint8)
RECIPES = sorted((shipped("configs") / "augmentation").glob("*.yaml"))
GEOMETRY = ("affine", "elastic")
APPEARANCE = {
    "histology": ("color", "blur", "noise"),
    "strong": ("color", "blur", "noise", "gamma", "dropout"),
    "grey": ("contrast", "gamma", "blur", "noise"),
    "ultrasound": ("gain", "speckle", "gamma", "shadow"),
}
UPRIGHT = {"geometry__vertical_flip__p": 0, "geometry__quarter_turns__p": 0}


def with_probabilities(
    kind: str, geometry: float = 0.0, appearance: float = 0.0, **others: Any
) -> Pipeline:
    """A recipe whose changes of geometry, and of values, all have these probabilities."""
    chances = {f"geometry__{name}__p": geometry for name in GEOMETRY}
    chances |= {f"appearance__{name}__p": appearance for name in APPEARANCE[kind]}
    found: Pipeline = recipe(kind, **chances | others)
    return found


EVERYTHING = [with_probabilities(kind, 1.0, 1.0) for kind in APPEARANCE]
DEFAULTS = [recipe(path.stem) for path in RECIPES]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_key_of_a_recipe_is_explained(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        assert len(line) <= 100
        assert "#" in line or before.strip().startswith("#"), line
    assert f"name: {path.stem}  #" in path.read_text(encoding="utf-8")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_mask_never_gains_a_value_in_any_group_at_any_size(data: st.DataObject) -> None:
    augmentation = data.draw(st.sampled_from([*DEFAULTS, *EVERYTHING]))
    size = data.draw(st.tuples(st.integers(1, 48), st.integers(1, 48)))
    ids = data.draw(st.lists(st.sampled_from([0, 1, 2, 7, 128, 254, 255]), min_size=1, max_size=3))
    mask = data.draw(arrays(np.uint8, size, elements=st.sampled_from(ids)))
    image = np.repeat(mask[..., None], data.draw(st.sampled_from([1, 3, 5])), axis=2)
    margin = augmentation.margin(*size) if data.draw(st.booleans()) else (0, 0)
    larger = np.pad(image, [*((m, m) for m in margin), (0, 0)], mode="reflect")
    larger_mask = np.pad(mask, [(m, m) for m in margin], mode="reflect")
    changed, changed_mask = augmentation(larger, larger_mask, data.draw(st.integers(0, 999)), size)
    assert changed.shape == image.shape
    assert changed_mask.shape == mask.shape
    assert changed.dtype == changed_mask.dtype == np.uint8
    assert set(np.unique(changed_mask)) <= set(np.unique(mask))


@pytest.mark.parametrize("augmentation", EVERYTHING, ids=APPEARANCE)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [(32, 32), (48, 32)])
def test_shape_type_and_inputs_are_kept(
    size: tuple[int, int], channels: int, augmentation: Pipeline
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)
    mask = np.random.default_rng(1).choice([0, 1, 255], size).astype(np.uint8)
    originals = image.copy(), mask.copy()
    for seed in range(3):
        changed, changed_mask = augmentation(image, mask, seed)
        assert changed.shape == image.shape
        assert changed_mask.shape == size
        assert changed.dtype == changed_mask.dtype == np.uint8
        assert changed.flags.c_contiguous
        assert changed_mask.flags.c_contiguous
    np.testing.assert_array_equal(image, originals[0])
    np.testing.assert_array_equal(mask, originals[1])


@pytest.mark.parametrize("augmentation", EVERYTHING, ids=APPEARANCE)
def test_the_seed_decides_everything(augmentation: Pipeline) -> None:
    other = pickle.loads(pickle.dumps(augmentation))
    first = augmentation(CASE.image, MASK, 7)
    augmentation(CASE.image, MASK, 8)
    np.random.seed(1)
    for again in (augmentation(CASE.image, MASK, 7), other(CASE.image, MASK, 7)):
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])
    assert np.any(augmentation(CASE.image, MASK, 8)[0] != first[0])


@pytest.mark.parametrize("kind", APPEARANCE)
def test_image_and_mask_move_together(kind: str) -> None:
    move = with_probabilities(kind, geometry=1.0)
    blob = np.zeros((128, 128), np.uint8)
    blob[30:70, 40:90] = 1
    for seed in range(20):
        image, mask = move(np.repeat(blob[..., None] * np.uint8(255), 3, axis=2), blob, seed)
        assert np.mean((image[..., 0] > 127) == (mask == 1)) > 0.99


@pytest.mark.parametrize("kind", APPEARANCE)
def test_beyond_the_edge_lies_tissue_not_black(kind: str) -> None:
    turn = with_probabilities(kind, geometry=1.0)
    white = np.full((64, 64, 3), 240, np.uint8)
    for seed in range(10):
        image, mask = turn(white, np.ones((64, 64), np.uint8), seed)
        assert image.min() == 240
        assert mask.min() == 1


@pytest.mark.parametrize("kind", APPEARANCE)
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_the_margin_is_what_the_largest_turn_and_zoom_need(
    kind: str, size: tuple[int, int]
) -> None:
    """A bright frame just outside of it is never seen; with less margin it would be."""
    still = {"geometry__affine__translate_percent": 0.0, "geometry__elastic__strength": 0.0}
    turn = with_probabilities(kind, geometry=1.0, **still)
    margin = turn.margin(*size)
    larger = [n + 2 * m + 2 for n, m in zip(size, margin, strict=True)]
    image = np.full((*larger, 1), 255, np.uint8)
    image[1:-1, 1:-1] = 0
    seen = [turn(image, image[..., 0], seed, size)[0].max() for seed in range(40)]
    assert max(seen) == 0
    tight = np.ascontiguousarray(image[8:-8, 8:-8])
    tight[[0, -1]], tight[:, [0, -1]] = 255, 255
    assert max(turn(tight, tight[..., 0], seed, size)[0].max() for seed in range(200)) > 0


def test_the_two_flips_are_independent() -> None:
    tiny = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    flip = recipe("flip")
    outcomes = Counter(
        tuple(flip(tiny, tiny[..., 0], seed)[0].ravel().tolist()) for seed in range(400)
    )
    assert set(outcomes) == {(0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)}
    assert min(outcomes.values()) > 60


@pytest.mark.parametrize("kind", ["histology", "strong", "grey"])
def test_a_square_takes_all_eight_positions(kind: str) -> None:
    tiny = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    turns = with_probabilities(kind)
    outcomes = Counter(
        tuple(turns(tiny, tiny[..., 0], seed)[1].ravel().tolist()) for seed in range(400)
    )
    assert len(outcomes) == 8
    assert min(outcomes.values()) > 20


@pytest.mark.parametrize(
    "upright", [with_probabilities("ultrasound"), with_probabilities("grey", **UPRIGHT)]
)
def test_where_up_and_down_differ_only_left_and_right_are_mirrored(upright: Pipeline) -> None:
    tiny = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    outcomes = {tuple(upright(tiny, tiny[..., 0], seed)[1].ravel().tolist()) for seed in range(50)}
    assert outcomes == {(0, 1, 2, 3), (1, 0, 3, 2)}


def test_stain_changes_by_channel_in_colour_and_alike_otherwise() -> None:
    only_color = with_probabilities("histology", appearance__color__p=1.0)
    shifts = []
    for seed in range(200):
        changed = only_color(CASE.image, MASK, seed)[0]
        shifts.append(changed.mean(axis=(0, 1)) - CASE.image.mean(axis=(0, 1)))
    deviation = CASE.image.std(axis=(0, 1))
    assert np.std(shifts, axis=0) / deviation == pytest.approx(0.15, abs=0.04)
    assert abs(np.corrcoef(np.transpose(shifts))[0, 1]) < 0.2
    for channels in (2, 3):
        grey = np.repeat(CASE.image[..., :1], channels, axis=2)
        changed = only_color(grey, MASK, 0)[0]
        np.testing.assert_array_equal(changed, np.repeat(changed[..., :1], channels, axis=2))
        assert np.any(changed != grey)


def test_grey_images_stay_grey() -> None:
    grey = np.repeat(CASE.image[..., :1], 3, axis=2)
    for kind in ("grey", "ultrasound"):
        changed = with_probabilities(kind, 1.0, 1.0)(grey, MASK, 0)[0]
        np.testing.assert_array_equal(changed[..., 0], changed[..., 1])
        np.testing.assert_array_equal(changed[..., 0], changed[..., 2])


def test_what_is_black_in_an_ultrasound_image_stays_black() -> None:
    fan = CASE.image.copy()
    fan[:, :30] = 0
    only_values = with_probabilities("ultrasound", appearance=1.0)
    for seed in range(10):
        changed = only_values(fan, MASK, seed)[0]
        black = changed.max(axis=(0, 2)) == 0
        assert black[:30].all() or black[-30:].all()


def test_a_shadow_darkens_a_column_from_some_depth_down_to_the_bottom() -> None:
    flat = np.full((100, 100, 1), 200, np.uint8)
    shadow = with_probabilities("ultrasound", appearance__shadow__p=1.0)
    for seed in range(20):
        changed = shadow(flat, flat[..., 0], seed)[0][..., 0].astype(int)
        assert set(changed[:10].ravel()) == {200}
        deepest = changed[-1]
        assert 200 * 0.15 <= deepest.min() <= 200 * 0.65
        assert (np.diff(changed, axis=0) <= 0).all()
        assert deepest.max() > 190


def test_gain_over_depth_is_the_same_across() -> None:
    flat = np.full((90, 40, 1), 100, np.uint8)
    gain = with_probabilities("ultrasound", appearance__gain__p=1.0)
    changed = gain(flat, flat[..., 0], 1)[0]
    assert np.ptp(changed, axis=1).max() == 0
    assert 70 <= changed.min() < changed.max() <= 130


def test_speckle_is_multiplicative() -> None:
    steps = np.repeat(np.array([[50], [200]], np.uint8), 64, axis=0)[..., None]
    steps = np.ascontiguousarray(np.repeat(steps, 128, axis=1))
    changes = {"appearance__speckle__p": 1.0, "appearance__speckle__strength": 0.1}
    speckle = with_probabilities("ultrasound", **changes)
    changed = speckle(steps, steps[..., 0], 0)[0][..., 0].astype(float)
    assert changed[:64].std() == pytest.approx(5, rel=0.15)
    assert changed[64:].std() == pytest.approx(20, rel=0.15)


def test_boxes_hide_parts_of_the_image_and_nothing_of_the_mask() -> None:
    white = np.full((128, 128, 3), 255, np.uint8)
    hide = with_probabilities("strong", appearance__dropout__p=1.0)
    shares = []
    for seed in range(50):
        image, mask = hide(white, MASK, seed)
        hidden = (image == 0).all(axis=2)
        assert hidden.any()
        assert np.array_equal(image[~hidden], np.full_like(image[~hidden], 255))
        assert mask.sum() == MASK.sum()
        shares.append(hidden.mean())
    assert max(shares) <= 6 * 0.2**2


@pytest.mark.parametrize("kind", APPEARANCE)
def test_probabilities_are_those_given(kind: str) -> None:
    nothing = with_probabilities(kind)
    for change in APPEARANCE[kind]:
        often = with_probabilities(kind, **{f"appearance__{change}__p": 0.5})
        changed = sum(
            bool(np.any(often(CASE.image, MASK, seed)[0] != nothing(CASE.image, MASK, seed)[0]))
            for seed in range(100)
        )
        assert 30 < changed < 70, change


MIRROR = {"border_mode": 4}


@pytest.mark.parametrize(
    ("geometry", "appearance", "culprit"),
    [
        ([A.NoOp(), "blur"], [], r"geometry\.1 is no transform"),
        ({"own": Pipeline()}, [], r"geometry\.own is no transform"),
        ([], {"one": A.OneOf([A.NoOp()], p=1.5)}, r"appearance\.one\.p=1\.5"),
        ([A.Affine(scale=(0, 1), **MIRROR)], [], r"geometry\.0\.scale=0"),
        ([A.Affine()], [], r"geometry\.0\.fill_mask=0.* fill_mask: 255 .* border_mode: 4"),
        ([A.OneOf([A.NoOp(), A.Rotate()])], [], r"geometry\.0\.transforms\.1\.fill_mask=0"),
        ([], [A.CoarseDropout(fill_mask=1)], r"appearance\.0\.fill_mask=1"),
        ([], [A.PixelDropout(mask_drop_value=1)], r"appearance\.0\.mask_drop_value=1"),
    ],
)
def test_what_would_harm_a_mask_is_refused(geometry: Any, appearance: Any, culprit: str) -> None:
    with pytest.raises(UserError, match=culprit):
        Pipeline(geometry, appearance)


@pytest.mark.parametrize(
    ("make", "culprit"),
    [(lambda: ColorJitter(-1, 0), "gain=-1"), (lambda: Shadow(1.1), r"strength=1\.1.*from 0 to 1")],
)
def test_faulty_settings_are_refused(make: Any, culprit: str) -> None:
    with pytest.raises(UserError, match=culprit):
        make()


@pytest.mark.parametrize(
    "change",
    [
        A.Resize(9, 9),
        A.ToFloat(),
        A.RandomCrop(9, 9, fill_mask=255),
        A.ToGray(1, p=1),
        A.Pad(1, fill_mask=255),
    ],
)
def test_a_change_of_size_or_type_is_one_line(change: Any) -> None:
    change.p = 1.0
    with pytest.raises(UserError, match="augmentation") as caught:
        Pipeline([change])(CASE.image, MASK, 0)
    assert "\n" not in str(caught.value)


def test_beyond_a_constant_border_a_mask_is_ignored() -> None:
    turn = Pipeline([A.Affine(rotate=(30, 30), fill_mask=255, p=1)])
    _, mask = turn(CASE.image, MASK, 0)
    assert set(np.unique(mask)) == {0, 1, 255}
    assert mask[0, 0] == 255


def test_masks_are_resampled_by_the_nearest_pixel_whatever_is_said() -> None:
    turn = Pipeline([A.OneOf([A.Affine(rotate=(9, 9), mask_interpolation=1, **MIRROR)], p=1)])
    _, mask = turn(CASE.image, MASK * 200, 0)
    assert set(np.unique(mask)) == {0, 200}


def test_a_mapping_is_a_list_of_its_values_and_a_choice_is_one_change() -> None:
    changes = {"flip": A.HorizontalFlip(p=1), "one": A.OneOf([A.NoOp(), A.Transpose()], p=1)}
    named, listed = Pipeline(changes), Pipeline(list(changes.values()))
    seen = set()
    for seed in range(20):
        image, mask = named(CASE.image, MASK, seed)
        np.testing.assert_array_equal(image, listed(CASE.image, MASK, seed)[0])
        flipped = MASK[:, ::-1]
        seen.add(next(i for i, m in enumerate((flipped, flipped.T)) if np.array_equal(mask, m)))
    assert seen == {0, 1}


def test_the_margin_counts_every_affine_change_that_happens() -> None:
    zoom = {"scale": (0.5, 1), **MIRROR}
    assert Pipeline([A.Affine(**zoom, p=1)]).margin(20, 40) == (10, 20)
    assert Pipeline([A.OneOf([A.NoOp(), A.Affine(**zoom)])]).margin(20, 40) == (10, 20)
    assert Pipeline([A.Affine(**zoom, p=0)], [A.Affine(**zoom)]).margin(20, 40) == (0, 0)
    assert Pipeline([A.Affine(**zoom), A.Affine(**zoom)]).margin(20, 40) == (20, 40)
