"""scripts/predict.py and medt.load: masks for images, with nothing but a checkpoint."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import predict
import pytest
import tifffile
from conftest import TINY
from PIL import Image
from test_hostile_runs import edit_checkpoint

import medt
from medt.data.open import pixel_size_of
from medt.inference.instances import InstanceRule, find_objects
from medt.io.images import read_image, read_mask


def arguments(run: Path, source: Path, output: Path) -> list[str]:
    return [f"checkpoint={run}/checkpoints/best.pt", f"input={source}", f"output={output}"]


def test_a_folder_gets_one_mask_per_image_at_its_own_size(tiny_run: Path, tmp_path: Path) -> None:
    images = TINY / "images"
    assert predict.main(arguments(tiny_run, images, tmp_path / "masks")) == 0
    written = {p.name for p in (tmp_path / "masks").iterdir()}
    assert written == {p.name for p in images.iterdir()} | {"summary.csv"}
    mask = read_mask(tmp_path / "masks" / "test_1.png")
    assert mask.shape == (64, 64)
    assert set(np.unique(mask)) <= {0, 255}


def test_python_gives_the_same_mask(tiny_run: Path, tmp_path: Path) -> None:
    image = TINY / "images/test_1.png"
    assert predict.main([*arguments(tiny_run, image, tmp_path), "values=[0,1]"]) == 0
    predictor = medt.load(tiny_run / "checkpoints/best.pt")
    expected = read_mask(tmp_path / "test_1.png")
    np.testing.assert_array_equal(predictor.predict(image), expected)
    np.testing.assert_array_equal(predictor.predict(read_image(image)), expected)
    assert not predictor.model.training


def test_overlays_and_probabilities_on_request(tiny_run: Path, tmp_path: Path) -> None:
    image = TINY / "images/test_1.png"
    more = ["overlays=true", "probabilities=true"]
    assert predict.main([*arguments(tiny_run, image, tmp_path), *more]) == 0
    assert read_image(tmp_path / "overlays/test_1.png").shape == (64, 64, 3)
    probabilities = tifffile.imread(tmp_path / "probabilities/test_1.tif")
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-6)


def test_every_output_at_once(tiny_run: Path, tmp_path: Path) -> None:
    source = tmp_path / "images"
    (source / "deep").mkdir(parents=True)
    shutil.copy(TINY / "images/test_1.png", source / "deep/a.png")
    kinds = ["overlays", "probabilities", "uncertainty", "instances", "geojson"]
    more = ["mask_format=tiff", *(f"{kind}=true" for kind in kinds)]
    assert predict.main([*arguments(tiny_run, source, tmp_path / "out"), *more]) == 0
    found = {p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert {str(path) for path in found} == {
        "deep/a.tif",
        "summary.csv",
        "overlays/deep/a.png",
        "probabilities/deep/a.tif",
        "uncertainty/deep/a.tif",
        "instances/deep/a.tif",
        "geojson/deep/a.geojson",
    }
    objects = tifffile.imread(tmp_path / "out/instances/deep/a.tif")
    outlines = json.loads((tmp_path / "out/geojson/deep/a.geojson").read_text())
    assert len(outlines["features"]) == objects.max()
    row = list(csv.DictReader((tmp_path / "out/summary.csv").open()))[1]
    assert (row["image"], row["class"]) == ("deep/a.png", "gland")
    assert int(row["pixels"]) == (read_mask(tmp_path / "out/deep/a.tif") > 0).sum()
    assert int(row["objects"]) == objects.max()


def test_the_masks_can_be_trained_on(tiny_run: Path, tmp_path: Path) -> None:
    from medt.data.open import open_dataset

    images = TINY / "images"
    assert predict.main(arguments(tiny_run, images, tmp_path / "masks")) == 0
    settings = {"name": "folder", "images": images, "masks": tmp_path / "masks"}
    index = open_dataset({**settings, "splits_file": tmp_path / "splits.csv"}, draws=True)
    assert len(index.cases) == 10
    assert dict(index.labels.values or {}) == {0: 0, 255: 1}


def test_a_broken_image_is_named_and_the_others_are_predicted(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (TINY / "images/test_1.png").read_bytes()
    source = tmp_path / "images"
    source.mkdir()
    (source / "good one.png").write_bytes(whole)
    (source / "truncated.png").write_bytes(whole[: len(whole) // 2])
    assert predict.main(arguments(tiny_run, source, tmp_path / "masks")) == 1
    captured = capsys.readouterr()
    assert "truncated.png" in captured.err
    assert captured.err.count("\n") == 1
    assert "1 of 2 masks written" in captured.out
    assert {p.name for p in (tmp_path / "masks").iterdir()} == {"good one.png", "summary.csv"}


def test_masks_that_exist_are_kept_and_counted(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "test_1.png").write_bytes(b"drawn by hand")
    given = arguments(tiny_run, TINY / "images", masks)
    assert predict.main(given) == 0
    output = capsys.readouterr().out
    assert "9 of 10 masks written" in output
    assert "1 were there already and are kept (overwrite=true replaces them)" in output
    assert (masks / "test_1.png").read_bytes() == b"drawn by hand"
    assert predict.main([*given, "overwrite=true"]) == 0
    assert "10 of 10 masks written" in capsys.readouterr().out
    assert (masks / "test_1.png").read_bytes() != b"drawn by hand"


def test_objects_are_numbered_in_the_mask_as_it_was_cleaned(tiny_run: Path, tmp_path: Path) -> None:
    image = TINY / "images/test_1.png"
    rule = ["postprocess=components", "postprocess.smallest=20", "postprocess.largest_hole=9"]
    more = [*rule, "instances=true", "values=[0,1]"]
    assert predict.main([*arguments(tiny_run, image, tmp_path), *more]) == 0
    ids = medt.load(tiny_run / "checkpoints/best.pt").predict(image)
    cleaned, objects = find_objects(ids, InstanceRule("components", 20, 9))
    np.testing.assert_array_equal(read_mask(tmp_path / "test_1.png"), cleaned)
    with Image.open(tmp_path / "instances/test_1.png") as file:
        assert file.mode == "I;16"
        np.testing.assert_array_equal(np.array(file), objects)


def summary_of(output: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((output / "summary.csv").open()))


def test_nothing_is_found_outside_the_regions_of_interest(tiny_run: Path, tmp_path: Path) -> None:
    image = TINY / "images/test_1.png"
    roi = np.zeros((64, 64), np.uint8)
    roi[16:48, 8:56] = 255
    (tmp_path / "fields of view").mkdir()
    Image.fromarray(roi).save(tmp_path / "fields of view/test_1_mask.gif")
    more = [f"roi={tmp_path}/fields of view", "overlays=true", "objects=true", "pixel_size=0.5mm"]
    assert predict.main([*arguments(tiny_run, image, tmp_path / "out"), *more]) == 0
    ids = medt.load(tiny_run / "checkpoints/best.pt").predict(image)
    expected = np.where(roi, ids, 0)
    np.testing.assert_array_equal(read_mask(tmp_path / "out/test_1.png"), 255 * expected)
    background, gland = summary_of(tmp_path / "out")
    assert int(background["pixels"]) + int(gland["pixels"]) == 32 * 48
    assert float(gland["area_mm2"]) == np.count_nonzero(expected) / 4
    areas = [float(o["area_mm2"]) for o in csv.DictReader((tmp_path / "out/objects.csv").open())]
    assert sum(areas) == float(gland["area_mm2"])
    drawn = read_image(tmp_path / "out/overlays/test_1.png")
    np.testing.assert_array_equal(drawn[:16], read_image(image)[:16] // 2 + 64)


def test_regions_that_do_not_fit_are_told_image_by_image(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rois").mkdir()
    Image.new("L", (64, 64), 1).save(tmp_path / "rois/test_1.png")
    Image.new("L", (63, 64), 1).save(tmp_path / "rois/test_2.png")
    given = [*arguments(tiny_run, TINY / "images", tmp_path / "out"), f"roi={tmp_path}/rois"]
    assert predict.main(given) == 1
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 9
    assert all(line.startswith("error: ") for line in lines)
    assert sum("has no roi in" in line for line in lines) == 8
    assert sum("differ in size: 63 x 64 and 64 x 64 pixels" in line for line in lines) == 1
    assert "1 of 10 masks written" in captured.out


class TestPixelSize:
    @pytest.fixture
    def measured_run(self, tiny_run: Path, tmp_path: Path) -> Path:
        """A run on images of half a micrometre."""
        run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
        edit_checkpoint(
            run / "checkpoints/best.pt", lambda content: content["dataset"].update(pixel_size=0.5)
        )
        return run

    def test_is_that_of_the_dataset_trained_on(
        self, measured_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        given = arguments(measured_run, TINY / "images/test_1.png", tmp_path / "out")
        assert predict.main(given) == 0
        said = "pixel size 0.5um, as of synthetic, trained on (pixel_size=px counts in pixels)"
        assert said in capsys.readouterr().out
        row = summary_of(tmp_path / "out")[0]
        assert float(row["area_um2"]) == int(row["pixels"]) / 4

    @pytest.mark.parametrize("override", ["pixel_size=px", "pixel_size=null"])
    def test_can_be_left_out(
        self,
        measured_run: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        override: str,
    ) -> None:
        given = arguments(measured_run, TINY / "images/test_1.png", tmp_path / "out")
        assert predict.main([*given, override]) == 0
        assert "pixel size" not in capsys.readouterr().out
        row = summary_of(tmp_path / "out")[0]
        assert row["area_px"] == row["pixels"]

    @pytest.mark.parametrize(
        ("override", "column", "area"),
        [
            ("pixel_size=0.1mm", "area_mm2", 0.01),
            ("pixel_size=[0.1mm,0.2mm]", "area_mm2", 0.02),
            ("pixel_size=0.25µm", "area_um2", 0.0625),
            ("pixel_size='0.25 μm'", "area_um2", 0.0625),
            ("pixel_size=2", "area_um2", 4),
            ("pixel_size=4nm", "area_nm2", 16),
        ],
    )
    def test_is_given_with_its_unit(
        self, measured_run: Path, tmp_path: Path, override: str, column: str, area: float
    ) -> None:
        given = arguments(measured_run, TINY / "images/test_1.png", tmp_path / "out")
        assert predict.main([*given, override]) == 0
        row = summary_of(tmp_path / "out")[0]
        assert float(row[column]) == pytest.approx(int(row["pixels"]) * area)

    @pytest.mark.parametrize("value", ["0", "-1", "0.5", "5cm", "[1]", "[1um,1mm]", "{a:1}", "nan"])
    def test_of_another_kind_is_refused(
        self, tiny_run: Path, tmp_path: Path, refused: Callable[..., None], value: str
    ) -> None:
        given = arguments(tiny_run, TINY / "images", tmp_path / "masks")
        quoted = f"pixel_size='{value}'" if value == "0.5" else f"pixel_size={value}"
        refused(predict.main, [*given, quoted], "pixel_size=", "0.25um")

    def test_that_a_checkpoint_has_wrongly_is_refused(
        self, tiny_run: Path, tmp_path: Path, refused: Callable[..., None]
    ) -> None:
        run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
        best = run / "checkpoints/best.pt"
        edit_checkpoint(best, lambda content: content["dataset"].update(pixel_size="wide"))
        given = arguments(run, TINY / "images", tmp_path / "masks")
        refused(predict.main, given, f"{best}: dataset.pixel_size=wide", "pixel_size=...")

    def test_of_a_published_dataset_is_known(self) -> None:
        assert str(pixel_size_of({"name": "glas", "pixel_size": None})) == "0.62005um"
        assert str(pixel_size_of({"name": "glas", "pixel_size": "px"})) == "px"
        assert str(pixel_size_of({"name": "drive"})) == str(pixel_size_of({})) == "px"


def test_numbers_without_a_method_are_refused(
    tiny_run: Path, tmp_path: Path, refused: Callable[..., None]
) -> None:
    given = arguments(tiny_run, TINY / "images", tmp_path / "masks")
    refused(predict.main, [*given, "postprocess.smallest=5"], "smallest")
