"""From a network in training to one for use, and its validation scores."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from medt.checkpoint import Checkpoint
from medt.data.dataset import SegmentationDataset
from medt.data.layout import SegmentationClass
from medt.errors import UserError
from medt.evaluation.evaluate import Protocol, evaluate
from medt.inference.predictor import Predictor
from medt.metrics.empty import checked_empty
from medt.metrics.pixel import IGNORE_INDEX
from medt.models.synced_norms import synchronise_norms
from medt.processes import Processes
from medt.training.facts import Facts
from medt.training.precise_norm import image_batches, reestimate_norms, tracked_norms
from medt.training.state import Row


def check_sets(
    train_set: SegmentationDataset, val_set: SegmentationDataset, batch_size: int
) -> None:
    """Refuse sets that cannot be trained or scored on.

    Raises:
        UserError: a batch is larger than the training set, or no validation case shows a
            foreground class.
    """
    if batch_size > len(train_set):
        raise UserError(
            f"trainer.batch_size={batch_size} is larger than the training set, which "
            f"has {len(train_set)} {'cases' if train_set.crops is None else 'crops an epoch'}",
            f"give at most {len(train_set)}, or more cases",
        )
    if not any((val_set.pair(i)[1] % IGNORE_INDEX).any() for i in range(len(val_set))):
        raise UserError(
            "no validation case shows a foreground class, so there is nothing to score",
            "put cases with foreground into the val split",
        )


def network_for_use(
    source: nn.Module,
    train_set: SegmentationDataset,
    cases: int,
    seed: int,
    epoch: int,
    device: torch.device,
) -> tuple[nn.Module, float]:
    """A copy of a network with norm statistics re-estimated on so many training cases.

    Returns:
        The network in evaluation mode, and the seconds that the estimation took; 0 where there was
        none.
    """
    network = copy.deepcopy(source).requires_grad_(False)
    synchronise_norms(network, None)
    seconds = 0.0
    if cases and tracked_norms(network):
        started = time.perf_counter()
        indices = np.random.default_rng((seed, epoch, 1)).permutation(len(train_set))
        images = image_batches(train_set, epoch, indices[:cases].tolist(), device)
        reestimate_norms(network, images)
        seconds = time.perf_counter() - started
    return network.eval(), seconds


def checkpoint_of(
    network: nn.Module,
    facts: Facts,
    train_set: SegmentationDataset,
    classes: Sequence[SegmentationClass],
    epoch: int,
    row: Row,
) -> Checkpoint:
    """A network for use and all that belongs to it; `row` has its validation scores, if any."""
    return Checkpoint(
        model=dict(facts.model),
        weights={name: value.cpu() for name, value in network.state_dict().items()},
        preprocessing=train_set.preprocessing.to_dict(),
        classes=[c.to_dict() for c in classes],
        dataset=dict(facts.dataset),
        config=dict(facts.config),
        epoch=epoch,
        scores={key: value for key, value in row.items() if key.startswith("val_")},
        training_cases=[case.name for case in train_set.cases],
    )


def validation_row(
    predictor: Predictor,
    val_set: SegmentationDataset,
    loss: nn.Module,
    processes: Processes,
    empty: str,
) -> Row:
    """Loss, Dice and IoU of the validation cases, at the network's size if it has one.

    And `val_false_alarms`, the share of the cases without foreground in which some is predicted.
    Scores of classes that no case shows are left out; the loss may be no number.
    """
    protocol: Protocol = "paper" if val_set.preprocessing.sampling == "resize" else "native"
    evaluation = evaluate(
        predictor, val_set, protocol, loss=loss, processes=processes, empty=checked_empty(empty)
    )
    row = {"val_loss": evaluation.summary["loss"]}
    alarms = evaluation.summary["false_alarms"]["foreground"]
    if alarms["without"]:
        row["val_false_alarms"] = alarms["alarms"] / alarms["without"]
    for score in ("dice", "iou"):
        part = evaluation.summary["mean_over_cases"][score]
        row[f"val_{score}"] = part["foreground"]
        row |= {f"val_{score}_{name}": value for name, value in part["classes"].items()}
    return {n: value for n, value in row.items() if n == "val_loss" or not np.isnan(value)}
