"""Items are what the files hold, drawn by seed, epoch and case; faults name their case."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import recipe
from noise_cases import CROP, RESIZE, dataset_of, noise_cases

import medt.data.dataset as module
from medt.data.augmentation import Pipeline
from medt.data.crops import Crops
from medt.data.dataset import SegmentationDataset, sample_seed
from medt.data.labels import Labels
from medt.data.layout import Case
from medt.errors import UserError
from medt.io.files import write_png
from medt.io.images import read_image


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    return noise_cases(tmp_path)


def test_an_item_is_what_preprocessing_makes_of_the_files(cases: list[Case]) -> None:
    item = dataset_of(cases)[1]
    expected = RESIZE.tensor(RESIZE.image(cases[1].image))
    assert torch.equal(item["image"], expected)
    assert item["mask"].dtype == torch.int64
    assert item["mask"].shape == (16, 16)
    assert set(item["mask"].unique().tolist()) == {0, 1, 255}
    assert item["case"] == "b"
    assert item["index"] == 1


def test_a_bare_index_means_epoch_0(cases: list[Case]) -> None:
    dataset = dataset_of(cases, augmentation=recipe("histology"))
    assert torch.equal(dataset[2]["image"], dataset[0, 2]["image"])
    assert not torch.equal(dataset[0, 2]["image"], dataset[1, 2]["image"])


def test_draws_follow_the_case_not_its_place(cases: list[Case]) -> None:
    forward = dataset_of(cases, augmentation=recipe("histology"))
    backward = dataset_of(cases[::-1], augmentation=recipe("histology"))
    assert torch.equal(forward[4, 0]["image"], backward[4, 4]["image"])


def test_the_seed_of_a_sample_is_fixed_for_all_time() -> None:
    assert sample_seed(0, 0, "train_1") == 2317957138
    assert sample_seed(0, 0, "train_1", crop=1) == 684177686
    seeds = {
        sample_seed(seed, epoch, case, crop)
        for seed in range(5)
        for epoch in range(20)
        for case in ("a", "b", "ä")
        for crop in range(3)
    }
    assert len(seeds) == 900


@pytest.mark.parametrize("sampling", ["resize", "crop"])
def test_epochs_and_cases_have_draws_of_their_own(tmp_path: Path, sampling: str) -> None:
    """One picture under several names: whatever differs was drawn."""
    one = noise_cases(tmp_path, names="a")[0]
    cases = [Case(name, one.image, one.mask, None, name, "train") for name in "abcdefgh"]
    settings = {"augmentation": recipe("histology")}
    if sampling == "crop":
        settings = {"preprocessing": CROP, "crops": Crops(0.5, per_case=2)}
    dataset = dataset_of(cases, **settings)
    images = [dataset[epoch, i]["image"] for epoch in range(4) for i in range(len(dataset))]
    distinct = {image.numpy().tobytes() for image in images}
    # there are 45 places for a crop, and 64 are drawn
    assert len(distinct) == len(images) if sampling == "resize" else len(distinct) > 25


class TestCrops:
    def test_an_item_is_a_part_of_its_image_at_native_resolution(self, cases: list[Case]) -> None:
        dataset = dataset_of(cases, CROP, crops=Crops(0.5, per_case=3))
        assert len(dataset) == 15
        pixels = read_image(cases[1].image)
        for index in (1, 6, 11):
            item = dataset[7, index]
            assert (item["case"], item["index"]) == ("b", 1)
            image, mask, _ = dataset.sample(7, index)
            assert torch.equal(item["image"], CROP.tensor(image))
            assert torch.equal(item["mask"], torch.from_numpy(mask.astype(np.int64)))
            whole, ids, _ = dataset.pair(1)
            np.testing.assert_array_equal(whole, pixels)
            places = [
                (top, left)
                for top in range(24 - 16 + 1)
                for left in range(20 - 16 + 1)
                if np.array_equal(image, pixels[top : top + 16, left : left + 16])
            ]
            assert len(places) == 1
            top, left = places[0]
            np.testing.assert_array_equal(mask, ids[top : top + 16, left : left + 16])

    def test_the_crops_of_a_case_differ_and_follow_seed_epoch_and_case(
        self, cases: list[Case]
    ) -> None:
        def crops(cases: list[Case], epoch: int, place: int, **settings: int) -> list[bytes]:
            dataset = dataset_of(cases, CROP, crops=Crops(0.5, per_case=4))
            dataset.seed = settings.get("seed", 3)
            return [dataset.sample(epoch, place + 5 * n)[0].tobytes() for n in range(4)]

        found = crops(cases, 1, 0)
        assert len(set(found)) == 4
        assert found == crops(cases, 1, 0) == crops(cases[::-1], 1, 4)
        assert found != crops(cases, 2, 0)
        assert found != crops(cases, 1, 0, seed=4)

    def test_a_crop_is_augmented_with_what_surrounds_it(self, tmp_path: Path) -> None:
        """A turned crop of a bright image with a dark frame far away shows no mirrored edge."""
        pixels = np.full((200, 200, 3), 240, np.uint8)
        write_png(tmp_path / "a.png", pixels)
        write_png(tmp_path / "a_mask.png", np.full((200, 200), 255, np.uint8))
        case = Case("a", tmp_path / "a.png", tmp_path / "a_mask.png", None, "", "train")
        seen = []

        class Recorder(Pipeline):
            def __call__(self, image, mask, seed, size=None):  # type: ignore[no-untyped-def]
                seen.append((image.shape, mask.shape, size))
                return super().__call__(image, mask, seed, size)

        recorder = Recorder(recipe("histology").geometry)
        item = dataset_of([case], CROP, augmentation=recorder, crops=Crops())[0, 0]
        assert item["image"].shape == (3, 16, 16)
        assert item["mask"].shape == (16, 16)
        margin = recipe("histology").margin(16, 16)[0]
        side = 16 + 2 * margin
        assert margin >= 16 * (2**0.5 / 0.8 - 1) / 2
        assert seen == [((side, side, 3), (side, side), (16, 16))]

    def test_an_image_smaller_than_the_crop_is_mirrored_and_the_addition_ignored(
        self, tmp_path: Path
    ) -> None:
        cases = noise_cases(tmp_path, (10, 30))
        dataset = dataset_of(cases, CROP, crops=Crops(0.0))
        image, mask, _ = dataset.sample(0, 0)
        assert image.shape == (16, 16, 3)
        assert set(mask[10:].ravel()) == {255}
        np.testing.assert_array_equal(image[10:], image[3:9][::-1])
        assert set(mask[:10].ravel()) == {0, 1, 255}

    def test_without_crops_the_items_are_whole_images(self, cases: list[Case]) -> None:
        item = dataset_of(cases, CROP)[2]
        assert item["image"].shape == (3, 24, 20)
        assert torch.equal(item["image"], CROP.tensor(read_image(cases[2].image)))

    def test_crops_of_resized_images_are_refused(self, cases: list[Case]) -> None:
        with pytest.raises(UserError, match="sampling is resize"):
            dataset_of(cases, crops=Crops())


@pytest.mark.parametrize("preprocessing", [RESIZE, CROP], ids=["resize", "crop"])
@pytest.mark.parametrize("megabytes", [0.0, 0.0025, 1024.0])
def test_the_cache_changes_nothing_but_the_number_of_reads(
    cases: list[Case], megabytes: float, preprocessing: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []

    def counted(labels: Labels, path: Path, page: int | None) -> np.ndarray:
        reads.append(path)
        return read(labels, path, page)

    read = Labels.read
    monkeypatch.setattr(Labels, "read", counted)
    crops = Crops(per_case=2) if preprocessing is CROP else None
    dataset = dataset_of(cases, preprocessing, cache_megabytes=megabytes, crops=crops)
    first = [dataset[i]["image"] for i in range(5)]
    again = [dataset[i]["image"] for i in range(5)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    pixels = 24 * 20 if preprocessing is CROP else 16 * 16  # crops are cut from whole images
    held = int(megabytes * 1e6) // (pixels * 4)
    assert len(reads) == 10 - min(held, 5)


@pytest.mark.parametrize("preprocessing", [RESIZE, CROP], ids=["resize", "crop"])
def test_augmentation_leaves_the_cache_alone(cases: list[Case], preprocessing: object) -> None:
    crops = Crops() if preprocessing is CROP else None
    dataset = dataset_of(cases, preprocessing, augmentation=recipe("histology"), crops=crops)
    before = [array.copy() for array in dataset.pair(0)[:2]]
    for epoch in range(3):
        dataset[epoch, 0]
    for array, kept in zip(dataset.pair(0)[:2], before, strict=True):
        np.testing.assert_array_equal(array, kept)


def test_a_case_without_mask_is_refused(cases: list[Case]) -> None:
    bare = Case("bare", cases[0].image, None, None, "", "train")
    with pytest.raises(UserError, match="without a mask: bare"):
        dataset_of([*cases, bare])


def test_a_mask_of_another_size_is_refused(cases: list[Case]) -> None:
    assert cases[0].mask is not None
    write_png(cases[0].mask, np.zeros((20, 24), np.uint8))
    with pytest.raises(UserError, match=r"Case a: a.png is 20 x 24, its mask 24 x 20 pixels"):
        dataset_of(cases)[0]


def test_a_mask_with_a_stray_value_is_named(cases: list[Case]) -> None:
    with pytest.raises(UserError, match=r"Case a: Mask .*a_mask\.png holds values .*: 200, 255"):
        SegmentationDataset(cases, RESIZE, module.Labels({0: 0}))[0]


def test_a_case_that_takes_too_much_memory_is_named(
    cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError("no room for 9 GB")

    monkeypatch.setattr(Labels, "read", exhausted)
    with pytest.raises(MemoryError, match="Case c: not enough memory"):
        dataset_of(cases)[2]
