"""The predictor: the same input as in training, the image's own size, a network left unharmed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from medt.checkpoint import Checkpoint, save_checkpoint
from medt.data.dataset import SegmentationDataset
from medt.data.layout import Case, SegmentationClass
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError
from medt.files import write_png
from medt.inference.predictor import Predictor

CLASSES = (
    SegmentationClass(0, "background", (0, 0, 0)),
    SegmentationClass(1, "gland", (0, 158, 115)),
)


class Threshold(nn.Module):
    """Logits 0 and 20 (brightness - 0.5): class 1 where a pixel is brighter than the middle."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.brightness = nn.Conv2d(channels, 1, 1)
        nn.init.constant_(self.brightness.weight, 20 / channels)
        nn.init.constant_(self.brightness.bias, -10)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        bright = self.dropout(self.brightness(x))
        return torch.cat([torch.zeros_like(bright), bright], dim=1)


def preprocessing(size=(8, 8), channels=3):
    return Preprocessing(size, channels, (0.0,) * channels, (1.0,) * channels)


@pytest.fixture
def predictor():
    return Predictor(Threshold(), preprocessing(), CLASSES)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_predicts_at_the_images_own_size(predictor):
    image = np.zeros((21, 33, 3), np.uint8)
    image[:, 16:] = 255
    mask = predictor.predict(image)
    assert mask.shape == (21, 33)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(np.unique(mask[:, :14]), [0])
    np.testing.assert_array_equal(np.unique(mask[:, 19:]), [1])


def test_an_image_of_the_networks_size_is_predicted_pixel_by_pixel(predictor):
    image = noise(8, 8, 3)
    expected = image.astype(int).sum(axis=2) > 1.5 * 255
    np.testing.assert_array_equal(predictor.predict(image), expected)


def test_probabilities_are_the_enlarged_softmax(predictor):
    image = noise(16, 24, 3)
    small = predictor.preprocessing.tensor(predictor.preprocessing.image(image))
    foreground = 1 / (1 + np.exp(-20 * (small.mean(dim=0).numpy() - 0.5)))
    expected = cv2.resize(foreground, (24, 16), interpolation=cv2.INTER_LINEAR)
    probabilities = predictor.probabilities(image)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities[1], expected, atol=1e-4)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)


def test_a_path_and_an_array_give_the_same(predictor, tmp_path):
    image = noise(13, 9, 3)
    write_png(tmp_path / "image.png", image)
    from_path = predictor.probabilities(tmp_path / "image.png")
    np.testing.assert_array_equal(from_path, predictor.probabilities(image))


@pytest.mark.parametrize("shape", [(19, 30), (19, 30, 3), (19, 30, 4)])
def test_the_network_sees_what_it_sees_in_training(shape, tmp_path):
    write_png(tmp_path / "image.png", noise(*shape))
    write_png(tmp_path / "mask.png", np.zeros(shape[:2], np.uint8))
    case = Case("a", tmp_path / "image.png", tmp_path / "mask.png", None, "", "test")
    steps = Preprocessing((8, 8), 3, (0.3, 0.4, 0.5), (0.2, 0.3, 0.4))
    seen = []
    model = Threshold()
    model.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    Predictor(model, steps, CLASSES).predict(tmp_path / "image.png")
    torch.testing.assert_close(
        seen[0][0], SegmentationDataset([case], steps)[0]["image"], rtol=0, atol=0
    )


def test_grey_networks_take_grey_and_colour_images():
    predictor = Predictor(Threshold(1), preprocessing(channels=1), CLASSES)
    assert predictor.predict(noise(10, 7)).shape == (10, 7)
    assert predictor.predict(noise(10, 7, 3)).shape == (10, 7)


def test_the_network_is_in_evaluation_mode(predictor):
    image = noise(8, 8, 3)
    assert not predictor.model.training
    np.testing.assert_array_equal(predictor.probabilities(image), predictor.probabilities(image))


def test_logits_carry_no_graph(predictor):
    logits = predictor.logits(torch.rand(2, 3, 8, 8))
    assert logits.shape == (2, 2, 8, 8)
    assert not logits.requires_grad


def test_names_the_classes_that_do_not_fit_the_network():
    predictor = Predictor(Threshold(), preprocessing(), CLASSES[:1])
    with pytest.raises(UserError, match="gives 2 classes, but there are 1: background"):
        predictor.predict(noise(8, 8, 3))


class TestLoad:
    @pytest.fixture
    def path(self, tmp_path, predictor):
        checkpoint = Checkpoint(
            model={"_target_": f"{__name__}.Threshold", "channels": 3},
            weights=predictor.model.state_dict(),
            preprocessing=predictor.preprocessing.to_dict(),
            classes=[{"id": c.id, "name": c.name, "color": list(c.color)} for c in CLASSES],
            dataset={},
            config={},
            epoch=1,
            scores={},
            training_cases=[],
        )
        save_checkpoint(checkpoint, tmp_path / "best.pt")
        return tmp_path / "best.pt"

    def test_needs_the_file_only(self, path, predictor):
        loaded = Predictor.load(path, allow=f"{__name__}.Threshold")
        assert loaded.classes == CLASSES
        assert loaded.preprocessing == predictor.preprocessing
        image = noise(20, 11, 3)
        np.testing.assert_array_equal(loaded.probabilities(image), predictor.probabilities(image))

    def test_builds_no_foreign_class_unasked(self, path):
        with pytest.raises(UserError, match="Threshold"):
            Predictor.load(path)
