"""Whether probabilities mean what they say, and what other thresholds than 0.5 would give.

Everything is a sum over pixels, so that a split's numbers are those of its cases added.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medt.metrics.family import (
    IGNORE_INDEX,
    Chart,
    Column,
    Family,
    Masks,
    Measured,
    Split,
    Summary,
    Table,
    number,
)
from medt.metrics.sums import add, quotient

BINS = 15  # as Guo et al. 2017
THRESHOLDS = np.arange(101) / 100

CALIBRATION_RULES = f"""\
Expected calibration error: the pixels of all cases in {BINS} equal bins of the most probable \
class's probability; the mean over bins, by pixels, of |share of right pixels - mean probability| \
(Guo et al. 2017). 0 is best, 1 worst.
Brier score: the mean over pixels of half the squared distance between the class probabilities and \
the truth (1 for its class, 0 for the others); with two classes (p - truth)^2. 0 is best, 1 worst.
Threshold curve (two classes): a pixel is foreground where its probability is at least the \
threshold; pooled over all cases."""


@dataclass(frozen=True)
class Calibration:
    """Sums over the pixels of one case or several.

    Attributes:
        pixels: int64 (bins,), by the probability of the most probable class.
        right: int64 (bins,), of these the ones whose most probable class is the truth.
        confidence: float64 (bins,), the sum of these probabilities.
        squares: half the sum of the squared differences between probabilities and truth.
        above: int64 (2, thresholds), two classes only, else (2, 0): pixels of background and of
            foreground (rows: truth) whose foreground probability is at least each of
            :data:`THRESHOLDS`.
    """

    pixels: NDArray[np.int64]
    right: NDArray[np.int64]
    confidence: NDArray[np.float64]
    squares: float
    above: NDArray[np.int64]


def measure_calibration(
    probabilities: NDArray[np.float32], truth: NDArray[np.integer[Any]]
) -> Calibration:
    """The sums of one case; pixels whose truth is 255 are left out.

    Args:
        probabilities: (classes, H, W), 0..1, with sum 1 over the classes.
        truth: (H, W) class ids, or 255 = ignore.
    """
    classes = len(probabilities)
    known = truth != IGNORE_INDEX
    true = truth[known].astype(np.intp)
    given = probabilities[:, known]
    chosen = given.argmax(axis=0)
    confidence = np.take_along_axis(given, chosen[None], axis=0)[0].astype(np.float64)
    bins = np.minimum((confidence * BINS).astype(np.intp), BINS - 1)
    of_truth = np.take_along_axis(given, true[None], axis=0)[0].astype(np.float64)
    # sum_c (p_c - t_c)^2 = sum_c p_c^2 - 2 p_truth + 1
    squares = float(np.square(given, dtype=np.float64).sum() + (1 - 2 * of_truth).sum()) / 2
    above = np.zeros((2, 0), np.int64)
    if classes == 2:
        above = np.stack([_at_least(given[1][true == side]) for side in (0, 1)])
    return Calibration(
        pixels=np.bincount(bins, minlength=BINS),
        right=np.bincount(bins[chosen == true], minlength=BINS),
        confidence=np.bincount(bins, confidence, minlength=BINS).astype(np.float64),
        squares=squares,
        above=above,
    )


def _at_least(probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many of them are at least each threshold."""
    limits = THRESHOLDS.astype(np.float32)
    passed = np.searchsorted(limits, probabilities, side="right")
    counts = np.bincount(passed, minlength=len(limits) + 1)
    return np.asarray(counts[::-1].cumsum()[::-1][1:], np.int64)


def expected_calibration_error(sums: Calibration) -> float:
    """Guo et al. 2017, "On calibration of modern neural networks", equation 3; NaN of no pixel.

    https://arxiv.org/abs/1706.04599
    """
    if not sums.pixels.sum():
        return float("nan")
    return float(np.abs(sums.right - sums.confidence).sum() / sums.pixels.sum())


