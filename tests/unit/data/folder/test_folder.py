"""Any two folders of images and masks: paired, checked and split before any work."""

import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from medt.data.folder import dataset as folder
from medt.data.open import open_dataset, prepare_dataset
from medt.data.splits import SplitRow, read_splits, write_splits
from medt.errors import UserError
from medt.io.files import write_png

open_folder = partial(folder.open_folder, draws=True)  # as the user's own command does
NAMES = tuple(f"case {i}" for i in range(1, 13))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    images, masks = tmp_path / "study" / "pictures", tmp_path / "study" / "labels"
    images.mkdir(parents=True)
    for name in NAMES:
        pixels = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (6, 8, 3))
        cv2.imwrite(str(images / f"{name}.JPG"), pixels.astype(np.uint8))
        paint(masks, name, 0, 255)
    return images, masks


def paint(masks: Path, name: str, *values: int) -> None:
    write_png(masks / f"{name}.png", np.resize(np.array(values, np.uint8), (6, 8)))


def test_a_binary_folder_needs_no_settings(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    index = open_folder(images, masks)
    assert index.name == "study"
    assert [c.name for c in index.classes] == ["background", "foreground"]
    assert index.labels.values == {0: 0, 255: 1}
    assert index.counts() == {"train": 8, "val": 2, "test": 2}
    assert [case.name for case in index.cases] == list(NAMES)
    case = index.cases[0]
    assert case.mask is not None
    ids = index.labels.read(case.mask)
    assert np.unique(ids).tolist() == [0, 1]


def test_the_split_is_drawn_once_and_then_belongs_to_the_user(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    splits = images.parent / "pictures_splits.csv"
    first = open_folder(images, masks, seed=1)
    assert open_folder(images, masks, seed=2).cases == first.cases
    rows = [SplitRow(name, "patient", "train") for name in NAMES]
    write_splits(splits, rows)
    assert open_folder(images, masks).counts() == {"train": 12}
    assert read_splits(splits) == rows
    elsewhere = images.parent / "other.csv"
    assert open_folder(images, masks, splits_file=elsewhere, seed=2).cases != first.cases
    assert elsewhere.exists()


@pytest.mark.parametrize("named", [None, "other.csv"])
def test_without_leave_to_draw_nothing_is_written(folders: tuple[Path, Path], named: str) -> None:
    images, masks = map(str, folders)
    splits_file = named and str(folders[0].parent / named)
    settings = {"name": "folder", "images": images, "masks": masks, "splits_file": splits_file}
    before = set(folders[0].parent.rglob("*"))
    with pytest.raises(UserError, match=rf"No split file .*{named or 'pictures_splits.csv'}"):
        open_dataset(settings)
    assert set(folders[0].parent.rglob("*")) == before
    open_dataset(settings, draws=True)
    assert open_dataset(settings).counts() == {"train": 8, "val": 2, "test": 2}


def test_of_two_draws_at_one_instant_the_first_counts_for_both(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, masks = folders
    drawn, barrier = folder.draw_splits, threading.Barrier(2)

    def at_one_instant(*arguments: Any, **named: Any) -> list[SplitRow]:
        rows = drawn(*arguments, **named)
        barrier.wait()
        return rows

    monkeypatch.setattr(folder, "draw_splits", at_one_instant)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(
            lambda seed: open_folder(images, masks, seed=seed, draws=True), (1, 2)
        )
    assert first.cases == second.cases == open_folder(images, masks).cases
    left = {path.name for path in images.parent.iterdir()}
    assert left == {"pictures", "labels", "pictures_splits.csv"}


def test_cases_that_came_or_went_are_named(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    open_folder(images, masks)
    (images / "case 1.JPG").rename(images / "new.JPG")
    (masks / "case 1.png").rename(masks / "new.png")
    with pytest.raises(UserError, match=r"added: new; removed: case 1 .*delete it"):
        open_folder(images, masks)


def test_a_patient_in_two_splits_is_refused(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    rows = [SplitRow(name, "p", "val" if name == NAMES[0] else "train") for name in NAMES]
    write_splits(images.parent / "pictures_splits.csv", rows)
    with pytest.raises(UserError, match="several splits: p"):
        open_folder(images, masks)


def test_unpaired_files_are_all_named(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    (masks / "case 2.png").unlink()
    (images / "case 3.JPG").unlink()
    write_png(images / "case 4.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(UserError) as caught:
        open_folder(images, masks)
    for fault in (
        "images without mask (1): case 2.JPG",
        "masks without image (1): case 3.png",
        "case 4.JPG and",
    ):
        assert fault in caught.value.message
    assert "\n" not in str(caught.value)


def test_more_than_ten_faults_are_counted(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    for name in NAMES:
        paint(masks, name, 0, 1, 2)
    with pytest.raises(UserError, match=r"case 10\.png holds 2; \.\.\. 12 in all"):
        open_folder(images, masks, classes=["background", "gland"])


def test_broken_and_misfitting_files_are_listed_together(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    (images / "case 5.JPG").write_bytes(b"no image")
    write_png(masks / "case 6.png", np.zeros((8, 6), np.uint8))
    with pytest.raises(UserError) as caught:
        open_folder(images, masks)
    for fault in (
        "case 5.JPG cannot be decoded",
        "case 6.JPG is 8 x 6, its mask 6 x 8 pixels",
    ):
        assert fault in caught.value.message


@pytest.mark.parametrize(
    ("values", "shown", "first"),
    [
        ((0, 85, 170), r"0 \(33\.3%\), 85 \(33\.3%\), 170 \(33\.3%\)", "background,value:0"),
        ((0, 1, 1, 2), r"0 \(25\.0%\), 1 \(50\.0%\), 2 \(25\.0%\)", "background,value:0"),
        ((1, 2, 2), r"1 \(33\.3%\), 2 \(66\.7%\)", "background,value:2"),
    ],
)
def test_other_values_come_with_a_config_to_paste(
    folders: tuple[Path, Path], values: tuple[int, ...], shown: str, first: str
) -> None:
    images, masks = folders
    for name in NAMES:
        paint(masks, name, *values)
    with pytest.raises(UserError, match=f"the values {shown}: which") as caught:
        open_folder(images, masks)
    setting = caught.value.hint.partition("'dataset.classes=")[2].rstrip("'")
    assert setting.startswith(f"[{{name:{first}}}")
    given = yaml.safe_load(setting.replace(":", ": "))
    assert {entry["value"] for entry in given} == set(values)
    assert open_folder(images, masks, classes=given).labels.values is not None


def test_every_unpaired_file_is_named_however_many(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    for number in range(30):
        write_png(images / f"bare {number}.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(UserError, match=r"images without mask \(30\)") as caught:
        open_folder(images, masks)
    assert all(f"bare {number}.png" in caught.value.message for number in range(30))


def test_masks_of_one_value_have_nothing_to_learn(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    for name in NAMES:
        paint(masks, name, 0)
    with pytest.raises(UserError, match="hold only the value 0: there is nothing to tell apart"):
        open_folder(images, masks)


def test_a_value_that_is_no_class_comes_with_a_config_to_paste(
    folders: tuple[Path, Path],
) -> None:
    images, masks = folders
    paint(masks, NAMES[0], 0, 7, 255)
    gland = [{"name": "background", "value": 0}, {"name": "gland", "value": 255}]
    with pytest.raises(UserError, match="holds 7") as caught:
        open_folder(images, masks, classes=gland)
    entries = "{name:background,value:0},{name:gland,value:255},{name:class_7,value:7}"
    assert f"'dataset.classes=[{entries}]'" in caught.value.hint


def test_a_single_image_cannot_be_split(tmp_path: Path) -> None:
    write_png(tmp_path / "images/a.png", np.zeros((6, 8), np.uint8))
    write_png(tmp_path / "masks/a.png", np.eye(6, 8, dtype=np.uint8))
    with pytest.raises(UserError, match="a is the only image"):
        open_folder(tmp_path / "images", tmp_path / "masks")
    assert {path.name for path in tmp_path.iterdir()} == {"images", "masks"}


def test_classes_by_name_or_by_value(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    for name in NAMES:
        paint(masks, name, 0, 1, 2, 9)
    index = open_folder(images, masks, classes=["background", "gland", "nerve"], ignore=9)
    assert index.labels.values == {0: 0, 1: 1, 2: 2}
    assert index.labels.ignore == 9
    classes = [
        {"name": "other", "value": 2},
        {"name": "gland", "value": [0, 1]},
        {"name": "nerve", "value": 9},
    ]
    index = open_folder(images, masks, classes=classes, channels=1)
    assert index.labels.values == {2: 0, 0: 1, 1: 1, 9: 2}
    assert [(c.id, c.name) for c in index.classes] == [(0, "other"), (1, "gland"), (2, "nerve")]
    assert index.channels == 1


def test_an_ignored_value_is_no_class(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    for name in NAMES:
        paint(masks, name, 0, 1, 255)
    index = open_folder(images, masks, ignore=255)
    assert index.labels.values == {0: 0, 1: 1}


def test_lossy_masks_are_recognised_and_mended_by_ranges(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    rng = np.random.default_rng(0)
    for name in NAMES:
        (masks / f"{name}.png").unlink()
        noisy = rng.choice([0, 3, 250, 255], (6, 8)).astype(np.uint8)
        cv2.imwrite(str(masks / f"{name}.jpg"), noisy)
    with pytest.raises(UserError, match=r"value:\[0,127\]"):
        open_folder(images, masks)
    classes = [
        {"name": "background", "value": [0, 127]},
        {"name": "polyp", "value": [128, 255]},
    ]
    assert open_folder(images, masks, classes=classes).labels.values is not None


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([{"name": "a", "value": 0}, {"name": "b"}], "entry 1"),
        ([{"name": "a", "value": 0}, {"name": "b", "value": "x"}], "entry 1"),
        ([{"name": "a", "value": 0}, {"name": "b", "value": [9, 1]}], "entry 1"),
        ([{"name": "a", "value": 0}, {"name": "b", "value": 0}], "another class one value"),
        (["a", "a"], "several classes"),
        (["a"], "2 to 255"),
    ],
)
def test_faulty_class_lists_are_refused(
    folders: tuple[Path, Path], classes: list[object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        open_folder(*folders, classes=classes)  # type: ignore[arg-type]


def test_an_empty_or_missing_folder_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"No images in .*empty"):
        open_folder(tmp_path / "empty", folders[1])
    with pytest.raises(UserError, match=r"No folder .*absent"):
        open_folder(folders[0], tmp_path / "absent")


def test_settings_reach_it(folders: tuple[Path, Path]) -> None:
    images, masks = map(str, folders)
    settings = {"name": "folder", "images": images, "masks": masks, "classes": None, "channels": 1}
    assert open_dataset(settings, draws=True).channels == 1
    assert "train 8" in prepare_dataset(settings).summary()
    with pytest.raises(UserError, match=r"dataset\.masks has no value"):
        open_dataset({"name": "folder", "images": images})


def test_a_mask_of_too_many_values_is_none(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    cv2.imwrite(str(images / "case 1.JPG"), np.zeros((60, 60, 3), np.uint8))
    write_png(masks / "case 1.png", np.arange(3600, dtype=np.uint16).reshape(60, 60))
    with pytest.raises(UserError, match=r"case 1\.png holds 3600 different values"):
        open_folder(images, masks)


def test_masks_without_the_images_orientation_tag_are_told_of(
    folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    images, masks = folders
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(images / "case 3.JPG").save(images / "case 3.JPG", exif=exif)
    open_folder(images, masks)
    assert "an orientation tag whose masks have none: case 3.JPG" in caplog.text


def test_two_names_are_enough_for_masks_of_0_and_255(folders: tuple[Path, Path]) -> None:
    index = open_folder(*folders, classes=["background", "polyp"])
    assert index.labels.values == {0: 0, 255: 1}
    assert [c.name for c in index.classes] == ["background", "polyp"]


def test_a_stray_value_is_found_by_its_file(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    paint(masks, NAMES[4], 0, 255, 255, 7)
    with pytest.raises(UserError, match=r"7 \(2\.1% only in case 5\.png\), 255") as caught:
        open_folder(images, masks)
    assert caught.value.hint.startswith("if 7 is a mistake, repair case 5.png; else name the cl")


def test_images_in_the_place_of_masks_are_asked_about(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    for name in NAMES:
        paint(masks, name, *range(40))
    for classes in (None, ["background", "gland"]):
        with pytest.raises(
            UserError, match=r"dataset\.images and dataset\.masks swapped"
        ) as caught:
            open_folder(images, masks, classes=classes)
        assert "class_" not in caught.value.hint


def test_object_numbers_are_recognised(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    for name in NAMES:
        paint(masks, name, *range(12))
    for classes in (None, ["background", "gland"]):
        with pytest.raises(UserError, match=r"object numbers.*dataset\.mask=instances"):
            open_folder(images, masks, classes=classes)
    assert open_folder(images, masks, mask="instances").labels.instances


def test_object_numbers_are_not_read_from_jpegs(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    for name in NAMES:
        (masks / f"{name}.png").unlink()
        cv2.imwrite(str(masks / f"{name}.jpg"), np.zeros((6, 8), np.uint8))
    with pytest.raises(UserError, match="stored as JPEG, which changes numbers"):
        open_folder(images, masks, mask="instances")
