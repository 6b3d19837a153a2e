"""Predicting a folder: which files appear, what they hold, and what a broken image does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from medt.data.layout import SegmentationClass
from medt.data.preprocessing import Preprocessing
from medt.drawing import overlay
from medt.errors import UserError
from medt.files import write_png
from medt.images import read_image, read_mask
from medt.inference.folder import find_inputs, predict_folder
from medt.inference.predictor import Predictor

COLORS = [(0, 0, 0), (0, 158, 115), (230, 159, 0)]


class BrightestChannel(nn.Module):
    """Class c where channel c is the brightest."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x):
        return 50 * x[:, : self.classes]


def make_predictor(classes):
    steps = Preprocessing((4, 4), 3, (0.0,) * 3, (1.0,) * 3)
    names = [SegmentationClass(i, f"class {i}", COLORS[i]) for i in range(classes)]
    return Predictor(BrightestChannel(classes), steps, names)


@pytest.fixture
def predictor():
    return make_predictor(2)


def stripes(classes=2, size=(4, 4)):
    """An image whose columns belong to classes 0, 1, ..., and these classes."""
    ids = np.tile(np.arange(size[1]) % classes, (size[0], 1))
    return (255 * np.eye(3)[ids]).astype(np.uint8), ids


@pytest.fixture
def folder(tmp_path):
    for name in ("a 1", "b", "c.old"):
        write_png(tmp_path / "in" / f"{name}.png", stripes()[0])
    return tmp_path / "in"


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


class TestFindInputs:
    def test_lists_a_folder_or_a_single_file(self, folder):
        assert [p.name for p in find_inputs(folder)] == ["a 1.png", "b.png", "c.old.png"]
        assert find_inputs(folder / "b.png") == [folder / "b.png"]

    def test_says_what_is_missing(self, tmp_path):
        with pytest.raises(UserError, match=r"no file or folder .*nowhere"):
            find_inputs(tmp_path / "nowhere")
        with pytest.raises(UserError, match="no images in"):
            find_inputs(tmp_path)
        (tmp_path / "notes.txt").touch()
        with pytest.raises(UserError, match=r"notes\.txt is not an image"):
            find_inputs(tmp_path / "notes.txt")


class TestMasks:
    def test_one_per_image_and_nothing_else(self, predictor, folder, tmp_path):
        assert predict_folder(predictor, find_inputs(folder), tmp_path / "out") == []
        assert files(tmp_path / "out") == ["a 1.png", "b.png", "c.old.png"]

    def test_have_the_images_own_size(self, predictor, tmp_path):
        write_png(tmp_path / "in" / "wide.png", np.zeros((7, 19, 3), np.uint8))
        predict_folder(predictor, [tmp_path / "in" / "wide.png"], tmp_path / "out")
        assert read_mask(tmp_path / "out" / "wide.png").shape == (7, 19)

    def test_of_two_classes_are_0_and_255(self, predictor, folder, tmp_path):
        predict_folder(predictor, [folder / "b.png"], tmp_path / "out")
        np.testing.assert_array_equal(read_mask(tmp_path / "out" / "b.png"), 255 * stripes()[1])

    def test_of_more_classes_are_class_ids(self, tmp_path):
        image, ids = stripes(3)
        write_png(tmp_path / "in" / "x.png", image)
        predict_folder(make_predictor(3), [tmp_path / "in" / "x.png"], tmp_path / "out")
        np.testing.assert_array_equal(read_mask(tmp_path / "out" / "x.png"), ids)

    @pytest.mark.parametrize(("values", "kind"), [((7, 200), np.uint8), ((1, 300), np.uint16)])
    def test_can_hold_other_values(self, predictor, folder, tmp_path, values, kind):
        predict_folder(predictor, [folder / "b.png"], tmp_path / "out", values=values)
        written = read_mask(tmp_path / "out" / "b.png")
        assert written.dtype == kind
        np.testing.assert_array_equal(written, np.array(values)[stripes()[1]])


class TestExtras:
    def test_overlays_show_the_image_with_its_outlines(self, predictor, folder, tmp_path):
        predict_folder(predictor, [folder / "b.png"], tmp_path / "out", overlays=True)
        image, ids = stripes()
        drawn = read_image(tmp_path / "out" / "overlays" / "b.png")
        np.testing.assert_array_equal(drawn, overlay(image, ids, COLORS[:2]))

    def test_probabilities_are_stored_with_their_classes(self, predictor, folder, tmp_path):
        predict_folder(predictor, [folder / "b.png"], tmp_path / "out", probabilities=True)
        with np.load(tmp_path / "out" / "probabilities" / "b.npz") as stored:
            assert stored["classes"].tolist() == ["class 0", "class 1"]
            expected = predictor.probabilities(folder / "b.png")
            np.testing.assert_allclose(stored["probabilities"], expected, atol=1e-3)


