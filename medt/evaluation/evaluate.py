"""Running a predictor over a split and scoring every case."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from medt.data.dataset import SegmentationDataset
from medt.data.loader import EpochBatches, make_loader
from medt.errors import UserError
from medt.evaluation.case_scores import CaseScores, score_case
from medt.inference.instances import InstanceRule, find_objects
from medt.inference.predictor import Predictor, most_probable
from medt.metrics.calibration import (
    CALIBRATION_RULES,
    add_calibrations,
    brier_score,
    expected_calibration_error,
    reliability,
    threshold_curve,
)
from medt.metrics.paper import OFFICIAL_RULES, OFFICIAL_SCORES, official_prediction
from medt.metrics.pixel import (
    RULES,
    SCORES,
    PixelCounts,
    Scores,
    summarize,
)

Protocol = Literal["native", "paper", "paper_official"]

PROTOCOLS: Mapping[str, str] = {
    "native": "each case at its own size, argmax of bilinearly resized probabilities",
    "paper": "each case at the network's size, argmax of the logits",
    "paper_official": "each case at the network's size, channel 1 of the raw logits >= 0.5",
}
NO_RULE = InstanceRule()
WINDOWS_MEAN = "each case at its own size, argmax of the averaged logits of overlapping windows"


@dataclass(frozen=True)
class Evaluation:
    """The scores of a predictor on a list of cases.

    Attributes:
        protocol: a key of :data:`PROTOCOLS`.
        class_names: in the order of the class ids, background first.
        rows: one per case, in the dataset's order: ``case``, ``group``, ``split``, ``height``,
            ``width`` (of the scored mask, pixels), ``foreground`` (score -> mean over foreground
            classes), ``classes`` (per class name the scores of :data:`medt.metrics.pixel.SCORES`,
            NaN = left out, and ``tp``, ``fp``, ``fn``, ``tn`` in pixels) and, if measured, ``ece``
            and ``brier``.
        summary: what :func:`medt.metrics.pixel.summarize` returns, and ``protocol``,
            ``protocol_means``, ``splits``, ``image_size``, ``postprocess``, ``confusion`` (pixels;
            a row for each class of the truth), ``rules`` and, if measured, ``calibration``:
            ``ece``, ``brier``, ``reliability`` and ``thresholds``. Plain values.
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
    rule: InstanceRule = NO_RULE,
    detail: bool = False,
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
        rule: what is done to each predicted mask before it is scored.
        detail: whether to measure the calibration, too (not with ``paper_official``, which looks at
            no probabilities).

    Raises:
        UserError: no cases, an unknown protocol, ``paper_official`` with other than two classes, a
            paper's protocol for a network without a size of its own (one trained on crops), a
            dataset that is augmented or preprocessed otherwise than the predictor, or a file that
            cannot be read.
    """
    _check(predictor, dataset, protocol)
    scores = OFFICIAL_SCORES if protocol == "paper_official" else SCORES
    names = tuple(c.name for c in predictor.classes)
    cases: list[CaseScores] = []
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
                case = dataset.cases[index]
                truth = _own_truth(dataset, index) if protocol == "native" else mask.numpy()
                predicted, probabilities = _prediction(predictor, one, truth, protocol)
                if rule.method != "none":
                    predicted, _ = find_objects(predicted, rule)
                try:
                    cases.append(
                        score_case(
                            case,
                            predicted,
                            truth,
                            names,
                            scores,
                            probabilities if detail else None,
                        )
                    )
                except ValueError as error:
                    raise _unknown_class(case.name, names, error) from error
            if progress is not None:
                progress(len(cases), len(dataset))
    summary = _summary(predictor, dataset, protocol, cases, scores, rule)
    if loss is not None:
        summary["loss"] = sum(losses) / len(cases)
    return Evaluation(protocol, names, [case.row for case in cases], summary)


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
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """The class ids that are scored, and the probabilities where the protocol has them."""
    if protocol == "native":
        probabilities = predictor.at_own_size(logits, truth.shape)
        return most_probable(probabilities), probabilities
    if protocol == "paper":
        return most_probable(logits.cpu().numpy()), logits.softmax(dim=0).cpu().numpy()
    return official_prediction(logits.cpu().numpy()), None


def _unknown_class(case: str, names: tuple[str, ...], error: ValueError) -> UserError:
    return UserError(
        f"Case {case}: {error}",
        f"the network knows {', '.join(names)}: evaluate it on a dataset of these classes",
    )


def _summary(
    predictor: Predictor,
    dataset: SegmentationDataset,
    protocol: str,
    cases: Sequence[CaseScores],
    scores: Mapping[str, Callable[[PixelCounts], Scores]],
    rule: InstanceRule,
) -> dict[str, Any]:
    means = WINDOWS_MEAN if predictor.mode == "sliding_window" else PROTOCOLS[protocol]
    names = [c.name for c in predictor.classes]
    summary: dict[str, Any] = {
        "protocol": protocol,
        "protocol_means": means,
        "splits": sorted({case.split for case in dataset.cases}),
        "image_size": list(predictor.preprocessing.image_size),
        "postprocess": rule.to_dict(),
        **summarize([case.counts for case in cases], names, scores),
        "confusion": np.sum([case.confusion for case in cases], axis=0).tolist(),
    }
    rules = RULES.split("\n")
    if protocol == "paper_official":
        rules += OFFICIAL_RULES.split("\n")
    parts = [case.calibration for case in cases if case.calibration is not None]
    if parts:
        sums = add_calibrations(parts)
        summary["calibration"] = {
            "ece": expected_calibration_error(sums),
            "brier": brier_score(sums),
            "reliability": reliability(sums),
            "thresholds": threshold_curve(sums),
        }
        rules += CALIBRATION_RULES.split("\n")
    return {**summary, "rules": rules}
