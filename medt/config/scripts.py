"""The typed schema of configs/<script>.yaml: one dataclass per script."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from medt.config.groups import (
    DatasetConfig,
    PathsConfig,
    PostprocessConfig,
    ProtocolConfig,
    TableConfig,
)
from medt.training.settings import TrainerSettings


@dataclass
class TrainConfig:
    """configs/train.yaml."""

    dataset: DatasetConfig
    loss: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    augmentation: dict[str, Any]
    trainer: TrainerSettings
    paths: PathsConfig
    seed: int
    run_dir: str
    resume: str | None
    resume_force: bool
    check: bool
    overfit: int | None
    dry_run: bool
    allow: Any
    # Networks of the user's own may be given weights, too.
    model: dict[str, Any] = field(default_factory=lambda: {"weights": None})


@dataclass
class EvaluateConfig:
    """configs/evaluate.yaml."""

    checkpoint: Any
    mode: str | None
    tta: bool
    split: str
    protocol: ProtocolConfig
    postprocess: PostprocessConfig
    tune: bool
    tolerance: Any
    empty: str
    scores: list[str] | None
    panels: int
    details: bool
    output: str | None
    paths: PathsConfig
    device: str
    batch_size: int
    allow: Any
    dataset: DatasetConfig | None = None


@dataclass
class PredictConfig:
    """configs/predict.yaml."""

    checkpoint: Any
    mode: str | None
    tta: bool
    input: str
    output: str
    roi: str | None
    pixel_size: Any
    mask_format: str
    values: list[int] | None
    overlays: bool
    probabilities: bool
    uncertainty: bool
    instances: bool
    geojson: bool
    objects: bool
    postprocess: PostprocessConfig
    overwrite: bool
    device: str
    allow: Any


@dataclass
class PrepareDataConfig:
    """configs/prepare_data.yaml: `source` is the published archive, or the folder it holds."""

    dataset: DatasetConfig
    paths: PathsConfig
    source: str | None


@dataclass
class CheckDataConfig:
    """configs/check_data.yaml."""

    dataset: DatasetConfig
    augmentation: dict[str, Any]
    paths: PathsConfig
    seed: int
    output: str
    cases: int
    preview: bool
    preview_cases: int
    versions: int
    write: str | None


@dataclass
class BenchmarkConfig:
    """configs/benchmark.yaml."""

    networks: list[str]
    backends: list[str]
    sizes: list[int]
    batches: list[int]
    rounds: int
    threads: int | None
    memory: float | None
    seconds: float
    loader: bool
    glas: str | None
    checkpoint: str | None
    large: int | None
    output: str


@dataclass
class ImportOfficialConfig:
    """configs/import_official.yaml."""

    model: dict[str, Any]
    weights: str
    output: str
    image_size: Any
    channels: int
    classes: list[str]


@dataclass
class ExportConfig:
    """configs/export.yaml."""

    checkpoint: str
    format: str
    output: str | None
    allow: Any


@dataclass
class CompareConfig:
    """configs/compare.yaml."""

    runs: list[str]
    output: str


@dataclass
class ReproduceConfig:
    """configs/reproduce.yaml."""

    paths: PathsConfig
    table: TableConfig
    rows: list[str] | None
    more: list[str]
    output: str
    dry_run: bool


SCRIPTS: dict[str, type] = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "prepare_data": PrepareDataConfig,
    "check_data": CheckDataConfig,
    "benchmark": BenchmarkConfig,
    "import_official": ImportOfficialConfig,
    "export": ExportConfig,
    "compare": CompareConfig,
    "reproduce": ReproduceConfig,
}
