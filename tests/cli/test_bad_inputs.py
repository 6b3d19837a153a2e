"""Bad data of every kind: one clear line that names the file, or it is read as it was meant."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import check_data
import cv2
import numpy as np
import prepare_data
import pytest
import tifffile
import train
from PIL import Image

Damage = Callable[[Path], None]
SETTINGS = ["dataset=folder", "dataset.image_size=32", "model=gated_axial_unet"]
SETTINGS += ["model.depths=[1,1]", "trainer.epochs=1", "trainer.device=cpu", "augmentation=none"]
CASES = 6


def image_of(number: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, shape or (40, 36, 3), dtype=np.uint8)


def mask_of(value: int = 1) -> np.ndarray:
    mask = np.zeros((40, 36), np.uint8)
    mask[5:25, 5:25] = value
    return mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for number in range(CASES):
        Image.fromarray(image_of(number)).save(tmp_path / f"images/{number}.png")
        Image.fromarray(mask_of()).save(tmp_path / f"masks/{number}.png")
    rows = [f"{n},,{'val' if n > 3 else 'train'}" for n in range(CASES)]
    (tmp_path / "images_splits.csv").write_text("\n".join(["case,group,split", *rows]) + "\n")
    return tmp_path


def command(folder: Path) -> list[str]:
    return [*SETTINGS[:2], f"dataset.images={folder}/images", f"dataset.masks={folder}/masks"]


def content(name: str, data: bytes) -> Damage:
    """Replace 3.png by a file of this name and content."""

    def write(folder: Path) -> None:
        path = folder / name
        (path.parent / "3.png").unlink()
        path.write_bytes(data)

    return write


def tiff(name: str, pixels: np.ndarray, **settings: object) -> Damage:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **settings)
    return content(name, file.getvalue())


def encoded(name: str, pixels: np.ndarray, kind: str, kept: float = 1.0) -> Damage:
    """The first share of a file that cv2 encodes."""
    data = cv2.imencode(kind, pixels)[1].tobytes()
    return content(name, data[: int(kept * len(data))])


def pillow(name: str, image: Image.Image, kind: str, **settings: object) -> Damage:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return content(name, file.getvalue())


def replaced_by(name: str, make: Callable[[Path], object]) -> Damage:
    def write(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return write


def every_mask(pixels: np.ndarray) -> Damage:
    def write(folder: Path) -> None:
        for number in range(CASES):
            Image.fromarray(pixels).save(folder / f"masks/{number}.png")

    return write


def text(name: str, lines: str | bytes) -> Damage:
    data = lines.encode() if isinstance(lines, str) else lines
    return lambda folder: (folder / name).write_bytes(data)  # type: ignore[func-returns-value]


def removed(*patterns: str) -> Damage:
    def remove(folder: Path) -> None:
        for pattern in patterns:
            for path in folder.glob(pattern):
                path.unlink()

    return remove


def only_in_folders_below(folder: Path) -> None:
    (folder / "images/patient").mkdir()
    for path in (folder / "images").glob("*.png"):
        path.rename(folder / "images/patient" / path.name)


def all_alike(folder: Path) -> None:
    (folder / "images_splits.csv").unlink()
    for number in range(CASES):
        Image.fromarray(image_of(0)).save(folder / f"images/{number}.png")


def copied(source: str, target: str) -> Damage:
    return lambda folder: (folder / target).write_bytes((folder / source).read_bytes())  # type: ignore[func-returns-value]


BLANK = np.zeros((40, 36), np.uint8)
PNG = cv2.imencode(".png", image_of(3))[1].tobytes()
NO_WIDTH = PNG[:16] + bytes(4) + PNG[20:]
PAGES = np.stack([BLANK, BLANK, BLANK])
FIVE = image_of(3, 40, 36, 5)
HEAD = "case,group,split\n"

REFUSED: dict[str, tuple[Damage, str]] = {
    # images
    "zero bytes": (content("images/3.png", b""), "images/3.png cannot be decoded"),
    "text": (content("images/3.png", b"not an image\n" * 9), "images/3.png cannot be decoded"),
    "PNG cut off": (content("images/3.png", PNG[:2000]), "images/3.png cannot be decoded"),
    "PNG of a header": (content("images/3.png", PNG[:33]), "images/3.png cannot be decoded"),
    "PNG without width": (content("images/3.png", NO_WIDTH), "images/3.png cannot be decoded"),
    "JPEG cut off": (encoded("images/3.jpg", image_of(3), ".jpg", 0.6), "images/3.jpg cannot"),
    "TIFF cut off": (encoded("images/3.tif", image_of(3), ".tif", 0.4), "images/3.tif cannot"),
    "BMP cut off": (encoded("images/3.bmp", image_of(3), ".bmp", 0.01), "images/3.bmp cannot"),
    "GIF of a header": (content("images/3.gif", b"GIF89a"), "images/3.gif cannot be decoded"),
    "NaN": (tiff("images/3.tif", np.full((40, 36), np.nan, np.float32)), "NaN or infinite"),
    "infinite": (tiff("images/3.tif", np.full((40, 36), np.inf, np.float32)), "NaN or infinite"),
    "beyond 1": (tiff("images/3.tif", BLANK.astype(np.float32) + 7), "holds float32 from 7 to 7"),
    "32 bits": (tiff("images/3.tif", BLANK.astype(np.int32)), "holds int32 from 0 to 0"),
    "5 channels": (
        tiff("images/3.tif", FIVE, photometric="minisblack", planarconfig="contig"),
        "images/3.tif has 5 channels",
    ),
    "stack": (tiff("images/3.tif", PAGES, photometric="minisblack"), "3.tif is a stack of 3"),
    "animation": (
        pillow(
            "images/3.gif",
            Image.fromarray(BLANK),
            "GIF",
            save_all=True,
            append_images=[Image.fromarray(mask_of(200))],
        ),
        "3.gif is a stack of 2",
    ),
    "folder as image": (replaced_by("images/3.png", Path.mkdir), "masks without image (1): 3.png"),
    "link loop": (replaced_by("images/3.png", lambda p: p.symlink_to(p)), "images/3.png"),
    "dangling link": (replaced_by("images/3.png", lambda p: p.symlink_to("no")), "images/3.png"),
    "named pipe": (replaced_by("images/3.png", os.mkfifo), "images/3.png is no regular file"),
    "device": (
        replaced_by("images/3.png", lambda p: p.symlink_to("/dev/zero")),
        "images/3.png is a link out of the folder",
    ),
    # masks
    "mask of zero bytes": (content("masks/3.png", b""), "masks/3.png cannot be decoded"),
    "stray value": (pillow("masks/3.png", Image.fromarray(mask_of(9)), "PNG"), "0 ("),
    "fractions": (
        tiff("masks/3.tif", mask_of().astype(np.float32) / 2),
        "masks/3.tif holds fractional numbers",
    ),
    "NaN in a mask": (tiff("masks/3.tif", mask_of() * np.float32(np.nan)), "masks/3.tif holds"),
    "negative": (tiff("masks/3.tif", -mask_of().astype(np.int16)), "-1 ("),
    "nothing but background": (every_mask(BLANK), "hold only the value 0"),
    "nothing but foreground": (every_mask(BLANK + 255), "hold only the value 255"),
    "another size": (
        pillow("masks/3.png", Image.fromarray(mask_of()[:20]), "PNG"),
        "3.png is 36 x 40, its mask 36 x 20 pixels",
    ),
    "turned mask": (
        pillow("masks/3.png", Image.fromarray(np.ascontiguousarray(mask_of().T)), "PNG"),
        "an orientation tag",
    ),
    "one mask in colour": (
        pillow("masks/3.png", Image.new("RGB", (36, 40), (200, 0, 0)), "PNG"),
        "The masks hold the colours",
    ),
    "masks ring": (encoded("masks/3.jpg", mask_of(255), ".jpg"), "which class is which"),
    # folders
    "no image": (removed("images/*"), "No images in"),
    "no masks": (removed("masks/*"), "No masks in"),
    "images in folders below": (only_in_folders_below, "images/patient: give one of these"),
    "one image only": (
        removed("images/[1-9]*", "masks/[1-9]*", "*.csv"),
        "0 is the only image",
    ),
    "two of one name": (copied("images/3.png", "images/3.bmp"), "has both 3.bmp and 3.png"),
    "equal but for capitals": (copied("images/3.png", "images/3.PNG"), "has both 3.PNG and 3.png"),
    "two masks": (copied("masks/3.png", "masks/3_mask.png"), "has the masks 3.png and 3_mask.png"),
    "mask too many": (copied("masks/3.png", "masks/x.png"), "masks without image (1): x.png"),
    "line break in a name": (copied("images/3.png", "images/a\nb.png"), r"characters: a\nb.png"),
    "all images alike": (all_alike, "all images look alike"),
    # split files
    "no columns": (text("images_splits.csv", "0,train\n"), "images_splits.csv has no column"),
    "not text": (text("images_splits.csv", b"\xff\xfe\x00\x81"), "Cannot read"),
    "empty split file": (text("images_splits.csv", ""), "images_splits.csv has no column"),
    "unknown case": (text("images_splits.csv", HEAD + "7,,train\n"), "removed: 7"),
    "unknown split": (text("images_splits.csv", HEAD + "0,,dev\n"), "unknown split 'dev'"),
    "twice": (text("images_splits.csv", HEAD + "0,,val\n0,,train\n"), "for the second time"),
    "group in two splits": (
        text(
            "images_splits.csv",
            HEAD + "".join(f"{n},p,{'val' if n else 'train'}\n" for n in range(6)),
        ),
        "p (train, val)",
    ),
    "no validation": (
        text("images_splits.csv", HEAD + "".join(f"{n},,train\n" for n in range(6))),
        "no cases in split val",
    ),
    "fold that is no number": (
        text("images_splits.csv", "case,group,split,fold\n0,,val,x\n"),
        "fold 'x' is no number",
    ),
}

HANDLED: dict[str, Damage] = {
    "JPEG named PNG": encoded("images/3.png", image_of(3), ".jpg"),
    "PNG named JPEG": content("images/3.jpg", PNG),
    "upper case extension": content("images/3.PNG", PNG),
    "CMYK": pillow("images/3.jpg", Image.fromarray(image_of(3)).convert("CMYK"), "JPEG"),
    "grey": pillow("images/3.png", Image.fromarray(image_of(3, 40, 36)), "PNG"),
    "alpha": pillow("images/3.png", Image.fromarray(image_of(3, 40, 36, 4), "RGBA"), "PNG"),
    "palette": pillow("images/3.png", Image.fromarray(image_of(3)).quantize(16), "PNG"),
    "16 bits": tiff("images/3.tif", image_of(3).astype(np.uint16) * 257, photometric="rgb"),
    "planes apart": tiff(
        "images/3.tif", np.moveaxis(image_of(3), 2, 0), photometric="rgb", planarconfig="separate"
    ),
    "1 bit mask": every_mask(mask_of() > 0),
    "mask with alpha": pillow(
        "masks/3.png", Image.fromarray(np.stack([mask_of(), BLANK + 255], 2), "LA"), "PNG"
    ),
    "mask as whole floats": tiff("masks/3.tif", mask_of().astype(np.float64)),
    "hidden files": text("images/.DS_Store.png", b"x"),
    "other files": text("images/Thumbs.db", b"x"),
    "byte order mark": lambda folder: (folder / "images_splits.csv").write_bytes(
        b"\xef\xbb\xbf" + (folder / "images_splits.csv").read_bytes()
    ),
}


@pytest.mark.many_parameters
@pytest.mark.parametrize(("damage", "culprit"), REFUSED.values(), ids=REFUSED)
def test_is_refused_before_training(refused, folder: Path, damage: Damage, culprit: str) -> None:
    damage(folder)
    refused(train.main, [*command(folder), *SETTINGS[2:], f"run_dir={folder}/run"], culprit)


@pytest.mark.parametrize("damage", HANDLED.values(), ids=HANDLED)
def test_is_read_as_it_was_meant(
    folder: Path, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder)
    assert check_data.main([*command(folder), f"output={folder}/check"]) == 0
    assert "no errors" in capsys.readouterr().out


def escaping(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "evil.zip", "w") as file:
        file.writestr("../train_1.bmp", b"")
    return folder / "evil.zip"


def linked(folder: Path) -> Path:
    with tarfile.open(folder / "evil.tar.gz", "w:gz") as file:
        entry = tarfile.TarInfo("train_1.bmp")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(entry)
    return folder / "evil.tar.gz"


def cut_off(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "cut.zip", "w") as file:
        file.writestr("train_1.bmp", PNG)
    data = (folder / "cut.zip").read_bytes()
    (folder / "cut.zip").write_bytes(data[:-30])
    return folder / "cut.zip"


def of_something_else(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "holiday.zip", "w") as file:
        file.writestr("beach.jpg", PNG)
    return folder / "holiday.zip"


def with_a_damaged_image(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "glas.zip", "w") as file:
        for number in (1, 2):
            file.writestr(f"train_{number}.bmp", PNG if number == 1 else PNG[:500])
            file.writestr(f"train_{number}_anno.bmp", cv2.imencode(".bmp", mask_of())[1].tobytes())
    return folder / "glas.zip"


@pytest.mark.parametrize(
    ("make", "culprit"),
    [
        (escaping, "evil.zip has an entry outside the archive: '../train_1.bmp'"),
        (linked, "an entry that is no file: train_1.bmp"),
        (cut_off, "cut.zip is no readable zip or tar file"),
        (of_something_else, "holiday.zip holds no GlaS image"),
        (with_a_damaged_image, "train_2.bmp cannot be decoded"),
        (lambda folder: folder / "absent.zip", "No archive"),
    ],
)
def test_an_archive_is_refused(
    refused, tmp_path: Path, make: Callable[[Path], Path], culprit: str
) -> None:
    source = make(tmp_path)
    (tmp_path / "data").mkdir()
    target = [f"dataset.root={tmp_path}/data/glas", f"dataset.splits_file={tmp_path}/data/s.csv"]
    refused(prepare_data.main, ["dataset=glas", f"source={source}", *target], culprit)
