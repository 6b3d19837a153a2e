"""Images find their masks by name, whatever the habit; what does not pair up is named."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medt.data.folder.pairing import MASK_WORDS, pair_files
from medt.errors import UserError


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def paired(images: Path, masks: Path, suffix: str | None = None) -> dict[str, tuple[str, str]]:
    pairs = pair_files(images, masks, suffix)
    return {case: (image.name, mask.name) for case, (image, mask) in pairs.items()}


@pytest.mark.parametrize("word", MASK_WORDS)
@pytest.mark.parametrize("sign", ["_", "-", " ", "."])
@pytest.mark.parametrize("together", [True, False])
def test_usual_suffixes_are_known(tmp_path: Path, word: str, sign: str, together: bool) -> None:
    images = touch(tmp_path / "a", "case 1.jpg", "case 2.jpg")
    names = [f"case 1{sign}{word}.png", f"case 2{sign}{word.upper()}.PNG"]
    masks = touch(tmp_path / ("a" if together else "b"), *names)
    assert paired(images, masks) == {
        "case 1": ("case 1.jpg", names[0]),
        "case 2": ("case 2.jpg", names[1]),
    }


def test_equal_names_need_no_suffix_and_case_does_not_count(tmp_path: Path) -> None:
    images = touch(tmp_path / "a", "b.2.TIF", "b.10.tif", "Scan.png")
    masks = touch(tmp_path / "b", "B.10.png", "b.2.PNG", "scan.bmp")
    assert list(paired(images, masks)) == ["Scan", "b.2", "b.10"]


def test_an_image_whose_own_name_ends_like_a_mask(tmp_path: Path) -> None:
    images = touch(tmp_path / "a", "gas_mask.png", "x.png")
    masks = touch(tmp_path / "b", "gas_mask.png", "x_mask.png")
    assert paired(images, masks)["gas_mask"] == ("gas_mask.png", "gas_mask.png")


def test_a_suffix_of_ones_own(tmp_path: Path) -> None:
    images = touch(tmp_path / "a", "x.png", "y.png", "x-truth.png", "y-Truth.png")
    assert paired(images, images, "-truth") == {
        "x": ("x.png", "x-truth.png"),
        "y": ("y.png", "y-Truth.png"),
    }
    with pytest.raises(UserError, match="mask's ends with '_nope'") as caught:
        pair_files(images, touch(tmp_path / "b", "x_mask.png"), "_nope")
    assert "masks without image (1): x_mask.png" in caught.value.message


@given(st.text("äöüéñôå ab1", min_size=1, max_size=8).map(str.strip).filter(bool))
def test_both_ways_to_write_an_accent_are_one(
    tmp_path_factory: pytest.TempPathFactory, stem: str
) -> None:
    folder = tmp_path_factory.mktemp("names")
    images = touch(folder / "a", unicodedata.normalize("NFC", stem) + ".png")
    masks = touch(folder / "b", unicodedata.normalize("NFD", stem) + "_mask.png")
    assert list(pair_files(images, masks)) == [unicodedata.normalize("NFC", stem)]


@pytest.mark.parametrize(
    ("images", "masks", "fault"),
    [
        (["a.png", "a.jpg"], ["a.png"], "a has both a.jpg and a.png"),
        (["a.png", "A.jpg"], ["a.png"], "a has both A.jpg and a.png"),
        (["a.png"], ["a.png", "a_mask.png"], "a.png has the masks a.png and a_mask.png"),
        (["a.png", "b.png"], ["a.png"], "images without mask (1): b.png"),
        (["a.png"], ["a.png", "c_mask.png"], "masks without image (1): c_mask.png"),
    ],
)
def test_what_does_not_pair_up_is_named(
    tmp_path: Path, images: list[str], masks: list[str], fault: str
) -> None:
    with pytest.raises(UserError) as caught:
        pair_files(touch(tmp_path / "a", *images), touch(tmp_path / "b", *masks))
    assert fault in caught.value.message
    assert "\n" not in str(caught.value)


def test_one_folder_without_masks_or_without_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no masks among the images .*dataset\.mask_suffix"):
        pair_files(*[touch(tmp_path / "a", "x.png", "y.png")] * 2)
    with pytest.raises(UserError, match="holds no images beside the masks"):
        pair_files(*[touch(tmp_path / "b", "x_mask.png", "y_mask.png")] * 2)


def test_images_in_folders_below_are_pointed_out(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "patient 1", "x.png")
    with pytest.raises(UserError, match=r"No images in .*a itself .*a/patient 1: give one"):
        pair_files(tmp_path / "a", tmp_path / "a")


def test_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No images in .*convert the \.dcm, \.webp files"):
        pair_files(touch(tmp_path / "a", "x.dcm", "y.webp", "notes.txt"), tmp_path / "a")


def test_folders_named_like_images_and_hidden_files_are_left_alone(tmp_path: Path) -> None:
    images = touch(tmp_path / "a", "x.png", ".x.png", "Thumbs.db")
    (images / "folder.png").mkdir()
    masks = touch(tmp_path / "b", "x.png", "._x.png")
    assert list(pair_files(images, masks)) == ["x"]


def test_what_is_left_out_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = touch(tmp_path / "a", "x.png", "y.webp")
    touch(images / "more", "z.png")
    touch(images / "notes", "z.txt")
    masks = touch(tmp_path / "b", "x.png")
    assert list(pair_files(images, masks)) == ["x"]
    (message,) = caplog.messages
    assert message.endswith("a: more/; y.webp")


def test_blanks_around_a_name_do_not_count(tmp_path: Path) -> None:
    images = touch(tmp_path / "a", "x .png", " y.png")
    masks = touch(tmp_path / "b", "x.png", "y _mask.png")
    assert set(pair_files(images, masks)) == {"x", "y"}


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX only")
@pytest.mark.parametrize(
    ("name", "shown"), [(b"x\xff", r"x\udcff"), (b"x\x1b[2J", r"x\x1b[2J"), (b"x\n", r"x\n")]
)
def test_names_that_are_no_text_are_refused(tmp_path: Path, name: bytes, shown: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / os.fsdecode(name + b".png")).touch()
    with pytest.raises(UserError, match=f"control characters: {re.escape(shown)}.png "):
        pair_files(tmp_path / "a", tmp_path / "a")
