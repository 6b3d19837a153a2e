"""The typed schema of configs/<script>.yaml: one dataclass per script."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from medt.config.groups import (
    DatasetConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    PathsConfig,
    PostprocessConfig,
    ProtocolConfig,
    SchedulerConfig,
)
from medt.training.settings import TrainerSettings


@dataclass
class TrainConfig:
    """configs/train.yaml.

    Attributes:
        seed: of weights, order and augmentation.
        run_dir: the run's folder, new or empty; by default a new one, named by the time.
        resume: a run folder or its last.pt, or auto: the newest unfinished run with this config.
        resume_force: let a resumed run go on with changed settings, an ended one with more epochs.
        check: look for faults in the dataset first, which reads all of it; errors stop.
        overfit: train and validate on the first so many training cases only; null for all.
        allow: the full name of a class outside medt that the config of a resumed run may build.
        dry_run: only say what network, memory and time the training takes, and draw a batch.
    """

    dataset: DatasetConfig = MISSING
    model: ModelConfig = MISSING
    loss: LossConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    scheduler: SchedulerConfig = MISSING
    augmentation: dict[str, Any] = MISSING
    trainer: TrainerSettings = MISSING
    paths: PathsConfig = MISSING
    seed: int = 0
    run_dir: str = MISSING
    resume: str | None = None
    resume_force: bool = False
    check: bool = True
    overfit: int | None = None
    dry_run: bool = False
    allow: str | None = None


@dataclass
class EvaluateConfig:
    """configs/evaluate.yaml.

    Attributes:
        checkpoint: a best.pt or last.pt, or a list of them, whose networks are averaged.
        mode: resize or sliding_window; null is what the network was trained for.
        tta: average over flips and quarter turns, too.
        split: train, val, test, or all cases, such as those of an external set.
        dataset: another prepared dataset; null is the one that the checkpoint was trained on.
        tune: choose the numbers of `postprocess` on the validation cases, and score nothing else.
        tolerance: of the normalised surface distance: 0.5mm, 3um, 2px, or a number in the unit of
            the dataset's pixel size, else of pixels; null is 2 um where that unit is um, else 2px.
        empty: what a class scores in a case whose truth does not have it: skip (left out), alarms
            (0 if it was predicted, else left out) or one (1 if it was not predicted).
        scores: what to measure, of pixel, boundary, objects and topology; null is what suits the
            dataset.
        panels: so many of the worst, median and best cases each does report.html show.
        output: the folder for the results; null is one below evaluation/ in the run folder.
        allow: the full name of a model outside medt.models that the checkpoint may build.
    """

    checkpoint: Any = MISSING
    mode: str | None = None
    tta: bool = False
    split: str = "val"
    dataset: DatasetConfig | None = None
    protocol: ProtocolConfig = MISSING
    postprocess: PostprocessConfig = MISSING
    tune: bool = False
    tolerance: Any = None
    empty: str = "skip"
    scores: list[str] | None = None
    panels: int = 3
    output: str | None = None
    paths: PathsConfig = MISSING
    device: str = "auto"
    batch_size: int = 8
    allow: str | None = None


@dataclass
class PredictConfig:
    """configs/predict.yaml.

    Attributes:
        checkpoint: a best.pt or last.pt, or a list of them, whose networks are averaged.
        mode: resize or sliding_window; null is what the network was trained for.
        tta: average over flips and quarter turns, too.
        input: an image, or a folder with images at any depth.
        output: the folder for the masks; it mirrors the folder of images.
        mask_format: png or tiff, of masks and instances.
        values: the pixel value to write for each class; null writes 0/255 for two classes, else
            the class ids.
        roi: a folder with a mask of the region of interest for each image, matched by name, or the
            mask of the one image; outside, where it is 0, nothing is predicted, counted or drawn.
        pixel_size: of the images: 0.25um, 0.1mm, [height,width]; px measures in pixels; auto takes
            what the checkpoint knows of the dataset it was trained on.
        overlays, probabilities, uncertainty, instances, geojson: whether to write these too.
        objects: whether to write objects.csv, a row for each object.
        overwrite: whether to replace files that exist; else they are kept.
        allow: the full name of a model outside medt.models that the checkpoint may build.
    """

    checkpoint: Any = MISSING
    mode: str | None = None
    tta: bool = False
    input: str = MISSING
    output: str = MISSING
    roi: str | None = None
    pixel_size: Any = "auto"
    mask_format: str = "png"
    values: list[int] | None = None
    overlays: bool = False
    probabilities: bool = False
    uncertainty: bool = False
    instances: bool = False
    geojson: bool = False
    objects: bool = False
    postprocess: PostprocessConfig = MISSING
    overwrite: bool = False
    device: str = "auto"
    allow: str | None = None


@dataclass
class PrepareDataConfig:
    """configs/prepare_data.yaml: `source` is the published archive, or the folder it holds."""

    dataset: DatasetConfig = MISSING
    paths: PathsConfig = MISSING
    source: str | None = None


@dataclass
class CheckDataConfig:
    """configs/check_data.yaml.

    Attributes:
        seed: of the augmentation that is previewed.
        output: the folder for check.json, cases.png and preview.png.
        cases: how many the contact sheet shows.
        preview: whether to draw training cases as the augmentation changes them, too.
        preview_cases: how many of them.
        versions: of each, as the first so many epochs would give it.
    """

    dataset: DatasetConfig = MISSING
    augmentation: dict[str, Any] = MISSING
    paths: PathsConfig = MISSING
    seed: int = 0
    output: str = MISSING
    cases: int = 12
    preview: bool = False
    preview_cases: int = 6
    versions: int = 4


@dataclass
class BenchmarkConfig:
    """configs/benchmark.yaml.

    Attributes:
        networks: names of configs/model.
        backends: formulations of the axial networks: naive (as the official code), torch, fused.
        sizes: sides of square images in pixels; a network leaves out those it does not take.
        rounds: timed rounds; each runs every network once.
        threads: threads of PyTorch; null keeps its own choice.
        memory: gigabytes that a network may take; null is 80 % of what is available.
        seconds: after which a network has no more rounds, for training steps and for inference
            each; one round is timed at least.
        loader: whether to time a training epoch with its loader and with images in memory.
        glas: the archive of GlaS, whose preparation is then timed, too; null leaves it out.
        checkpoint: what is evaluated on 80 of its images, with all scores; null leaves it out.
        large: side in pixels of one large image that the checkpoint predicts in both modes, with
            time and memory; null leaves it out.
        output: the folder for benchmark.json and benchmark.png.
    """

    networks: list[str] = field(
        default_factory=lambda: [
            *("medt", "gated_axial_unet", "axial_unet", "logo"),
            *("unet", "unet_plus_plus", "attention_unet", "res_unet", "fcn"),
        ]
    )
    backends: list[str] = field(default_factory=lambda: ["naive", "torch", "fused"])
    sizes: list[int] = field(default_factory=lambda: [64, 128, 256, 512])
    batches: list[int] = field(default_factory=lambda: [1, 4, 16])
    rounds: int = 7
    threads: int | None = None
    memory: float | None = None
    seconds: float = 30.0
    loader: bool = True
    glas: str | None = None
    checkpoint: str | None = None
    large: int | None = None
    output: str = "benchmark"


@dataclass
class ImportOfficialConfig:
    """configs/import_official.yaml.

    Attributes:
        weights: a state dict of the official code.
        output: the checkpoint to write.
        image_size: in pixels, that the weights were trained at: one number, or [height, width].
        channels: of the images.
        classes: their names, background first.
    """

    model: ModelConfig = MISSING
    weights: str = MISSING
    output: str = MISSING
    image_size: Any = 128
    channels: int = 3
    classes: list[str] = field(default_factory=lambda: ["background", "foreground"])


@dataclass
class ExportConfig:
    """configs/export.yaml.

    Attributes:
        checkpoint: a best.pt or last.pt, or a run folder.
        format: onnx, torch_export or safetensors.
        output: the folder for the file and its model card; null is export/ in the run folder.
        allow: the full name of a model outside medt.models that the checkpoint may build.
    """

    checkpoint: str = MISSING
    format: str = MISSING
    output: str | None = None
    allow: str | None = None


@dataclass
class CompareConfig:
    """configs/compare.yaml.

    Attributes:
        runs: run folders, and folders with runs at any depth below.
        output: the folder for comparison.csv, comparison.json and curves.png.
    """

    runs: list[str] = field(default_factory=list)
    output: str = "comparison"


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
}
