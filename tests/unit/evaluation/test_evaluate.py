"""Evaluating a network whose answer is known: what each protocol compares, exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from medt.data.crops import Crops
from medt.data.dataset import SegmentationDataset
from medt.data.labels import Labels
from medt.data.layout import Case, default_classes
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError
from medt.evaluation.evaluate import evaluate
from medt.inference.predictor import Predictor
from medt.io.files import write_png
from medt.losses import CrossEntropyLoss

STEPS = Preprocessing((4, 4), 3, (0.0,) * 3, (1.0,) * 3)


class ChannelLogits(nn.Module):
    """The channels of the image, 0..1, times ``scale``, are the logits of the first classes."""

    def __init__(self, classes=2, scale=1.0):
        super().__init__()
        self.classes, self.scale = classes, scale

    def forward(self, x):
        return self.scale * x[:, : self.classes]


def make_predictor(classes=2, scale=1.0, steps=STEPS):
    names = ["background", "gland", "tumour"][:classes]
    return Predictor(ChannelLogits(classes, scale), steps, default_classes(names))


def image_of(ids):
    """An image in which the channel of the class is bright and the others are dark."""
    return (255 * np.eye(3)[ids]).astype(np.uint8)


@pytest.fixture
def make_dataset(tmp_path):
    """Build a dataset of (image, mask) pairs; case i is called ``case_i``, of group ``p_i``."""

    def make(*pairs, steps=STEPS, **options):
        cases = []
        for i, (image, mask) in enumerate(pairs):
            paths = tmp_path / f"case_{i}.png", tmp_path / f"case_{i}_mask.png"
            write_png(paths[0], image)
            write_png(paths[1], mask.astype(np.uint8))
            cases.append(Case(f"case_{i}", *paths, None, f"p_{i}", "test"))
        return SegmentationDataset(cases, steps, **options)

    return make


def left_half(size):
    mask = np.zeros((size, size), int)
    mask[:, : size // 2] = 1
    return mask


def test_a_row_holds_the_case_and_its_scores(make_dataset):
    truth = left_half(4)
    predicted = truth.copy()
    predicted[0] = [0, 1, 1, 1]  # one pixel missed, two added
    dataset = make_dataset((image_of(predicted), truth))
    (row,) = evaluate(make_predictor(), dataset).rows
    gland = row.pop("classes")["gland"]
    assert (gland["tp"], gland["fp"], gland["fn"]) == (7, 2, 1)
    assert gland["dice"] == pytest.approx(14 / 17)
    assert gland["iou"] == pytest.approx(7 / 10)
    assert gland["precision"] == pytest.approx(7 / 9)
    assert gland["recall"] == pytest.approx(7 / 8)
    assert row.pop("foreground")["dice"] == gland["dice"]
    expected = {"case": "case_0", "group": "p_0", "split": "test", "height": 4, "width": 4}
    assert row == expected | {"true_foreground": 8, "predicted_foreground": 9}


def test_native_compares_at_the_masks_own_size(make_dataset):
    truth = left_half(16)
    dataset = make_dataset((image_of(truth), truth))
    (row,) = evaluate(make_predictor(), dataset, "native").rows
    assert (row["height"], row["width"]) == (16, 16)
    assert row["classes"]["gland"]["tp"] == 128
    assert row["foreground"]["dice"] == 1


def test_native_sees_detail_that_the_networks_size_cannot_hold(make_dataset):
    truth = left_half(16)
    truth[0, 12] = 1
    dataset = make_dataset((image_of(truth), truth))
    (native,) = evaluate(make_predictor(), dataset, "native").rows
    (paper,) = evaluate(make_predictor(), dataset, "paper").rows
    assert native["classes"]["gland"]["fn"] == 1
    assert paper["foreground"]["dice"] == 1
    assert (paper["height"], paper["width"]) == (4, 4)


def test_native_argmax_is_taken_after_enlarging_the_probabilities(make_dataset):
    """Softmax first, then bilinear: between logits 0 and 8 the border is not halfway in logits."""
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, :8, 1] = 255  # class 1 with probability 1, elsewhere a weak class 0
    image[:, 8:, 0] = 16
    predictor = make_predictor(scale=20.0)
    dataset = make_dataset((image, left_half(16)))
    (row,) = evaluate(predictor, dataset).rows
    expected = predictor.predict(image)
    assert row["classes"]["gland"]["fp"] == expected[:, 8:].sum() == 16


def test_predictor_and_evaluation_agree(make_dataset):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (13, 9, 3), dtype=np.uint8)
    truth = make_predictor(3).predict(image)
    dataset = make_dataset((image, truth))
    summary = evaluate(make_predictor(3), dataset).summary
    assert summary["pooled"]["dice"]["foreground"] == 1


def test_paper_official_thresholds_channel_1_of_the_raw_logits(make_dataset):
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0] = 255  # argmax says background everywhere
    image[:2, :, 1] = 140  # 0.549 >= 0.5
    image[2:, :, 1] = 120  # 0.471 < 0.5
    truth = np.zeros((4, 4), int)
    truth[:2] = 1
    dataset = make_dataset((image, truth))
    official = evaluate(make_predictor(), dataset, "paper_official")
    assert official.rows[0]["foreground"]["dice"] == 1
    assert official.rows[0]["classes"]["gland"]["tp"] == 8
    assert evaluate(make_predictor(), dataset, "paper").rows[0]["foreground"]["dice"] == 0


def test_paper_official_gives_1_where_nothing_was_found_right(make_dataset):
    empty, full = np.zeros((4, 4), int), np.ones((4, 4), int)
    dataset = make_dataset((image_of(empty), full))
    official = evaluate(make_predictor(), dataset, "paper_official")
    scores = official.rows[0]["foreground"]
    assert scores["dice"] == 1
    assert scores["iou"] == scores["precision"] == scores["recall"] == 0
    assert any("F1" in rule for rule in official.summary["rules"])
    assert official.summary["empty"] == "one"  # whatever is asked for: the script's rule
    honest = evaluate(make_predictor(), dataset, "paper")
    assert honest.rows[0]["foreground"]["dice"] == 0
    assert not any("F1" in rule for rule in honest.summary["rules"])


@pytest.mark.parametrize("protocol", ["native", "paper"])
def test_labels_and_ignored_pixels_are_respected(make_dataset, protocol):
    truth = left_half(4) * 200
    truth[3] = 77
    dataset = make_dataset((image_of(left_half(4)), truth), labels=Labels({0: 0, 200: 1}, 77))
    (row,) = evaluate(make_predictor(), dataset, protocol).rows
    gland = row["classes"]["gland"]
    assert (gland["tp"], gland["fp"], gland["fn"]) == (6, 0, 0)


def test_the_summary_states_what_was_measured(make_dataset):
    half, empty = left_half(4), np.zeros((4, 4), int)
    dataset = make_dataset((image_of(half), half), (image_of(half), empty))
    summary = evaluate(make_predictor(), dataset, "paper", empty="one").summary
    assert summary["cases"] == 2
    assert summary["empty"] == "one"
    assert summary["protocol"] == "paper"
    assert summary["splits"] == ["test"]
    assert summary["image_size"] == [4, 4]
    assert summary["mean_over_cases"]["dice"]["foreground"] == pytest.approx(1 / 2)
    assert summary["pooled"]["dice"]["foreground"] == pytest.approx(16 / 24)


def test_an_absent_class_is_left_out_and_counted(make_dataset):
    half = left_half(4)
    dataset = make_dataset((image_of(half), half))
    evaluation = evaluate(make_predictor(3), dataset)
    assert math.isnan(evaluation.rows[0]["classes"]["tumour"]["dice"])
    part = evaluation.summary["mean_over_cases"]["dice"]
    assert part["foreground"] == 1
    assert part["left_out"]["classes"]["tumour"] == 1


@pytest.mark.parametrize("protocol", ["native", "paper", "paper_official"])
def test_batches_change_nothing_and_are_reported(make_dataset, protocol):
    rng = np.random.default_rng(1)
    sizes = [(4, 4), (9, 5), (6, 12)]
    pairs = [(rng.integers(0, 256, (*s, 3), np.uint8), rng.integers(0, 2, s)) for s in sizes]
    dataset, seen = make_dataset(*pairs), []
    one = evaluate(make_predictor(), dataset, protocol, batch_size=1)
    two = evaluate(
        make_predictor(), dataset, protocol, batch_size=2, progress=lambda *x: seen.append(x)
    )
    assert one.rows == two.rows
    assert [row["case"] for row in two.rows] == ["case_0", "case_1", "case_2"]
    assert seen == [(2, 3), (3, 3)]


def test_the_loss_is_its_mean_over_cases_at_the_networks_size(make_dataset):
    half, empty = left_half(4), np.zeros((4, 4), int)
    dataset = make_dataset(*[(image_of(half), truth) for truth in (half, empty, half)])
    loss = nn.CrossEntropyLoss()
    hit, miss = np.log(1 + np.exp([-1, 1]))  # the right logit is larger by 1, or smaller
    expected = (hit + (hit + miss) / 2 + hit) / 3
    for size in (1, 2, 3):
        summary = evaluate(make_predictor(), dataset, batch_size=size, loss=loss).summary
        assert summary["loss"] == pytest.approx(expected)
    assert "loss" not in evaluate(make_predictor(), dataset).summary


class TestCrops:
    """A network that was trained on crops is scored at the images' own size, window by window."""

    STEPS = Preprocessing((4, 4), 3, (0.0,) * 3, (1.0,) * 3, sampling="crop")

    @pytest.fixture
    def dataset(self, make_dataset):
        small = left_half(16)
        small[0, 12] = 1  # lost at 4 x 4
        tiny = np.array([[0, 1, 1]])
        pairs = [(image_of(truth), truth) for truth in (small, left_half(6), tiny)]
        return make_dataset(*pairs, steps=self.STEPS)

    @pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (5, 0), (8, 1)])
    def test_every_detail_counts_at_the_images_own_size(self, dataset, batch_size, workers):
        predictor = make_predictor(scale=20.0, steps=self.STEPS)
        evaluation = evaluate(predictor, dataset, batch_size=batch_size, workers=workers)
        sizes = [(row["height"], row["width"]) for row in evaluation.rows]
        assert sizes == [(16, 16), (6, 6), (1, 3)]
        assert [row["foreground"]["dice"] for row in evaluation.rows] == [1, 1, 1]
        assert [row["classes"]["gland"]["tp"] for row in evaluation.rows] == [129, 18, 2]
        assert "overlapping windows" in evaluation.summary["protocol_means"]

    def test_the_loss_leaves_out_what_was_added_to_a_small_image(self, dataset):
        loss = CrossEntropyLoss()
        summary = evaluate(
            make_predictor(steps=self.STEPS), dataset, batch_size=3, loss=loss
        ).summary
        assert summary["loss"] == pytest.approx(np.log(1 + np.exp(-1)))

    @pytest.mark.parametrize("protocol", ["paper", "paper_official"])
    def test_the_papers_protocols_are_refused(self, dataset, protocol):
        with pytest.raises(UserError, match=rf"protocol={protocol} .*trained on crops") as caught:
            evaluate(make_predictor(steps=self.STEPS), dataset, protocol)
        assert caught.value.hint == "use protocol=native"

    def test_a_dataset_of_crops_is_refused(self, dataset):
        dataset.crops = Crops()
        with pytest.raises(UserError, match="cropped"):
            evaluate(make_predictor(steps=self.STEPS), dataset)


