"""medt: MedT (gated axial attention) and its family for 2D medical image segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medt.inference.predictor import Predictor

__version__ = "0.1.0"


def load(
    path: str | Path | Sequence[str | Path],
    device: str = "cpu",
    allow: str | tuple[str, ...] = (),
    mode: str | None = None,
    tta: bool = False,
) -> Predictor:
    """The predictor of a checkpoint, or of several: `medt.load("best.pt").predict("image.png")`.

    See `medt.inference.predictor.Predictor.load`.
    """
    from medt.inference.predictor import Predictor

    return Predictor.load(path, device, allow, mode, tta)
