"""Ranges of numbers and choices of names in a config, checked before anything is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from medt.data.folds import MOST_FOLDS
from medt.data.objects import KINDS
from medt.errors import UserError
from medt.metrics.pixel_size import PixelSize
from medt.signatures import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, Range, check_range

# The settings of trainer, image size and the open groups are checked by what takes them.
SEED = Range(0, 2**32 - 1)
RANGES = {
    "seed": SEED,
    "overfit": COUNT,
    "batch_size": COUNT,
    "sizes": COUNT,
    "batches": COUNT,
    "memory": POSITIVE,
    "seconds": POSITIVE,
    "rounds": COUNT,
    "large": COUNT,
    "threads": COUNT,
    "channels": COUNT,
    "cases": COUNT,
    "preview_cases": COUNT,
    "versions": COUNT,
    "dataset.crop_foreground": SHARE,
    "dataset.crops_per_case": COUNT,
    "dataset.border_width": COUNT,
    "optimizer.encoder_factor": POSITIVE,
    "dataset.workers": Range(0, 64),
    "dataset.timeout": Range(0, 86_400, open_low=True),  # a day; the system's clocks end at a month
    "dataset.cache": NOT_NEGATIVE,
    "dataset.channels": COUNT,
    "dataset.seed": SEED,
    "tolerance": NOT_NEGATIVE,
    "panels": NOT_NEGATIVE,
    "dataset.page": NOT_NEGATIVE,
    "dataset.folds": Range(2, MOST_FOLDS),
    "dataset.fold": NOT_NEGATIVE,
}
# And the words that may stand for a pixel size.
PIXEL_SIZES: dict[str, tuple[str, ...]] = {"dataset.pixel_size": (), "pixel_size": ("auto",)}
CHOICES = {
    "mode": ("resize", "sliding_window"),
    "mask_format": ("png", "tiff"),
    "format": ("onnx", "torch_export", "safetensors"),
    "dataset.sampling": ("resize", "crop"),
    "dataset.objects": KINDS,
    "dataset.normalize": (
        *("unit", "imagenet", "dataset", "percentile", "percentile_dataset", "zscore"),
    ),
    "dataset.mask": ("classes", "instances", "alpha"),
    "table.split": ("val", "test"),
    "dataset.raster": ("challenge", "centres", "outline"),
}


def check_ranges(config: Mapping[str, Any]) -> None:
    """Check every number that has a range, and every name of which there are few.

    Keys that the config lacks, and nulls, are left alone.

    Args:
        config: nested plain values; text, such as an unresolved reference, is left alone too.

    Raises:
        UserError: the first key whose value is out of range.
    """
    for key, allowed in RANGES.items():
        value = _value(config, key.split("."))
        check_range(value, allowed, key)
    for key, words in PIXEL_SIZES.items():
        value = _value(config, key.split("."))
        sides = value if isinstance(value, list) else [value]
        unresolved = any(isinstance(side, str) and "${" in side for side in sides)
        if value not in words and not unresolved:
            PixelSize.of(value, key)
    for key, names in CHOICES.items():
        value = _value(config, key.split("."))
        if value == "???":  # of OmegaConf: there is none
            raise UserError(f"{key} has no value", f"choose one of {', '.join(names)}")
        if value is not None and value not in names and "${" not in str(value):
            raise UserError(f"{key}={value} is not known", f"choose one of {', '.join(names)}")


def _value(config: Any, path: Iterable[str]) -> Any:
    for name in path:
        config = config.get(name) if isinstance(config, Mapping) else None
    return config
