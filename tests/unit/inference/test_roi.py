"""roi=FOLDER: nothing is predicted, counted or drawn outside the regions of interest."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image
from shapely.geometry import shape
from striped_images import COLORS, make_predictor, run, stripes

from medt.drawing import overlay
from medt.errors import UserError
from medt.inference.areas import SUMMARY_FILE
from medt.inference.folder import Outcome
from medt.inference.inputs import find_inputs, find_regions
from medt.inference.instances import InstanceRule
from medt.io.files import write_png
from medt.io.images import read_image, read_mask
from medt.metrics.pixel_size import PixelSize

INSIDE = np.zeros((4, 4), np.uint8)  # of the stripe in column 1 two pixels, of that in 3 none
INSIDE[1:3, 0:3] = 1


@pytest.fixture
def predictor():
    return make_predictor(2)


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "deep/21_training"):
        write_png(tmp_path / "in" / f"{name}.png", stripes()[0])
    return tmp_path / "in"


@pytest.fixture
def rois(tmp_path):
    place = tmp_path / "rois"
    (place / "deep").mkdir(parents=True)
    write_png(place / "a.png", 255 * INSIDE)
    Image.fromarray(255 * INSIDE).save(place / "deep" / "21_training_mask.gif")
    return place


def rows_in(out, name=SUMMARY_FILE):
    return list(csv.DictReader((out / name).open(encoding="utf-8")))


class TestOutside:
    def test_masks_hold_the_background(self, predictor, folder, rois, tmp_path):
        out = tmp_path / "out"
        assert run(predictor, folder, out, roi=rois) == Outcome(written=2)
        for name in ("a.png", "deep/21_training.png"):
            np.testing.assert_array_equal(read_mask(out / name), 255 * stripes()[1] * INSIDE)

    def test_masks_hold_the_value_of_the_background(self, predictor, folder, rois, tmp_path):
        run(predictor, folder, tmp_path / "out", roi=rois, values=(7, 200))
        written = read_mask(tmp_path / "out" / "a.png")
        np.testing.assert_array_equal(written, np.where(stripes()[1] * INSIDE, 200, 7))

    def test_nothing_is_counted(self, predictor, folder, rois, tmp_path):
        out = tmp_path / "out"
        more = {"objects": True, "pixel_size": PixelSize.of("1mm")}
        run(predictor, folder, out, roi=rois, **more)
        background, stripe = rows_in(out)[:2]
        assert (background["pixels"], stripe["pixels"], stripe["objects"]) == ("4", "2", "1")
        assert (background["fraction"], stripe["fraction"]) == ("0.666667", "0.333333")
        assert (background["area_mm2"], stripe["area_mm2"]) == ("4", "2")
        assert float(stripe["objects_per_mm2"]) == pytest.approx(1 / 6)
        (row, other) = rows_in(out, "objects.csv")
        assert (row["image"], row["area_mm2"]) == ("a.png", "2")
        assert other["image"] == "deep/21_training.png"
        assert [row[f"box_{side}"] for side in ("left", "top", "right", "bottom")] == list("1123")

    def test_there_are_no_objects_and_no_outlines(self, predictor, folder, rois, tmp_path):
        out = tmp_path / "out"
        run(predictor, folder, out, roi=rois, instances=True, geojson=True)
        objects = read_mask(out / "instances" / "a.png")
        np.testing.assert_array_equal(objects, stripes()[1] * INSIDE)
        (feature,) = json.loads((out / "geojson" / "a.geojson").read_text())["features"]
        assert shape(feature["geometry"]).bounds == (1, 1, 2, 3)

    def test_overlays_are_grey(self, predictor, folder, rois, tmp_path):
        out = tmp_path / "out"
        run(predictor, folder, out, roi=rois, overlays=True)
        image, ids = stripes()
        drawn = read_image(out / "overlays" / "a.png")
        marked = np.where(INSIDE, ids, 255).astype(np.uint8)
        np.testing.assert_array_equal(drawn, overlay(image, marked, COLORS[:2]))
        np.testing.assert_array_equal(drawn[0], image[0] // 2 + 64)

    def test_probabilities_are_the_networks_own(self, predictor, folder, rois, tmp_path):
        plain, out = tmp_path / "plain", tmp_path / "out"
        more = {"probabilities": True, "uncertainty": True}
        run(predictor, folder, plain, **more)
        run(predictor, folder, out, roi=rois, **more)
        for name in ("probabilities/a.tif", "uncertainty/a.tif"):
            assert (out / name).read_bytes() == (plain / name).read_bytes()

    def test_holes_are_not_filled(self, predictor, tmp_path):
        ids = np.zeros((9, 9), np.uint8)
        ids[1:8, 1:8] = 1
        ids[3, 3] = ids[5, 5] = 0  # two holes, of which one lies outside
        write_png(tmp_path / "in" / "x.png", (255 * np.eye(3)[ids]).astype(np.uint8))
        roi = np.ones((9, 9), np.uint8)
        roi[4:7, 4:7] = 0
        write_png(tmp_path / "rois" / "x.png", roi)
        rule = InstanceRule("components", smallest=1, largest_hole=9)
        predictor = make_predictor(2, (9, 9))
        run(predictor, tmp_path / "in", tmp_path / "out", rule, roi=tmp_path / "rois")
        expected = ids * roi
        expected[3, 3] = 1
        np.testing.assert_array_equal(read_mask(tmp_path / "out" / "x.png"), 255 * expected)

    def test_masks_that_are_kept_are_counted_inside(self, predictor, folder, rois, tmp_path):
        out = tmp_path / "out"
        run(predictor, folder, out)
        assert rows_in(out)[1]["pixels"] == "8"
        (out / SUMMARY_FILE).unlink()
        outcome = run(predictor, folder, out, roi=rois, objects=True)
        assert (outcome.kept, outcome.failures) == (2, [])
        assert outcome.warnings == [
            f"{out}/{name}.png is kept and reaches beyond the roi (overwrite=true replaces it)"
            for name in ("a", "deep/21_training")
        ]
        assert [row["pixels"] for row in rows_in(out)] == ["4", "2"] * 2
        assert [row["pixels"] for row in rows_in(out, "objects.csv")] == ["2", "2"]

    def test_a_mask_that_is_kept_is_told_of_where_it_reaches_beyond(
        self, predictor, folder, rois, tmp_path
    ):
        out = tmp_path / "out"
        run(predictor, folder, out)
        assert len(run(predictor, folder, out, roi=rois).warnings) == 2
        run(predictor, folder, out, roi=rois, overwrite=True)
        assert run(predictor, folder, out, roi=rois) == Outcome(kept=2)
        (rois / "a.png").unlink()
        (warning,) = run(predictor, folder, out, roi=rois).warnings
        assert warning.startswith(f"not looked at: {folder}/a.png has no roi")


class TestNames:
    def found(self, folder, rois):
        regions = find_regions(rois, find_inputs(folder, "out"))
        return {
            name.as_posix(): [path.name for path in files] for name, files in regions.files.items()
        }

    def test_are_those_of_the_images_with_a_suffix_or_without(self, tmp_path):
        for name in ("01_test", "a", "A b", "b_mask", "b"):
            write_png(tmp_path / "in" / f"{name}.tif.png", INSIDE)
            (tmp_path / "in" / f"{name}.tif.png").rename(tmp_path / "in" / f"{name}.tif")
        masks = ("01_test_mask.gif", "A.bmp", "a B-roi.png", "b_mask.png", "c.png", "b fov.png")
        (tmp_path / "rois").mkdir()
        for name in masks:
            (tmp_path / "rois" / name).touch()
        assert self.found(tmp_path / "in", tmp_path / "rois") == {
            "01_test.tif": ["01_test_mask.gif"],
            "A b.tif": ["a B-roi.png"],
            "a.tif": ["A.bmp"],
            "b.tif": ["b fov.png"],
            "b_mask.tif": ["b_mask.png"],
        }

    def test_are_looked_for_in_the_same_subfolder(self, folder, rois):
        assert self.found(folder, rois) == {
            "a.png": ["a.png"],
            "deep/21_training.png": ["21_training_mask.gif"],
        }

    def test_a_folder_of_rois_among_the_images_is_not_predicted(self, predictor, folder, tmp_path):
        write_png(folder / "rois" / "a.png", INSIDE)
        write_png(folder / "rois" / "deep" / "21_training.png", INSIDE)
        assert run(predictor, folder, tmp_path / "out", roi=folder / "rois").written == 2

    def test_one_image_takes_a_file_or_a_folder(self, predictor, folder, rois, tmp_path):
        image = folder / "a.png"
        (folder / "a_mask.png").write_bytes((rois / "a.png").read_bytes())
        for number, roi in enumerate((rois / "a.png", rois, folder)):
            run(predictor, image, tmp_path / str(number), roi=roi)
            assert (read_mask(tmp_path / str(number) / "a.png") > 0).sum() == 2


class TestFailures:
    def failure(self, predictor, folder, rois, tmp_path):
        """What is said of a.png; the other image is predicted."""
        outcome = run(predictor, folder, tmp_path / "out", roi=rois)
        assert outcome.written == 1
        assert [row["image"] for row in rows_in(tmp_path / "out")] == ["deep/21_training.png"] * 2
        assert not (tmp_path / "out" / "a.png").exists()
        (line,) = outcome.failures
        assert "\n" not in line
        assert line.endswith(")")
        return line

    def test_without_a_roi(self, predictor, folder, rois, tmp_path):
        (rois / "a.png").unlink()
        line = self.failure(predictor, folder, rois, tmp_path)
        assert line.startswith(f"{folder}/a.png has no roi in {rois} (its file is called a, or ")

    def test_of_another_size(self, predictor, folder, rois, tmp_path):
        write_png(rois / "a.png", np.ones((4, 5), np.uint8))
        line = self.failure(predictor, folder, rois, tmp_path)
        assert f"the roi {rois}/a.png and its image {folder}/a.png differ in size: " in line
        assert "5 x 4 and 4 x 4 pixels" in line

    def test_empty(self, predictor, folder, rois, tmp_path):
        write_png(rois / "a.png", 0 * INSIDE)
        assert f"the roi {rois}/a.png is empty" in self.failure(predictor, folder, rois, tmp_path)

    def test_two(self, predictor, folder, rois, tmp_path):
        write_png(rois / "a_mask.png", INSIDE)
        line = self.failure(predictor, folder, rois, tmp_path)
        assert f"{folder}/a.png has the rois {rois}/a.png and {rois}/a_mask.png (" in line

    def test_unreadable(self, predictor, folder, rois, tmp_path):
        (rois / "a.png").write_bytes(b"\x89PNG")
        assert f"{rois}/a.png" in self.failure(predictor, folder, rois, tmp_path)

    def test_painted(self, predictor, folder, rois, tmp_path):
        write_png(rois / "a.png", stripes()[0])
        line = self.failure(predictor, folder, rois, tmp_path)
        assert f"the roi {rois}/a.png is painted in colours (save it in grey" in line

    def test_a_link_out_of_the_folder(self, predictor, folder, rois, tmp_path):
        (rois / "a.png").rename(tmp_path / "elsewhere.png")
        (rois / "a.png").symlink_to(tmp_path / "elsewhere.png")
        assert f"{rois}/a.png" in self.failure(predictor, folder, rois, tmp_path)


class TestRefusedBeforeTheStart:
    @pytest.fixture(autouse=True)
    def _writes_nothing(self, tmp_path):
        yield
        assert not (tmp_path / "out").exists()

    def test_no_such_folder(self, predictor, folder, tmp_path):
        with pytest.raises(UserError, match=r"there is no roi folder .*nowhere"):
            run(predictor, folder, tmp_path / "out", roi=tmp_path / "nowhere")

    def test_one_file_for_several_images(self, predictor, folder, rois, tmp_path):
        with pytest.raises(UserError, match=r"a\.png is one file for 2 images"):
            run(predictor, folder, tmp_path / "out", roi=rois / "a.png")

    def test_the_folder_of_the_images(self, predictor, folder, tmp_path):
        with pytest.raises(UserError, match="is where the images lie"):
            run(predictor, folder, tmp_path / "out", roi=folder / ".." / "in")

    def test_the_rois_would_be_replaced(self, predictor, folder, rois):
        before = (rois / "a.png").read_bytes()
        with pytest.raises(UserError, match=r"rois/a\.png would replace a roi"):
            run(predictor, folder, rois, roi=rois)
        assert (rois / "a.png").read_bytes() == before


@pytest.mark.parametrize("white", [1, 0])
def test_a_gif_is_inside_where_it_is_white(predictor, tmp_path, white):
    """As DRIVE's are; the numbers of the palette may be in any order."""
    image = Image.fromarray(INSIDE if white else 1 - INSIDE)
    image.putpalette([255 * (1 - white)] * 3 + [255 * white] * 3 + [0] * 762)
    image.save(tmp_path / "x_mask.gif")
    write_png(tmp_path / "x.png", stripes()[0])
    run(predictor, tmp_path / "x.png", tmp_path / "out", roi=tmp_path / "x_mask.gif")
    np.testing.assert_array_equal(
        read_mask(tmp_path / "out" / "x.png"), 255 * stripes()[1] * INSIDE
    )
