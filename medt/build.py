"""From plain values, a resolved config, to preprocessing, data, network and trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from torch.optim import Optimizer

from medt.check import Settings, mask_look
from medt.checkpoint import Checkpoint, build_model, model_spec, object_kind
from medt.data.crops import Crops
from medt.data.dataset import SegmentationDataset
from medt.data.layout import Case, DatasetIndex
from medt.data.normalization import fit_normalization, tone_looks
from medt.data.objects import FULL, ObjectTarget, typical_area
from medt.data.preprocessing import Preprocessing
from medt.data.scan import Look, MaskLook, Plan, Scan
from medt.errors import UserError
from medt.losses import FunctionLoss, ObjectLoss
from medt.models.pretrained import encoder_of, load_encoder
from medt.models.sizes import as_size
from medt.processes import Processes
from medt.targets import build, without_own
from medt.training.data_watch import DataWatch
from medt.training.facts import Facts
from medt.training.memory import MemoryEstimate, estimate_memory
from medt.training.run_folder import RunFolder
from medt.training.settings import TrainerSettings
from medt.training.trainer import Trainer
from medt.weights import load_weights


def plan_of(settings: Mapping[str, Any], checks: bool, fits: bool = False) -> Plan:
    """What the files of a dataset are looked at for, by its config.

    Args:
        settings: the resolved dataset config.
        checks: whether a check follows, see `check_settings`.
        fits: whether images are normalised anew.
    """

    def plan(channels: int) -> tuple[list[Look[Any]], MaskLook | None]:
        look = check_settings(settings, channels).look(settings["page"])
        how = settings["normalize"], channels, settings.get("window")
        tones = tone_looks(*how, settings.get("eight_bit", False)) if fits else []
        return [*([look] if checks else []), *tones], mask_look if checks else None

    return plan


def check_settings(settings: Mapping[str, Any], channels: int) -> Settings:
    """What a check of a dataset knows of a training with this config."""
    return Settings(
        image_size=as_size(settings["image_size"]),
        normalize=settings["normalize"],
        crops=settings["sampling"] == "crop",
        channels=channels,
        window=settings.get("window"),
        eight_bit=settings.get("eight_bit", False),
        distinct={frozenset(pair) for pair in settings.get("distinct", ())},
    )


def new_preprocessing(
    settings: Mapping[str, Any], cases: Sequence[Case], scan: Scan
) -> Preprocessing:
    """What the resolved dataset config asks for, fitted to the training cases."""
    channels, normalize, page = (settings[key] for key in ("channels", "normalize", "page"))
    return Preprocessing(
        as_size(settings["image_size"]),
        channels,
        page=page,
        sampling=settings["sampling"],
        **fit_normalization(
            *(cases, normalize, channels, page),
            window=settings.get("window"),
            eight_bit=settings.get("eight_bit", False),
            scan=scan,
        ),
    )


def training_set(
    config: Mapping[str, Any],
    index: DatasetIndex,
    cases: Sequence[Case],
    preprocessing: Preprocessing,
    allow: Sequence[str],
) -> SegmentationDataset:
    """The cases as a training with this resolved config gets them; `allow` as for `build`."""
    dataset = config["dataset"]
    drawn = {key: value for key, value in config["augmentation"].items() if key != "name"}
    crops = None
    if preprocessing.sampling == "crop":
        crops = Crops(dataset["crop_foreground"], dataset["crops_per_case"])
    return SegmentationDataset(
        cases,
        preprocessing,
        index.labels,
        build(drawn, "augmentation", allow),
        config["seed"],
        dataset["cache"],
        crops,
        object_target(dataset),
    )


def object_target(dataset: Mapping[str, Any]) -> ObjectTarget | None:
    """What the resolved dataset config makes of objects."""
    kind = object_kind(dataset)
    return None if kind is None else ObjectTarget(kind, dataset["border_width"])


def object_area(dataset: Mapping[str, Any], cases: Sequence[Case]) -> int | None:
    """How large the objects are that a network learns to part; None where it does not."""
    return None if object_kind(dataset) is None else typical_area(cases, dataset["page"])


def new_network(config: dict[str, Any], allow: Sequence[str]) -> tuple[nn.Module, list[str]]:
    """The network that a resolved config describes, and what is to be said of its weights."""

    torch.manual_seed(config["seed"])
    spec = model_spec(config["model"], config["dataset"])
    try:
        model = build_model(spec, allow)
    except UserError as error:
        raise UserError(f"model {config['model']['name']}: {error.message}", error.hint) from error
    said = []
    if encoder_weights := config["model"].get("encoder_weights"):
        said.append(f"the encoder starts from {load_encoder(model, encoder_weights)}")
    weights = config["model"]["weights"]
    if weights and (fresh := load_weights(model, Path(weights), spec)):
        said.append(f"the class head differs and starts afresh: {', '.join(fresh)}")
    return model, said


def new_optimizer(config: Mapping[str, Any], model: nn.Module, allow: Sequence[str]) -> Optimizer:
    """The optimizer that a resolved config describes, over the parameters of a network.

    Raises:
        UserError: the encoder shall learn at a rate of its own, and the network has none.
    """
    spec, factor = without_own(config, "optimizer"), config.get("encoder_factor", 1.0)
    parameters: Any = model.parameters()
    if factor != 1:
        encoder = encoder_of(model)
        if encoder is None:
            raise UserError(
                f"optimizer.encoder_factor={factor}, but this network has no encoder",
                "leave it out, or train model=smp_unet",
            )
        own = {id(one) for one in encoder.parameters()}
        others = [one for one in model.parameters() if id(one) not in own]
        parameters = [{"params": others}, {"params": list(encoder.parameters())}]
    optimizer: Optimizer = build(spec, "optimizer", allow, params=parameters)
    for group in optimizer.param_groups[1:]:
        group["lr"] *= factor
    return optimizer


def network_of(checkpoint: Checkpoint, config: dict[str, Any], run_folder: RunFolder) -> nn.Module:
    """The network of a resumed run, which takes no more memory than its checkpoint's weights."""

    if model_spec(config["model"], config["dataset"]) != checkpoint.model:
        raise UserError(
            f"{run_folder.config} describes another network than {checkpoint.file} holds",
            "restore the one that was changed, or start a new run",
        )
    return checkpoint.build_model()


