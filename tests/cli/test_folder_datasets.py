"""Folders of every habit are trained on, evaluated and predicted through the scripts."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import cv2
import evaluate
import numpy as np
import predict
import pytest
import tifffile
import train
from PIL import Image

from medt.io.images import read_mask

Write = Callable[[Path, int, np.ndarray, np.ndarray], None]
SETTINGS = ["dataset=folder", "dataset.image_size=32", "model=gated_axial_unet"]
SETTINGS += ["model.depths=[1,1]", "trainer.epochs=1", "trainer.device=cpu", "augmentation=flip"]
COLORS = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)


def case(number: int) -> tuple[np.ndarray, np.ndarray]:
    """An RGB image, and ids 0, 1 and 2 on it."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)
    ids = np.zeros((40, 36), np.uint8)
    ids[5:20, 5:25], ids[25:35, 10:30] = 1, 2
    return image, ids


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def painted(folder: Path, number: int, image: np.ndarray, ids: np.ndarray) -> None:
    save(folder / f"images/{number}.png", image)
    save(folder / f"masks/{number}.png", COLORS[ids])


def objects(folder: Path, number: int, image: np.ndarray, ids: np.ndarray) -> None:
    save(folder / f"images/{number}.png", image)
    save(folder / f"masks/{number}.png", ids.astype(np.uint16) * 300)


def one_folder(folder: Path, number: int, image: np.ndarray, ids: np.ndarray) -> None:
    save(folder / f"both/scan {number}.JPG", image)
    save(folder / f"both/scan {number}_Segmentation.png", (ids > 0).astype(np.uint8) * 255)


def stacks(folder: Path, number: int, image: np.ndarray, ids: np.ndarray) -> None:
    grey = image[..., 0]
    for kind, pixels in (("images", grey), ("masks", (ids > 0).astype(np.uint8))):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        stack = np.stack([np.zeros_like(pixels), pixels])
        tifffile.imwrite(folder / kind / f"{number}.tif", stack, photometric="minisblack")


def sixteen_bits(folder: Path, number: int, image: np.ndarray, ids: np.ndarray) -> None:
    save(folder / f"images/{number}.tif", image[..., 0].astype(np.uint16) * 257)
    save(folder / f"masks/{number}.bmp", ids > 0)


def grey_and_alpha(folder: Path, number: int, image: np.ndarray, ids: np.ndarray) -> None:
    save(folder / f"images/ä.{number}.png", image[..., :2])
    save(folder / f"masks/ä.{number}_mask.png", (ids > 1).astype(np.uint8))


def palettes(folder: Path, number: int, image: np.ndarray, ids: np.ndarray) -> None:
    save(folder / f"images/{number}.gif", image[..., 0])
    (folder / "masks").mkdir(exist_ok=True)
    mask = Image.fromarray(ids)
    mask.putpalette(COLORS.ravel().tolist())
    mask.save(folder / f"masks/{number}.png")


def turned(folder: Path, number: int, image: np.ndarray, ids: np.ndarray) -> None:
    (folder / "images").mkdir(exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(image)).save(folder / f"images/{number}.jpg", exif=exif)
    save(folder / f"masks/{number}.png", (ids > 0).astype(np.uint8))


COLOR_CLASSES = (
    "[{name:background,color:[0,0,0]},{name:a,color:[255,0,0]},{name:b,color:'#0000ff'}]"
)
FORMATS: dict[str, tuple[Write, list[str], list[int]]] = {
    "painted": (painted, [f"dataset.classes={COLOR_CLASSES}"], [0, 1, 2]),
    "objects": (objects, ["dataset.mask=instances"], [0, 255]),
    "one folder": (one_folder, ["dataset.images=both", "dataset.masks=both"], [0, 255]),
    "stacks": (stacks, ["dataset.page=1"], [0, 255]),
    "16 bits": (sixteen_bits, ["dataset.channels=1"], [0, 255]),
    "grey and alpha": (grey_and_alpha, [], [0, 255]),
    "palettes": (palettes, ["dataset.classes=[background,a,b]"], [0, 1, 2]),
    "turned": (turned, [], [0, 255]),
}


@pytest.mark.many_parameters
@pytest.mark.parametrize(("write", "settings", "values"), FORMATS.values(), ids=FORMATS)
def test_train_evaluate_and_predict(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Write,
    settings: list[str],
    values: list[int],
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        write(tmp_path, number, *case(number))
    folders = [] if "dataset.images=both" in settings else ["images", "masks"]
    named = [f"dataset.{name}={name}" for name in folders]
    assert train.main([*SETTINGS, *named, *settings, "run_dir=run"]) == 0
    assert evaluate.main(["checkpoint=run", "split=val"]) == 0
    folder = Path(folders[0] if folders else "both")
    image = sorted(p for p in folder.iterdir() if "egmentation" not in p.name)[0]
    assert predict.main(["checkpoint=run", f"input={image}", "output=out"]) == 0
    (mask,) = (tmp_path / "out").glob("*.png")
    assert read_mask(mask).shape == (40, 36)
    assert set(np.unique(read_mask(mask)).tolist()) <= set(values)


def test_what_is_asked_for_comes_with_a_setting_that_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        painted(tmp_path, number, *case(number))
    command = [*SETTINGS, f"dataset.images={tmp_path}/images", f"dataset.masks={tmp_path}/masks"]
    command += [f"run_dir={tmp_path}/run", f"paths.runs={tmp_path}/runs", "dry_run=true"]
    assert train.main(command) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "#000000" in error
    pasted = shlex.split(error[error.index("'dataset.classes") : error.rindex(")")])
    assert train.main([*command, *pasted]) == 0
    assert "logits 4 x 3 x 32 x 32" in capsys.readouterr().out


def test_a_stack_without_a_page_says_how_to_choose(refused, tmp_path: Path) -> None:
    for number in range(6):
        stacks(tmp_path, number, *case(number))
    command = [*SETTINGS, f"dataset.images={tmp_path}/images", f"dataset.masks={tmp_path}/masks"]
    command += [f"run_dir={tmp_path}/run"]
    refused(train.main, command, "0.tif is a stack of 2 pages", "dataset.page=0 to 1")
    refused(train.main, [*command, "dataset.page=2"], "0.tif is a stack of 2 pages")


def test_a_turned_image_whose_mask_is_not_is_explained(refused, tmp_path: Path) -> None:
    for number in range(6):
        turned(tmp_path, number, *case(number))
        _, ids = case(number)
        save(tmp_path / f"masks/{number}.png", np.rot90(ids > 0).astype(np.uint8))
    command = [*SETTINGS, f"dataset.images={tmp_path}/images", f"dataset.masks={tmp_path}/masks"]
    refused(train.main, [*command, f"run_dir={tmp_path}/run"], "an orientation tag")


def test_masks_as_jpeg_in_colour_are_refused(refused, tmp_path: Path) -> None:
    for number in range(6):
        image, ids = case(number)
        save(tmp_path / f"images/{number}.png", image)
        (tmp_path / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"masks/{number}.jpg"), COLORS[ids])
    command = [*SETTINGS, f"dataset.images={tmp_path}/images", f"dataset.masks={tmp_path}/masks"]
    refused(train.main, [*command, f"run_dir={tmp_path}/run"], "JPEG changes colours")
