"""The typed schema of the config groups: one dataclass per kind of file in configs/<group>/."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from medt.training.settings import TrainerSettings


@dataclass
class PathsConfig:
    """Where things lie; everything else refers to these."""

    root: str = "${home:}"
    data: str = "${paths.root}/data"
    runs: str = "${paths.root}/runs"


@dataclass
class DatasetConfig:
    """What all datasets have.

    Attributes:
        image_size: the network's input in pixels: one number, or [height, width].
        sampling: resize (whole images, at image_size) or crop (of image_size, at the images' own
            resolution).
        crop_foreground: share of the crops that are centred on a pixel of foreground.
        crops_per_case: crops taken of each training image in an epoch.
        normalize: unit (0..1), imagenet, dataset (mean and deviation of the training images),
            percentile (each image's 0.5 to 99.5 % stretched to 0..1, then as dataset),
            percentile_dataset (those of all training images), or zscore (mean and deviation of
            each image).
        window: [low, high], the values that become 0 and 1, such as CT numbers; null takes the
            type's range or, with normalize=dataset, that of the training images.
        eight_bit: whether values of more than 8 bits are rounded to 8.
        cache: megabytes of decoded images kept in memory; 0 decodes every time.
        workers: processes that load images; 0 loads them in the training process.
        timeout: seconds after which workers that deliver nothing are an error.
        channels: channels of the images; null takes them from the dataset.
        num_classes: filled in from the dataset.
        splits_digest: filled in from the split file: what it says of each case.
        page: which image of a stack, from 0; null refuses stacks.
        pixel_size: of the images: 0.25um, 0.1mm, [height,width], or px; a bare number is in
            micrometres; null takes what is known of the dataset.
        folds: of a cross-validation over the cases of train and val; null keeps the split file's.
        fold: which of them validates, from 0.
        group: what belongs together and so into one split: a pattern of names, (*)_frame#, or
            FILE.csv:COLUMN; see `medt.data.grouping`. null takes the groups of the split file.
        distinct: pairs of cases, [[a, b], ...], that look alike and show different things.
    """

    name: str = MISSING
    image_size: Any = 128
    sampling: str = "resize"
    crop_foreground: float = 0.5
    crops_per_case: int = 4
    normalize: str = "dataset"
    window: list[float] | None = None
    eight_bit: bool = False
    cache: int = 1024
    workers: int = 0
    timeout: float = 300.0
    channels: int | None = None
    pixel_size: Any = None
    num_classes: int | None = None
    splits_digest: str | None = None
    page: int | None = None
    folds: int | None = None
    fold: int | None = None
    group: str | None = None
    distinct: list[Any] = field(default_factory=list)


@dataclass
class PreparedConfig(DatasetConfig):
    """A dataset in the layout of data/README.md, written by prepare_data.py."""

    root: str = "${paths.data}/${dataset.name}"
    splits_file: str = "${paths.data}/splits/${dataset.name}.csv"


@dataclass
class MonusegConfig(PreparedConfig):
    """MoNuSeg, whose masks prepare_data.py draws from outlines.

    Attributes:
        raster: which pixels are an object's, see `medt.data.published.aperio.draw_instances`:
            challenge (as the challenge's converter), centres or outline.
    """

    raster: str = "challenge"


@dataclass
class SyntheticConfig(DatasetConfig):
    """Images made on the spot: `train`, `val` and `test` of them, `size` pixels wide and high.

    Attributes:
        root: all sets lie below it, each in a folder that its numbers name.
    """

    root: str = "${paths.data}/${dataset.name}"
    seed: int = 0
    train: int = 160
    val: int = 16
    test: int = 32
    size: int = 256


@dataclass
class FolderConfig(DatasetConfig):
    """A folder of images and one of masks, paired by stem.

    Attributes:
        classes: names in the order of the mask's values 0, 1, ..., or {name, value} or
            {name, color} each; null works where masks have one value beside 0.
        ignore: the mask value, or colour, to be left out of loss and scores.
        mask: classes, instances where the values are object numbers, or alpha where the alpha
            channel holds the values.
        mask_suffix: of every mask's name, such as _mask; null knows the usual ones.
        splits_file: case,group,split; null keeps it beside the image folder.
        seed: of the 70/15/15 splits.
    """

    images: str = MISSING
    masks: str = MISSING
    classes: list[Any] | None = None
    ignore: Any = None
    mask: str = "classes"
    mask_suffix: str | None = None
    splits_file: str | None = None
    seed: int = 0


@dataclass
class ModelConfig:
    """What all models have: a class of ours, its name in the run folder, weights to start from."""

    _target_: str = MISSING
    name: str = MISSING
    weights: str | None = None
    channels: int | None = "${dataset.channels}"  # type: ignore[assignment]
    classes: int | None = "${dataset.num_classes}"  # type: ignore[assignment]


@dataclass
class AxialUNetConfig(ModelConfig):
    _target_: str = "medt.models.AxialUNet"
    image_size: Any = "${dataset.image_size}"
    width_factor: float = 0.125
    depths: list[int] = field(default_factory=lambda: [1, 2, 4, 1])
    heads: int = 8
    position: str = "plain"
    gate: str = "before_norm"
    checkpointing: bool = False


@dataclass
class LocalGlobalConfig(ModelConfig):
    _target_: str = "medt.models.LocalGlobalNet"
    image_size: Any = "${dataset.image_size}"
    width_factor: float = 0.125
    global_depths: list[int] = field(default_factory=lambda: [1, 2])
    local_depths: list[int] = field(default_factory=lambda: [1, 2, 4, 1])
    heads: int = 8
    grid: list[int] = field(default_factory=lambda: [4, 4])
    global_position: str = "gated"
    local_position: str = "none"
    gate: str = "before_norm"
    checkpointing: bool = False


@dataclass
class BaselineConfig(ModelConfig):
    """A network of another library; see `medt.models.Baseline`.

    Attributes:
        parameters: what the network must have with 3 channels and 2 classes; null does not check.
    """

    _target_: str = "medt.models.Baseline"
    architecture: str = MISSING
    image_size: Any = "${dataset.image_size}"
    parameters: int | None = None


@dataclass
class FeaturesConfig(BaselineConfig):
    """A network of MONAI; `features` are its channels, null its own choice."""

    features: list[int] | None = None


@dataclass
class EncoderConfig(BaselineConfig):
    """smp_unet; `encoder_weights` is a file of the encoder's weights to start from."""

    encoder: str = "resnet34"
    encoder_weights: str | None = None


@dataclass
class LossConfig:
    _target_: str = MISSING
    class_weights: list[float] | None = None


@dataclass
class CrossEntropyConfig(LossConfig):
    _target_: str = "medt.losses.CrossEntropyLoss"


@dataclass
class FocalConfig(LossConfig):
    _target_: str = "medt.losses.FocalLoss"
    gamma: float = 2.0


@dataclass
class DiceConfig(LossConfig):
    _target_: str = "medt.losses.DiceLoss"
    include_background: bool = False
    batch: bool = True


@dataclass
class TverskyConfig(DiceConfig):
    _target_: str = "medt.losses.TverskyLoss"
    alpha: float = 0.3
    beta: float = 0.7


@dataclass
class DiceCrossEntropyConfig(DiceConfig):
    _target_: str = "medt.losses.DiceCrossEntropyLoss"
    dice_weight: float = 1.0
    cross_entropy_weight: float = 1.0


@dataclass
class OptimizerConfig:
    _target_: str = MISSING
    lr: float = MISSING
    weight_decay: float = MISSING
    fused: bool = True  # one operation for all weights


@dataclass
class AdamConfig(OptimizerConfig):
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])


