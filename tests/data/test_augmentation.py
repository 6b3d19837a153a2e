"""Augmentation depends on the seed alone, keeps image and mask together, and varies."""

import os
import pickle
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from medt.data.augmentation import Flip, Histology
from medt.data.synthetic import synthetic_case
from medt.errors import UserError

CASE = synthetic_case(0, 1, 128)
MASK = (CASE.instances > 0).astype(np.uint8)
EVERYTHING = {
    f"{part}_probability": 1.0 for part in ("affine", "elastic", "color", "blur", "noise")
}
GEOMETRY = {"color_probability": 0.0, "blur_probability": 0.0, "noise_probability": 0.0}


def test_importing_it_asks_no_package_index() -> None:
    code = "import medt.data.augmentation, os; print(os.environ['NO_ALBUMENTATIONS_UPDATE'])"
    environment = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"


def test_the_two_flips_are_independent() -> None:
    tiny = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    flip = Flip()
    outcomes = Counter(
        tuple(flip(tiny, tiny[..., 0], seed)[0].ravel().tolist()) for seed in range(400)
    )
    assert set(outcomes) == {(0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)}
    assert min(outcomes.values()) > 60


def test_a_square_takes_all_eight_positions() -> None:
    tiny = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    turns = Histology(affine_probability=0, elastic_probability=0, **GEOMETRY)
    outcomes = Counter(
        tuple(turns(tiny, tiny[..., 0], seed)[1].ravel().tolist()) for seed in range(400)
    )
    assert len(outcomes) == 8
    assert min(outcomes.values()) > 20


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [(32, 32), (48, 32)])
def test_shape_type_and_inputs_are_kept(size: tuple[int, int], channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)
    mask = np.random.default_rng(1).choice([0, 1, 255], size).astype(np.uint8)
    originals = image.copy(), mask.copy()
    for seed in range(5):
        changed, changed_mask = Histology(**EVERYTHING)(image, mask, seed)
        assert changed.shape == image.shape
        assert changed_mask.shape == size
        assert changed.dtype == changed_mask.dtype == np.uint8
        assert changed.flags.c_contiguous
        assert changed_mask.flags.c_contiguous
        assert set(np.unique(changed_mask)) <= {0, 1, 255}
    np.testing.assert_array_equal(image, originals[0])
    np.testing.assert_array_equal(mask, originals[1])


def test_the_seed_decides_everything() -> None:
    one, other = Histology(**EVERYTHING), pickle.loads(pickle.dumps(Histology(**EVERYTHING)))
    first = one(CASE.image, MASK, 7)
    one(CASE.image, MASK, 8)
    np.random.seed(1)
    for again in (one(CASE.image, MASK, 7), other(CASE.image, MASK, 7)):
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])
    assert np.any(one(CASE.image, MASK, 8)[0] != first[0])


def test_image_and_mask_move_together() -> None:
    move = Histology(affine_probability=1, elastic_probability=1, **GEOMETRY)
    blob = np.zeros((128, 128), np.uint8)
    blob[30:70, 40:90] = 1
    for seed in range(20):
        image, mask = move(np.repeat(blob[..., None] * np.uint8(255), 3, axis=2), blob, seed)
        assert np.mean((image[..., 0] > 127) == (mask == 1)) > 0.99


def test_beyond_the_edge_lies_tissue_not_black() -> None:
    turn = Histology(affine_probability=1, elastic_probability=1, **GEOMETRY)
    white = np.full((64, 64, 3), 240, np.uint8)
    for seed in range(10):
        image, mask = turn(white, np.ones((64, 64), np.uint8), seed)
        assert image.min() == 240
        assert mask.min() == 1


def test_stain_changes_by_channel_in_colour_and_alike_otherwise() -> None:
    only_color = Histology(
        affine_probability=0,
        elastic_probability=0,
        color_probability=1,
        blur_probability=0,
        noise_probability=0,
    )
    shifts = []
    for seed in range(200):
        changed = only_color(CASE.image, MASK, seed)[0]
        shifts.append(changed.mean(axis=(0, 1)) - CASE.image.mean(axis=(0, 1)))
    deviation = CASE.image.std(axis=(0, 1))
    assert np.std(shifts, axis=0) / deviation == pytest.approx(0.15, abs=0.04)
    assert abs(np.corrcoef(np.transpose(shifts))[0, 1]) < 0.2

    pair = np.repeat(CASE.image[..., :1], 2, axis=2)
    changed = only_color(pair, MASK, 0)[0]
    np.testing.assert_array_equal(changed[..., 0], changed[..., 1])
    assert np.any(changed != pair)


def test_probabilities_are_those_given() -> None:
    nothing = Histology(**dict.fromkeys(EVERYTHING, 0.0))
    often = Histology(**{**dict.fromkeys(EVERYTHING, 0.0), "noise_probability": 0.5})
    noisy = sum(
        bool(np.any(often(CASE.image, MASK, seed)[0] != nothing(CASE.image, MASK, seed)[0]))
        for seed in range(100)
    )
    assert 30 < noisy < 70


def test_faulty_settings_are_refused() -> None:
    with pytest.raises(UserError, match=r"augmentation\.noise_probability=2"):
        Histology(noise_probability=2)
    with pytest.raises(UserError, match=r"augmentation\.zoom"):
        Histology(zoom=(1.2, 0.8))
