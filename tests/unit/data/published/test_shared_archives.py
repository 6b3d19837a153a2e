"""The real archives: what is prepared is what they hold, read here by other libraries."""

from __future__ import annotations

import io
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import prepare_data
import pytest
from conftest import ARCHIVES
from lookalikes import CHANGES
from PIL import Image

from medt.data.duplicates import near_duplicates, thumbnail
from medt.data.layout import DatasetIndex, open_prepared
from medt.io.images import read_image, read_mask

COMMITTED = Path(__file__).parents[4] / "data" / "splits"
CASES = {"glas": 85, "monuseg": 13, "dsb2018": 120, "isbi2012": 30, "kvasir_seg": 80}
Prepare = Callable[[str], list[str]]


def opened(name: str, real_dataset: Prepare, shared: Path) -> tuple[DatasetIndex, zipfile.ZipFile]:
    """A prepared dataset and its archive."""
    root = Path(real_dataset(name)[1].partition("=")[2])
    index = open_prepared(root, COMMITTED / f"{name}.csv")
    assert len(index.cases) == CASES[name]
    return index, zipfile.ZipFile(shared / "data" / ARCHIVES[name])


def pixels(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(archive.read(name))))


def entries(archive: zipfile.ZipFile, part: str) -> Iterator[str]:
    return (name for name in archive.namelist() if part in name and not name.endswith("/"))


