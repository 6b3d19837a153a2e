"""The two quirks of the scoring script behind the paper's table, for comparison with it only.

Published numbers (arXiv 2102.10662, table 1) were scored on images at the network's size, where a
pixel is foreground if *channel 1 of the raw logits* is at least 0.5 - whatever channel 0 says - and
where every image without a true positive gets F1 = 1, however wrong it is. Both are reproduced here
and used nowhere else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medt.metrics.empty import Empty
from medt.metrics.pixel import RULES, PixelCounts, PixelFamily, PixelScores, Scores, dice, scores_by

OFFICIAL_THRESHOLD = 0.5

OFFICIAL_RULES = """\
This protocol repeats two quirks of the paper's scoring script, for comparison with published \
numbers only: a pixel is foreground where channel 1 of the raw logits is at least 0.5, and F1 \
(the column Dice) is 1 wherever there is no true positive, however wrong the image."""


def official_prediction(logits: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """(2, H, W) raw logits -> (H, W) class ids: 1 where channel 1 is at least 0.5, else 0."""
    if logits.shape[0] != 2:
        raise ValueError(f"the official scores need 2 classes, the logits have {logits.shape[0]}")
    foreground: NDArray[np.uint8] = (logits[1] >= OFFICIAL_THRESHOLD).astype(np.uint8)
    return foreground


def official_f1(counts: PixelCounts) -> Scores:
    """Dice per class, but 1 for a class without a true positive."""
    return np.where(counts.tp == 0, 1.0, dice(counts))


# The script knows no other rule than that an empty mask predicted empty is right.
OFFICIAL_EMPTY: Empty = "one"


class OfficialFamily(PixelFamily):
    """The pixel scores with the script's F1."""

    rules = f"{RULES}\n{OFFICIAL_RULES}"

    def scores(self, empty: Empty) -> PixelScores:
        return {**scores_by(empty), "dice": official_f1}


OFFICIAL = OfficialFamily()
