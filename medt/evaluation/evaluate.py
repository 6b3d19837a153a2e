"""Running a predictor over a split and scoring every case."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from medt.data.dataset import SegmentationDataset
from medt.data.layout import Case
from medt.data.loader import EpochBatches, make_loader
from medt.errors import UserError
from medt.evaluation.case_scores import CaseScores, read_truth, score_case
from medt.evaluation.parts import USUAL, Part
from medt.evaluation.summary import summarize_split
from medt.inference.averaging import NotFiniteError
from medt.inference.instances import NO_RULE, InstanceRule, find_objects
from medt.inference.predictor import Predictor, most_probable
from medt.metrics.empty import DEFAULT_EMPTY, Empty
from medt.metrics.families import FAMILIES
from medt.metrics.family import Family, How, Masks
from medt.metrics.paper import OFFICIAL, OFFICIAL_EMPTY, official_prediction
from medt.metrics.pixel_size import PIXELS, PixelSize
from medt.processes import Processes

Protocol = Literal["native", "paper", "paper_official", "glas_challenge"]

PROTOCOLS: Mapping[str, str] = {
    "native": "each case at its own size, argmax of bilinearly resized probabilities",
    "glas_challenge": "each case at its own size; object F1, object Dice and object Hausdorff "
    "distance of each part of the test",
    "paper": "each case at the network's size, argmax of the logits",
    "paper_official": "each case at the network's size, channel 1 of the raw logits >= 0.5",
}
WINDOWS_MEAN = "each case at its own size, argmax of the averaged logits of overlapping windows"


AT_OWN_SIZE = ("native", "glas_challenge")
TOLERANCE = 2.0
TARGETS = ("mask", "objects")  # of a batch, in the order in which losses take them


class NotFiniteCaseError(UserError):
    """The output of a network for a case holds NaN or infinite values."""


@dataclass(frozen=True)
class Settings:
    """What `evaluate` was asked for."""

    protocol: Protocol
    rule: InstanceRule
    how: How
    families: tuple[Family, ...]


@dataclass(frozen=True)
class Evaluation:
    """The scores of a predictor on a list of cases.

    Attributes:
        protocol: a key of :data:`PROTOCOLS`.
        class_names: in the order of the class ids, background first.
        rows: one per case, in the dataset's order: ``case``, ``group``, ``split``, ``height``,
            ``width`` (of the scored mask, pixels), ``true_foreground`` and
            ``predicted_foreground`` (pixels), ``foreground`` (score -> mean over foreground
            classes), ``classes`` (per class name the scores of :data:`medt.metrics.pixel.SCORES`,
            NaN = left out, and ``tp``, ``fp``, ``fn``, ``tn`` in pixels). A detailed evaluation
            adds the columns of all families.
        families: those that measured them.
        summary: what :func:`medt.metrics.pixel.summarize` returns, and ``protocol``,
            ``protocol_means``, ``splits``, ``image_size``, ``postprocess``, ``empty`` (the rule),
            ``false_alarms`` (see :func:`medt.metrics.empty.false_alarms`), ``confusion`` (pixels;
            a row for each class of the truth), ``rules``. A detailed evaluation adds
            ``scores`` (its parts), ``calibration``, ``ranking`` (of two classes), ``intervals``
            and, as asked for, ``boundary``, ``lesions``, ``objects``, ``topology``. Plain values.
    """

    protocol: str
    class_names: tuple[str, ...]
    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    families: tuple[Family, ...] = FAMILIES[:1]

    def __repr__(self) -> str:
        """What a notebook shows."""
        return (
            f"Evaluation: protocol {self.protocol}, cases {len(self.rows)}\n"
            f"foreground, mean over cases: dice {self.dice:.4f}, iou {self.iou:.4f}\n"
            ".rows has the scores of each case, .summary all others"
        )

    @property
    def dice(self) -> float:
        """Of the foreground, the mean over cases."""
        return float(self.summary["mean_over_cases"]["dice"]["foreground"])

    @property
    def iou(self) -> float:
        """Of the foreground, the mean over cases."""
        return float(self.summary["mean_over_cases"]["iou"]["foreground"])


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
    tolerance: float = TOLERANCE,
    pixel_size: PixelSize | float | None = None,
    processes: Processes | None = None,
    grouped_by: str = "groups",
    empty: Empty = DEFAULT_EMPTY,
    parts: tuple[Part, ...] = USUAL,
    families: Sequence[Family] = FAMILIES,
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
        loss: of logits and class ids at the network's size or, with sliding windows, the image's,
            case by case; its mean becomes ``summary["loss"]``.
        rule: what is done to each predicted mask before it is scored.
        detail: whether to measure calibration, boundaries and objects, too, with intervals; the
            paper's protocols know pixels only, and the challenge's is always detailed.
        tolerance: of the normalised surface distance, in the unit of ``pixel_size``.
        pixel_size: of the images, at their own size; a number is in micrometres, None measures in
            pixels. Distances of boundaries are in its unit, those of objects too but for
            ``glas_challenge``, whose are in pixels.
        processes: share the cases out, and all of them get the whole result.
        grouped_by: what the groups of the cases are, and who says so, for the intervals.
        empty: what a class scores in a case whose truth does not have it
            (:mod:`medt.metrics.empty`); ``paper_official`` has its own rule.
        parts: what a detailed evaluation measures (:mod:`medt.evaluation.parts`).
        families: that they are looked for in; ``paper_official`` has its own.

    Raises:
        UserError: no cases, an unknown protocol, ``paper_official`` with other than two classes, a
            paper's protocol for a network without a size of its own (one trained on crops), a
            dataset that is augmented or preprocessed otherwise than the predictor, or a file that
            cannot be read.
        NotFiniteCaseError: the network's output for a case holds NaN or infinite values.
    """
    _check(predictor, dataset, protocol)
    names = tuple(c.name for c in predictor.classes)
    size = PixelSize.of(pixel_size)
    # The challenge's distances of objects are in pixels, as published.
    sizes = size, PIXELS if protocol == "glas_challenge" else size
    how = How(names, empty, tolerance, *sizes)
    detail = (detail or protocol == "glas_challenge") and protocol in AT_OWN_SIZE
    wanted = [one for one in families if one.suits(how) and (one.part in parts or not one.detailed)]
    if protocol == "paper_official":
        wanted, how = [OFFICIAL], replace(how, empty=OFFICIAL_EMPTY)
    measured = tuple(one for one in wanted if detail or not one.detailed)
    settings = Settings(protocol, rule, how, measured)
    processes = processes or Processes()
    scored: list[tuple[int, CaseScores]] = []
    losses: list[float] = []
    together = batch_size if predictor.mode == "resize" else 1  # images differ in size
    shares = {"rank": processes.rank, "processes": processes.count}
    batches = EpochBatches(len(dataset), together * processes.count, shuffle=False, **shares)
    with make_loader(dataset, batches, workers) as loader:
        for batch in loader:
            logits = _logits(predictor, batch, batch_size)
            if loss is not None:
                given = [batch[key].to(logits.device) for key in TARGETS if key in batch]
                singly = zip(logits, *given, strict=True)
                losses += [float(loss(*(one[None] for one in item))) for item in singly]
            for one, mask, index in zip(
                logits, batch["mask"], batch["index"].tolist(), strict=True
            ):
                case = dataset.cases[index]
                truth, numbered = mask.numpy(), None
                if protocol in AT_OWN_SIZE:
                    truth, numbered = read_truth(dataset, case)
                try:
                    result = _score(predictor, one, case, truth, numbered, settings)
                except ValueError as error:
                    raise _unknown_class(case.name, names, error) from error
                scored.append((index, result))
            if progress is not None:
                progress(len(scored), len(dataset))
    whole = sorted(processes.gather_items(scored), key=lambda pair: pair[0])
    cases, losses = [case for _, case in whole], processes.gather_items(losses)
    summary = {
        "protocol": protocol,
        "protocol_means": _meaning(predictor, protocol),
        "splits": sorted({case.split for case in dataset.cases}),
        "image_size": list(predictor.preprocessing.image_size),
        "postprocess": settings.rule.to_dict(),
        **summarize_split(cases, measured, how, detail, grouped_by),
    }
    if loss is not None:
        summary["loss"] = sum(losses) / len(cases)
    return Evaluation(protocol, names, [case.row for case in cases], summary, measured)


