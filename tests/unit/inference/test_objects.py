"""objects.csv: values against an independent computation, and rows of every mask that is kept."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import perimeter as perimeter_of_squares
from striped_images import make_predictor, run, stripes

from medt.errors import UserError
from medt.inference.areas import SUMMARY_FILE
from medt.inference.folder import Outcome
from medt.inference.objects import OBJECTS_FILE, object_columns, object_rows, perimeter
from medt.io.files import write_png
from medt.metrics.pixel_size import PIXELS, PixelSize

CLASSES = make_predictor(3).classes
TALL = PixelSize.of(["0.5um", "0.25um"])


def rows_of(ids, objects, pixel_size, probabilities=None):
    if probabilities is None:
        probabilities = np.eye(3, dtype=np.float32)[ids].transpose(2, 0, 1)
    rows = object_rows("a.png", ids, objects, probabilities, CLASSES, pixel_size)
    return [dict(zip(object_columns(pixel_size), row, strict=True)) for row in rows]


def rectangle(top=5, left=7, height=10, width=20, class_id=1):
    ids = np.zeros((40, 50), np.uint8)
    ids[top : top + height, left : left + width] = class_id
    return ids, (ids > 0).astype(np.int32)


def test_a_rectangle_of_10_x_20_pixels_of_half_and_a_quarter_micrometre():
    (row,) = rows_of(*rectangle(), TALL)
    assert (row["image"], row["class"], row["object"]) == ("a.png", "class 1", "1")
    assert float(row["pixels"]) == 200
    assert float(row["area_um2"]) == 5 * 5
    assert float(row["centroid_x_um"]) == (7 + 10) * 0.25
    assert float(row["centroid_y_um"]) == (5 + 5) * 0.5
    box = [int(row[f"box_{side}"]) for side in ("left", "top", "right", "bottom")]
    assert box == [7, 5, 27, 15]
    assert float(row["perimeter_um"]) == 2 * (9 * 0.5 + 19 * 0.25)
    # variances of 0 ... n-1, times the side squared
    across, down = (400 - 1) / 12 * 0.25**2, (100 - 1) / 12 * 0.5**2
    assert float(row["eccentricity"]) == pytest.approx(math.sqrt(1 - down / across), abs=1e-6)
    assert float(row["mean_probability"]) == 1


def test_in_pixels_and_in_square_micrometres():
    pixels, fine = (rows_of(*rectangle(), size)[0] for size in (PIXELS, PixelSize.of("0.5um")))
    assert float(pixels["area_px"]) == 200
    assert (float(pixels["centroid_x_px"]), float(pixels["centroid_y_px"])) == (17, 10)
    assert float(pixels["perimeter_px"]) == 2 * (9 + 19)
    assert float(pixels["eccentricity"]) == pytest.approx(math.sqrt(1 - 99 / 399), abs=1e-6)
    assert float(fine["area_um2"]) == 50
    assert float(fine["perimeter_um"]) == 9 + 19
    assert fine["eccentricity"] == pixels["eccentricity"]


def test_a_disk_is_round_and_its_outline_about_two_pi_r():
    y, x = np.mgrid[:40, :50]
    ids = ((y - 20) ** 2 + (x - 25) ** 2 <= 15**2).astype(np.uint8)
    (row,) = rows_of(ids, ids.astype(np.int32), PixelSize.of("2mm"))
    assert float(row["eccentricity"]) == 0
    assert float(row["perimeter_mm"]) == pytest.approx(2 * math.pi * 30, rel=0.06)


def test_each_object_has_the_mean_probability_of_its_class():
    ids, objects = rectangle(class_id=2)
    ids[30, 40], objects[30, 40] = 1, 2
    probabilities = np.zeros((3, 40, 50), np.float32)
    probabilities[2, 5:15, 7:17], probabilities[2, 5:15, 17:27] = 0.75, 0.25
    probabilities[1, 30, 40] = 0.625
    two, one = rows_of(ids, objects, PIXELS, probabilities)
    assert (two["class"], float(two["mean_probability"])) == ("class 2", 0.5)
    assert (one["class"], float(one["mean_probability"])) == ("class 1", 0.625)
    assert float(one["perimeter_px"]) == float(one["eccentricity"]) == 0  # of one pixel


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_the_perimeter_is_scikit_images_where_pixels_are_square(region):
    expected = perimeter_of_squares(region)
    assert perimeter(region, (1.0, 1.0)) == pytest.approx(expected)
    assert perimeter(region, (0.25, 0.25)) == pytest.approx(expected / 4)
    turned = perimeter(region.T.copy(), (3.0, 2.0))
    assert perimeter(region, (2.0, 3.0)) == pytest.approx(turned)


class TestFolders:
    @pytest.fixture
    def predictor(self):
        return make_predictor(2)

    @pytest.fixture
    def folder(self, tmp_path):
        for name in ("=1+1", "b"):
            write_png(tmp_path / "in" / f"{name}.png", stripes()[0])
        write_png(tmp_path / "in" / "none.png", 0 * stripes()[0])
        return tmp_path / "in"

    def text(self, out):
        return (out / OBJECTS_FILE).read_text(encoding="utf-8")

    def rows(self, out):
        return list(csv.DictReader((out / OBJECTS_FILE).open(encoding="utf-8")))

    def test_there_is_a_row_for_each_object(self, predictor, folder, tmp_path):
        out = tmp_path / "out"
        run(predictor, folder, out, objects=True, pixel_size=PixelSize.of("0.1mm"))
        rows = self.rows(out)
        assert [(row["image"], row["object"]) for row in rows] == [
            *(("'=1+1.png", "1"), ("'=1+1.png", "2"), ("b.png", "1"), ("b.png", "2")),
        ]
        assert [float(row["centroid_x_mm"]) for row in rows] == pytest.approx([0.15, 0.35] * 2)
        assert {row["area_mm2"] for row in rows} == {"0.04"}
        sure = predictor.probabilities(folder / "b.png")[1].max()
        assert float(rows[0]["mean_probability"]) == pytest.approx(sure, abs=1e-6)
        assert not (out / "probabilities").exists()
        assert not (out / "objects").exists()

    def test_without_it_there_is_none(self, predictor, folder, tmp_path):
        run(predictor, folder, tmp_path / "out")
        assert not (tmp_path / "out" / OBJECTS_FILE).exists()

    def test_without_objects_there_is_a_head(self, predictor, folder, tmp_path):
        for _ in range(2):
            run(predictor, folder / "none.png", tmp_path / "out", objects=True)
            assert self.text(tmp_path / "out") == ",".join(object_columns(PIXELS)) + "\n"

    def test_it_is_written_again_for_masks_that_are_kept(
        self, predictor, folder, tmp_path, monkeypatch
    ):
        out = tmp_path / "out"
        run(predictor, folder, out, objects=True)
        whole, summary = self.text(out), (out / SUMMARY_FILE).read_text()
        torn = whole.rpartition("b.png")[0]  # an object less
        changed = whole.replace("b.png,class 1,2,4,", "b.png,class 1,2,5,")
        for less in (None, torn, torn + "b.p", changed):
            (out / OBJECTS_FILE).unlink()
            if less is not None:
                (out / OBJECTS_FILE).write_text(less)
            assert run(predictor, folder, out, objects=True) == Outcome(kept=3)
            assert self.text(out) == whole
        assert (out / SUMMARY_FILE).read_text() == summary
        monkeypatch.setattr(predictor, "bands", None)  # what is whole is not predicted again
        assert run(predictor, folder, out, objects=True) == Outcome(kept=3)
        assert self.text(out) == whole

    def test_it_is_added_later_of_the_masks_as_they_are(self, predictor, folder, tmp_path):
        out = tmp_path / "out"
        run(predictor, folder, out)
        drawn = np.zeros((4, 4), np.uint8)
        drawn[1:3, 1:4] = 255
        write_png(out / "b.png", drawn)
        (out / SUMMARY_FILE).unlink()
        assert run(predictor, folder, out, objects=True) == Outcome(kept=3)
        row = self.rows(out)[-1]
        assert (row["image"], row["object"], row["pixels"]) == ("b.png", "1", "6")
        expected = predictor.probabilities(folder / "b.png")[1, 1:3, 1:4].mean()
        assert float(row["mean_probability"]) == pytest.approx(expected, abs=1e-6)

    def test_another_pixel_size_is_measured_anew(self, predictor, folder, tmp_path):
        out = tmp_path / "out"
        for size, area, length in (("0.5um", 1, 1), ("1um", 4, 2)):
            run(predictor, folder, out, objects=True, pixel_size=PixelSize.of(size))
            row = self.rows(out)[0]
            assert (float(row["area_um2"]), float(row["perimeter_um"])) == (area, length)

    def test_another_unit_is_refused(self, predictor, folder, tmp_path):
        out = tmp_path / "out"
        run(predictor, folder, out, objects=True)
        before = self.text(out)
        with pytest.raises(UserError, match=r"objects\.csv is in pixels, but pixel_size=1um"):
            run(predictor, folder, out, objects=True, pixel_size=PixelSize.of(1))
        assert self.text(out) == before

    def test_an_overwritten_mask_has_the_rows_of_the_new_one(self, predictor, folder, tmp_path):
        out = tmp_path / "out"
        run(predictor, folder, out, objects=True)
        half = stripes()[0]
        half[:, 3] = half[:, 0]
        write_png(folder / "b.png", half)
        run(predictor, folder, out, objects=True, overwrite=True)
        assert [row["image"] for row in self.rows(out)] == ["'=1+1.png"] * 2 + ["b.png"]

    def test_another_file_of_its_name_is_left_alone(self, predictor, folder, tmp_path):
        out = tmp_path / "out"
        out.mkdir()
        (out / OBJECTS_FILE).write_text("patient,age\n1,2\n")
        with pytest.raises(UserError, match="no table of objects"):
            run(predictor, folder, out, objects=True)
        assert self.text(out) == "patient,age\n1,2\n"
