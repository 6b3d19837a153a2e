"""Tuning finds the numbers that were hidden in the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from medt.data.dataset import SegmentationDataset
from medt.data.layout import Case, default_classes
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError
from medt.evaluation.tuning import tune
from medt.inference.instances import InstanceRule
from medt.inference.predictor import Predictor
from medt.io.files import write_png

SIZE = 48
STEPS = Preprocessing((SIZE, SIZE), 3, (0.0,) * 3, (1.0,) * 3)


class Bright(nn.Module):
    """Foreground where the image is white."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([0.5 - x[:, 0], x[:, 0] - 0.5], dim=1)


PREDICTOR = Predictor(Bright(), STEPS, default_classes(["background", "nucleus"]))


def disks(*centres, radius=6):
    rows, columns = np.ogrid[:SIZE, :SIZE]
    numbers = np.zeros((SIZE, SIZE), np.uint8)
    for number, (y, x) in enumerate(centres, start=1):
        numbers[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = number
    return numbers


@pytest.fixture
def make_dataset(tmp_path):
    """One case of a predicted mask and the numbers of the true objects."""

    def make(predicted, numbers):
        files = [tmp_path / f"{kind}.png" for kind in ("image", "mask", "instances")]
        write_png(files[0], np.repeat((predicted > 0)[..., None] * np.uint8(255), 3, axis=2))
        write_png(files[1], (numbers > 0).astype(np.uint8))
        write_png(files[2], numbers)
        return SegmentationDataset([Case("a", *files, "", "val")], STEPS)

    return make


def test_specks_and_holes_are_cleaned(make_dataset):
    truth = disks((12, 12), (34, 34))
    predicted = truth.copy()
    predicted[12, 12] = 0
    predicted[2, 40:42] = predicted[40, 2:5] = 1  # specks of 2 and 3 pixels
    none, components = tune(PREDICTOR, make_dataset(predicted, truth), ["none", "components"])
    assert none.rule == InstanceRule()
    assert none.score == pytest.approx(0.5 * 2 / 3 + 0.5 * 2 / 3, abs=0.01)
    assert components.score == 1
    assert components.rule.smallest > 3
    assert components.rule.largest_hole >= 1


def test_touching_objects_are_parted(make_dataset):
    truth = disks((20, 14), (20, 25))
    dataset = make_dataset(truth, truth)
    _, components, watershed = tune(PREDICTOR, dataset, ["none", "components", "watershed"])
    assert components.score < 0.5
    assert watershed.score > 0.9


def test_what_gains_nothing_is_left_gentle(make_dataset):
    truth = disks((12, 12), (34, 34))
    _, components = tune(PREDICTOR, make_dataset(truth, truth), ["none", "components"])
    assert components.rule == InstanceRule("components")
    assert components.score == 1


def test_progress_ends_at_its_end(make_dataset):
    truth = disks((12, 12))
    steps = []
    tune(PREDICTOR, make_dataset(truth, truth), ["components"], lambda *step: steps.append(step))
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]


def test_without_objects_there_is_nothing_to_tune(make_dataset):
    nothing = disks()
    with pytest.raises(UserError, match="no object"):
        tune(PREDICTOR, make_dataset(nothing, nothing), ["components"])
