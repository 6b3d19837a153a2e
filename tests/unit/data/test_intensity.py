"""Values of any type reach the network as they are; images of 8 bits as they always did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from conftest import recipe
from numpy.typing import NDArray

from medt.data.intensity import Intensity
from medt.data.layout import Case
from medt.data.normalization import NORMALIZATIONS, fit_normalization
from medt.data.preprocessing import Preprocessing
from medt.drawing import displayable
from medt.errors import UserError
from medt.inference.averaging import Ensemble

Values = NDArray[Any]
SCENES: dict[str, tuple[type, float, float]] = {
    "12 bits in 16": (np.uint16, 0, 4095),
    "16 bits": (np.uint16, 300, 65000),
    "CT numbers": (np.int16, -1024, 3071),
    "a calibrated scan": (np.float32, -2.5, 740.0),
    "32 bits": (np.uint32, 0, 2**24),
}


def scene(kind: str, number: int = 0, size: tuple[int, ...] = (40, 48)) -> Values:
    dtype, low, high = SCENES[kind]
    values = np.random.default_rng(number).uniform(low, high, size)
    return values.astype(dtype) if dtype == np.float32 else np.rint(values).astype(dtype)


def cases(folder: Path, images: list[Values]) -> list[Case]:
    found = []
    for number, image in enumerate(images):
        path = folder / f"{number}.tif"
        tifffile.imwrite(path, image, photometric="rgb" if image.ndim == 3 else "minisblack")
        found.append(Case(str(number), path, None, None, "", "train"))
    return found


def fitted(train: list[Case], normalize: str, channels: int = 1, **how: Any) -> Preprocessing:
    return Preprocessing((40, 48), channels, **fit_normalization(train, normalize, channels, **how))


@pytest.mark.parametrize("kind", SCENES)
def test_dataset_standardises_the_values_themselves(kind: str, tmp_path: Path) -> None:
    images = [scene(kind, n) for n in range(3)]
    steps = fitted(cases(tmp_path, images), "dataset")
    pooled = np.stack(images).astype(np.float64)
    for image in images:
        expected = (image - pooled.mean()) / pooled.std()
        found = steps.tensor(steps.image(image))[0].numpy()
        np.testing.assert_allclose(found, expected, atol=2e-6)
    values = np.unique(images[0])
    levels = np.unique(steps.tensor(steps.image(images[0])).numpy())
    assert len(levels) == len(values), "no two values become one"


@pytest.mark.parametrize("kind", SCENES)
def test_zscore_standardises_each_image_by_itself(kind: str) -> None:
    steps = fitted([], "zscore")
    for image in (scene(kind), scene(kind, 1)):
        expected = (image - image.mean(dtype=np.float64)) / image.std(dtype=np.float64)
        np.testing.assert_allclose(steps.tensor(steps.image(image))[0], expected, atol=1e-5)
    assert not steps.tensor(steps.image(np.full((40, 48), 7, np.int16))).any()


def test_zscore_takes_each_channel_by_itself() -> None:
    image = np.stack([scene("CT numbers", 0), scene("CT numbers", 1) // 100], axis=2)
    steps = fitted([], "zscore", channels=2)
    found = steps.tensor(steps.image(image))
    torch.testing.assert_close(found.mean(dim=(1, 2)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(dim=(1, 2)), torch.ones(2), atol=1e-3, rtol=0)


def test_percentiles_of_all_images_are_one_window(tmp_path: Path) -> None:
    dark = np.arange(2000, dtype=np.uint16).reshape(40, 50)
    bright = dark + np.uint16(2000)
    steps = fitted(cases(tmp_path, [dark, bright]), "percentile_dataset")
    assert steps.window == pytest.approx((20, 3979), abs=2)
    one, other = steps.original(dark), steps.original(bright)
    assert (one.min(), other.max()) == (0, 1)
    step = 1 / (steps.window[1] - steps.window[0])
    np.testing.assert_allclose(other[5, 5] - one[5, 5], 2000 * step, rtol=1e-4)


@pytest.mark.parametrize("normalize", ["unit", "imagenet", "dataset"])
def test_a_window_is_fixed_and_clipped(normalize: str, tmp_path: Path) -> None:
    image = np.array([[-1024, -160, 40, 240, 3000]], np.int16)
    train = cases(tmp_path, [image])
    channels = 3 if normalize == "imagenet" else 1
    steps = fitted(train, normalize, channels, window=[-160, 240])
    shares = steps.original(train[0].image)
    assert shares[0, :, 0].tolist() == [0, 0, 0.5, 1, 1]
    expected = (shares - steps.mean) / steps.std
    np.testing.assert_allclose(steps.tensor(shares).permute(1, 2, 0), expected, rtol=1e-5)


def reference(image: NDArray[np.uint8], size: tuple[int, int], mean: float, std: float) -> Values:
    """What 8 bit images always became, step by step."""
    height, width = size
    least = min(width, image.shape[1]), min(height, image.shape[0])
    small = cv2.resize(image, least, interpolation=cv2.INTER_AREA)
    fitted = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    scale, offset = np.float32(1 / (255 * std)), np.float32(mean / std)
    return np.asarray(fitted.astype(np.float32) * scale - offset)


@pytest.mark.parametrize("size", [(16, 24), (64, 64), (40, 48)])
@pytest.mark.parametrize("eight_bit", [False, True])
def test_8_bits_are_what_they_were_to_the_bit(size: tuple[int, int], eight_bit: bool) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 48), dtype=np.uint8)
    steps = Preprocessing(size, 1, (0.41,), (0.23,), eight_bit=eight_bit)
    found = steps.tensor(steps.image(image))[0].numpy()
    np.testing.assert_array_equal(found, reference(image, size, 0.41, 0.23))
    whole = Preprocessing((8, 8), 1, (0.41,), (0.23,), sampling="crop", eight_bit=eight_bit)
    found = whole.tensor(whole.image(image))[0].numpy()
    np.testing.assert_array_equal(found, reference(image, (40, 48), 0.41, 0.23))


def test_statistics_of_8_bits_are_what_they_were(tmp_path: Path) -> None:
    images = [np.random.default_rng(n).integers(0, 256, (9, 7), np.uint8) for n in range(3)]
    found = fit_normalization(cases(tmp_path, images), "dataset", 1)
    shares = sum(np.bincount(image.ravel(), minlength=256) / image.size for image in images)
    shares = shares[None] / shares.sum()
    levels = np.arange(256) / 255
    mean = shares @ levels
    assert found["mean"] == tuple(mean.tolist())
    assert found["std"] == tuple(np.sqrt(shares @ levels**2 - mean**2).tolist())
    assert (found["window"], found["percentile"], found["zscore"]) == (None, None, False)


@pytest.mark.parametrize("name", ["grey", "histology", "strong", "ultrasound"])
@pytest.mark.parametrize("channels", [1, 3])
def test_augmentations_keep_fine_values(name: str, channels: int, tmp_path: Path) -> None:
    image = np.repeat(scene("CT numbers", size=(64, 64))[..., None], channels, axis=2)
    train = cases(tmp_path, [image.squeeze()])
    steps = Preprocessing((64, 64), channels, **fit_normalization(train, "dataset", channels))
    pixels, mask = steps.image(image), np.zeros((64, 64), np.uint8)
    before, augment = pixels.copy(), recipe(name)
    for seed in range(12):
        changed, _ = augment(pixels, mask, seed)
        assert changed.dtype == np.float32
        assert np.isfinite(changed).all()
        assert -1e-6 <= changed.min() <= changed.max() <= 1 + 1e-6
        assert len(np.unique(changed)) > 256
    np.testing.assert_array_equal(pixels, before)


def test_folds_of_other_ranges_make_one_ensemble() -> None:
    class Same(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, -x], dim=1)

    folds = [
        Preprocessing((40, 48), 1, (0.4,), (0.2,), window=(0.0, 1000.0), clip=False),
        Preprocessing((40, 48), 1, (0.5,), (0.1,), window=(100.0, 2100.0), clip=False),
    ]
    image = scene("12 bits in 16")
    batches = [steps.tensor(steps.image(image))[None] for steps in folds]
    ensemble = Ensemble([Same(), Same()], folds, ["a", "b"])
    expected = torch.stack([Same()(x).softmax(1) for x in batches]).mean(0)
    torch.testing.assert_close(ensemble(batches[0]).exp(), expected, atol=1e-5, rtol=1e-4)
    clipped = Preprocessing((40, 48), 1, (0.5,), (0.1,), window=(0.0, 9.0))
    with pytest.raises(UserError, match="another clip and window"):
        Ensemble([Same(), Same()], [clipped, folds[0]], ["a", "b"])


@pytest.mark.parametrize("kind", SCENES)
def test_pictures_of_such_values_are_neither_black_nor_white(kind: str) -> None:
    image = scene(kind)
    image[0, 0] = SCENES[kind][2] * 4 if kind == "12 bits in 16" else image[0, 0]  # a hot pixel
    picture = displayable(image)
    assert 100 < picture.mean() < 155
    assert (picture.min(), picture.max()) == (0, 255)


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": (3.0, 3.0)},
        {"window": (0.0, float("inf"))},
        {"window": (0.0, 1.0), "percentile": 0.5},
        {"window": (0.0, 1.0), "zscore": True},
        {"eight_bit": True, "zscore": True},
    ],
)
def test_impossible_rules_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Intensity(**wrong)


def test_a_window_beside_what_finds_its_own_is_refused() -> None:
    for normalize in set(NORMALIZATIONS) - {"unit", "imagenet", "dataset"}:
        with pytest.raises(UserError, match=r"dataset\.window=\[0, 9\] does not go with"):
            fit_normalization([], normalize, 1, window=[0, 9])