@pytest.mark.many_parameters
@pytest.mark.parametrize("name", ARCHIVES)
def test_a_second_preparation_finds_everything_there(
    name: str, real_dataset: Prepare, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    committed = (COMMITTED / f"{name}.csv").read_bytes()
    overrides = real_dataset(name)
    capsys.readouterr()
    source = shared / "data" / ARCHIVES[name]
    assert prepare_data.main([*overrides, f"source={source}"]) == 0
    assert f"{name} was already prepared" in capsys.readouterr().out
    assert (COMMITTED / f"{name}.csv").read_bytes() == committed


def test_glas(real_dataset: Prepare, shared: Path) -> None:
    index, archive = opened("glas", real_dataset, shared)
    paths = {Path(name).stem: name for name in entries(archive, ".bmp")}
    for case in index.cases:
        instances = pixels(archive, paths[f"{case.name}_anno"])
        found = read_mask(case.mask)
        assert found.shape == instances.shape
        assert np.unique(found).tolist() == [0, 1]
        np.testing.assert_array_equal(found, instances > 0)
        np.testing.assert_array_equal(read_mask(case.instances), instances)
    for case in index.cases[::20]:
        np.testing.assert_array_equal(
            read_image(case.image), pixels(archive, paths[case.name])[..., :3]
        )


@pytest.mark.slow
def test_monuseg(real_dataset: Prepare, shared: Path) -> None:
    index, archive = opened("monuseg", real_dataset, shared)
    paths = {Path(name).name: name for name in entries(archive, "TCGA")}
    errors: list[float] = []
    for case in index.cases:
        instances = read_mask(case.instances)
        assert instances.shape == (1000, 1000)
        np.testing.assert_array_equal(read_mask(case.mask), instances > 0)
        outlines = [
            np.array([[float(v.get("X")), float(v.get("Y"))] for v in vertices]).reshape(-1, 2)
            for vertices in ElementTree.fromstring(archive.read(paths[f"{case.name}.xml"])).iter(
                "Vertices"
            )
        ]
        areas = [shoelace(outline) for outline in outlines]
        regions = [area for area in areas if area >= 1]  # smaller ones may miss every centre
        assert instances.max() == len(regions), case.name
        assert len(np.unique(instances)) == instances.max() + 1
        if case.name in {index.cases[0].name, index.cases[6].name}:
            errors += relative_area_errors(instances, outlines)
    assert np.median(errors) < 0.03


def shoelace(outline: np.ndarray) -> float:
    x, y = outline.T if len(outline) else np.zeros((2, 1))
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def relative_area_errors(instances: np.ndarray, outlines: list[np.ndarray]) -> list[float]:
    """Of each outline wholly inside the image, against the object at most of its vertices."""
    drawn = np.bincount(instances.ravel())
    errors = []
    for outline in outlines:
        inside = np.round(outline.mean(axis=0)).astype(int)
        if shoelace(outline) < 1 or outline.min() < 0 or outline.max() > 1000:
            continue
        number = instances[tuple(np.clip(inside[::-1], 0, 999))]
        if number:
            errors.append(abs(drawn[number] / shoelace(outline) - 1))
    assert len(errors) > 0.8 * len(outlines)
    return errors


def test_dsb2018(real_dataset: Prepare, shared: Path) -> None:
    index, archive = opened("dsb2018", real_dataset, shared)
    masks: defaultdict[str, list[str]] = defaultdict(list)
    for name in entries(archive, "/masks/"):
        masks[name.split("/")[0]].append(name)
    assert sum(map(len, masks.values())) == 5485
    for case in index.cases:
        instances, mask = read_mask(case.instances), read_mask(case.mask)
        nuclei = [pixels(archive, name) > 0 for name in masks[case.name][:3]]
        assert instances.max() == len(masks[case.name])
        np.testing.assert_array_equal(mask, instances > 0)
        assert all(len(np.unique(instances[nucleus])) == 1 for nucleus in nuclei)
    case = index.cases[5]
    image = pixels(archive, f"{case.name}/images/{case.name}.png")
    np.testing.assert_array_equal(read_image(case.image), image)


def test_isbi2012(real_dataset: Prepare, shared: Path) -> None:
    index, archive = opened("isbi2012", real_dataset, shared)
    for number, case in enumerate(index.cases):
        image, label = (pixels(archive, f"{kind}/{number}.png") for kind in ("image", "label"))
        np.testing.assert_array_equal(read_image(case.image), image)
        np.testing.assert_array_equal(read_mask(case.mask), label == 0)


def test_kvasir_seg(real_dataset: Prepare, shared: Path) -> None:
    index, archive = opened("kvasir_seg", real_dataset, shared)
    for case in index.cases:
        values = pixels(archive, f"masks/{case.name}.jpg").mean(axis=2)
        mask = read_mask(case.mask)
        assert mask.shape == (256, 256)
        assert set(np.unique(mask)) == {0, 1}
        differing = mask != (values >= 128)
        assert differing.mean() < 1e-3, "two JPEG decoders may differ by a grey level"
        assert np.all(np.abs(values[differing] - 128) <= 4)


@pytest.mark.parametrize(
    ("name", "dice"), [("monuseg", 0.864), ("isbi2012", 0.868), ("kvasir_seg", 0.986)]
)
def test_what_perfect_masks_of_128_pixels_score(
    name: str, dice: float, real_dataset: Prepare, shared: Path
) -> None:
    """The figures that configs/dataset goes by: no network of resized images does better."""
    index, _ = opened(name, real_dataset, shared)
    scores = []
    for case in index.cases:
        mask = read_mask(case.mask)
        small = cv2.resize(mask, (128, 128), interpolation=cv2.INTER_NEAREST_EXACT)
        back = cv2.resize(small.astype(np.float32), mask.shape[::-1]) > 0.5
        scores.append(2 * np.count_nonzero(back & (mask > 0)) / (back.sum() + mask.sum()))
    assert np.mean(scores) == pytest.approx(dice, abs=0.01)


@pytest.mark.parametrize("name", ARCHIVES)
def test_no_image_is_taken_for_another_and_a_changed_copy_for_its_origin(
    name: str, real_dataset: Prepare, shared: Path
) -> None:
    index, _ = opened(name, real_dataset, shared)
    thumbnails = {case.name: thumbnail(read_image(case.image)) for case in index.cases}
    expected = []
    for case, (what, change) in zip(index.cases[::2], CHANGES.items(), strict=False):
        thumbnails[f"{case.name} {what}"] = thumbnail(change(read_image(case.image)))
        expected.append((case.name, f"{case.name} {what}"))
    found = [(pair.first, pair.second) for pair in near_duplicates(thumbnails)]
    assert sorted(found) == sorted(expected)
