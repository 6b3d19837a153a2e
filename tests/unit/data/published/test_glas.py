"""The GlaS archive as published becomes the layout on disk, or is refused."""

import os
import shutil
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from medt.data.layout import open_prepared, read_card
from medt.data.open import open_dataset, prepare_dataset
from medt.data.published.dataset import prepare
from medt.data.published.glas import GLAS
from medt.data.splits import read_splits
from medt.errors import UserError
from medt.io.images import read_image, read_mask

FOLDER = "Warwick QU Dataset (Released 2016_07_08)"
COMMITTED = Path(__file__).parents[4] / "data" / "splits" / "glas.csv"
HEADER = "name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)\n"


def write_case(folder: Path, name: str) -> None:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    instances = np.zeros((12, 16), np.uint8)
    instances[2:5, 2:5], instances[7:10, 8:14] = 1, 130
    cv2.imwrite(str(folder / f"{name}.bmp"), rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    cv2.imwrite(str(folder / f"{name}_anno.bmp"), instances)


@pytest.fixture
def extracted(tmp_path: Path) -> Path:
    folder = tmp_path / "download" / FOLDER
    folder.mkdir(parents=True)
    rows = []
    for i in range(1, 11):
        write_case(folder, f"train_{i}")
        rows.append(f"train_{i},{(i + 1) // 2}, {'benign' if i % 2 else 'malignant'}, any\n")
    (folder / "Grade.csv").write_text(HEADER + "".join(rows))
    return folder


def zipped(folder: Path) -> Path:
    path = folder.parent.parent / "warwick.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"{FOLDER}/{file.name}")
    return path


@pytest.mark.parametrize("as_zip", [True, False])
def test_archive_and_folder_become_the_layout(
    extracted: Path, tmp_path: Path, as_zip: bool
) -> None:
    root, splits = tmp_path / "data" / "glas", tmp_path / "splits" / "glas.csv"
    prepared = prepare(GLAS, zipped(extracted) if as_zip else extracted.parent, root, splits)
    assert prepared.counts == {"train": 8, "val": 2, "test": 0}
    assert not prepared.existed
    image = read_image(root / "images" / "train_1.png")
    np.testing.assert_array_equal(image, read_image(extracted / "train_1.bmp"))
    instances = read_mask(root / "instances" / "train_1.png")
    np.testing.assert_array_equal(read_mask(root / "masks" / "train_1.png"), instances > 0)
    assert instances.dtype == np.uint16
    assert np.unique(instances).tolist() == [0, 1, 130]
    assert "research only" in read_card(root).licence.lower()
    assert "Sirinukunwattana" in read_card(root).citation

    index = open_prepared(root, splits)
    assert [c.name for c in index.classes] == ["background", "gland"]
    assert len({case.group for case in index.split("val")}) == 1, "validation is a whole patient"
    assert [path.name for path in root.parent.iterdir()] == ["glas"], "nothing temporary stays"


def test_what_is_missing_is_said(extracted: Path, tmp_path: Path) -> None:
    summary = prepare(GLAS, extracted, tmp_path / "glas", tmp_path / "s.csv").summary()
    assert "train 8, val 2, test 0" in summary
    assert "60 of the 60 testA cases" in summary
    assert "20 of the 20 testB cases" in summary
    assert "Warning" not in summary


def test_the_official_test_comes_with_a_warning(extracted: Path, tmp_path: Path) -> None:
    write_case(extracted, "testA_1")
    write_case(extracted, "testB_1")
    with (extracted / "Grade.csv").open("a") as grades:
        grades.write("testA_1,1, benign, any\n")
    root, splits = tmp_path / "glas", tmp_path / "s.csv"
    summary = prepare(GLAS, extracted, root, splits).summary()
    assert "Warning: the official test shares 1 patients with the training" in summary
    index = open_prepared(root, splits)
    assert [case.name for case in index.split("test")] == ["testA_1", "testB_1"]


def test_a_complete_copy_is_recognised_and_a_damaged_one_made_again(
    extracted: Path, tmp_path: Path
) -> None:
    root, splits = tmp_path / "glas", tmp_path / "s.csv"
    prepare(GLAS, extracted, root, splits)
    assert "was already prepared" in prepare(GLAS, extracted, root, splits).summary()
    (root / "masks" / "train_2.png").unlink()
    assert not prepare(GLAS, extracted, root, splits).existed
    assert prepare(GLAS, extracted, root, splits).existed
    write_case(extracted, "testA_1")
    assert not prepare(GLAS, extracted, root, splits).existed, (
        "a fuller archive replaces a poorer copy"
    )


@pytest.mark.parametrize("own", ["masks/train_2.png", "masks/of_mine.png", "notes.txt"])
def test_own_work_in_a_prepared_set_is_not_replaced(
    extracted: Path, tmp_path: Path, own: str
) -> None:
    root, splits = tmp_path / "glas", tmp_path / "s.csv"
    prepare(GLAS, extracted, root, splits)
    (root / own).write_bytes(b"hours of work")
    (root / "masks" / "train_1.png").unlink()
    with pytest.raises(UserError, match=f"{root} holds files that are not as .*: {own} \\(it"):
        prepare(GLAS, extracted, root, splits)
    assert (root / own).read_bytes() == b"hours of work"


def test_a_split_file_that_is_there_rules(extracted: Path, tmp_path: Path) -> None:
    before = COMMITTED.read_bytes()
    prepared = prepare(GLAS, extracted, tmp_path / "glas", COMMITTED)
    assert COMMITTED.read_bytes() == before
    rows = {row.case: row.split for row in read_splits(COMMITTED)}
    validated = sum(rows[f"train_{i}"] == "val" for i in range(1, 11))
    assert prepared.counts == {"train": 10 - validated, "val": validated, "test": 0}


def test_the_official_test_is_never_trained_on(extracted: Path, tmp_path: Path) -> None:
    write_case(extracted, "testA_1")
    root, splits = tmp_path / "glas", tmp_path / "s.csv"
    prepare(GLAS, extracted, root, splits)
    moved = splits.read_text().replace("testA_1,,test", "testA_1,,train")
    splits.write_text(moved)
    message = r"s\.csv trains or validates on the official test: testA_1 .*split test"
    with pytest.raises(UserError, match=message):
        prepare(GLAS, extracted, root, splits)
    settings = {"name": "glas", "root": str(root), "splits_file": str(splits)}
    with pytest.raises(UserError, match=message):
        open_dataset(settings)


def test_faulty_archives_are_refused_and_leave_nothing(extracted: Path, tmp_path: Path) -> None:
    root, splits = tmp_path / "glas", tmp_path / "s.csv"

    def refused(source: Path, message: str) -> None:
        with pytest.raises(UserError, match=message):
            prepare(GLAS, source, root, splits)
        assert not root.exists()

    refused(tmp_path / "absent.zip", "No archive")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds no GlaS image")
    (tmp_path / "broken.zip").write_bytes(zipped(extracted).read_bytes()[:500])
    refused(tmp_path / "broken.zip", r"broken\.zip is no readable zip")
    (extracted / "train_3_anno.bmp").rename(tmp_path / "moved")
    (extracted / "train_4_anno.bmp").unlink()
    refused(extracted, "no annotation for train_3; train_4")
    write_case(extracted, "train_4")
    (tmp_path / "moved").rename(extracted / "train_3_anno.bmp")
    (extracted / "train_5.bmp").write_bytes(b"BM")
    refused(extracted, r"train_5\.bmp cannot be decoded")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("entry", ["../train_1.bmp", "/train_1.bmp", "..\\train_1.bmp", "C:/t.bmp"])
def test_entries_that_leave_the_archive_are_refused(tmp_path: Path, entry: str) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, b"")
    with pytest.raises(UserError, match="outside the archive"):
        prepare(GLAS, path, tmp_path / "glas", tmp_path / "s.csv")


