"""DSB2018, ISBI 2012 and DRIVE, from archives of their shape."""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from medt.data.dataset import SegmentationDataset
from medt.data.layout import open_prepared, read_card
from medt.data.preprocessing import Preprocessing
from medt.data.published.dataset import Published, prepare
from medt.data.published.drive import DRIVE
from medt.data.published.dsb2018 import DSB2018
from medt.data.published.isbi2012 import ISBI2012
from medt.data.splits import read_splits
from medt.errors import UserError
from medt.io.images import read_image, read_mask

SPLITS = Path(__file__).parents[4] / "data" / "splits"
IDS = [zlib.crc32(bytes([i])).to_bytes(4, "big").hex() for i in range(8)]


def noise(name: str, *shape: int) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, shape, np.uint8)


def rectangle(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((20, 24), np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


def prepared_index(source: Published, archive: Path, folder: Path):
    prepared = prepare(source, archive, folder / "root", folder / "s.csv")
    return prepared, open_prepared(folder / "root", folder / "s.csv")


class TestDsb2018:
    @pytest.fixture
    def archive(self, tmp_path: Path) -> Path:
        folder = tmp_path / "stage1_train"
        for case in IDS:
            (folder / case / "images").mkdir(parents=True)
            (folder / case / "masks").mkdir()
            image = Image.fromarray(noise(case, 20, 24, 4), "RGBA")
            image.save(folder / case / "images" / f"{case}.png")
            nuclei = {"a": rectangle(0, 0, 5, 5), "b-1": rectangle(3, 3, 9, 9)}
            for name, mask in (nuclei | {"c": rectangle(12, 12, 20, 24)}).items():
                Image.fromarray(mask).save(folder / case / "masks" / f"{name}.png")
        return folder

    def test_each_mask_file_is_a_nucleus_and_the_first_wins(self, archive, tmp_path) -> None:
        prepared, index = prepared_index(DSB2018, archive.parent, tmp_path)
        assert prepared.counts == {"train": 6, "val": 1, "test": 1}
        case = index.cases[0]
        expected = np.zeros((20, 24), np.uint16)
        for number, mask in (
            (3, rectangle(12, 12, 20, 24)),
            (2, rectangle(3, 3, 9, 9)),
            (1, rectangle(0, 0, 5, 5)),
        ):
            expected[mask > 0] = number
        np.testing.assert_array_equal(read_mask(case.instances), expected)
        np.testing.assert_array_equal(read_mask(case.mask), expected > 0)
        assert "24 nuclei, 32 pixels of several nuclei." in prepared.summary()

    def test_alpha_is_kept_in_the_file_and_dropped_in_the_tensor(self, archive, tmp_path) -> None:
        _, index = prepared_index(DSB2018, archive, tmp_path)
        assert read_image(index.cases[0].image).shape == (20, 24, 4)
        steps = Preprocessing((32, 32), 3, (0.0,) * 3, (1.0,) * 3)
        assert SegmentationDataset(index.cases, steps)[0]["image"].shape == (3, 32, 32)

    def test_a_nucleus_that_is_hidden_or_empty_is_counted(self, archive, tmp_path) -> None:
        for name, mask in (("aa", rectangle(1, 1, 3, 3)), ("ab", rectangle(0, 0, 0, 0))):
            Image.fromarray(mask).save(archive / IDS[0] / "masks" / f"{name}.png")
        prepared, index = prepared_index(DSB2018, archive, tmp_path)
        assert "2 nuclei without a pixel of their own" in prepared.summary()
        (case,) = (case for case in index.cases if case.name == IDS[0])
        assert np.unique(read_mask(case.instances)).tolist() == [0, 1, 2, 3]

    def test_images_without_masks_are_refused(self, archive, tmp_path) -> None:
        for path in (archive / IDS[2] / "masks").iterdir():
            path.unlink()
        with pytest.raises(UserError, match=f"image or masks only of {IDS[2]} .*stage1_train"):
            prepared_index(DSB2018, archive, tmp_path)

    def test_a_nucleus_of_another_size_is_named(self, archive, tmp_path) -> None:
        Image.fromarray(rectangle(0, 0, 2, 2)[:9]).save(archive / IDS[1] / "masks" / "b-1.png")
        with pytest.raises(UserError, match=rf"{IDS[1]}/masks/b-1\.png differs from its image"):
            prepared_index(DSB2018, archive, tmp_path)


class TestIsbi2012:
    @pytest.fixture
    def sections(self) -> tuple[np.ndarray, np.ndarray]:
        images = np.stack([noise(f"section {i}", 20, 24) for i in range(30)])
        return images, np.where(images > 60, 255, 0).astype(np.uint8)

    def as_files(self, sections, folder: Path) -> Path:
        for kind, pixels in zip(("image", "label"), sections, strict=True):
            (folder / kind).mkdir(parents=True)
            for number, plane in enumerate(pixels):
                cv2.imwrite(str(folder / kind / f"{number}.png"), plane)
        return folder

    def as_stacks(self, sections, folder: Path) -> Path:
        folder.mkdir()
        for name, pixels in zip(("train-volume", "train-labels"), sections, strict=True):
            tifffile.imwrite(folder / f"{name}.tif", pixels, photometric="minisblack")
        return folder

    @pytest.mark.parametrize("form", ["as_files", "as_stacks"])
    def test_files_and_the_authors_stacks_give_the_same(self, sections, tmp_path, form) -> None:
        archive = getattr(self, form)(sections, tmp_path / "archive")
        prepared, index = prepared_index(ISBI2012, archive, tmp_path)
        assert prepared.counts == {"train": 22, "val": 4, "test": 4}
        assert index.channels == 1
        assert [c.name for c in index.classes] == ["cell", "membrane"]
        for number in (0, 17, 29):
            case = index.cases[number]
            assert case.name == f"section_{number:02}"
            np.testing.assert_array_equal(read_image(case.image), sections[0][number])
            np.testing.assert_array_equal(read_mask(case.mask), sections[1][number] == 0)
        assert (tmp_path / "s.csv").read_bytes() == (SPLITS / "isbi2012.csv").read_bytes()

    def test_validation_test_and_folds_are_sections_in_a_row(self) -> None:
        rows = read_splits(SPLITS / "isbi2012.csv")
        assert [row.split for row in rows] == ["train"] * 22 + ["val"] * 4 + ["test"] * 4
        folds = [row.fold for row in rows]
        assert folds == sorted(f for f in folds if f is not None) + [None] * 4
        assert set(folds) == {0, 1, 2, 3, 4, None}

    def test_a_section_that_is_there_twice_is_refused(self, sections, tmp_path) -> None:
        archive = self.as_files(sections, tmp_path / "archive")
        (archive / "image" / "7.png").rename(archive / "image" / "06.png")
        with pytest.raises(UserError, match="holds image 6 twice"):
            prepared_index(ISBI2012, archive, tmp_path)

    def test_a_missing_label_is_named(self, sections, tmp_path) -> None:
        archive = self.as_files(sections, tmp_path / "archive")
        (archive / "label" / "7.png").unlink()
        with pytest.raises(UserError, match="image or label only of section 7"):
            prepared_index(ISBI2012, archive, tmp_path)

    def test_stacks_of_different_length_are_refused(self, sections, tmp_path) -> None:
        archive = self.as_stacks((sections[0], sections[1][:20]), tmp_path / "archive")
        with pytest.raises(UserError, match=r"volume\.tif has 30 sections, .*labels\.tif has 20"):
            prepared_index(ISBI2012, archive, tmp_path)


class TestDrive:
    @pytest.fixture
    def archive(self, tmp_path: Path) -> Path:
        folder = tmp_path / "DRIVE"
        for part, numbers in (("training", range(21, 41)), ("test", range(1, 21))):
            for name in ("images", "1st_manual", "mask", "2nd_manual"):
                (folder / part / name).mkdir(parents=True)
            for number in numbers:
                case = f"{number:02}_{part}"
                pixels = noise(case, 20, 24, 3)
                tifffile.imwrite(folder / part / "images" / f"{case}.tif", pixels)
                vessels, seen = rectangle(5, 0, 8, 24), rectangle(2, 2, 18, 22)
                Image.fromarray(vessels).save(
                    folder / part / "1st_manual" / f"{number:02}_manual1.gif"
                )
                Image.fromarray(seen).save(folder / part / "mask" / f"{case}_mask.gif")
            Image.fromarray(vessels).save(folder / part / "2nd_manual" / "01_manual2.gif")
        return folder

    def test_vessels_and_what_the_camera_did_not_see(self, archive, tmp_path) -> None:
        prepared, index = prepared_index(DRIVE, archive.parent, tmp_path)
        assert prepared.counts == {"train": 16, "val": 4, "test": 20}
        assert "Missing" not in prepared.summary()
        assert read_card(tmp_path / "root").ignore == 255
        assert index.labels.ignore == 255
        expected = np.full((20, 24), 255)
        expected[2:18, 2:22] = 0
        expected[5:8, 2:22] = 1
        for case in (index.cases[0], index.split("test")[-1]):
            np.testing.assert_array_equal(read_mask(case.mask), expected)
        assert {case.name for case in index.split("test")} == {f"{i:02}_test" for i in range(1, 21)}
        assert (tmp_path / "s.csv").read_bytes() == (SPLITS / "drive.csv").read_bytes()

    def test_the_archive_of_today_has_no_vessels_of_the_test(self, archive, tmp_path) -> None:
        for path in (archive / "test" / "1st_manual").iterdir():
            path.unlink()
        prepared, index = prepared_index(DRIVE, archive, tmp_path)
        assert prepared.counts == {"train": 16, "val": 4, "test": 0}
        assert "20 of the 20 test cases" in prepared.summary()
        assert len(index.cases) == 20

    def test_what_is_missing_is_named(self, archive, tmp_path) -> None:
        (archive / "training" / "1st_manual" / "25_manual1.gif").unlink()
        (archive / "training" / "mask" / "30_training_mask.gif").unlink()
        with pytest.raises(
            UserError, match=r"lacks 25_manual1\.gif; 30_training_mask\.gif"
        ) as caught:
            prepared_index(DRIVE, archive, tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", [DSB2018, ISBI2012, DRIVE], ids=lambda source: source.name)
def test_terms_are_told(source: Published) -> None:
    assert source.page.startswith("https://")
    assert source.licence
    assert len(source.citation) > 50
