"""Networks that average: several of them, or one over flips and quarter turns of its input.

Both give the logarithm of mean class probabilities, whose softmax these are: whatever takes logits
takes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medt.data.preprocessing import Preprocessing
from medt.errors import UserError

LEAST = 1e-30  # a probability whose logarithm is taken


class NotFiniteError(UserError):
    """The output of a network holds NaN or infinite values.

    Attributes:
        index: which image of the batch is the first that it does so for.
    """

    def __init__(self, network: str, index: int) -> None:
        super().__init__(
            f"the output of {network} holds NaN or infinite values",
            "its training diverged, or the image has values beyond all others: look at both",
        )
        self.index = index


def check_finite(logits: Tensor, network: str) -> None:
    """Refuse logits (N, classes, H, W) that are no numbers, whose largest would still be a class.

    Raises:
        NotFiniteError: for NaN and infinite values.
    """
    if not logits.isfinite().all():
        finite = logits.isfinite().flatten(1).all(dim=1)
        raise NotFiniteError(network, int(finite.logical_not().nonzero()[0]))


class Ensemble(nn.Module):
    """The mean of several networks' probabilities.

    Args:
        members: each maps float32 (N, C, H, W) to logits (N, classes, H, W).
        preprocessings: of each; all but ``mean`` and ``std`` must be the same, since these differ
            between networks trained on other folds of a dataset. Inputs come from the first one.
        names: of the members, for the error.
        classes: how many of the channels are, None: all; what follows is averaged channel by
            channel.

    Raises:
        UserError: the preprocessings differ in anything else.
        NotFiniteError: in `forward`, a member's output holds NaN or infinite values.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        preprocessings: Sequence[Preprocessing],
        names: Sequence[str],
        classes: int | None = None,
    ) -> None:
        super().__init__()
        first = preprocessings[0]
        for preprocessing, name in zip(preprocessings, names, strict=True):
            differs = [
                key
                for key, value in preprocessing.to_dict().items()
                if key not in ("mean", "std", "window") and value != first.to_dict()[key]
            ]
            if preprocessing.window != first.window and not _is_range(preprocessing, first):
                differs.append("window")
            if differs:
                raise UserError(
                    f"{names[0]} and {name} were trained with another {' and '.join(differs)}",
                    "an ensemble's networks take the same images",
                )
        self.members = nn.ModuleList(members)
        self.names, self.classes = tuple(names), classes
        same = all(p.window == first.window for p in preprocessings)
        pairs = [(p.mean, p.std) if same else p.own_statistics() for p in preprocessings]
        means, stds = (torch.tensor([pair[i] for pair in pairs]) for i in (0, 1))
        mean, std = means[0], stds[0]
        # (v - mean_i) / std_i of x = (v - mean) / std
        self.register_buffer("scales", (std / stds)[..., None, None])
        self.register_buffer("offsets", ((mean - means) / stds)[..., None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Float32 (N, C, H, W) to the logarithm of mean probabilities (N, classes, H, W)."""
        scales, offsets = self.get_buffer("scales"), self.get_buffer("offsets")
        given = []
        for member, name, scale, offset in zip(
            self.members, self.names, scales, offsets, strict=True
        ):
            logits = member(x * scale + offset)
            check_finite(logits, name)
            given.append(logits)
        return _log_mean(given, self.classes)


class FlipsAndTurns(nn.Module):
    """The mean of a network's probabilities over the eight flips and quarter turns of its input.

    Of an input that is not square, over the four that keep its shape.

    Args:
        network: maps float32 (N, C, H, W) to logits (N, channels, H, W).
        classes: how many of the channels are, None: all; what follows is averaged channel by
            channel.
        name: of the network, for the error.

    Raises:
        NotFiniteError: in `forward`, an output holds NaN or infinite values.
    """

    def __init__(
        self, network: nn.Module, classes: int | None = None, name: str = "the network"
    ) -> None:
        super().__init__()
        self.network, self.classes, self.name = network, classes, name

    def forward(self, x: Tensor) -> Tensor:
        """Float32 (N, C, H, W) to the logarithm of mean probabilities (N, classes, H, W)."""
        turns = range(4) if x.shape[2] == x.shape[3] else (0, 2)
        given = []
        for flipped in (False, True):
            for turn in turns:
                turned = torch.rot90(x.flip(3) if flipped else x, turn, (2, 3))
                logits = self.network(turned)
                check_finite(logits, self.name)
                back = torch.rot90(logits, -turn, (2, 3))
                given.append(back.flip(3) if flipped else back)
        return _log_mean(given, self.classes)


def _is_range(one: Preprocessing, other: Preprocessing) -> bool:
    """Whether both take the range of their training images for 0..1, and values beyond it, too.

    That is but another scale of the same values, as folds of one dataset have it.
    """
    return None not in (one.window, other.window) and not one.clip and not other.clip


def _log_mean(logits: Sequence[Tensor], classes: int | None) -> Tensor:
    classes = logits[0].shape[1] if classes is None else classes
    softmaxes = [one[:, :classes].float().softmax(dim=1) for one in logits]
    averaged = torch.stack(softmaxes).mean(dim=0).clamp_min(LEAST).log()
    if logits[0].shape[1] == classes:
        return averaged
    shares = torch.stack([one[:, classes:].float().sigmoid() for one in logits]).mean(dim=0)
    return torch.cat([averaged, shares.logit(eps=1e-6)], dim=1)
