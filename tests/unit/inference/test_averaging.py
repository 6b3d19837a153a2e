"""Averages over networks, flips and turns: by hand, and what they must not change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from medt.data.layout import default_classes
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError
from medt.inference.averaging import Ensemble, FlipsAndTurns
from medt.inference.predictor import Predictor

STEPS = Preprocessing((8, 8), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.1))
OTHER = replace(STEPS, mean=(0.1, 0.6, 0.5), std=(0.3, 0.1, 0.2))


def network(seed):
    """A network that tells left from right and up from down."""
    torch.manual_seed(seed)
    return nn.Conv2d(3, 2, 3, padding=1).eval()


def images(*size):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


class TestEnsemble:
    def test_is_the_mean_of_the_probabilities_with_each_ones_own_normalisation(self):
        first, second = network(1), network(2)
        ensemble = Ensemble([first, second], [STEPS, OTHER], ["a.pt", "b.pt"])
        image = images(8, 8)
        with torch.inference_mode():
            averaged = ensemble(STEPS.tensor(image)[None]).softmax(dim=1)
            alone = first(STEPS.tensor(image)[None]), second(OTHER.tensor(image)[None])
            expected = (alone[0].softmax(dim=1) + alone[1].softmax(dim=1)) / 2
        torch.testing.assert_close(averaged, expected, atol=1e-5, rtol=1e-5)

    def test_of_a_network_with_itself_is_that_network(self):
        one = Predictor(network(1), STEPS, default_classes(["a", "b"]))
        twice = Ensemble([network(1), network(1)], [STEPS, STEPS], ["a", "b"])
        both = Predictor(twice, STEPS, one.classes)
        image = images(11, 9)
        np.testing.assert_allclose(both.probabilities(image), one.probabilities(image), atol=1e-6)

    @pytest.mark.parametrize(
        "change", [{"image_size": (16, 16)}, {"sampling": "crop"}, {"percentile": 0.5}]
    )
    def test_of_networks_that_see_other_images_is_refused(self, change):
        with pytest.raises(UserError, match=rf"a\.pt and b\.pt .* another {next(iter(change))}"):
            Ensemble([network(1)] * 2, [STEPS, replace(STEPS, **change)], ["a.pt", "b.pt"])


class TestFlipsAndTurns:
    def test_a_turned_or_flipped_image_gives_the_turned_or_flipped_answer(self):
        averaged = FlipsAndTurns(network(1))
        x = torch.randn(2, 3, 8, 8)
        with torch.inference_mode():
            straight = averaged(x)
            for turn in range(4):
                there = averaged(torch.rot90(x, turn, (2, 3)))
                torch.testing.assert_close(there, torch.rot90(straight, turn, (2, 3)))
            torch.testing.assert_close(averaged(x.flip(2)), straight.flip(2))
            torch.testing.assert_close(averaged(x.flip(3)), straight.flip(3))
            assert not torch.allclose(network(1)(x.flip(3)), network(1)(x).flip(3))

    def test_an_image_that_is_not_square_keeps_its_shape(self):
        averaged = FlipsAndTurns(network(1))
        x = torch.randn(1, 3, 8, 12)
        with torch.inference_mode():
            straight = averaged(x)
            assert straight.shape == (1, 2, 8, 12)
            for axes in ((2,), (3,), (2, 3)):
                torch.testing.assert_close(averaged(x.flip(axes)), straight.flip(axes))

    def test_gives_probabilities(self):
        with torch.inference_mode():
            given = FlipsAndTurns(network(1))(100 * torch.randn(1, 3, 8, 8)).softmax(dim=1)
        torch.testing.assert_close(given.sum(dim=1), torch.ones(1, 8, 8))
        assert given.isfinite().all()
