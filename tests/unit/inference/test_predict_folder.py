"""Predicting a folder: which files appear, what they hold, and what a broken image does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import shape
from striped_images import COLORS, BrightestChannel, make_predictor, run, stripes

from medt.data.preprocessing import Preprocessing
from medt.drawing import overlay
from medt.errors import UserError
from medt.inference.areas import SUMMARY_FILE
from medt.inference.folder import Outcome, predict_folder
from medt.inference.inputs import Input, find_inputs
from medt.inference.instances import InstanceRule
from medt.inference.outputs import Outputs, entropy
from medt.inference.predictor import Predictor
from medt.io.files import write_png
from medt.io.images import read_image, read_mask
from medt.io.locks import LOCK_FILE, HeldError, locked


@pytest.fixture
def predictor():
    return make_predictor(2)


@pytest.fixture
def folder(tmp_path):
    for name in ("a 1", "b", "c.old"):
        write_png(tmp_path / "in" / f"{name}.png", stripes()[0])
    return tmp_path / "in"


def files(folder):
    found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return [name for name in found if name != SUMMARY_FILE]


def names(folder, output="out"):
    return [one.name.as_posix() for one in find_inputs(folder, output)]


class TestFindInputs:
    def test_lists_a_folder_or_a_single_file(self, folder):
        assert names(folder) == ["a 1.png", "b.png", "c.old.png"]
        assert find_inputs(folder / "b.png", "out") == [Input(folder / "b.png", Path("b.png"))]

    def test_lists_folders_at_any_depth_in_natural_order(self, folder):
        for name in ("p10/x.png", "p2/x.png", "p2/deep/er/y.tif"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        assert names(folder)[:3] == ["a 1.png", "b.png", "c.old.png"]
        assert names(folder)[3:] == ["p2/deep/er/y.tif", "p2/x.png", "p10/x.png"]

    def test_passes_over_hidden_and_linked_folders_and_the_output(self, folder, tmp_path):
        for name in (".git/x.png", "masks/x.png", ".hidden.png"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "z.png").touch()
        (folder / "link").symlink_to(tmp_path / "elsewhere")
        assert names(folder, folder / "masks") == ["a 1.png", "b.png", "c.old.png"]

    def test_says_what_is_missing(self, tmp_path):
        with pytest.raises(UserError, match=r"no file or folder .*nowhere"):
            find_inputs(tmp_path / "nowhere", "out")
        with pytest.raises(UserError, match="no images in"):
            find_inputs(tmp_path, "out")
        (tmp_path / "notes.txt").touch()
        with pytest.raises(UserError, match=r"notes\.txt is not an image"):
            find_inputs(tmp_path / "notes.txt", "out")


class TestMasks:
    def test_one_per_image_and_nothing_else(self, predictor, folder, tmp_path):
        assert run(predictor, folder, tmp_path / "out") == Outcome(written=3)
        assert files(tmp_path / "out") == ["a 1.png", "b.png", "c.old.png"]

    def test_have_the_images_own_size(self, predictor, tmp_path):
        write_png(tmp_path / "in" / "wide.png", np.zeros((7, 19, 3), np.uint8))
        run(predictor, tmp_path / "in" / "wide.png", tmp_path / "out")
        assert read_mask(tmp_path / "out" / "wide.png").shape == (7, 19)

    def test_of_two_classes_are_0_and_255(self, predictor, folder, tmp_path):
        run(predictor, folder / "b.png", tmp_path / "out")
        np.testing.assert_array_equal(read_mask(tmp_path / "out" / "b.png"), 255 * stripes()[1])

    def test_of_more_classes_are_class_ids(self, tmp_path):
        image, ids = stripes(3)
        write_png(tmp_path / "in" / "x.png", image)
        run(make_predictor(3), tmp_path / "in" / "x.png", tmp_path / "out")
        np.testing.assert_array_equal(read_mask(tmp_path / "out" / "x.png"), ids)

    @pytest.mark.parametrize(("values", "kind"), [((7, 200), np.uint8), ((1, 300), np.uint16)])
    def test_can_hold_other_values(self, predictor, folder, tmp_path, values, kind):
        run(predictor, folder / "b.png", tmp_path / "out", values=values)
        written = read_mask(tmp_path / "out" / "b.png")
        assert written.dtype == kind
        np.testing.assert_array_equal(written, np.array(values)[stripes()[1]])


class TestExtras:
    def test_overlays_show_the_image_with_its_outlines(self, predictor, folder, tmp_path):
        run(predictor, folder / "b.png", tmp_path / "out", overlays=True)
        image, ids = stripes()
        drawn = read_image(tmp_path / "out" / "overlays" / "b.png")
        np.testing.assert_array_equal(drawn, overlay(image, ids, COLORS[:2]))

    def test_overlays_number_the_objects_of_the_post_processing(self, predictor, folder, tmp_path):
        rule = InstanceRule("components")
        run(predictor, folder / "b.png", tmp_path / "out", rule, overlays=True, instances=True)
        image, ids = stripes()
        drawn = read_image(tmp_path / "out" / "overlays" / "b.png")
        numbers = read_mask(tmp_path / "out" / "instances" / "b.png")
        assert numbers.max() > 0
        np.testing.assert_array_equal(drawn, overlay(image, ids, COLORS[:2], objects=numbers))

    def test_probabilities_are_a_page_for_each_class(self, predictor, folder, tmp_path):
        run(predictor, folder / "b.png", tmp_path / "out", probabilities=True)
        with tifffile.TiffFile(tmp_path / "out" / "probabilities" / "b.tif") as file:
            assert len(file.pages) == 2
            assert file.shaped_metadata[0]["classes"] == ["class 0", "class 1"]
            expected = predictor.probabilities(folder / "b.png")
            np.testing.assert_array_equal(file.asarray(), expected)

    def test_uncertainty_is_the_entropy_of_the_probabilities(self, folder, tmp_path):
        predictor = make_predictor(3)
        run(predictor, folder / "b.png", tmp_path / "out", uncertainty=True)
        found = tifffile.imread(tmp_path / "out" / "uncertainty" / "b.tif")
        expected = scipy.stats.entropy(predictor.probabilities(folder / "b.png"), base=3, axis=0)
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_masks_and_instances_can_be_tiff(self, predictor, folder, tmp_path):
        run(predictor, folder / "b.png", tmp_path / "out", mask_format="tiff", instances=True)
        assert files(tmp_path / "out") == ["b.tif", "instances/b.tif"]
        np.testing.assert_array_equal(read_mask(tmp_path / "out" / "b.tif"), 255 * stripes()[1])
        assert tifffile.imread(tmp_path / "out" / "instances" / "b.tif").dtype == np.uint16

    def test_outlines_have_the_areas_of_the_objects(self, predictor, folder, tmp_path):
        run(predictor, folder / "b.png", tmp_path / "out", geojson=True)
        found = json.loads((tmp_path / "out" / "geojson" / "b.geojson").read_text())
        outlines = [shape(feature["geometry"]) for feature in found["features"]]
        assert [(one.bounds, one.area) for one in outlines] == [
            ((1, 0, 2, 4), 4),
            ((3, 0, 4, 4), 4),
        ]

    def test_folders_are_mirrored(self, predictor, folder, tmp_path):
        (folder / "deep").mkdir()
        write_png(folder / "deep" / "b.png", stripes()[0])
        run(predictor, folder, tmp_path / "out", instances=True)
        assert {"b.png", "deep/b.png", "instances/deep/b.png"} <= set(files(tmp_path / "out"))


class TestEntropy:
    def test_is_0_where_sure_and_1_where_all_are_alike(self):
        pixels = np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]], np.float32)
        found = entropy(pixels.T[:, None])[0]
        np.testing.assert_allclose(found, [0, 1, np.log(2) / np.log(3)], atol=1e-6)

    @given(st.lists(st.floats(0, 1), min_size=2, max_size=6).filter(lambda v: sum(v) > 0.01))
    def test_lies_between(self, values):
        pixel = np.array(values, np.float32)[:, None, None]
        assert 0 <= entropy(pixel / pixel.sum()) <= 1


class TestTwelveBits:
    def image(self, tmp_path, largest):
        pixels = np.linspace(0, largest, 48).reshape(4, 4, 3).astype(np.uint16)
        write_png(tmp_path / "in" / "x.png", pixels)
        return tmp_path / "in"

    def predictor(self, **changes):
        steps = Preprocessing((4, 4), 3, (0.5,) * 3, (0.2,) * 3)
        return Predictor(BrightestChannel(2), replace(steps, **changes), make_predictor(2).classes)

    def test_are_nearly_black_to_a_network_of_8_bits(self, tmp_path):
        outcome = run(self.predictor(), self.image(tmp_path, 4095), tmp_path / "out")
        (warning,) = outcome.warnings
        assert "x.png: 16 bit, but no value above 4095" in warning
        assert outcome.written == 1

    @pytest.mark.parametrize(
        ("largest", "changes"),
        [(4096, {}), (4095, {"percentile": 0.5}), (4095, {"mean": (0.03,) * 3})],
        ids=["more than 12 bits", "stretched", "trained on such"],
    )
    def test_are_right_otherwise(self, tmp_path, largest, changes):
        predictor = self.predictor(**changes)
        assert run(predictor, self.image(tmp_path, largest), tmp_path / "out").warnings == []


class TestBrokenImages:
    def test_are_named_and_the_others_predicted(self, predictor, folder, tmp_path):
        (folder / "b.png").write_bytes(b"\x89PNG but no more")
        (failure,) = run(predictor, folder, tmp_path / "out").failures
        assert failure.startswith(f"{folder}/b.png ")
        assert files(tmp_path / "out") == ["a 1.png", "c.old.png"]

    def test_count_as_progress(self, predictor, folder, tmp_path):
        (folder / "b.png").write_bytes(b"")
        seen = []
        inputs = find_inputs(folder, tmp_path / "out")
        predict_folder(predictor, inputs, tmp_path / "out", progress=lambda *x: seen.append(x))
        assert seen == [(1, 3), (2, 3), (3, 3)]

    def test_are_not_blamed_for_a_network_that_does_not_fit(self, folder, tmp_path):
        predictor = make_predictor(3)
        predictor.model = BrightestChannel(2)
        with pytest.raises(UserError, match="gives 2 classes"):
            run(predictor, folder, tmp_path / "out")


class TestFilesThatExist:
    def test_are_kept_and_what_is_missing_is_added(self, predictor, folder, tmp_path):
        (tmp_path / "out").mkdir()
        drawn = tmp_path / "out" / "b.png"
        drawn.write_bytes(b"drawn by hand")
        outcome = run(predictor, folder, tmp_path / "out", overlays=True)
        assert (outcome.written, outcome.kept, outcome.failures) == (2, 1, [])
        assert drawn.read_bytes() == b"drawn by hand"
        every = ["a 1.png", "b.png", "c.old.png"]
        assert files(tmp_path / "out" / "overlays") == every
        assert set(every) <= set(files(tmp_path / "out"))

    def test_are_replaced_if_asked(self, predictor, folder, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "b.png").write_bytes(b"old")
        run(predictor, folder / "b.png", tmp_path / "out", overwrite=True)
        np.testing.assert_array_equal(read_mask(tmp_path / "out" / "b.png"), 255 * stripes()[1])


def test_one_process_at_a_time(predictor, folder, tmp_path):
    with locked(tmp_path / "out", "predict.py"):
        with pytest.raises(HeldError, match=r"out is being written by predict.py \(process "):
            run(predictor, folder, tmp_path / "out")
        assert files(tmp_path / "out") == [LOCK_FILE]


class TestRefusedBeforeTheStart:
    @pytest.fixture(autouse=True)
    def _writes_nothing(self, tmp_path):
        yield
        assert not (tmp_path / "out").exists()

    def test_two_images_of_one_stem(self, predictor, folder, tmp_path):
        (folder / "b.tif").write_bytes((folder / "b.png").read_bytes())
        with pytest.raises(UserError, match=r"b\.png and .*b\.tif would both"):
            run(predictor, folder, tmp_path / "out")

    def test_the_folder_of_the_images_as_output(self, predictor, folder):
        before = files(folder)
        with pytest.raises(UserError, match="where the images lie"):
            run(predictor, folder, folder / ".." / "in")
        assert files(folder) == before

    @pytest.mark.parametrize("values", [(1,), (0, 1, 2), (-1, 2), (0, 70000)])
    def test_values_that_do_not_fit(self, predictor, folder, tmp_path, values):
        with pytest.raises(UserError, match="values="):
            run(predictor, folder, tmp_path / "out", values=values)

    def test_a_folder_called_as_an_output_is(self, predictor, folder, tmp_path):
        (folder / "overlays").mkdir()
        (folder / "b.png").rename(folder / "overlays" / "b.png")
        write_png(folder / "b.png", stripes()[0])
        with pytest.raises(UserError, match=r"would both be written to overlays/b\.png"):
            run(predictor, folder, tmp_path / "out", overlays=True)

    def test_an_output_around_the_images(self, predictor, folder, tmp_path):
        with pytest.raises(UserError, match=r"in/a 1\.png would replace an image"):
            predict_folder(
                predictor, [Input(folder / "a 1.png", Path("in/a 1.png"))], tmp_path, Outputs()
            )

    def test_a_file_as_output(self, predictor, folder):
        with pytest.raises(UserError, match="is a file"):
            run(predictor, folder / "a 1.png", folder / "b.png")


def test_logits_need_no_softmax_to_be_probabilities(predictor, folder):
    """The stored map is a softmax of the logits, not the logits."""
    probabilities = predictor.probabilities(folder / "b.png")
    logits = 50 * torch.from_numpy(stripes()[0][..., :2] / 255).permute(2, 0, 1)
    np.testing.assert_allclose(probabilities, logits.softmax(dim=0), atol=1e-6)


def test_more_objects_than_a_mask_of_16_bit_holds_are_one_failure(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr("medt.inference.folder.LARGEST_VALUE", 1)
    image, _ = stripes()
    write_png(tmp_path / "a.png", image)
    output = tmp_path / "masks"
    (failure,) = run(predictor, tmp_path / "a.png", output, values=(0, 1), instances=True).failures
    assert "a.png: 2 objects do not fit" in failure
    assert not output.exists()