class TestBrokenImages:
    def test_are_named_and_the_others_predicted(self, predictor, folder, tmp_path):
        (folder / "b.png").write_bytes(b"\x89PNG but no more")
        failures = predict_folder(predictor, find_inputs(folder), tmp_path / "out")
        assert [f.path for f in failures] == [folder / "b.png"]
        assert "b.png" in failures[0].message
        assert files(tmp_path / "out") == ["a 1.png", "c.old.png"]

    def test_count_as_progress(self, predictor, folder, tmp_path):
        (folder / "b.png").write_bytes(b"")
        seen = []
        inputs = find_inputs(folder)
        predict_folder(predictor, inputs, tmp_path / "out", progress=lambda *x: seen.append(x))
        assert seen == [(1, 3), (2, 3), (3, 3)]

    def test_are_not_blamed_for_a_network_that_does_not_fit(self, folder, tmp_path):
        predictor = make_predictor(3)
        predictor.model = BrightestChannel(2)
        with pytest.raises(UserError, match="gives 2 classes"):
            predict_folder(predictor, find_inputs(folder), tmp_path / "out")


class TestFilesThatExist:
    def test_are_kept_and_what_is_missing_is_added(self, predictor, folder, tmp_path):
        (tmp_path / "out").mkdir()
        drawn = tmp_path / "out" / "b.png"
        drawn.write_bytes(b"drawn by hand")
        assert predict_folder(predictor, find_inputs(folder), tmp_path / "out", overlays=True) == []
        assert drawn.read_bytes() == b"drawn by hand"
        every = ["a 1.png", "b.png", "c.old.png"]
        assert files(tmp_path / "out" / "overlays") == every
        assert set(every) <= set(files(tmp_path / "out"))

    def test_are_replaced_if_asked(self, predictor, folder, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "b.png").write_bytes(b"old")
        predict_folder(predictor, [folder / "b.png"], tmp_path / "out", overwrite=True)
        np.testing.assert_array_equal(read_mask(tmp_path / "out" / "b.png"), 255 * stripes()[1])


class TestRefusedBeforeTheStart:
    @pytest.fixture(autouse=True)
    def _writes_nothing(self, tmp_path):
        yield
        assert not (tmp_path / "out").exists()

    def test_two_images_of_one_stem(self, predictor, folder, tmp_path):
        (folder / "b.tif").write_bytes((folder / "b.png").read_bytes())
        with pytest.raises(UserError, match=r"b\.png and .*b\.tif would both"):
            predict_folder(predictor, find_inputs(folder), tmp_path / "out")

    def test_the_folder_of_the_images_as_output(self, predictor, folder):
        before = files(folder)
        with pytest.raises(UserError, match="where the images lie"):
            predict_folder(predictor, find_inputs(folder), folder / ".." / "in")
        assert files(folder) == before

    @pytest.mark.parametrize("values", [(1,), (0, 1, 2), (-1, 2), (0, 70000)])
    def test_values_that_do_not_fit(self, predictor, folder, tmp_path, values):
        with pytest.raises(UserError, match="values="):
            predict_folder(predictor, find_inputs(folder), tmp_path / "out", values=values)

    def test_a_file_as_output(self, predictor, folder):
        with pytest.raises(UserError, match="is a file"):
            predict_folder(predictor, [folder / "a 1.png"], folder / "b.png")


def test_logits_need_no_softmax_to_be_probabilities(predictor, folder):
    """The stored map is a softmax of the logits, not the logits."""
    probabilities = predictor.probabilities(folder / "b.png")
    logits = 50 * torch.from_numpy(stripes()[0][..., :2] / 255).permute(2, 0, 1)
    np.testing.assert_allclose(probabilities, logits.softmax(dim=0), atol=1e-6)


def test_more_objects_than_a_mask_of_16_bit_holds_are_one_failure(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr("medt.inference.folder.LARGEST_VALUE", 1)
    image, _ = stripes()
    write_png(tmp_path / "a.png", image)
    inputs, output = find_inputs(tmp_path / "a.png"), tmp_path / "masks"
    (failure,) = predict_folder(predictor, inputs, output, values=(0, 1), instances=True)
    assert "a.png: 2 objects do not fit" in failure.message
    assert not output.exists()
