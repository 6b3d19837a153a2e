"""Cases of noise on disk, and a dataset of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medt.data.dataset import SegmentationDataset
from medt.data.labels import Labels
from medt.data.layout import Case
from medt.data.preprocessing import Preprocessing
from medt.io.files import write_png

RESIZE = Preprocessing((16, 16), 3, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
CROP = Preprocessing((16, 16), 3, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), sampling="crop")


def noise_cases(folder: Path, size: tuple[int, int] = (24, 20), names: str = "abcde") -> list[Case]:
    """Images of noise; their masks hold 0 (background), 255 (class 1) and 200 (ignored)."""
    rng = np.random.default_rng(0)
    made = []
    for name in names:
        image, mask = folder / f"{name}.png", folder / f"{name}_mask.png"
        write_png(image, rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        write_png(mask, rng.choice([0, 200, 255], size).astype(np.uint8))
        made.append(Case(name, image, mask, None, name, "train"))
    return made


def dataset_of(
    cases: list[Case], preprocessing: Preprocessing = RESIZE, **settings: Any
) -> SegmentationDataset:
    return SegmentationDataset(
        cases, preprocessing, Labels({0: 0, 255: 1}, 200), seed=3, **settings
    )
