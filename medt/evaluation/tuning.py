"""Choosing the numbers of the post-processing on validation cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medt.data.dataset import SegmentationDataset, naming
from medt.errors import UserError
from medt.evaluation.case_scores import read_truth
from medt.inference.instances import InstanceRule, find_objects
from medt.inference.predictor import Predictor, most_probable
from medt.metrics.nuclei import nuclei_scores, nuclei_sums
from medt.metrics.overlaps import objects_of
from medt.metrics.pixel import IGNORE_INDEX

PASSES = 2
# What is tried: areas as shares of the median true object's, lengths as shares of the radius of a
# disk of that area.
AREAS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
SMOOTHINGS = (0.0, 0.1, 0.2, 0.4)
DISTANCES = (0.25, 0.5, 1.0, 1.5)
WATERSHED_DEPTHS = (0.0, 0.02, 0.05, 0.1, 0.2)
DEPTHS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
GOAL = (
    "mean over cases that show objects of the objects' panoptic quality, averaged over the "
    "foreground classes"
)


@dataclass(frozen=True)
class Trial:
    """A rule, and its score: see :data:`GOAL`; 0..1, NaN if there is no object."""

    rule: InstanceRule
    score: float


def tune(
    predictor: Predictor,
    dataset: SegmentationDataset,
    methods: Sequence[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Trial]:
    """Find the numbers that suit a dataset's objects best, for each method.

    One number at a time is varied and the best kept, twice through all; of equal scores the first
    tried, which is the gentlest, stays. All predicted masks are kept in memory, a byte a pixel.

    Args:
        predictor: what predicts the masks; once each.
        dataset: the validation cases, with masks.
        methods: of :class:`InstanceRule`; "none" is scored as it is.
        progress: called with (rules scored, rules in all at most).

    Returns:
        The best trial of each method, in their order.

    Raises:
        UserError: the truth has no object, or a file cannot be read.
    """
    cases = [_Tuned.of(predictor, dataset, index) for index in range(len(dataset))]
    areas = np.concatenate([area for case in cases for area in case.areas])
    if not areas.size:
        raise UserError("there is no object in the truth of these cases", "tune on other cases")
    grids = {method: _grid(method, float(np.median(areas))) for method in methods}
    total = sum(1 + PASSES * sum(map(len, grid.values())) for grid in grids.values())
    done = 0

    def score(rule: InstanceRule) -> Trial:
        nonlocal done
        done += 1
        progress(min(done, total), total)
        return Trial(rule, _mean([case.score(rule) for case in cases]))

    best = []
    for method, grid in grids.items():
        kept = score(_start(method, grid))
        tried = {kept.rule: kept}
        for _ in range(PASSES):
            for key, values in grid.items():
                for value in values:
                    rule = replace(kept.rule, **{key: value})
                    tried[rule] = tried.get(rule) or score(rule)
                    if tried[rule].score > kept.score:
                        kept = tried[rule]
        best.append(kept)
    progress(total, total)
    return best


@dataclass(frozen=True)
class _Tuned:
    """A case: its predicted mask and depths, the ignored pixels, and the true objects of each
    class."""

    predicted: NDArray[np.uint8]
    depths: NDArray[np.float32] | None
    known: NDArray[np.bool_]
    true: list[NDArray[Any]]

    @classmethod
    def of(cls, predictor: Predictor, dataset: SegmentationDataset, index: int) -> _Tuned:
        case = dataset.cases[index]
        with naming(case):
            maps = predictor.maps(case.image)
        truth, numbered = read_truth(dataset, case)
        ids = range(1, len(predictor.classes))
        return cls(
            most_probable(maps.probabilities),
            maps.depths,
            truth != IGNORE_INDEX,
            [objects_of(truth == class_id, numbered) for class_id in ids],
        )

    @property
    def areas(self) -> list[NDArray[np.int64]]:
        """Of the true objects, by class, in pixels."""
        counts = (np.unique(labels[labels > 0], return_counts=True)[1] for labels in self.true)
        return [count.astype(np.int64) for count in counts]

    def score(self, rule: InstanceRule) -> float:
        """Panoptic quality, the mean over the classes that are there; NaN if none is.

        Many empty images would choose a rule that removes what is hard to find with the specks.
        """
        cleaned, objects = find_objects(self.predicted, rule, self.depths)
        scores = []
        for class_id, true in enumerate(self.true, start=1):
            of_class = objects * ((cleaned == class_id) & self.known)
            if true.any():
                scores.append(float(nuclei_scores(nuclei_sums(of_class, true))["pq"]))
        return _mean(scores)


def _grid(method: str, area: float) -> dict[str, list[Any]]:
    """The values to try of each number, gentlest first."""
    radius = math.sqrt(area / math.pi)
    areas = sorted({round(share * area) for share in AREAS})
    grid: dict[str, list[Any]] = {}
    if method != "none":
        grid = {"smallest": [*areas], "largest_hole": [*areas]}
    if method == "watershed":
        distances = {max(1, round(share * radius)) for share in DISTANCES}
        grid["seed_distance"] = sorted(distances, reverse=True)
        grid["depth"] = [round(share * radius, 2) for share in WATERSHED_DEPTHS]
    if method == "seeds":
        grid["depth"] = list(DEPTHS)
    if method in ("watershed", "seeds"):
        grid["smoothing"] = [round(share * radius, 1) for share in SMOOTHINGS]
    return grid


def _start(method: str, grid: dict[str, list[Any]]) -> InstanceRule:
    first: dict[str, Any] = {key: values[0] for key, values in grid.items()}
    return InstanceRule(method, **first)  # type: ignore[arg-type]


def _mean(scores: Sequence[float]) -> float:
    known = [score for score in scores if not math.isnan(score)]
    return float(np.mean(known)) if known else math.nan
