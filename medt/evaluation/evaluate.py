"""Running a predictor over a split and scoring every case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from medt.data.dataset import SegmentationDataset
from medt.data.loader import EpochBatches, make_loader
from medt.errors import UserError
from medt.inference.predictor import Predictor, most_probable
from medt.metrics.paper import OFFICIAL_RULES, OFFICIAL_SCORES, official_prediction
from medt.metrics.pixel import (
    RULES,
    SCORES,
    PixelCounts,
    Scores,
    count_pixels,
    foreground,
    summarize,
)

Protocol = Literal["native", "paper", "paper_official"]

PROTOCOLS: Mapping[str, str] = {
    "native": "each case at its own size, argmax of bilinearly resized probabilities",
    "paper": "each case at the network's size, argmax of the logits",
    "paper_official": "each case at the network's size, channel 1 of the raw logits >= 0.5",
}
WINDOWS_MEAN = "each case at its own size, argmax of the averaged logits of overlapping windows"


@dataclass(frozen=True)
class Evaluation:
    """The scores of a predictor on a list of cases.

    Attributes:
        protocol: a key of :data:`PROTOCOLS`.
        class_names: in the order of the class ids, background first.
        rows: one per case, in the dataset's order: ``case``, ``group``, ``split``, ``height``,
            ``width`` (of the scored mask, pixels), ``foreground`` (score -> mean over foreground
            classes), and per class name ``dice``, ``iou``, ``precision``, ``recall`` (0..1, NaN =
            left out), ``tp``, ``fp``, ``fn`` (pixels).
        summary: what :func:`medt.metrics.pixel.summarize` returns, and ``protocol``,
            ``protocol_means``, ``splits``, ``image_size`` and ``rules``. Plain values.
    """

    protocol: str
    class_names: tuple[str, ...]
    rows: list[dict[str, Any]]
    summary: dict[str, Any]


def evaluate(
    predictor: Predictor,
    dataset: SegmentationDataset,
    protocol: Protocol = "native",
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 0,
    loss: nn.Module | None = None,
) -> Evaluation:
    """Score every case of a dataset.

    Args:
        predictor: what is scored.
        dataset: cases with masks, without augmentation, with the predictor's preprocessing.
        protocol: ``native`` compares at each mask's own size; ``paper`` at the network's size,
            where masks are shrunk; ``paper_official`` repeats the quirks of the paper's script
            (:mod:`medt.metrics.paper`).
        batch_size: images, or windows of one image, that go through the network at once.
        progress: called with (cases done, cases in all) after each batch.
        workers: processes that read the images; 0 reads them in this one.
        loss: of logits and class ids at the network's size or, with sliding windows, the image's;
            its mean over the cases becomes ``summary["loss"]``.

    Raises:
        UserError: no cases, an unknown protocol, ``paper_official`` with other than two classes, a
            paper's protocol for a network without a size of its own (one trained on crops), a
            dataset that is augmented or preprocessed otherwise than the predictor, or a file that
            cannot be read.
    """
    _check(predictor, dataset, protocol)
    scores = OFFICIAL_SCORES if protocol == "paper_official" else SCORES
    names = tuple(c.name for c in predictor.classes)
    rows: list[dict[str, Any]] = []
    counts: list[PixelCounts] = []
    losses: list[float] = []
    together = batch_size if predictor.mode == "resize" else 1  # images differ in size
    batches = EpochBatches(len(dataset), together, shuffle=False)
    with make_loader(dataset, batches, workers) as loader:
        for batch in loader:
            logits = predictor.logits(batch["image"], windows=batch_size)
            if loss is not None:
                mean = float(loss(logits, batch["mask"].to(logits.device)))
                losses.append(mean * len(logits))
            for one, mask, index in zip(
                logits, batch["mask"], batch["index"].tolist(), strict=True
            ):
                truth = _own_truth(dataset, index) if protocol == "native" else mask.numpy()
                predicted = _prediction(predictor, one, truth, protocol)
                case_counts = _counts(predicted, truth, names, dataset, index)
                counts.append(case_counts)
                rows.append(_row(dataset, index, truth, case_counts, names, scores))
            if progress is not None:
                progress(len(rows), len(dataset))
    summary = _summary(predictor, dataset, protocol, counts, scores)
    if loss is not None:
        summary["loss"] = sum(losses) / len(rows)
    return Evaluation(protocol, names, rows, summary)


def _check(predictor: Predictor, dataset: SegmentationDataset, protocol: str) -> None:
    if protocol not in get_args(Protocol):
        raise UserError(
            f"protocol={protocol} is not known", "choose one of " + ", ".join(get_args(Protocol))
        )
    if not dataset.cases:
        raise UserError("there are no cases to evaluate", "check the split")
    if protocol == "paper_official" and len(predictor.classes) != 2:
        raise UserError(
            f"protocol=paper_official is defined for 2 classes, not {len(predictor.classes)}",
            "use protocol=native or protocol=paper",
        )
    if protocol != "native" and predictor.mode != "resize":
        raise UserError(
            f"protocol={protocol} scores at the network's size, but this network was trained on "
            "crops and sees images at their own size",
            "use protocol=native",
        )
    if dataset.augmentation is not None or dataset.crops is not None:
        raise UserError("the evaluated dataset is augmented or cropped", "evaluate whole images")
    if dataset.preprocessing != predictor.preprocessing:
        raise UserError(
            f"the dataset is preprocessed with {dataset.preprocessing}, "
            f"the network was trained with {predictor.preprocessing}",
            "build the dataset with the predictor's preprocessing",
        )


def _own_truth(dataset: SegmentationDataset, index: int) -> NDArray[np.uint8]:
    """The truth of a case at its own size."""
    mask = dataset.cases[index].mask
    assert mask is not None  # the dataset refuses such cases
    return dataset.labels.read(mask, dataset.preprocessing.page)


def _prediction(
    predictor: Predictor, logits: Tensor, truth: NDArray[Any], protocol: str
) -> NDArray[np.uint8]:
    if protocol == "native":
        return most_probable(predictor.at_own_size(logits, truth.shape))
    if protocol == "paper":
        return most_probable(logits.cpu().numpy())
    return official_prediction(logits.cpu().numpy())


def _counts(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    names: tuple[str, ...],
    dataset: SegmentationDataset,
    index: int,
) -> PixelCounts:
    try:
        return count_pixels(prediction, truth, len(names))
    except ValueError as error:
        raise UserError(
            f"Case {dataset.cases[index].name}: {error}",
            f"the network knows {', '.join(names)}: evaluate it on a dataset of these classes",
        ) from error


def _row(
    dataset: SegmentationDataset,
    index: int,
    truth: NDArray[Any],
    counts: PixelCounts,
    names: tuple[str, ...],
    scores: Mapping[str, Callable[[PixelCounts], Scores]],
) -> dict[str, Any]:
    case = dataset.cases[index]
    per_class = {name: score(counts) for name, score in scores.items()}
    return {
        "case": case.name,
        "group": case.group,
        "split": case.split,
        "height": truth.shape[0],
        "width": truth.shape[1],
        "foreground": {name: foreground(values) for name, values in per_class.items()},
        "classes": {
            class_name: {
                **{name: float(values[i]) for name, values in per_class.items()},
                "tp": int(counts.tp[i]),
                "fp": int(counts.fp[i]),
                "fn": int(counts.fn[i]),
            }
            for i, class_name in enumerate(names)
        },
    }


def _summary(
    predictor: Predictor,
    dataset: SegmentationDataset,
    protocol: str,
    counts: list[PixelCounts],
    scores: Mapping[str, Callable[[PixelCounts], Scores]],
) -> dict[str, Any]:
    means = WINDOWS_MEAN if predictor.mode == "sliding_window" else PROTOCOLS[protocol]
    rules = RULES if protocol != "paper_official" else f"{RULES}\n{OFFICIAL_RULES}"
    return {
        "protocol": protocol,
        "protocol_means": means,
        "splits": sorted({case.split for case in dataset.cases}),
        "image_size": list(predictor.preprocessing.image_size),
        **summarize(counts, [c.name for c in predictor.classes], scores),
        "rules": rules.split("\n"),
    }
