"""Losses for segmentation: logits and class ids in, one number out.

All take ``forward(logits, target)`` with logits (N, classes, H, W), floating, and target (N, H, W),
int64 class ids with 255 = ignore. An ignored pixel has no part in the value and gets a gradient of
exactly zero; a batch that is ignored wholly gives 0. Values are computed in float32 whatever the
logits' type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medt.errors import UserError
from medt.metrics.pixel import IGNORE_INDEX


class CrossEntropyLoss(nn.Module):
    """Mean over pixels of -log p(true class).

    Args:
        class_weights: one per class, >= 0; the mean is then weighted by each pixel's true class.
        ignore_index: target value of the pixels to leave out.
    """

    def __init__(
        self, class_weights: Sequence[float] | None = None, ignore_index: int = IGNORE_INDEX
    ) -> None:
        super().__init__()
        self.class_weights = _weights(class_weights)
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        logits, valid = _without_ignored(logits, target, self.ignore_index)
        pixel_losses = F.cross_entropy(
            logits, target, reduction="none", ignore_index=self.ignore_index
        )
        return _pixel_mean(pixel_losses, target, valid, self.class_weights, logits.shape[1])


class FocalLoss(nn.Module):
    """Mean over pixels of -(1 - p)^gamma log p, with p the probability of the true class.

    Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 4. Written on torch's cross-entropy,
    since MONAI's gradient is NaN where p rounds to 1 and gamma is below 1.

    Args:
        gamma: >= 0; 0 is cross-entropy, larger turns away from the pixels that are easy.
        class_weights, ignore_index: as for :class:`CrossEntropyLoss`.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        class_weights: Sequence[float] | None = None,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        super().__init__()
        _at_least_zero(gamma=gamma)
        self.gamma = gamma
        self.class_weights = _weights(class_weights)
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        logits, valid = _without_ignored(logits, target, self.ignore_index)
        cross_entropy = F.cross_entropy(
            logits, target, reduction="none", ignore_index=self.ignore_index
        )
        error = -torch.expm1(-cross_entropy)  # 1 - p, exact for p near 1
        tiny = torch.finfo(error.dtype).tiny  # the power has no gradient at 0 if gamma < 1
        pixel_losses = error.clamp_min(tiny) ** self.gamma * cross_entropy
        return _pixel_mean(pixel_losses, target, valid, self.class_weights, logits.shape[1])


class RegionLoss(nn.Module):
    """A loss of MONAI on masked probabilities, the mean over classes, then over images."""

    def __init__(
        self, region_loss: nn.Module, class_weights: Sequence[float] | None, ignore_index: int
    ) -> None:
        super().__init__()
        self.region_loss = region_loss
        self.class_weights = _weights(class_weights)
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        logits, valid = _without_ignored(logits, target, self.ignore_index)
        classes = logits.shape[1]
        shown = valid[:, None].to(logits.dtype)
        one_hot = F.one_hot(target.masked_fill(~valid, 0), classes).movedim(-1, 1).to(logits.dtype)
        # (images or 1 if pooled over the batch, classes scored)
        losses: Tensor = self.region_loss(logits.softmax(dim=1) * shown, one_hot * shown)
        pooled = bool(self.region_loss.batch)
        losses = losses.reshape(1 if pooled else len(logits), -1)

        class_weights = self.class_weights or (1.0,) * classes
        weights = _weight_tensor(class_weights, classes, losses)[classes - losses.shape[1] :]
        if not sum(class_weights[classes - losses.shape[1] :]) > 0:
            raise UserError(
                "loss.class_weights is 0 for every foreground class",
                "give one of them a weight, or set loss.include_background=true",
            )
        per_image = (losses * weights).sum(dim=1) / weights.sum()
        scored = valid.any().reshape(1) if pooled else valid.flatten(1).any(dim=1)
        images = scored.to(per_image.dtype)
        return (per_image * images).sum() / images.sum().clamp_min(1)