class TestRefused:
    @pytest.fixture
    def dataset(self, make_dataset):
        return make_dataset((image_of(left_half(4)), left_half(4)))

    def test_an_unknown_protocol(self, dataset):
        with pytest.raises(UserError, match="protocol=papre is not known"):
            evaluate(make_predictor(), dataset, "papre")

    def test_the_official_protocol_for_three_classes(self, dataset):
        with pytest.raises(UserError, match="2 classes, not 3"):
            evaluate(make_predictor(3), dataset, "paper_official")

    def test_a_dataset_without_cases(self):
        with pytest.raises(UserError, match="no cases"):
            evaluate(make_predictor(), SegmentationDataset([], STEPS))

    def test_a_dataset_preprocessed_otherwise(self, dataset):
        other = Preprocessing((4, 4), 3, (0.5,) * 3, (1.0,) * 3)
        with pytest.raises(UserError, match="preprocessed"):
            evaluate(make_predictor(steps=other), dataset)

    def test_an_augmented_dataset(self, dataset):
        dataset.augmentation = lambda image, mask, seed: (image, mask)
        with pytest.raises(UserError, match="augment"):
            evaluate(make_predictor(), dataset)

    def test_a_mask_with_a_class_that_the_network_does_not_know(self, make_dataset):
        dataset = make_dataset((image_of(left_half(4)), 2 * left_half(4)))
        with pytest.raises(UserError, match=r"case_0.*2"):
            evaluate(make_predictor(), dataset)


def test_the_network_runs_without_a_graph(make_dataset):
    predictor = make_predictor()
    modes = []
    predictor.model.register_forward_hook(
        lambda *_: modes.append((torch.is_inference_mode_enabled(), predictor.model.training))
    )
    evaluate(predictor, make_dataset((image_of(left_half(4)), left_half(4))))
    assert modes == [(True, False)]