def test_a_folder_of_other_things_is_not_replaced(extracted: Path, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    root.mkdir()
    (root / "thesis.txt").touch()
    with pytest.raises(UserError, match="is no prepared dataset"):
        prepare(GLAS, extracted, root, tmp_path / "s.csv")
    assert (root / "thesis.txt").exists()


def test_without_patients_no_split_is_drawn(extracted: Path, tmp_path: Path) -> None:
    (extracted / "Grade.csv").unlink()
    with pytest.raises(UserError, match="gives no patient for train_1; train_2"):
        prepare(GLAS, extracted, tmp_path / "glas", tmp_path / "s.csv")


def test_settings_name_the_paths(extracted: Path, tmp_path: Path) -> None:
    settings = {
        "name": "glas",
        "root": str(tmp_path / "glas"),
        "splits_file": str(tmp_path / "s.csv"),
    }
    assert prepare_dataset(settings, extracted).counts["train"] == 8
    with pytest.raises(UserError, match="needs its archive"):
        prepare_dataset(settings)
    with pytest.raises(UserError, match=r"dataset\.root has no value"):
        prepare_dataset({"name": "glas"}, extracted)
    with pytest.raises(UserError, match=r"one of cvc_clinicdb, drive, .*, synthetic, folder"):
        prepare_dataset({"name": "gals"})


def test_the_real_archive_fits_the_committed_split(tmp_path: Path) -> None:
    shared = os.environ.get("MEDT_SHARED")
    archive = Path(shared or ".") / "data" / "warwick_qu_dataset_train_part.zip"
    if not shared or not archive.exists():
        pytest.skip("MEDT_SHARED names no folder with the GlaS archive")
    drawn = tmp_path / "s.csv"
    prepared = prepare(GLAS, archive, tmp_path / "glas", drawn)
    assert prepared.counts == {"train": 68, "val": 17, "test": 0}
    assert drawn.read_bytes() == COMMITTED.read_bytes()
    index = open_prepared(tmp_path / "glas", COMMITTED)
    assert len(index.cases) == 85
    for case in index.cases[::20]:
        assert case.mask is not None
        assert case.instances is not None
        mask, instances = read_mask(case.mask), read_mask(case.instances)
        np.testing.assert_array_equal(mask, instances > 0)
        assert read_image(case.image).shape == (*mask.shape, 3)
    shutil.rmtree(tmp_path / "glas")
