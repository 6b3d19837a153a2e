"""What the numbers and channels of files mean reaches the network, whatever wrote the files."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import check_data
import evaluate
import numpy as np
import predict
import pytest
import tifffile
import train
from PIL import Image

from medt.checkpoint import load_checkpoint
from medt.data.open import open_dataset
from medt.data.preprocessing import Preprocessing

TINY = ["dataset=folder", "dataset.image_size=32", "model=gated_axial_unet"]
NEW_KEYS = ("window", "clip", "zscore", "eight_bit")  # that early checkpoints lack
TINY += ["model.depths=[1,1]", "trainer.epochs=1", "trainer.device=cpu", "augmentation=flip"]


def scene(number: int, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A 16 bit image whose object is seen in its last channel only, and its mask."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 20000, (40, 36, channels)).astype(np.uint16)
    mask = np.zeros((40, 36), np.uint8)
    top, left = rng.integers(2, 18, 2)
    mask[top : top + 14, left : left + 14] = 1
    image[..., -1] += (mask * np.uint16(30000)).astype(np.uint16)
    return image, mask


def write_set(folder: Path, channels: int = 3, count: int = 8, **how: Any) -> list[str]:
    """A folder of such images and its overrides."""
    for number in range(count):
        image, mask = scene(number, channels)
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / "images" / f"{number}.tif", image, **how)
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    return [f"dataset.images={folder}/images", f"dataset.masks={folder}/masks"]


def test_a_network_sees_the_same_pixels_however_their_file_is_tagged(tmp_path: Path) -> None:
    tagged = write_set(tmp_path / "rgb", photometric="rgb")
    assert train.main([*TINY, *tagged, f"run_dir={tmp_path}/run"]) == 0
    masks = {}
    for name, how in {
        "rgb": {"photometric": "rgb"},
        "plain": {"photometric": "minisblack", "planarconfig": "contig"},
        "planes": {"photometric": "minisblack", "planarconfig": "separate"},
    }.items():
        (tmp_path / name).mkdir(exist_ok=True)
        image = scene(3)[0]
        pixels = np.moveaxis(image, -1, 0) if name == "planes" else image
        tifffile.imwrite(tmp_path / f"{name}/one.tif", pixels, **how)
        given = [f"input={tmp_path}/{name}/one.tif", f"output={tmp_path}/{name}_out"]
        assert predict.main([f"checkpoint={tmp_path}/run", "probabilities=true", *given]) == 0
        masks[name] = tifffile.imread(
            next((tmp_path / f"{name}_out").rglob("probabilities/*.tif*"))
        )
    for name in ("plain", "planes"):
        np.testing.assert_array_equal(masks[name], masks["rgb"])


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_other_numbers_of_channels_are_said_with_the_setting_that_takes_them(
    channels: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = {"photometric": "minisblack", "planarconfig": "contig"}
    data = write_set(tmp_path, channels, **how)
    assert train.main([*TINY, *data, f"run_dir={tmp_path}/run"]) == 1
    said = capsys.readouterr().err
    assert f"has {channels} channels" in said
    assert "the network takes 3" in said
    setting = f"dataset.channels={channels}"
    assert setting in said
    assert train.main([*TINY, *data, setting, f"run_dir={tmp_path}/run"]) == 0


def test_images_that_differ_in_their_last_channel_are_not_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first three of five channels are the same in all images."""
    how: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig"}
    data = write_set(tmp_path, 5, count=12, **how)
    for path in (tmp_path / "images").iterdir():
        image = tifffile.imread(path)
        image[..., :3] = scene(0, 5)[0][..., :3]
        tifffile.imwrite(path, image, **how)
    assert check_data.main([TINY[0], *data, "dataset.channels=5", f"output={tmp_path}/out"]) == 0
    assert "look alike" not in capsys.readouterr().err


BLACK, RED, BLUE, VOID = (0, 0, 0), (200, 0, 0), (0, 0, 200), (224, 224, 192)


