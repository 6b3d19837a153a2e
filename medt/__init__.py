"""medt: MedT (gated axial attention) and its family for 2D medical image segmentation.

In a notebook:

    import medt

    data = medt.open_folder("images", "masks", image_size=128)
    run = medt.train("medt_plus", data, epochs=40)
    medt.evaluate(run, data, split="test").dice
    medt.load(run).predict("image.png")
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medt.face import Data, evaluate, open_dataset, open_folder, option, train
    from medt.inference.predictor import Predictor
    from medt.models import (
        AxialAttention,
        AxialUNet,
        Baseline,
        GatedAxialUNet,
        LocalGlobalNet,
        LoGo,
        MedT,
        MedTPlus,
    )

__version__ = "0.2.0"
__all__ = [
    "AxialAttention",
    "AxialUNet",
    "Baseline",
    "Data",
    "GatedAxialUNet",
    "LoGo",
    "LocalGlobalNet",
    "MedT",
    "MedTPlus",
    "evaluate",
    "load",
    "open_dataset",
    "open_folder",
    "option",
    "train",
]
FACE = ("Data", "evaluate", "open_dataset", "open_folder", "option", "train")


def __getattr__(name: str) -> Any:
    """Import what is asked for: PyTorch takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module 'medt' has no attribute {name!r}")
    return getattr(importlib.import_module("medt.face" if name in FACE else "medt.models"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def load(
    path: str | PathLike[str] | Sequence[str | PathLike[str]],
    device: str = "cpu",
    allow: str | tuple[str, ...] = (),
    mode: str | None = None,
    tta: bool = False,
) -> Predictor:
    """The predictor of a run or a checkpoint, or of several: see `Predictor.load`.

    >>> import medt
    >>> medt.load("run").predict("images/val_1.png").shape
    (64, 64)
    """
    from medt.inference.predictor import Predictor

    return Predictor.load(path, device, allow, mode, tta)
