"""Losses: their values against formulas and other libraries, and what ignored pixels do not do."""

from __future__ import annotations

import monai.losses
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medt.errors import UserError
from medt.losses import (
    CrossEntropyLoss,
    DiceCrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    TverskyLoss,
)

IGNORE = 255
LOSSES = {
    "cross_entropy": CrossEntropyLoss,
    "focal": FocalLoss,
    "focal_flat": lambda **k: FocalLoss(gamma=0.5, **k),
    "dice": DiceLoss,
    "dice_per_image": lambda **k: DiceLoss(batch=False, **k),
    "dice_background": lambda **k: DiceLoss(include_background=True, **k),
    "tversky": TverskyLoss,
    "dice_cross_entropy": DiceCrossEntropyLoss,
}
every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)


@pytest.fixture
def logits():
    return torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.fixture
def target():
    return torch.randint(0, 3, (2, 6, 5), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def holed(target):
    """A target whose first image has ignored pixels in all places of class 2 and some more."""
    holed = target.clone()
    holed[0][target[0] == 2] = IGNORE
    holed[1, :2] = IGNORE
    return holed


def one_hot(target):
    return F.one_hot(target, 3).movedim(-1, 1).float()


@every_loss
class TestIgnoredPixels:
    @pytest.mark.parametrize("weights", [None, (0.5, 1.0, 2.0)], ids=["plain", "weighted"])
    def test_get_a_gradient_of_exactly_zero(self, make, weights, logits, holed):
        make(class_weights=weights)(logits, holed).backward()
        ignored = (holed == IGNORE)[:, None].expand_as(logits)
        assert torch.all(logits.grad[ignored] == 0)
        assert torch.any(logits.grad[~ignored] != 0)

    def test_have_no_part_in_the_value(self, make, logits, holed):
        changed = torch.where((holed == IGNORE)[:, None], 1000 * torch.ones(()), logits)
        assert make()(changed, holed) == make()(logits, holed)

    def test_may_even_hold_nan(self, make, logits, holed):
        with torch.no_grad():
            logits[(holed == IGNORE)[:, None].expand_as(logits)] = float("nan")
        loss = make()(logits, holed)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(logits.grad).all()

    def test_alone_give_0_and_no_gradient(self, make, logits, target):
        loss = make()(logits, torch.full_like(target, IGNORE))
        loss.backward()
        assert loss == 0
        assert torch.all(logits.grad == 0)

    def test_can_have_another_number(self, make, logits, holed):
        renamed = torch.where(holed == IGNORE, -1, holed)
        assert make(ignore_index=-1)(logits, renamed) == make()(logits, holed)


@every_loss
class TestEveryLoss:
    def test_of_what_remains_is_the_loss_without_the_rest(self, make, logits, target):
        """Ignoring pixels and cropping them away is the same."""
        holed = target.clone()
        holed[:, :, 3:] = IGNORE
        expected = make()(logits[..., :3], target[..., :3])
        torch.testing.assert_close(make()(logits, holed), expected)

    def test_falls_to_0_for_a_perfect_prediction(self, make, target):
        loss = make()(40 * one_hot(target), target)
        assert 0 <= loss < 1e-5

    def test_has_finite_gradients_where_probabilities_round_to_0_or_1(self, make, target):
        logits = (300 * one_hot(target.roll(1, 0))).requires_grad_()
        make()(logits, target).backward()
        assert torch.isfinite(logits.grad).all()

    def test_gradient_is_that_of_finite_differences(self, make, logits, holed):
        loss, step = make(), 1e-2
        loss(logits, holed).backward()
        direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            slope = loss(logits + step * direction, holed) - loss(logits - step * direction, holed)
        expected = (logits.grad * direction).sum()
        torch.testing.assert_close(slope / (2 * step), expected, rtol=5e-3, atol=1e-4)

    def test_is_computed_in_float32_from_half_precision(self, make, logits, target):
        halved = logits.detach().bfloat16()
        loss = make()(halved, target)
        assert loss.dtype == torch.float32
        assert loss == make()(halved.float(), target)

    def test_does_not_mind_the_scale_of_the_class_weights(self, make, logits, target):
        one = make(class_weights=(1.0, 2.0, 3.0))(logits, target)
        ten = make(class_weights=(10.0, 20.0, 30.0))(logits, target)
        torch.testing.assert_close(one, ten)

    def test_with_equal_class_weights_is_the_loss_without(self, make, logits, target):
        weighted = make(class_weights=(2.0, 2.0, 2.0))(logits, target)
        torch.testing.assert_close(weighted, make()(logits, target))

    def test_refuses_class_weights_of_another_number_of_classes(self, make, logits, target):
        loss = make(class_weights=(1.0, 2.0))
        with pytest.raises(UserError, match="2 weights, but there are 3 classes"):
            loss(logits, target)

    @pytest.mark.parametrize("weights", [(1, -1, 1), (0, 0, 0), (1, float("nan"), 1)])
    def test_refuses_impossible_class_weights(self, make, weights):
        with pytest.raises(UserError, match="class_weights"):
            make(class_weights=weights)


class TestCrossEntropy:
    def test_equals_torch(self, logits, holed):
        weights = (0.2, 1.0, 3.0)
        expected = F.cross_entropy(logits, holed, torch.tensor(weights), ignore_index=IGNORE)
        torch.testing.assert_close(CrossEntropyLoss(weights)(logits, holed), expected)


class TestFocal:
    def test_without_gamma_is_cross_entropy(self, logits, holed):
        expected = CrossEntropyLoss((1, 2, 3))(logits, holed)
        torch.testing.assert_close(FocalLoss(0, (1, 2, 3))(logits, holed), expected)

    def test_equals_monai(self, logits, target):
        monai_loss = monai.losses.FocalLoss(gamma=2.0, use_softmax=True, to_onehot_y=True)
        expected = 3 * monai_loss(logits, target[:, None])  # MONAI also divides by the classes
        torch.testing.assert_close(FocalLoss(2.0)(logits, target), expected)

    def test_refuses_a_negative_gamma(self):
        with pytest.raises(UserError, match=r"loss\.gamma is -1"):
            FocalLoss(gamma=-1)


def soft_counts(logits, target, axes):
    """tp, fp, fn per class in numpy, ignored pixels left out."""
    p = torch.softmax(logits, 1).detach().numpy().astype(np.float64)
    valid = (target != IGNORE).numpy()[:, None]
    truth = np.stack([(target == c).numpy() for c in range(3)], axis=1)
    tp, fp = (p * truth * valid).sum(axes), (p * ~truth * valid).sum(axes)
    return tp, fp, ((1 - p) * truth * valid).sum(axes)


class TestDice:
    def test_equals_its_formula_over_the_batch(self, logits, holed):
        tp, fp, fn = soft_counts(logits, holed, (0, 2, 3))
        expected = (1 - 2 * tp / (2 * tp + fp + fn))[1:].mean()
        assert DiceLoss()(logits, holed).item() == pytest.approx(expected, abs=1e-5)

    def test_equals_its_formula_per_image(self, logits, target):
        tp, fp, fn = soft_counts(logits, target, (2, 3))
        expected = (1 - 2 * tp / (2 * tp + fp + fn))[:, 1:].mean()
        assert DiceLoss(batch=False)(logits, target).item() == pytest.approx(expected, abs=1e-5)

    def test_per_image_leaves_an_image_out_that_is_ignored_wholly(self, logits, target):
        holed = target.clone()
        holed[1] = IGNORE
        loss = DiceLoss(batch=False)
        torch.testing.assert_close(loss(logits, holed), loss(logits[:1], target[:1]))

    def test_weights_the_classes(self, logits, target):
        tp, fp, fn = soft_counts(logits, target, (0, 2, 3))
        per_class = 1 - 2 * tp / (2 * tp + fp + fn)
        weighted = DiceLoss(include_background=True, class_weights=(1, 2, 5))(logits, target)
        assert weighted.item() == pytest.approx(np.average(per_class, weights=(1, 2, 5)), abs=1e-5)
        foreground = DiceLoss(class_weights=(1, 2, 5))(logits, target)
        assert foreground.item() == pytest.approx(
            np.average(per_class[1:], weights=(2, 5)), abs=1e-5
        )

    def test_needs_weight_on_some_foreground_class(self, logits, target):
        with pytest.raises(UserError, match="0 for every foreground class"):
            DiceLoss(class_weights=(1, 0, 0))(logits, target)


class TestTversky:
    def test_equals_its_formula(self, logits, holed):
        tp, fp, fn = soft_counts(logits, holed, (0, 2, 3))
        expected = (1 - tp / (tp + 0.2 * fp + 0.9 * fn))[1:].mean()
        loss = TverskyLoss(alpha=0.2, beta=0.9)(logits, holed)
        assert loss.item() == pytest.approx(expected, abs=1e-5)

    def test_with_halves_is_dice(self, logits, holed):
        loss = TverskyLoss(alpha=0.5, beta=0.5)(logits, holed)
        torch.testing.assert_close(loss, DiceLoss()(logits, holed))

    def test_refuses_a_negative_weight(self):
        with pytest.raises(UserError, match=r"loss\.beta is -0\.1"):
            TverskyLoss(beta=-0.1)


class TestDiceCrossEntropy:
    def test_is_the_weighted_sum(self, logits, holed):
        loss = DiceCrossEntropyLoss(dice_weight=0.3, cross_entropy_weight=2.0)(logits, holed)
        expected = 0.3 * DiceLoss()(logits, holed) + 2.0 * CrossEntropyLoss()(logits, holed)
        torch.testing.assert_close(loss, expected)

    def test_equals_monai(self, logits, target):
        expected = monai.losses.DiceCELoss(
            include_background=False, to_onehot_y=True, softmax=True, batch=True
        )(logits, target[:, None])
        torch.testing.assert_close(DiceCrossEntropyLoss()(logits, target), expected)
