"""The types of the closed config groups: one dataclass a kind of file in configs/<group>/.

Values, and what the keys mean, are in the files. The groups model, loss, optimizer, scheduler and
augmentation are open: their schema is the signature of the class that a file names, see
`medt.targets`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medt.training.settings import TrainerSettings


@dataclass
class PathsConfig:
    """Where things lie; everything else refers to these."""

    root: str
    data: str
    runs: str


@dataclass
class DatasetConfig:
    """What all datasets have: configs/dataset/_common.yaml."""

    name: str
    image_size: Any
    sampling: str
    crop_foreground: float
    crops_per_case: int
    objects: str
    border_width: int
    normalize: str
    window: list[float] | None
    eight_bit: bool
    cache: int
    workers: int
    timeout: float
    channels: int | None
    pixel_size: Any
    num_classes: int | None
    object_area: int | None
    splits_digest: str | None
    page: int | None
    folds: int | None
    fold: Any
    group: str | None
    distinct: list[Any]


@dataclass
class PreparedConfig(DatasetConfig):
    """A dataset in the layout of data/README.md, written by prepare_data.py."""

    root: str
    splits_file: str


@dataclass
class MonusegConfig(PreparedConfig):
    """MoNuSeg, whose masks prepare_data draws from outlines."""

    raster: str


@dataclass
class SyntheticConfig(DatasetConfig):
    """Images made on the spot."""

    root: str
    seed: int
    train: int
    val: int
    test: int
    size: int


@dataclass
class FolderConfig(DatasetConfig):
    """A folder of images and one of masks, paired by stem."""

    images: str
    masks: str
    classes: list[Any] | None
    ignore: Any
    mask: str
    mask_suffix: str | None
    splits_file: str | None
    seed: int


@dataclass
class ProtocolConfig:
    name: str


@dataclass
class PostprocessConfig:
    """What is done to a predicted mask; see `medt.inference.instances.InstanceRule`."""

    method: str


@dataclass
class ComponentsConfig(PostprocessConfig):
    """Sizes in pixels of the mask."""

    method: str
    smallest: int
    largest_hole: int


@dataclass
class WatershedConfig(ComponentsConfig):
    method: str
    smoothing: float
    seed_distance: int
    depth: float


@dataclass
class SeedsConfig(ComponentsConfig):
    method: str
    smoothing: float
    depth: float


@dataclass
class TableConfig:
    """Trainings that are compared."""

    name: str
    settings: list[str]
    seeds: list[int]
    split: str
    rows: dict[str, list[str]]


GROUPS: dict[str, dict[str, type]] = {
    "dataset": {
        "prepared": PreparedConfig,
        "monuseg": MonusegConfig,
        "synthetic": SyntheticConfig,
        "folder": FolderConfig,
    },
    "trainer": {"default": TrainerSettings},
    "postprocess": {
        "none": PostprocessConfig,
        "components": ComponentsConfig,
        "watershed": WatershedConfig,
        "seeds": SeedsConfig,
    },
    "protocol": {"any": ProtocolConfig},
    "table": {"table": TableConfig},
    "paths": {"default": PathsConfig},
}