def _logits(predictor: Predictor, batch: Mapping[str, Any], windows: int) -> Tensor:
    try:
        return predictor.logits(batch["image"], windows=windows)
    except NotFiniteError as error:
        # Of windows there is but one image.
        case = batch["case"][error.index if predictor.mode == "resize" else 0]
        raise NotFiniteCaseError(f"Case {case}: {error.message}", error.hint) from error


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
    if protocol == "paper_official" and predictor.averages:
        raise UserError(
            "protocol=paper_official reads raw logits, which averaged predictions do not have",
            "use protocol=paper, or one checkpoint without tta",
        )
    if protocol == "glas_challenge":
        bare = [case.name for case in dataset.cases if case.instances is None]
        if bare or len(predictor.classes) != 2:
            what = f"case {bare[0]} has none" if bare else f"{len(predictor.classes)} classes"
            raise UserError(
                f"protocol=glas_challenge needs two classes and annotated objects: {what}",
                "use protocol=native, which scores connected components",
            )
    if protocol not in AT_OWN_SIZE and predictor.mode != "resize":
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


def _score(
    predictor: Predictor,
    logits: Tensor,
    case: Case,
    truth: NDArray[np.uint8],
    numbered: NDArray[Any] | None,
    settings: Settings,
) -> CaseScores:
    """Predict a case as the protocol says, and score it."""
    how, families = settings.how, settings.families
    if settings.protocol not in AT_OWN_SIZE:
        plain = logits[: len(predictor.classes)].cpu().numpy()
        official = settings.protocol == "paper_official"
        predicted = official_prediction(plain) if official else most_probable(plain)
        depths = predictor.depths(logits)
        plain_depths = None if depths is None else depths.cpu().numpy()
        cleaned = find_objects(predicted, settings.rule, plain_depths)[0]
        masks = Masks(how, cleaned, truth)
        return score_case(case, masks, families)
    maps = predictor.at_own_size(logits, truth.shape)
    predicted, objects = find_objects(most_probable(maps.probabilities), settings.rule, maps.depths)
    masks = Masks(how, predicted, truth, maps.probabilities, objects, numbered)
    return score_case(case, masks, families)


def _meaning(predictor: Predictor, protocol: str) -> str:
    if protocol == "native" and predictor.mode == "sliding_window":
        return WINDOWS_MEAN
    return PROTOCOLS[protocol]


def _unknown_class(case: str, names: tuple[str, ...], error: ValueError) -> UserError:
    return UserError(
        f"Case {case}: {error}",
        f"the network knows {', '.join(names)}: evaluate it on a dataset of these classes",
    )