def write_palettes(folder: Path, orders: list[list[tuple[int, ...]]]) -> list[str]:
    """Images and the same masks in colours, by palettes in these orders in turn: 15 % red and blue
    each, the rest black; with VOID in an order some black is void."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number in range(10):
        rng = np.random.default_rng(number)
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(
            folder / f"images/{number}.png"
        )
        order = orders[number % len(orders)]
        shown = np.full((40, 40), order.index(BLACK), np.uint8)
        shown[:12, :20], shown[20:32, :20] = order.index(RED), order.index(BLUE)
        if VOID in order:
            shown[-2:] = order.index(VOID)
        mask = Image.fromarray(shown)
        mask.putpalette([value for color in order for value in color])
        mask.save(folder / f"masks/{number}.png")
    data = [f"dataset.images={folder}/images", f"dataset.masks={folder}/masks"]
    return [*data, f"run_dir={folder}/run"]


def pasted(error: str) -> list[str]:
    """The settings that an error shows, as a shell takes them."""
    return shlex.split(error[error.index("'dataset.classes") : error.rindex(")")])


@pytest.mark.parametrize(
    "orders",
    [
        [[BLACK, RED, BLUE], [BLACK, BLUE, RED]],
        [[BLACK, RED, BLUE], [RED, BLACK, BLUE], [BLACK, RED, BLUE]],
        [[BLACK, RED, BLUE], [BLACK, BLUE, (9, 9, 0), RED]],
        [[BLACK, RED, BLUE, VOID], [VOID, BLUE, RED, BLACK], [BLACK, RED, BLUE, VOID]],
    ],
)
def test_palettes_in_another_order_are_refused_with_the_colours_to_paste(
    orders: list[list[tuple[int, ...]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_palettes(tmp_path, orders)
    given = ["dataset.ignore=3"] if VOID in orders[0] else []
    command = [*TINY, *data, "dataset.classes=[background,a,b]", *given]
    assert train.main(command) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "The palettes of the masks disagree" in error
    assert train.main([*TINY, *data, *pasted(error)]) == 0
    stored = load_checkpoint(tmp_path / "run/checkpoints/best.pt")
    assert [c["name"] for c in stored.classes] == ["background", "a", "b"]
    index = open_dataset(stored.config["dataset"])
    expected = np.zeros((40, 40), np.uint8)
    expected[:12, :20], expected[20:32, :20] = 1, 2
    if VOID in orders[0]:
        expected[-2:] = 255
    for case in index.cases:
        np.testing.assert_array_equal(index.labels.read(case.mask), expected)


def test_without_classes_the_colours_are_asked_for_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_palettes(tmp_path, [[BLACK, RED, BLUE], [BLUE, BLACK, RED]])
    assert train.main([*TINY, *data]) == 1
    error = capsys.readouterr().err
    assert "The palettes of the masks disagree" in error
    assert train.main([*TINY, *data, *pasted(error)]) == 0
    stored = load_checkpoint(tmp_path / "run/checkpoints/best.pt")
    assert stored.classes[0]["name"] == "background"
    index = open_dataset(stored.config["dataset"])
    assert len({index.labels.read(case.mask).tobytes() for case in index.cases}) == 1


def test_palettes_that_differ_where_nothing_is_shown_are_alike(tmp_path: Path) -> None:
    orders = [[BLACK, RED, BLUE, (9, 9, 9)], [BLACK, RED, BLUE, RED, (7, 7, 7)]]
    data = write_palettes(tmp_path, orders)
    assert train.main([*TINY, *data, "dataset.classes=[background,a,b]"]) == 0


def test_numbers_of_objects_may_have_any_colours(tmp_path: Path) -> None:
    data = write_palettes(tmp_path, [[BLACK, RED, BLUE], [BLACK, BLUE, RED]])
    assert train.main([*TINY, *data, "dataset.mask=instances"]) == 0


def write_scans(folder: Path, dtype: Any = np.int16) -> list[str]:
    """CT numbers, whose object is 40 of 4000 above what surrounds it: two of 8 bits."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number in range(8):
        rng = np.random.default_rng(number)
        image = rng.normal(40, 4, (40, 40))
        image[:3], image[3:6] = -1000, 3000
        mask = np.zeros((40, 40), np.uint8)
        top, left = rng.integers(8, 22, 2)
        mask[top : top + 14, left : left + 14] = 1
        values = np.rint(image + 40.0 * mask).astype(dtype)
        tifffile.imwrite(folder / f"images/{number}.tif", values, photometric="minisblack")
        Image.fromarray(mask).save(folder / f"masks/{number}.png")
    data = [f"dataset.images={folder}/images", f"dataset.masks={folder}/masks"]
    return [*data, "dataset.channels=1", f"run_dir={folder}/run"]


@pytest.mark.many_parameters
@pytest.mark.parametrize(
    "normalize",
    [
        ["dataset.normalize=dataset"],
        ["dataset.normalize=zscore", "augmentation=strong"],
        ["dataset.normalize=percentile", "augmentation=grey"],
        ["dataset.normalize=percentile_dataset", "augmentation=ultrasound"],
        ["dataset.normalize=unit", "dataset.window=[-160,240]", "augmentation=histology"],
    ],
)
def test_scans_are_trained_scored_and_predicted_on(normalize: list[str], tmp_path: Path) -> None:
    data = write_scans(tmp_path, np.float32 if "augmentation=grey" in normalize else np.int16)
    assert train.main([*TINY[:-1], *data, *normalize]) == 0
    run = f"checkpoint={tmp_path}/run"
    assert evaluate.main([run, "split=test"]) == 0
    given = [f"input={tmp_path}/images/1.tif", f"output={tmp_path}/out", "overlays=true"]
    assert predict.main([run, *given]) == 0
    shown = np.array(Image.open(next((tmp_path / "out").rglob("*verlay*/*"))))
    assert 40 < shown[8:].mean() < 220


def test_values_without_a_range_are_refused_with_what_takes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_scans(tmp_path)
    assert train.main([*TINY, *data, "dataset.normalize=unit"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "dataset.window=[low,high]" in error
    assert train.main([*TINY, *data, "dataset.normalize=unit", "dataset.window=[9,9]"]) == 1
    assert "dataset.window=[9.0, 9.0] is no range" in capsys.readouterr().err


def test_the_former_8_bits_can_be_had(tmp_path: Path) -> None:
    data = write_set(tmp_path, photometric="rgb")
    command = [*TINY, *data, "dataset.eight_bit=true", f"run_dir={tmp_path}/run"]
    assert train.main(command) == 0
    stored = load_checkpoint(tmp_path / "run/checkpoints/best.pt")
    steps = Preprocessing.from_dict(stored.preprocessing)
    assert steps.original(tmp_path / "images/1.tif").dtype == np.uint8
    exact = Preprocessing.from_dict({**stored.preprocessing, "eight_bit": False})
    assert exact.original(tmp_path / "images/1.tif").dtype == np.float32
    early = {k: v for k, v in stored.preprocessing.items() if k not in NEW_KEYS}
    assert Preprocessing.from_dict(early) == steps
