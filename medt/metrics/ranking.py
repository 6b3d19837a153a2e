"""How well probabilities tell foreground from background, whatever the threshold: ROC and PR AUC.

Pixels are counted by their probability in bins, so that a split's areas come from the counts of its
cases added. Two classes only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medt.metrics.family import (
    IGNORE_INDEX,
    Column,
    Family,
    How,
    Masks,
    Measured,
    Split,
    Summary,
    Table,
    number,
)
from medt.metrics.sums import mean_of_present

RANKING_RULES = """\
ROC AUC: the probability that a pixel of the foreground has a higher foreground probability than \
one of the background, equal ones counting half. PR AUC: average precision, the mean of the \
precision at each threshold weighted by the recall that it adds. Probabilities that differ by less \
than 2 % of the distance to 0 or 1 count as equal. A case without foreground, or without \
background, has neither; pooled: the pixels of all cases together."""

# The bits of a float32 grow with its value: with the first six of 23 after the leading one they
# are bins whose width is at most 1/64 of the value. The first bin takes all below 2^-40.
DROPPED_BITS = 17
FIRST = int(np.float32(2.0**-40).view(np.int32) >> DROPPED_BITS)
HALF = int(np.float32(0.5).view(np.int32) >> DROPPED_BITS) - FIRST
BINS = 2 * HALF + 2

Counts = NDArray[np.integer[Any]]


def count_probabilities(
    probabilities: NDArray[np.float32], truth: NDArray[np.integer[Any]]
) -> Counts:
    """The pixels of a case by foreground probability; those whose truth is 255 are left out.

    Args:
        probabilities: (2, H, W), 0..1, with sum 1 over the classes.
        truth: (H, W) class ids, or 255 = ignore.

    Returns:
        int32 (2, bins); rows: background and foreground in the truth.
    """
    known = truth != IGNORE_INDEX
    background, foreground = probabilities[:, known]
    # Near 1 the distance to 1 is what is fine enough.
    nearest = np.minimum(background, foreground).astype(np.float32)
    code = np.clip((nearest.view(np.int32) >> DROPPED_BITS) - FIRST, 0, HALF)
    bins = np.where(foreground <= background, code, BINS - 1 - code)
    true = truth[known] == 1
    rows = [np.bincount(bins[true == side], minlength=BINS) for side in (False, True)]
    return np.stack(rows).astype(np.int32)


def roc_auc(counts: Counts) -> float:
    """Area under the ROC curve, 0..1; NaN without foreground or background.

    Fawcett 2006, "An introduction to ROC analysis", https://doi.org/10.1016/j.patrec.2005.10.010
    """
    negative, positive = counts.astype(np.float64)
    pairs = negative.sum() * positive.sum()
    below = negative.cumsum() - negative / 2
    return float((positive * below).sum() / pairs) if pairs else float("nan")


def average_precision(counts: Counts) -> float:
    """Area under the precision-recall curve by steps, 0..1; NaN without foreground or background.

    Davis and Goadrich 2006, https://doi.org/10.1145/1143844.1143874, on why not by straight lines.
    """
    negative, positive = counts[:, ::-1].astype(np.float64)
    if not (negative.any() and positive.any()):
        return float("nan")
    found, false = positive.cumsum(), negative.cumsum()
    precision = found / np.maximum(found + false, 1)
    return float((positive * precision).sum() / found[-1])


REDUCTIONS = ("mean_over_cases", "mean over cases"), ("pooled", "pooled over the split")


class RankingFamily(Family):
    """The areas under both curves."""

    name = "ranking"
    part = "pixel"
    rules = RANKING_RULES

    def suits(self, how: How) -> bool:
        return len(how.classes) == 2

    def measure(self, masks: Masks) -> Measured:
        counts = count_probabilities(masks.probabilities, masks.truth)
        return Measured(counts, _areas(counts))

    def summarize(self, split: Split) -> dict[str, Any]:
        """The mean over the cases that have them, and over all pixels."""
        total = _areas(np.sum(split.sums, axis=0))
        means = {key: mean_of_present(np.array([row[key] for row in split.rows])) for key in total}
        return {"ranking": {"mean_over_cases": means, "pooled": total}}

    def columns(self, summary: Summary) -> Iterable[Column]:
        yield Column("roc_auc", "ROC AUC")
        yield Column("pr_auc", "PR AUC")

    def tables(self, summary: Summary) -> Iterable[Table]:
        ranking = summary["ranking"]
        rows = [[title, *map(number, ranking[key].values())] for key, title in REDUCTIONS]
        yield Table("any threshold", [one.title for one in self.columns(summary)], rows)


def _areas(counts: Counts) -> dict[str, float]:
    return {"roc_auc": roc_auc(counts), "pr_auc": average_precision(counts)}


RANKING = RankingFamily()