@dataclass
class SGDConfig(OptimizerConfig):
    _target_: str = "torch.optim.SGD"
    momentum: float = 0.9
    nesterov: bool = True


@dataclass
class SchedulerConfig:
    """The learning rate over the steps of a run; `warmup` is a share of all steps."""

    _target_: str = MISSING


@dataclass
class ConstantConfig(SchedulerConfig):
    _target_: str = "medt.training.schedules.Constant"
    warmup: float = 0.0


@dataclass
class CosineConfig(SchedulerConfig):
    _target_: str = "medt.training.schedules.Cosine"
    warmup: float = 0.05
    final: float = 0.0


@dataclass
class PolynomialConfig(SchedulerConfig):
    _target_: str = "medt.training.schedules.Polynomial"
    warmup: float = 0.0
    power: float = 0.9


@dataclass
class ProtocolConfig:
    name: str = MISSING


@dataclass
class PostprocessConfig:
    """What is done to a predicted mask; see `medt.inference.instances.InstanceRule`."""

    method: str = "none"


@dataclass
class ComponentsConfig(PostprocessConfig):
    """Sizes in pixels of the mask."""

    method: str = "components"
    smallest: int = 30
    largest_hole: int = 30


@dataclass
class WatershedConfig(ComponentsConfig):
    method: str = "watershed"
    smoothing: float = 1.0
    seed_distance: int = 5


GROUPS: dict[str, dict[str, type]] = {
    "dataset": {
        "prepared": PreparedConfig,
        "monuseg": MonusegConfig,
        "synthetic": SyntheticConfig,
        "folder": FolderConfig,
    },
    "model": {
        "axial_unet": AxialUNetConfig,
        "local_global": LocalGlobalConfig,
        "baseline": BaselineConfig,
        "features": FeaturesConfig,
        "encoder": EncoderConfig,
    },
    "loss": {
        "cross_entropy": CrossEntropyConfig,
        "dice": DiceConfig,
        "dice_ce": DiceCrossEntropyConfig,
        "focal": FocalConfig,
        "tversky": TverskyConfig,
    },
    "optimizer": {"adam": AdamConfig, "sgd": SGDConfig},
    "scheduler": {
        "constant": ConstantConfig,
        "cosine": CosineConfig,
        "polynomial": PolynomialConfig,
    },
    "augmentation": {},  # open: any transforms, which `medt.targets` holds against their classes
    "trainer": {"default": TrainerSettings},
    "postprocess": {
        "none": PostprocessConfig,
        "components": ComponentsConfig,
        "watershed": WatershedConfig,
    },
    "protocol": {"any": ProtocolConfig},
    "paths": {"default": PathsConfig},
}