class DiceLoss(RegionLoss):
    """1 - soft Dice, averaged over the foreground classes (MONAI's DiceLoss).

    Milletari et al. 2016, https://arxiv.org/abs/1606.04797, without the squares.

    Args:
        include_background: average over class 0 as well.
        batch: one Dice over all pixels of the batch; if false, one per image and then the mean. An
            image without foreground has a per-image loss near 1 that it can hardly lower, hence the
            default.
        class_weights: one per class, background included (unused unless ``include_background``);
            their scale does not matter.
        ignore_index: target value of the pixels to leave out.
    """

    def __init__(
        self,
        include_background: bool = False,
        batch: bool = True,
        class_weights: Sequence[float] | None = None,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        from monai.losses.dice import DiceLoss as MonaiDiceLoss

        how: dict[str, Any] = {
            "include_background": include_background,
            "batch": batch,
            "reduction": "none",
        }
        super().__init__(MonaiDiceLoss(**how), class_weights, ignore_index)


class TverskyLoss(RegionLoss):
    """1 - Tversky index, averaged over the foreground classes (MONAI's TverskyLoss).

    The index is tp / (tp + alpha fp + beta fn): Salehi et al. 2017,
    https://arxiv.org/abs/1706.05721. alpha = beta = 0.5 is Dice; beta > alpha favours recall.

    Args:
        alpha: weight of false positives, >= 0.
        beta: weight of false negatives, >= 0.
        include_background, batch, class_weights, ignore_index: as for :class:`DiceLoss`.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        include_background: bool = False,
        batch: bool = True,
        class_weights: Sequence[float] | None = None,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        _at_least_zero(alpha=alpha, beta=beta)
        from monai.losses.tversky import TverskyLoss as MonaiTverskyLoss

        how: dict[str, Any] = {
            "include_background": include_background,
            "batch": batch,
            "reduction": "none",
        }
        super().__init__(
            MonaiTverskyLoss(alpha=alpha, beta=beta, **how), class_weights, ignore_index
        )


class DiceCrossEntropyLoss(nn.Module):
    """dice_weight * :class:`DiceLoss` + cross_entropy_weight * :class:`CrossEntropyLoss`.

    Args:
        dice_weight, cross_entropy_weight: >= 0.
        include_background, batch: of the Dice part.
        class_weights, ignore_index: of both parts.
    """

    def __init__(
        self,
        dice_weight: float = 1.0,
        cross_entropy_weight: float = 1.0,
        include_background: bool = False,
        batch: bool = True,
        class_weights: Sequence[float] | None = None,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        super().__init__()
        _at_least_zero(dice_weight=dice_weight, cross_entropy_weight=cross_entropy_weight)
        self.dice_weight = dice_weight
        self.cross_entropy_weight = cross_entropy_weight
        self.dice = DiceLoss(include_background, batch, class_weights, ignore_index)
        self.cross_entropy = CrossEntropyLoss(class_weights, ignore_index)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        dice: Tensor = self.dice(logits, target)
        cross_entropy: Tensor = self.cross_entropy(logits, target)
        return self.dice_weight * dice + self.cross_entropy_weight * cross_entropy


class FunctionLoss(nn.Module):
    """A loss that is a function of (logits, target)."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.function(logits, target)


class ObjectLoss(nn.Module):
    """A loss of the classes, and what a further output says of each pixel's object.

    For borders cross-entropy and soft Dice, for distances the mean absolute difference; over the
    pixels that are not ignored.

    Args:
        loss: of logits (N, classes, H, W) and class ids.
        kind: "borders" or "distance", see `medt.data.objects.ObjectTarget`.
        weight: of the further output's part.
        full: what stands for 1 in its target.
    """

    def __init__(self, loss: nn.Module, kind: str, weight: float, full: int) -> None:
        super().__init__()
        self.loss, self.kind, self.weight, self.full = loss, kind, weight, full

    def forward(self, logits: Tensor, target: Tensor, objects: Tensor) -> Tensor:
        """One number.

        Args:
            logits: (N, classes + 1, H, W).
            target: (N, H, W) class ids, 255 = ignored.
            objects: (N, H, W) uint8, 0 to `full` stand for 0 to 1, 255 = ignored.
        """
        of_classes: Tensor = self.loss(logits[:, :-1], target)
        valid = objects != IGNORE_INDEX
        wanted = objects.masked_fill(~valid, 0).float() / self.full
        said = logits[:, -1].float().masked_fill(~valid, 0.0)
        pixels = valid.sum().clamp_min(1)
        if self.kind == "distance":
            part = ((said.sigmoid() - wanted).abs() * valid).sum() / pixels
        else:
            entropy = F.binary_cross_entropy_with_logits(said, wanted, reduction="none")
            shown = said.sigmoid() * valid
            overlap = 2 * (shown * wanted).sum() / (shown.sum() + wanted.sum()).clamp_min(1)
            part = (entropy * valid).sum() / pixels + 1 - overlap
        return of_classes + self.weight * part


def loss_of(
    loss: nn.Module,
    logits: Tensor,
    masks: Tensor,
    classes: int,
    objects: Tensor | None = None,
) -> Tensor:
    """The loss of a batch: one number.

    Raises:
        UserError: the logits have another size than the masks (N, H, W), or not one channel for
            each of the classes, or the loss is not one number; network and loss may be somebody's
            own.
    """
    shape = " x ".join(map(str, logits.shape))
    if (
        logits.ndim != 4
        or logits.shape[::2] + logits.shape[3:] != masks.shape[:1] + masks.shape[1:]
    ):
        raise UserError(
            f"the network gives {shape} logits for masks of {' x '.join(map(str, masks.shape))}",
            "logits are images x classes x height x width, of the image's size",
        )
    if logits.shape[1] != classes + (objects is not None):
        more = "" if objects is None else ", and one channel more for dataset.objects"
        raise UserError(
            f"the network gives {shape} logits, but there are {classes} classes with the "
            f"background{more}",
            "return one channel per class: logits without softmax or sigmoid",
        )
    value: Tensor = loss(logits, masks) if objects is None else loss(logits, masks, objects)
    if value.ndim:
        raise UserError(
            f"the loss is {' x '.join(map(str, value.shape))} numbers", "it must be one, their mean"
        )
    return value


def _weights(class_weights: Sequence[float] | None) -> tuple[float, ...] | None:
    if class_weights is None:
        return None
    weights = tuple(float(w) for w in class_weights)
    if any(not 0 <= w < float("inf") for w in weights) or not sum(weights) > 0:
        raise UserError(
            f"loss.class_weights is {list(weights)}",
            "give one finite weight >= 0 per class, not all of them 0",
        )
    return weights


def _at_least_zero(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise UserError(f"loss.{name} is {value}", "give a finite number >= 0")


def _weight_tensor(weights: tuple[float, ...], classes: int, like: Tensor) -> Tensor:
    if len(weights) != classes:
        raise UserError(
            f"loss.class_weights has {len(weights)} weights, but there are {classes} classes",
            "give one weight per class, background first",
        )
    return like.new_tensor(weights)


def _without_ignored(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Float32 logits cut off from the graph where ignored, and the (N, H, W) bool mask of the
    others."""
    valid = target != ignore_index
    return logits.float().masked_fill(~valid[:, None], 0.0), valid


def _pixel_mean(
    pixel_losses: Tensor,
    target: Tensor,
    valid: Tensor,
    class_weights: tuple[float, ...] | None,
    classes: int,
) -> Tensor:
    weights = valid.to(pixel_losses.dtype)
    if class_weights is not None:
        per_class = _weight_tensor(class_weights, classes, pixel_losses)
        weights = weights * per_class[target.masked_fill(~valid, 0)]
    total = weights.sum()
    return (pixel_losses * weights).sum() / torch.where(total > 0, total, 1.0)
