"""What a class scores that the truth does not have, and the false alarms there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric

from medt.errors import UserError
from medt.metrics.empty import (
    EMPTY_RULES,
    checked_empty,
    false_alarms,
    former_empty,
    left_out,
)
from medt.metrics.pixel import confusion_matrix, count_pixels, dice

SIDE = 6


def of_pixels(count, class_id=1):
    """A mask with so many pixels of a class, from the upper left on."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask.ravel()[:count] = class_id
    return mask


@pytest.mark.parametrize(
    ("empty", "expected"),
    [
        ("skip", [False, False, True, True]),
        ("alarms", [False, False, False, True]),
        ("one", [False, False, False, False]),
    ],
)
def test_what_is_left_out(empty, expected):
    predicted, true = np.array([[1, 1], [0, 1], [1, 0], [0, 0]], bool).T
    assert left_out(empty, predicted, true).tolist() == expected


@pytest.mark.parametrize(("empty", "ignore_empty"), [("skip", True), ("one", False)])
def test_two_rules_are_monais(empty, ignore_empty):
    """With several classes: in some of the cases some are not there."""
    rng = np.random.default_rng(0)
    metric = DiceMetric(include_background=True, ignore_empty=ignore_empty, reduction="none")
    for _ in range(40):
        truth, prediction = (
            rng.choice(rng.choice(4, rng.integers(1, 4), replace=False), (SIDE, SIDE))
            for _ in range(2)
        )
        one_hot = [
            torch.from_numpy(np.eye(4)[side].transpose(2, 0, 1)[None])
            for side in (prediction, truth)
        ]
        expected = metric(*one_hot).numpy()[0]
        found = dice(count_pixels(prediction, truth, 4), empty)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_third_is_nnunets():
    """Dice is 2 tp / (2 tp + fp + fn), and NaN, to be left out, only where all three are 0."""
    rng = np.random.default_rng(1)
    for _ in range(40):
        truth, prediction = (of_pixels(rng.choice([0, 0, 5, 20])) for _ in range(2))
        a, b = prediction == 1, truth == 1
        whole = int(a.sum()) + int(b.sum())
        expected = 2 * int((a & b).sum()) / whole if whole else np.nan
        found = dice(count_pixels(prediction, truth, 2), "alarms")[1]
        np.testing.assert_equal(found, expected)


class TestFalseAlarms:
    def count(self, *pairs, names=("background", "lesion")):
        matrices = [confusion_matrix(p, t, len(names)) for p, t in pairs]
        return false_alarms(matrices, names)

    def test_are_counted_where_nothing_is_to_be_found(self):
        none = of_pixels(0)
        found = self.count(
            (of_pixels(9), of_pixels(12)),  # a lesion
            (none, of_pixels(3)),  # a lesion, missed
            (none, none),
            (of_pixels(5), none),
            (of_pixels(8), none),
        )
        expected = {"with": 2, "without": 3, "alarms": 2, "pixels": 13}
        assert found == {"foreground": expected, "classes": {"lesion": expected}}

    def test_of_a_class_are_those_in_cases_without_it(self):
        names = ("background", "benign", "malignant")
        found = self.count(
            (of_pixels(7, 2), of_pixels(7, 1)),  # benign, taken for malignant
            (of_pixels(4, 2), of_pixels(4, 2)),
            (of_pixels(2, 1), of_pixels(0)),
            names=names,
        )
        assert found["foreground"] == {"with": 2, "without": 1, "alarms": 1, "pixels": 2}
        assert found["classes"] == {
            "benign": {"with": 1, "without": 2, "alarms": 1, "pixels": 2},
            "malignant": {"with": 1, "without": 2, "alarms": 1, "pixels": 7},
        }

    def test_ignored_pixels_are_none(self):
        ignored, half = np.full((SIDE, SIDE), 255), of_pixels(0)
        half[:3] = 255
        found = self.count((of_pixels(10), ignored), (of_pixels(10), half))
        assert found["foreground"] == {"with": 0, "without": 1, "alarms": 0, "pixels": 0}


def test_an_unknown_rule_is_refused():
    assert [checked_empty(name) for name in EMPTY_RULES] == ["skip", "alarms", "one"]
    with pytest.raises(UserError, match=r"trainer\.empty=nan is out of range") as caught:
        checked_empty("nan", "trainer.empty")
    assert caught.value.hint == "give one of skip, alarms, one"


def test_runs_older_than_the_key_counted_empty_masks_of_two_classes():
    assert [former_empty(classes) for classes in (2, 3)] == ["one", "alarms"]