def build_trainer(
    config: dict[str, Any],
    index: DatasetIndex,
    model: nn.Module,
    checkpoint: Checkpoint | None,
    run_folder: RunFolder,
    console: Console,
    device: torch.device,
    processes: Processes,
    allow: Sequence[str],
) -> Trainer:
    """The trainer that a resolved config describes; a resumed run keeps its preprocessing."""
    settings = TrainerSettings(**config["trainer"])
    train_cases, val_cases = index.split("train"), index.split("val")
    if config["overfit"] is not None:
        train_cases = val_cases = train_cases[: config["overfit"]]
    if checkpoint is None:
        preprocessing = new_preprocessing(config["dataset"], train_cases, index.scan)
    else:
        preprocessing = Preprocessing.from_dict(checkpoint.preprocessing)
        if [case.name for case in train_cases] != checkpoint.training_cases:
            raise UserError(
                f"the training cases are no longer those of {run_folder.root}",
                "restore the dataset and its split file, or start a new run",
            )
    cache = config["dataset"]["cache"]
    loss = build(config["loss"], "loss", allow)
    loss = loss if isinstance(loss, nn.Module) else FunctionLoss(loss)
    objects = object_target(config["dataset"])
    if objects is not None:
        loss = ObjectLoss(loss, objects.kind, settings.object_weight, FULL)
    return Trainer(
        model=model,
        loss=loss,
        optimizer=new_optimizer(config["optimizer"], model, allow),
        schedule=build(config["scheduler"], "scheduler", allow),
        train_set=training_set(config, index, train_cases, preprocessing, allow),
        val_set=SegmentationDataset(
            *(val_cases, preprocessing, index.labels), cache_megabytes=cache, objects=objects
        ),
        classes=index.classes,
        settings=settings,
        run=run_folder,
        seed=config["seed"],
        loading=(config["dataset"]["workers"], config["dataset"].get("timeout", 300.0)),
        facts=Facts(
            config["model"]["name"],
            model_spec(config["model"], config["dataset"]),
            config["dataset"],
            config,
        ),
        device=device,
        console=console,
        processes=processes,
        watch=DataWatch(index.facts),
    )


def memory_of(trainer: Trainer) -> MemoryEstimate:
    """What a training step of the trainer takes; a MemoryError if that is more than there is."""
    preprocessing, settings = trainer.train_set.preprocessing, trainer.settings
    averaged = trainer.optimization.average is not None
    estimate = estimate_memory(
        trainer.model,
        trainer.loss,
        (preprocessing.channels, *preprocessing.image_size),
        len(trainer.classes),
        settings.batch_size,
        len(trainer.train_set) % settings.batch_size or settings.batch_size,
        2 + averaged,  # as AdamW, which has the most of the usual ones
        trainer.device,
    )
    height, width = preprocessing.image_size
    estimate.check(f"trainer.batch_size={settings.batch_size} at {height} x {width}")
    return estimate
