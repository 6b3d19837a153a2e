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
from medt.data.normalization import NORMALIZATIONS, fit_normalization
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError
from medt.inference.predictor import Predictor
from medt.io.files import write_png

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


@pytest.mark.parametrize("sampling", ["resize", "crop"])
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("shape", [(19, 30), (19, 30, 3), (19, 30, 4)])
def test_the_network_sees_what_it_sees_in_training(shape, normalize, sampling, tmp_path):
    image = noise(*shape).astype(np.uint16) * 16 + 7
    write_png(tmp_path / "image.png", image)
    write_png(tmp_path / "mask.png", np.zeros(shape[:2], np.uint8))
    case = Case("a", tmp_path / "image.png", tmp_path / "mask.png", None, "", "test")
    steps = Preprocessing(
        (8, 8) if sampling == "resize" else shape[:2],  # then one window sees it all
        3,
        sampling=sampling,
        **fit_normalization([case], normalize, 3),
    )
    seen = []
    model = Threshold()
    model.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    predictor = Predictor(model, steps, CLASSES)
    predictor.predict(tmp_path / "image.png")
    array = image if image.ndim == 2 else image[..., :3]  # of which no file says what is alpha
    predictor.predict(array)
    predictor.maps_of(steps.original(array))
    expected = SegmentationDataset([case], steps)[0]["image"]
    for batch in seen:
        torch.testing.assert_close(batch[0], expected, rtol=0, atol=0)
    assert len(seen) == 3


class Place(nn.Module):
    """Logits say how far a pixel is from the window's centre, and count what goes in."""

    def __init__(self, size):
        super().__init__()
        rows, columns = (torch.linspace(-1, 1, n) for n in size)
        self.distance = (rows[:, None] ** 2 + columns**2) ** 0.5
        self.batches = []

    def forward(self, x):
        self.batches.append(x)
        assert x.shape[2:] == self.distance.shape
        bright = 10 * x[:, :1]
        return torch.cat([torch.zeros_like(bright), bright - self.distance], dim=1)


class TestSlidingWindow:
    """A network that was trained on crops sees images at their own size."""

    @staticmethod
    def crops(size=(8, 8), channels=3):
        ranges = (0.0,) * channels, (1.0,) * channels
        return Preprocessing(size, channels, *ranges, sampling="crop")

    def test_details_that_a_resized_image_would_lose_are_seen(self):
        image = np.zeros((40, 56, 3), np.uint8)
        image[7, 5] = image[33, 50] = 255
        mask = Predictor(Threshold(), self.crops(), CLASSES).predict(image)
        assert mask.shape == (40, 56)
        assert np.argwhere(mask).tolist() == [[7, 5], [33, 50]]
        assert not Predictor(Threshold(), preprocessing(), CLASSES).predict(image).any()

    @pytest.mark.parametrize("shape", [(8, 8), (9, 8), (21, 33), (3, 5), (1, 40), (30, 2)])
    def test_a_network_that_looks_at_single_pixels_gives_what_it_gives_at_once(self, shape):
        image = noise(*shape, 3)
        probabilities = Predictor(Threshold(), self.crops(), CLASSES).probabilities(image)
        tensor = preprocessing().tensor(image)
        expected = 1 / (1 + np.exp(-20 * (tensor.mean(dim=0).numpy() - 0.5)))
        assert probabilities.shape == (2, *shape)
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities[1], expected, atol=1e-4)

    def test_windows_overlap_by_half_and_their_centres_count_most(self):
        model = Place((8, 8))
        predictor = Predictor(model, self.crops(), CLASSES)
        distance = -predictor.logits(torch.zeros(1, 3, 16, 24))[0, 1]
        starts = [(top, left) for top in (0, 4, 8) for left in (0, 4, 8, 12, 16)]
        assert sum(len(batch) for batch in model.batches) == len(starts)
        total, count = torch.zeros(2, 16, 24)
        for top, left in starts:
            total[top : top + 8, left : left + 8] += model.distance
            count[top : top + 8, left : left + 8] += 1
        plain = total / count
        several = count > 1
        assert (distance[several] < plain[several] + 1e-5).all()
        assert distance[several].mean() < 0.9 * plain[several].mean()

    def test_at_most_so_many_windows_go_through_at_once(self):
        model = Place((8, 8))
        predictor = Predictor(model, self.crops(), CLASSES)
        image = torch.rand(1, 3, 30, 30, generator=torch.Generator().manual_seed(0))
        few = predictor.logits(image, windows=3)
        assert {len(batch) for batch in model.batches} == {3, 49 % 3}
        torch.testing.assert_close(few, predictor.logits(image, windows=100))

    def test_a_small_image_is_mirrored_as_in_training(self):
        model = Place((8, 8))
        steps = self.crops()
        image = noise(5, 20, 3)
        mask = Predictor(model, steps, CLASSES).predict(image)
        assert mask.shape == (5, 20)
        torch.testing.assert_close(model.batches[0][0], steps.tensor(steps.image(image))[..., :8])

    def test_the_mode_follows_the_preprocessing(self):
        assert Predictor(Threshold(), preprocessing(), CLASSES).mode == "resize"
        assert Predictor(Threshold(), self.crops(), CLASSES).mode == "sliding_window"


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
