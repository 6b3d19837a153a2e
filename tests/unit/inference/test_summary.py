"""summary.csv: it holds the rows of every mask, after whatever happened."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from striped_images import make_predictor, run, stripes

from medt.errors import UserError
from medt.inference.areas import SUMMARY_FILE, Summary
from medt.inference.folder import Outcome, predict_folder
from medt.inference.inputs import find_inputs
from medt.inference.instances import InstanceRule
from medt.io.files import write_png
from medt.metrics.pixel_size import PixelSize


@pytest.fixture
def predictor():
    return make_predictor(2)


@pytest.fixture
def folder(tmp_path):
    for name in ("a 1", "b", "c.old"):
        write_png(tmp_path / "in" / f"{name}.png", stripes()[0])
    return tmp_path / "in"


def rows_in(folder):
    return list(csv.DictReader((folder / SUMMARY_FILE).open(encoding="utf-8")))


def test_it_says_how_much_of_each_class_was_found(predictor, folder, tmp_path):
    (folder / "deep").mkdir()
    image = stripes()[0]
    image[:, 3] = image[:, 0]  # one of two stripes
    write_png(folder / "deep" / "ü,b.png", image)
    run(predictor, folder, tmp_path / "out")
    rows = rows_in(tmp_path / "out")
    assert [row["image"] for row in rows[::2]] == [
        "a 1.png",
        "b.png",
        "c.old.png",
        "deep/ü,b.png",
    ]
    assert rows[-2:] == [
        {
            "image": "deep/ü,b.png",
            "class": "class 0",
            "pixels": "12",
            "fraction": "0.750000",
            "objects": "",
            "area_px": "12",
            "objects_per_megapixel": "",
        },
        {
            "image": "deep/ü,b.png",
            "class": "class 1",
            "pixels": "4",
            "fraction": "0.250000",
            "objects": "1",
            "area_px": "4",
            "objects_per_megapixel": "62500",
        },
    ]


def test_it_is_that_of_the_cleaned_mask(predictor, folder, tmp_path):
    rule = InstanceRule("components", smallest=5)
    run(predictor, folder / "b.png", tmp_path / "out", rule)
    assert rows_in(tmp_path / "out")[1]["pixels"] == "0"


def test_it_grows_with_the_folder(predictor, folder, tmp_path):
    run(predictor, folder / "c.old.png", tmp_path / "out")
    run(predictor, folder, tmp_path / "out")
    assert [row["image"] for row in rows_in(tmp_path / "out")[::2]] == [
        "a 1.png",
        "b.png",
        "c.old.png",
    ]


def test_it_loses_nothing_when_interrupted_and_has_no_row_twice(predictor, folder, tmp_path):
    out = tmp_path / "out"

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    inputs = find_inputs(folder, out)
    with pytest.raises(KeyboardInterrupt):
        predict_folder(predictor, inputs, out, progress=stop)
    assert [row["image"] for row in rows_in(out)[::2]] == ["a 1.png", "b.png"]
    with (out / SUMMARY_FILE).open("a") as file:
        file.write("c.old.png,class 0,1")  # a torn line
    (out / "b.png").unlink()
    run(predictor, folder, out)
    assert [row["image"] for row in rows_in(out)[::2]] == ["a 1.png", "b.png", "c.old.png"]
    assert len(rows_in(out)) == 6


def test_it_is_written_again_for_masks_that_are_kept(predictor, folder, tmp_path):
    out, rule = tmp_path / "out", InstanceRule("components", smallest=2, largest_hole=0)
    run(predictor, folder, out, rule, values=(7, 300))
    whole = (out / SUMMARY_FILE).read_text()
    for less in (None, "image,class,pixels,fraction,objects\n", whole.rpartition("b.png")[0]):
        (out / SUMMARY_FILE).unlink()
        if less is not None:
            (out / SUMMARY_FILE).write_text(less)
        outcome = run(predictor, folder, out, rule, values=(7, 300))
        assert outcome == Outcome(kept=3)
        assert (out / SUMMARY_FILE).read_text() == whole


def test_it_counts_in_a_mask_that_is_kept_what_it_holds(predictor, folder, tmp_path):
    drawn = np.zeros((4, 4), np.uint8)
    drawn[1:3, 1:3] = 255
    drawn[0, 3] = 255
    write_png(tmp_path / "out" / "b.png", drawn)
    rule = InstanceRule("components", smallest=1, largest_hole=0)
    run(predictor, folder / "b.png", tmp_path / "out", rule, overlays=True)
    assert [(row["pixels"], row["objects"]) for row in rows_in(tmp_path / "out")] == [
        ("11", ""),
        ("5", "1"),
    ]


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.full((4, 4), 9, np.uint8), "other values than [0, 255], one for each class"),
        (np.zeros((4, 5), np.uint8), "has not the size of"),
    ],
    ids=["values", "size"],
)
def test_it_does_not_count_a_mask_that_does_not_fit(predictor, folder, tmp_path, mask, words):
    write_png(tmp_path / "out" / "b.png", mask)
    outcome = run(predictor, folder, tmp_path / "out")
    (warning,) = outcome.warnings
    assert warning.startswith(f"not in summary.csv: {tmp_path}/out/b.png ")
    assert words in warning
    assert "overwrite=true" in warning
    assert (outcome.written, outcome.kept, outcome.failures) == (2, 1, [])
    assert [row["image"] for row in rows_in(tmp_path / "out")[::2]] == [
        "a 1.png",
        "c.old.png",
    ]


def test_values_that_stand_for_two_classes_count_nothing(predictor, folder, tmp_path):
    for _ in range(2):
        outcome = run(predictor, folder / "b.png", tmp_path / "out", values=(0, 0))
        (tmp_path / "out" / SUMMARY_FILE).unlink(missing_ok=True)
    assert len(outcome.warnings) == 1


def test_it_keeps_the_rows_of_another_network_with_its_masks(folder, tmp_path):
    run(make_predictor(3), folder, tmp_path / "out", values=(0, 255, 1))
    before = (tmp_path / "out" / SUMMARY_FILE).read_text()
    assert run(make_predictor(2), folder, tmp_path / "out") == Outcome(kept=3)
    assert (tmp_path / "out" / SUMMARY_FILE).read_text() == before


def test_it_grows_with_folders_one_after_the_other(predictor, folder, tmp_path):
    write_png(tmp_path / "more" / "d.png", stripes()[0])
    out = tmp_path / "out"
    for source in (folder, tmp_path / "more", folder):
        run(predictor, source, out)
    images = [row["image"] for row in rows_in(out)[::2]]
    assert images == ["a 1.png", "b.png", "c.old.png", "d.png"]


def test_a_torn_line_does_not_spoil_the_next_one(tmp_path):
    (tmp_path / SUMMARY_FILE).write_text("image,class,pixels,fraction,objects\na.png,cl")
    row = ("b.png", "class 0", "1", "1.0", "", "1", "")
    Summary(tmp_path).add("b.png", [row])  # and no close
    assert list(Summary(tmp_path).rows) == ["b.png"]


class TestPixelSizes:
    def of(self, text):
        return {"pixel_size": PixelSize.of(text)}

    def test_areas_and_densities_are_in_their_unit(self, predictor, folder, tmp_path):
        """8 of 16 pixels in two stripes; pixels of 0.5 um x 0.25 um have 0.125 square um."""
        expected = {
            "0.5um": ("area_um2", 8 * 0.25, "objects_per_mm2", 2 / (16 * 0.25) * 1e6),
            "0.1mm": ("area_mm2", 8 * 0.01, "objects_per_mm2", 2 / (16 * 0.01)),
            "4nm": ("area_nm2", 8 * 16, "objects_per_um2", 2 / (16 * 16) * 1e6),
        }
        for text, (area, areas, density, densities) in expected.items():
            run(predictor, folder / "b.png", tmp_path / text, **self.of(text))
            row = rows_in(tmp_path / text)[1]
            assert float(row[area]) == pytest.approx(areas)
            assert float(row[density]) == pytest.approx(densities)
            assert rows_in(tmp_path / text)[0][density] == ""
        run(predictor, folder / "b.png", tmp_path / "two", **self.of(["0.5um", "0.25um"]))
        assert float(rows_in(tmp_path / "two")[1]["area_um2"]) == 8 * 0.125

    def test_rows_in_pixels_are_measured_where_the_masks_are_kept(
        self, predictor, folder, tmp_path
    ):
        out = tmp_path / "out"
        run(predictor, folder, out)
        run(predictor, folder / "b.png", out, **self.of("0.5um"))
        assert [row["area_um2"] for row in rows_in(out)] == ["", "", "2", "2", "", ""]
        run(predictor, folder, out, **self.of("0.5um"))
        assert [row["area_um2"] for row in rows_in(out)] == ["2"] * 6
        run(predictor, folder, out, **self.of("1um"))
        assert [row["area_um2"] for row in rows_in(out)] == ["8"] * 6

    def test_rows_of_earlier_versions_are_too(self, predictor, folder, tmp_path):
        out = tmp_path / "out"
        run(predictor, folder, out)
        former = [",".join(list(row.values())[:5]) for row in rows_in(out)]
        former.insert(0, "image,class,pixels,fraction,objects")
        (out / SUMMARY_FILE).write_text("\n".join(former) + "\n")
        assert run(predictor, folder, out, **self.of("0.5um")) == Outcome(kept=3)
        assert [row["area_um2"] for row in rows_in(out)] == ["2"] * 6
        assert [row["pixels"] for row in rows_in(out)] == ["8"] * 6

    def test_another_unit_is_refused_and_nothing_is_lost(self, predictor, folder, tmp_path):
        out = tmp_path / "out"
        run(predictor, folder, out, **self.of("0.5um"))
        before = (out / SUMMARY_FILE).read_text()
        for other in ("1mm", "px"):
            with pytest.raises(UserError, match=f"in micrometres, but pixel_size={other} .give"):
                run(predictor, folder, out, **self.of(other))
        assert (out / SUMMARY_FILE).read_text() == before

    def test_a_row_that_counts_nothing_is_refused(self, predictor, folder, tmp_path):
        out = tmp_path / "out"
        run(predictor, folder, out)
        text = (out / SUMMARY_FILE).read_text()
        for count in ("many", "-8", "8.0", "9" * 5000):
            (out / SUMMARY_FILE).write_text(text.replace(",8,", f",{count},"))
            with pytest.raises(UserError, match="no summary of predictions"):
                run(predictor, folder, out)
        (out / SUMMARY_FILE).write_text(text.replace(",8,", ",0,"))
        assert run(predictor, folder, out) == Outcome(kept=3)
        assert {row["objects_per_megapixel"] for row in rows_in(out)} == {""}


def test_another_file_of_its_name_is_left_alone(predictor, folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / SUMMARY_FILE).write_text("patient,age\n")
    with pytest.raises(UserError, match="no summary of predictions"):
        run(predictor, folder, tmp_path / "out")
    assert (tmp_path / "out" / SUMMARY_FILE).read_text() == "patient,age\n"
