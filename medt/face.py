"""What notebooks call: a dataset, a training, scores and predictions, each in one line.

The same as the commands do, without Hydra: a run that is trained here can be resumed, scored and
used by `medt train`, `medt evaluate` and `medt predict`, and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medt.build import build_trainer, check_settings, new_network, object_area, plan_of
from medt.check import check_dataset
from medt.config.groups import PreparedConfig
from medt.config.stored import SCHEMAS
from medt.config.stored import check_dataset as check_values
from medt.data.dataset import SegmentationDataset
from medt.data.layout import DatasetIndex
from medt.data.open import open_dataset as open_index
from medt.errors import UserError, did_you_mean
from medt.evaluation.classes import in_order_of
from medt.evaluation.evaluate import Evaluation, Protocol
from medt.evaluation.evaluate import evaluate as score
from medt.inference.device import choose_device
from medt.inference.predictor import Predictor
from medt.io.console import safe_console
from medt.io.locks import claimed_folder
from medt.io.plain import read_yaml
from medt.models.recorded import Recorded
from medt.processes import Processes
from medt.shipped import shipped
from medt.signatures import check_arguments
from medt.targets import FOLLOWED, TARGET, check_group, followed_by, target_of, targets_in
from medt.training.progress import log, logging_to
from medt.training.run_folder import RunFolder
from medt.training.settings import TrainerSettings


def option(group: str, name: str, **values: Any) -> dict[str, Any]:
    """The values of an option of the configs, some of them replaced.

    Args:
        group: loss, optimizer, scheduler, augmentation, model or trainer.
        name: of a file in configs/<group>/.
        values: to replace.

    Raises:
        UserError: there is no such option, or it has no such key.

    >>> import medt
    >>> medt.option("optimizer", "adamw", lr=1e-3)["lr"]
    0.001
    """
    file = shipped("configs") / group / f"{name}.yaml"
    if not file.is_file():
        known = sorted(path.stem for path in file.parent.glob("[!_]*.yaml"))
        hint = did_you_mean(name, known, f"choose one of {', '.join(known)}")
        raise UserError(f"there is no {group} {name}", hint)
    found: dict[str, Any] = read_yaml(file)
    found.pop("defaults", None)
    if unknown := sorted(values.keys() - found.keys()):
        hint = did_you_mean(unknown[0], found, f"it has {', '.join(found)}")
        raise UserError(f"{group} {name} has no {unknown[0]}", hint)
    return found | values


@dataclass(frozen=True)
class Data:
    """A dataset that is opened when it is first needed.

    Attributes:
        settings: as the group `dataset` of the config has them.
        sized: whether the size was asked for; else a network's own is taken.
    """

    settings: dict[str, Any]
    sized: bool = False

    @cached_property
    def index(self) -> DatasetIndex:
        """Its cases and classes."""
        plan = plan_of(self.settings, checks=True, fits=True)
        return open_index(self.settings, draws=True, plan=plan)

    @property
    def channels(self) -> int:
        """Channels of its images."""
        return int(self.settings["channels"] or self.index.channels)

    @property
    def classes(self) -> list[str]:
        """Names of its classes, the background first."""
        return [one.name for one in self.index.classes]

    def __repr__(self) -> str:
        counts = ", ".join(f"{split} {count}" for split, count in self.index.counts().items())
        return f"{self.index.name}: {counts}; classes {', '.join(self.classes)}"


def open_folder(images: str | Path, masks: str | Path, **settings: Any) -> Data:
    """Your own images and masks, paired by name.

    Args:
        images, masks: the folders.
        settings: keys of configs/dataset/folder.yaml, such as classes or image_size.

    Raises:
        UserError: a key is not known, or its value is of another type or out of its range; when the
            data are first used, whatever is wrong with them.

    >>> import medt
    >>> data = medt.open_folder("images", "masks", image_size=32)
    >>> data.classes
    ['background', 'foreground']
    """
    return _data("folder", settings | {"images": str(images), "masks": str(masks)})


def open_dataset(name: str, data: str | Path = "data", **settings: Any) -> Data:
    """A published dataset that `medt prepare_data` has brought below a folder, or synthetic.

    Args:
        name: such as glas, of configs/dataset/.
        data: the folder.
        settings: other keys of configs/dataset/<name>.yaml.

    Raises:
        UserError: as `open_folder`, or there is no such dataset.

    >>> import medt
    >>> medt.open_dataset("synthetic", train=6, val=2, test=2, size=64, image_size=32)
    synthetic: train 6, val 2, test 2; classes background, gland
    """
    places = {"root": Path(data) / name, "splits_file": Path(data) / "splits" / f"{name}.csv"}
    known = option("dataset", name)
    given = {key: str(path) for key, path in places.items() if key in known}
    return _data(name, given | settings)


def _data(name: str, settings: Mapping[str, Any]) -> Data:
    common, own = option("dataset", "_common"), option("dataset", name)
    values = common | own | dict(settings)
    check_arguments(SCHEMAS.get(name, PreparedConfig), values, "dataset")
    check_values(values)
    return Data(values, sized="image_size" in settings)


def train(
    model: nn.Module | str | Mapping[str, Any],
    data: Data,
    *,
    run_dir: str | Path | None = None,
    loss: str | Mapping[str, Any] = "dice_ce",
    optimizer: str | Mapping[str, Any] = "adamw",
    scheduler: str | Mapping[str, Any] = "cosine",
    augmentation: str | Mapping[str, Any] = "histology",
    seed: int = 0,
    check: bool = True,
    **trainer: Any,
) -> RunFolder:
    """Train a network; what comes of it lies in a run folder, as by `medt train`.

    Args:
        model: a network of `medt.models`, which is trained itself; or the name of a file in
            configs/model/; or what such a file says, of a network of your own, too.
        data: the dataset. The network's channels, classes and size must be the data's; where
            `model` leaves them out they are.
        run_dir: a new folder; None makes one below runs/.
        loss, optimizer, scheduler, augmentation: the name of a file in configs/<group>/, or what
            such a file says, see `option`.
        seed: of weights, order and augmentation.
        check: whether to look for faults in the data first.
        trainer: keys of configs/trainer/default.yaml, such as epochs or batch_size.

    Returns:
        The run's folder: `.root`, `.used` (the checkpoint that it stands for), `.history`.

    Raises:
        UserError: whatever the command refuses.

    >>> import medt
    >>> data = medt.open_dataset("synthetic", train=6, val=2, test=2, size=64, image_size=32)
    >>> network = medt.AxialUNet(image_size=32, depths=[1, 1])
    >>> run = medt.train(
    ...     network, data, epochs=1, run_dir="run", device="cpu"
    ... )  # doctest: +ELLIPSIS
    axialunet (93,170 parameters) at 32 x 32 on cpu: 6 training and 2 validation cases, ...
    >>> run.used.is_file()
    True
    """
    groups = {
        "loss": loss,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "augmentation": augmentation,
    }
    config: dict[str, Any] = {
        "dataset": _opened(data, _spec(model).get("image_size")),
        "model": _spec(model),
        **{group: _chosen(group, one) for group, one in groups.items()},
        "trainer": option("trainer", "default", **trainer),
        "paths": {"root": ".", "data": "data", "runs": "runs"},
        "seed": seed,
        **{"resume": None, "resume_force": False, "check": check, "overfit": None},
        **{"dry_run": False, "allow": None},
    }
    _follow(config["model"], config["dataset"])
    check_arguments(TrainerSettings, config["trainer"], "trainer")
    allow = tuple(targets_in([config[group] for group in ("model", *groups)]))
    for group in ("model", *groups):
        check_group(config[group], group, allow)
    time = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    default = Path("runs") / config["dataset"]["name"] / config["model"]["name"] / time
    with claimed_folder(Path(run_dir or default), "medt.train", other="run_dir=...") as root:
        if run_dir is not None and root != Path(run_dir):
            raise UserError(f"the run folder {run_dir} is not empty", "choose another run_dir")
        config["run_dir"] = str(root)
        return _train(model, config, data.index, RunFolder(root), allow)


def _train(
    model: nn.Module | str | Mapping[str, Any],
    config: dict[str, Any],
    index: DatasetIndex,
    run: RunFolder,
    allow: Sequence[str],
) -> RunFolder:
    console = safe_console()
    warnings = _warnings(config["dataset"], index) if config["check"] else []
    if isinstance(model, nn.Module):
        torch.manual_seed(config["seed"])
        network = model
    else:
        network, _ = new_network(config, allow)
    device = choose_device(config["trainer"]["device"])
    trainer = build_trainer(config, index, network, None, run, console, device, Processes(), allow)
    run.create(config)
    with logging_to(console, run.log):
        log.info(trainer.describe())
        for line in warnings:
            log.warning(line)
        trainer.fit()
    return run


def _warnings(settings: Mapping[str, Any], index: DatasetIndex) -> list[str]:
    """What a check of the dataset says; a UserError where it has errors."""
    found = check_dataset(index, check_settings(settings, settings["channels"]))
    if found.errors:
        told = "; ".join(error.message for error in found.errors)
        raise UserError(f"Dataset {index.name} cannot be trained on: {told}", found.errors[0].hint)
    return [f"warning: {finding}" for finding in found.warnings]


def _chosen(group: str, one: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(one, str):
        return option(group, one)
    if isinstance(one, Mapping):
        return dict(one)
    raise UserError(
        f"{group} is a {type(one).__name__}, which a run folder cannot say",
        f"give its name in configs/{group}, or {{'_target_': 'mypackage.{group}', ...}}",
    )


def _spec(model: nn.Module | str | Mapping[str, Any]) -> dict[str, Any]:
    """What a network is built from, with its name and no weights to start from."""
    if isinstance(model, str):
        return _spec(option("model", model))
    if isinstance(model, Mapping):
        own = str(model.get(TARGET, "")).rpartition(".")[2]
        known = {k: v for k, v in model.items() if not (k in FOLLOWED and "${" in str(v))}
        return {"name": own, "weights": None} | known
    kind = type(model)
    if not isinstance(model, Recorded):
        raise UserError(
            f"a {kind.__name__} does not say what it was built from",
            "give {'_target_': 'mypackage.MyNet', ...} with its arguments in its place",
        )
    arguments = {k: list(v) if isinstance(v, tuple) else v for k, v in model.arguments.items()}
    return {
        TARGET: f"medt.models.{kind.__name__}",
        "name": kind.__name__.lower(),
        "weights": None,
        **arguments,
    }


def _opened(data: Data, image_size: Any) -> dict[str, Any]:
    index = data.index
    size = data.settings["image_size"] if image_size is None or data.sized else image_size
    return data.settings | {
        "image_size": size,
        "channels": data.channels,
        "num_classes": len(index.classes),
        "object_area": object_area(data.settings, index.split("train")),
        "splits_digest": index.splits_digest or None,
    }


def _follow(spec: dict[str, Any], dataset: Mapping[str, Any]) -> None:
    """Give a network what it has in common with its data, or refuse what differs."""
    network = target_of(spec, "model", tuple(targets_in(spec)))
    for key, name in followed_by(network).items():
        value = dataset[name]
        if spec.setdefault(key, value) != value:
            raise UserError(
                f"the network has {key}={spec[key]}, the data {value}",
                f"build it with {key}={value}",
            )


def evaluate(
    run: str | PathLike[str],
    data: Data,
    split: str = "val",
    *,
    protocol: Protocol = "native",
    device: str = "auto",
    allow: str | Sequence[str] = (),
    mode: str | None = None,
    tta: bool = False,
) -> Evaluation:
    """Score a run on a split of a dataset, as `medt evaluate` does by default.

    Args:
        run: a run folder or a checkpoint.
        data: the dataset, with the classes that the run was trained on.
        split: train, val, test or all.
        protocol: see `medt.evaluation.evaluate.PROTOCOLS`.
        device: auto, cpu, cuda, cuda:N or mps.
        allow: full names of classes outside medt that the checkpoint may build.
        mode, tta: as for `medt.load`.

    Returns:
        `.dice` and `.iou` of the foreground, `.rows` by case, `.summary` of everything.

    Raises:
        UserError: the run cannot be read, or was trained on other classes.

    >>> import medt
    >>> data = medt.open_dataset("synthetic", train=6, val=2, test=2, size=64, image_size=32)
    >>> 0 <= medt.evaluate("run", data, split="test").dice <= 1
    True
    """
    predictor = Predictor.load(run, choose_device(device), allow, mode, tta)
    index = in_order_of(data.index, predictor.classes, str(run))
    cases = SegmentationDataset(
        index.split(split), predictor.preprocessing, index.labels, cache_megabytes=0
    )
    return score(
        predictor,
        cases,
        protocol,
        detail=True,
        pixel_size=index.pixel_size,
        grouped_by=index.grouped_by,
    )
