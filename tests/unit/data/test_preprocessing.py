"""One way from a file to a tensor: any type, channels and size, in documented arithmetic."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medt.data.layout import Case
from medt.data.normalization import IMAGENET_MEAN, fit_normalization
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError
from medt.io.files import write_png
from medt.io.images import Samples


def unit(size: tuple[int, int] = (8, 8), channels: int = 3) -> Preprocessing:
    return Preprocessing(size, channels, (0.0,) * channels, (1.0,) * channels)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_any_image_becomes_the_tensor_of_the_network(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16, np.float32, np.float64, np.bool_]))
    shape = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    source = data.draw(st.sampled_from([(), (1,), (2,), (3,), (4,)]))
    target = 1 if source == (2,) else data.draw(st.sampled_from([1, 3]))
    alpha = (source[0] - 1,) if source in ((2,), (4,)) else ()
    elements = st.floats(0, 1, width=32) if np.issubdtype(dtype, np.floating) else None
    image = data.draw(arrays(dtype, shape + source, elements=elements))
    size = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    preprocessing = unit(size, target)
    before = image.copy()
    resized = preprocessing.image(Samples(image, alpha))
    tensor = preprocessing.tensor(resized)
    assert resized.dtype == (np.uint8 if dtype in (np.uint8, np.bool_) else np.float32)
    assert resized.shape == (*size, target)
    assert tensor.shape == (target, *size)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert 0 <= tensor.min() <= tensor.max() <= 1 + 1e-6
    np.testing.assert_array_equal(image, before)
    own_size = preprocessing.original(Samples(image, alpha))
    assert own_size.shape == (*shape, target)
    assert own_size.min() - 1e-6 <= resized.min() <= resized.max() <= own_size.max() + 1e-6


@pytest.mark.parametrize(
    ("given_values", "expected"),
    [
        (np.array([[0, 7, 255]], np.uint8), [0, 7, 255]),
        (np.array([[0, 257, 65535]], np.uint16), [0, 1, 255]),
        (np.array([[0, 128, 129]], np.uint16), [0, 0, 1]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[False, True, True]]), [0, 255, 255]),
    ],
)
def test_types_are_scaled_to_full_range(given_values: np.ndarray, expected: list[int]) -> None:
    """Early checkpoints, which name no bits, see what they were trained on."""
    early = {"image_size": [8, 8], "channels": 1, "mean": [0.0], "std": [1.0]}
    rounded = Preprocessing.from_dict(early).original(given_values)
    assert (rounded.dtype, rounded.ravel().tolist()) == (np.uint8, expected)
    exact = unit(channels=1).original(given_values)
    full = 1.0 if given_values.dtype.kind in "fb" else float(np.iinfo(given_values.dtype).max)
    shown = exact / (255 if exact.dtype == np.uint8 else 1)
    np.testing.assert_allclose(shown[..., 0], given_values / full, rtol=1e-7)


def test_channels_are_repeated_weighed_or_dropped() -> None:
    grey = np.array([[10, 20]], np.uint8)
    assert unit().original(grey).tolist() == [[[10, 10, 10], [20, 20, 20]]]
    red_green_blue = np.eye(3, dtype=np.uint8)[None] * 255
    assert unit(channels=1).original(red_green_blue).ravel().tolist() == [76, 150, 29]
    rgba = np.array([[[1, 2, 3, 0]]], np.uint8)
    assert unit().original(Samples(rgba, (3,))).tolist() == [[[1, 2, 3]]]
    with pytest.raises(
        UserError, match=r"4 channels, none of them marked as alpha; .*channels=4 trains"
    ):
        unit().original(rgba)
    assert unit(channels=4).original(rgba).tolist() == [[[1, 2, 3, 0]]]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((4, 4), np.int32),
        np.full((4, 4), 1.5, np.float32),
        np.full((4, 4), np.nan, np.float32),
        np.full((4, 4), np.inf, np.float32),
        np.zeros((0, 4), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
    ],
)
def test_other_images_are_refused(image: np.ndarray) -> None:
    with pytest.raises(UserError, match="Image the array"):
        unit().image(image)


def test_a_range_that_cannot_be_known_leads_to_a_window() -> None:
    for image in (np.full((4, 4), 900.0, np.float32), np.full((4, 4), -5, np.int16)):
        with pytest.raises(UserError) as caught:
            unit().image(image)
        assert "dataset.window=[low,high]" in caught.value.hint


class TestPercentile:
    @staticmethod
    def stretch(channels: int = 1, percentile: float = 0.5) -> Preprocessing:
        plain = (0.0,) * channels, (1.0,) * channels
        return Preprocessing((8, 8), channels, *plain, percentile=percentile)

    @settings(max_examples=100, deadline=None)
    @given(st.data())
    def test_any_type_and_range_is_stretched_between_its_percentiles(
        self, data: st.DataObject
    ) -> None:
        kinds = [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64, np.bool_]
        dtype = data.draw(st.sampled_from(kinds))
        shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
        real = np.issubdtype(dtype, np.floating)
        elements = st.floats(-1e6, 1e6, width=32) if real else None
        image = data.draw(arrays(dtype, shape, elements=elements))
        share = data.draw(st.sampled_from([0.0, 0.5, 10.0]))
        values = image.astype(np.float64)
        low, high = np.percentile(values, (share, 100 - share))
        if low == high:
            low, high = values.min(), values.max()
        expected = np.clip((values - low) / (high - low or 1), 0, 1) * 255
        stretched = self.stretch(percentile=share).original(image)[..., 0]
        if dtype in (np.uint8, np.bool_):
            assert stretched.dtype == np.uint8
            np.testing.assert_allclose(stretched, expected, atol=0.51)
        else:
            assert stretched.dtype == np.float32
            np.testing.assert_allclose(255 * stretched, expected, atol=1e-3)

    def test_12_bits_in_16_fill_the_range(self) -> None:
        image = np.random.default_rng(0).integers(0, 4096, (200, 200)).astype(np.uint16)
        stretched = self.stretch().original(image)
        assert (stretched.min(), stretched.max()) == (0, 1)
        assert len(np.unique(stretched)) > 4000
        assert unit(channels=1).original(image).max() < 1 / 15

    def test_all_channels_are_stretched_alike_so_that_colours_stay(self) -> None:
        ramp = np.arange(100, dtype=np.uint8)[None, :, None]
        image = np.concatenate([ramp, ramp // 2, 0 * ramp], axis=2)
        stretched = self.stretch(3, percentile=0.0).original(image)
        assert stretched.max(axis=(0, 1)).tolist() == [255, round(49 / 99 * 255), 0]

    def test_alpha_is_dropped_before_it_could_be_stretched(self) -> None:
        rgb = np.random.default_rng(0).integers(0, 100, (9, 9, 3)).astype(np.uint16)
        rgba = np.concatenate([rgb, np.full((9, 9, 1), 65535, np.uint16)], axis=2)
        for channels in (1, 3):
            steps = self.stretch(channels)
            dropped = steps.original(Samples(rgba, (3,)))
            np.testing.assert_array_equal(dropped, steps.original(rgb))

    def test_a_few_bright_pixels_on_nothing_are_seen(self) -> None:
        image = np.zeros((100, 100), np.uint16)
        image[50, 50:53] = 1000, 2000, 4000
        assert self.stretch().original(image)[50, 50:53, 0].tolist() == [0.25, 0.5, 1]

    def test_a_flat_image_is_black(self) -> None:
        assert not self.stretch().original(np.full((4, 4), 700, np.uint16)).any()

    def test_values_that_are_not_finite_are_refused_by_name(self, tmp_path: Path) -> None:
        image = np.ones((6, 6), np.float32)
        image[0, :2] = np.nan, np.inf
        cv2.imwrite(str(tmp_path / "scan.tif"), image)
        with pytest.raises(UserError, match=r"scan\.tif holds 2 values that are NaN or infinite"):
            self.stretch().original(tmp_path / "scan.tif")
        with pytest.raises(UserError, match="complex64"):
            self.stretch().original(np.ones((4, 4), np.complex64))

    def test_mean_and_deviation_are_of_the_stretched_images(self, tmp_path: Path) -> None:
        """Two exposures of the same scene are the same to the network."""
        scene = np.random.default_rng(0).integers(0, 1000, (40, 40)).astype(np.uint16)
        for name, image in {"a": scene, "b": scene * 7 + 3}.items():
            cv2.imwrite(str(tmp_path / f"{name}.png"), image)
        cases = [Case(name, tmp_path / f"{name}.png", None, None, "", "train") for name in "ab"]
        fitted = fit_normalization(cases, "percentile", 1)
        alone = fit_normalization(cases[:1], "percentile", 1)
        assert fitted["mean"] == pytest.approx(alone["mean"])
        assert fitted["std"] == pytest.approx(alone["std"])
        assert fitted["mean"][0] == pytest.approx(0.5, abs=0.02)
        assert fitted["std"][0] == pytest.approx(12**-0.5, abs=0.02)
        assert fit_normalization(cases, "dataset", 1, eight_bit=True)["mean"][0] < 0.05

    @pytest.mark.parametrize("percentile", [-1.0, 50.0])
    def test_an_impossible_share_is_refused(self, percentile: float) -> None:
        with pytest.raises(UserError, match="Percentile"):
            self.stretch(percentile=percentile)


class TestCropSampling:
    @staticmethod
    def crops(size: tuple[int, int]) -> Preprocessing:
        return Preprocessing(size, 3, (0.0,) * 3, (1.0,) * 3, sampling="crop")

    def test_images_stay_at_their_own_resolution(self) -> None:
        image = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
        np.testing.assert_array_equal(self.crops((16, 31)).image(image), image)
        mask = image[..., 0] % 3
        np.testing.assert_array_equal(self.crops((16, 31)).fit_mask(mask), mask)

    def test_smaller_images_are_continued_by_their_mirror_image_and_ignored(self) -> None:
        image = np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8)
        enlarged = self.crops((16, 8)).image(image)
        after = [(0, 11), (0, 0)]
        np.testing.assert_array_equal(enlarged, np.pad(image, [*after, (0, 0)], mode="reflect"))
        mask = self.crops((16, 8)).fit_mask(image[..., 0] % 3)
        np.testing.assert_array_equal(mask[:5], image[..., 0] % 3)
        assert mask.shape == (16, 9)
        assert set(mask[5:].ravel()) == {255}

    def test_another_sampling_is_refused(self) -> None:
        with pytest.raises(UserError, match=r"dataset\.sampling=tile .*resize, crop"):
            Preprocessing((8, 8), 1, (0.0,), (1.0,), sampling="tile")


def test_a_refused_file_is_named(tmp_path: Path) -> None:
    write_png(tmp_path / "rgb.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(
        UserError, match=r"rgb\.png has 3 channels; the network takes 2 .*channels=3 trains"
    ):
        unit(channels=2).image(tmp_path / "rgb.png")


def test_shrinking_averages_the_area() -> None:
    dots = np.zeros((32, 32), np.uint8)
    dots[::8, ::8] = 64
    assert set(unit((4, 4)).image(dots).ravel()) == {1}
    lines = np.zeros((32, 2), np.uint8)
    lines[::8] = 80
    assert set(unit((4, 8)).image(lines).ravel()) == {10}, "one side shrinks, the other grows"


def test_a_file_and_its_array_give_the_same_tensor(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    write_png(tmp_path / "image.png", image)
    preprocessing = Preprocessing((16, 16), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    from_file = preprocessing.tensor(preprocessing.image(tmp_path / "image.png"))
    assert torch.equal(from_file, preprocessing.tensor(preprocessing.image(image)))


def test_the_tensor_is_standardised() -> None:
    preprocessing = Preprocessing((1, 1), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    tensor = preprocessing.tensor(np.array([[[255, 0, 51]]], np.uint8))
    torch.testing.assert_close(tensor.ravel(), torch.tensor([2.5, -0.4 / 0.3, -0.1 / 0.4]))


def test_a_mask_shrinks_in_register_with_its_image() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 30:34] = 1
    image = unit((64 // 4 * 3, 24)).image(mask * np.uint8(255))[..., 0]
    ids = unit((64 // 4 * 3, 24)).fit_mask(mask)
    columns = np.flatnonzero(ids[0])
    centre = (image[0] * np.arange(24.0)).sum() / image[0].sum()
    assert abs(columns.mean() - centre) < 0.01


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3)),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_a_resized_mask_invents_no_class(mask: np.ndarray, size: tuple[int, int]) -> None:
    resized = unit(size).fit_mask(mask)
    assert resized.shape == size
    assert resized.dtype == np.uint8
    assert set(np.unique(resized)) <= set(np.unique(mask))
    if size == mask.shape:
        np.testing.assert_array_equal(resized, mask)


def test_dataset_statistics_count_every_image_the_same(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.full((4, 4), 51, np.uint8))
    write_png(tmp_path / "b.png", np.full((40, 40), 153, np.uint8))
    cases = [Case(name, tmp_path / f"{name}.png", None, None, "", "train") for name in "ab"]
    fitted = fit_normalization(cases, "dataset", 3)
    assert fitted["mean"] == pytest.approx((0.4,) * 3)
    assert fitted["std"] == pytest.approx((0.2,) * 3)
    flat = fit_normalization(cases[:1], "dataset", 1)["std"]
    assert flat == (0.01,), "a flat image must not blow up"


def test_fixed_statistics() -> None:
    plain = fit_normalization([], "unit", 2)
    assert (plain["mean"], plain["std"]) == ((0.0, 0.0), (1.0, 1.0))
    assert fit_normalization([], "imagenet", 3)["mean"] == IMAGENET_MEAN
    for normalize, channels in (("imagenet", 1), ("other", 3)):
        with pytest.raises(UserError, match=normalize):
            fit_normalization([], normalize, channels)
    with pytest.raises(UserError, match="at least one training image"):
        fit_normalization([], "dataset", 3)


def test_plain_values_restore_it() -> None:
    windowed = {"window": (-160.0, 240.0), "clip": False}
    for more in ({}, {"percentile": 0.5, "sampling": "crop"}, windowed, {"zscore": True}):
        preprocessing = Preprocessing((16, 32), 1, (0.5,), (0.2,), **more)
        assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing
    early = {"image_size": [16, 32], "channels": 1, "mean": [0.5], "std": [0.2]}
    rounded = Preprocessing((16, 32), 1, (0.5,), (0.2,), eight_bit=True)
    assert Preprocessing.from_dict(early) == rounded
    with pytest.raises(UserError, match="lacks image_size, mean, std"):
        Preprocessing.from_dict({"channels": 1})


@pytest.mark.parametrize(
    ("size", "channels", "mean", "std"),
    [((8, 8), 3, (0.0,), (1.0,)), ((8, 8), 1, (0.0,), (0.0,)), ((0, 8), 1, (0.0,), (1.0,))],
)
def test_impossible_settings_are_refused(
    size: tuple[int, int], channels: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    with pytest.raises(UserError):
        Preprocessing(size, channels, mean, std)