def brier_score(sums: Calibration) -> float:
    """Brier 1950, halved so that it lies in 0..1 (see the rules); NaN of no pixel.

    https://doi.org/10.1175/1520-0493(1950)078%3C0001:VOFEIT%3E2.0.CO;2
    """
    return sums.squares / int(sums.pixels.sum()) if sums.pixels.sum() else float("nan")


def threshold_curve(sums: Calibration) -> dict[str, list[float]]:
    """Pooled scores of the foreground at each threshold, for two classes.

    Returns:
        ``threshold``, ``dice``, ``precision``, ``recall``: a value for each of
        :data:`THRESHOLDS`, 0..1, NaN at 0 / 0; empty lists with other than two classes.
    """
    if not sums.above.size:
        return {name: [] for name in ("threshold", "dice", "precision", "recall")}
    fp, tp = sums.above.astype(np.float64)
    positives = tp[0]  # every pixel reaches the threshold 0
    scores = {
        "dice": (2 * tp, positives + tp + fp),
        "precision": (tp, tp + fp),
        "recall": (tp, np.full_like(tp, positives)),
    }
    curve = {"threshold": THRESHOLDS.tolist()}
    for name, (numerator, denominator) in scores.items():
        curve[name] = quotient(numerator, denominator).tolist()
    return curve


def reliability(sums: Calibration) -> dict[str, list[float]]:
    """Per bin: ``pixels``, mean ``confidence`` and share ``right``, NaN in an empty bin."""
    return {
        "pixels": sums.pixels.astype(np.float64).tolist(),
        "confidence": quotient(sums.confidence, sums.pixels).tolist(),
        "right": quotient(sums.right, sums.pixels).tolist(),
    }


class CalibrationFamily(Family):
    """Expected calibration error, Brier score and the curve of thresholds."""

    name = "calibration"
    part = "pixel"
    rules = CALIBRATION_RULES

    def measure(self, masks: Masks) -> Measured:
        sums = measure_calibration(masks.probabilities, masks.truth)
        return Measured(sums, {"ece": expected_calibration_error(sums), "brier": brier_score(sums)})

    def summarize(self, split: Split) -> dict[str, Any]:
        sums = add(split.sums)
        summary = {
            "ece": expected_calibration_error(sums),
            "brier": brier_score(sums),
            "reliability": reliability(sums),
            "thresholds": threshold_curve(sums),
        }
        return {"calibration": summary}

    def columns(self, summary: Summary) -> Iterable[Column]:
        yield Column("ece", "Calibration error")
        yield Column("brier", "Brier")

    def tables(self, summary: Summary) -> Iterable[Table]:
        cells = [number(summary["calibration"][key]) for key in ("ece", "brier")]
        yield Table(
            "calibration", ["expected error", "Brier score"], [["pooled over the split", *cells]]
        )

    def charts(self, summary: Summary) -> Iterable[Chart]:
        calibration = summary["calibration"]
        bins, curve = calibration["reliability"], calibration["thresholds"]
        held = [i for i, pixels in enumerate(bins["pixels"]) if pixels]
        points = [bins["confidence"][i] for i in held], [bins["right"][i] for i in held]
        yield Chart(
            f"Calibration (expected error {number(calibration['ece'])})",
            "probability of the most probable class",
            "share of right pixels (bars: of pixels)",
            {"": points},
            bars=[pixels / (sum(bins["pixels"]) or 1) for pixels in bins["pixels"]],
            dashed=((0, 1), (0, 1)),
        )
        if curve["threshold"]:
            names = ("dice", "precision", "recall")
            yield Chart(
                "Other thresholds",
                "threshold of the foreground's probability",
                "pooled score",
                {name.capitalize(): (curve["threshold"], curve[name]) for name in names},
                dashed=((0.5, 0.5), (0, 1)),
            )


CALIBRATION = CalibrationFamily()
