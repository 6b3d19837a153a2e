"""What a checkpoint holds: tensors and plain values, enough to evaluate, predict and resume."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medt.data.layout import SegmentationClass, check_classes
from medt.data.objects import KINDS
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError
from medt.io.files import atomic_write, read_tensors
from medt.io.plain import check_plain
from medt.io.runs_below import told_of_folder, weights_of
from medt.io.text import for_terminal, is_name
from medt.models.sizes import as_size
from medt.models.without_memory import without_memory
from medt.signatures import check_arguments, shortened
from medt.targets import build, without_own

FORMAT = "medt-checkpoint-1"
SHARES = ("val_dice", "val_iou")  # how the names of scores from 0 to 1 begin
MOST_WEIGHTS = 20_000  # tensors of a network; the largest encoder that is offered has 2,000
MOST_PARTS = 10  # layers and parameters that are built for one of them; seven with ResUNet
WITH_TENSORS = ("weights", "training")  # of the values of a file
MOST_BUILT = 5_000  # of those in all, some seconds; the largest encoder has 3,000


@dataclass(frozen=True)
class Checkpoint:
    """A network and all that belongs to it.

    Attributes:
        model: `_target_`, the full name of the network's class, and its arguments.
        weights: the network's state dict, with re-estimated norm statistics.
        preprocessing: `Preprocessing.to_dict()`.
        classes: id, name and color of each class.
        dataset: the config of the dataset it was trained on.
        config: the whole resolved config of the run.
        epoch: the last epoch it was trained for, from 1.
        scores: validation scores of these weights.
        training_cases: the names of the cases it was trained on.
        training: what the trainer needs to go on; None if the file is only for use.
        allow: full names outside `medt.models` that may be built; not part of the file.
        file: what an error calls it; not part of the file.
        why: where a run's folder was given, why it stands for this file; not part of the file.
    """

    model: dict[str, Any]
    weights: dict[str, Tensor]
    preprocessing: dict[str, Any]
    classes: list[dict[str, Any]]
    dataset: dict[str, Any]
    config: dict[str, Any]
    epoch: int
    scores: dict[str, float]
    training_cases: list[str]
    training: dict[str, Any] | None = None
    allow: tuple[str, ...] = ()
    file: str = "the checkpoint"
    why: str = ""

    def describe(self) -> str:
        """Which weights these are and why, for the first line of a result."""
        why = f": {self.why}" if self.why else ""
        trained = f"after {self.epoch} epoch{'s' * (self.epoch != 1)}"
        return f"weights {for_terminal(self.file)}, {trained if self.dataset else 'imported'}{why}"

    @property
    def objects(self) -> str | None:
        """What its network's further channel is, see `medt.data.objects.ObjectTarget`."""
        return object_kind(self.dataset)

    @property
    def object_area(self) -> int | None:
        """Pixels of the median object it learned from, where objects were a target."""
        area = self.dataset.get("object_area")
        return area if self.objects is not None and type(area) is int and area > 0 else None

    @property
    def digest(self) -> str:
        """SHA-256 of the weights, their names and types, whatever else is in the file."""
        found = hashlib.sha256()
        for name, weight in sorted(self.weights.items()):
            plain = weight.detach().cpu().contiguous()
            found.update(f"{name} {plain.dtype} {tuple(plain.shape)} ".encode())
            found.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def build_model(self) -> nn.Module:
        """The network with its weights, in evaluation mode.

        Raises:
            UserError: the network's class is not allowed, or the weights do not fit it.
        """
        try:
            # Memory and time are those of the weights, whatever size the file claims.
            with (
                without_memory(),
                _parts_at_most(MOST_PARTS * (len(self.weights) + MOST_PARTS)),
            ):
                self._load(build_model(self.model, self.allow), assign=True)
            model = build_model(self.model, self.allow)
        except UserError as error:
            raise UserError(f"{self.file}: {error.message}", error.hint) from error
        self._load(model, assign=False)
        return model.eval()

    def _load(self, model: nn.Module, assign: bool) -> None:
        try:
            model.load_state_dict(self.weights, assign=assign)
        except RuntimeError as error:
            raise UserError(
                f"its weights do not fit {self.model['_target_']}: "
                f"{' '.join(str(error).split())[:300]}",
                "use the version of medt that wrote it, or another file",
            ) from error


def model_spec(
    config: Mapping[str, Any], dataset: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What `build_model` takes, from the `model` group of a config.

    Args:
        config: the group.
        dataset: of the same config; where objects are a target, the network gets one class more.
    """
    spec = without_own(config, "model")
    if dataset is not None and object_kind(dataset) is not None:
        if "classes" not in spec:
            raise UserError(
                f"{spec['_target_']} has no argument classes, which dataset.objects adds one to",
                "give it one, or dataset.objects=none",
            )
        spec["classes"] += 1
    return spec


def object_kind(dataset: Mapping[str, Any]) -> str | None:
    """What a network trained with this dataset config says of objects; None: nothing."""
    kind = dataset.get("objects", KINDS[0])
    if kind not in KINDS:
        raise UserError(
            f"dataset.objects={shortened(kind)} is not known", f"choose one of {', '.join(KINDS)}"
        )
    return None if kind == KINDS[0] else str(kind)


def build_model(spec: Mapping[str, Any], allow: Sequence[str] = ()) -> nn.Module:
    """Build the network that `spec` names, see `medt.targets.build`.

    Args:
        spec: as in `Checkpoint.model`.
        allow: full names outside `medt.models` that may be built, since building whatever a file
            names would run its code.

    Raises:
        UserError: the name is not allowed or does not exist, or the arguments do not fit.
    """
    for key, least in (("channels", 1), ("classes", 2)):
        if isinstance(value := spec.get(key), int) and value < least:
            raise UserError(f"model.{key}={value} is out of range", f"give at least {least}")
    built = build(dict(spec), "model", allow)
    if not isinstance(built, nn.Module):
        raise UserError(
            f"{spec['_target_']} is not a network", "name a subclass of torch.nn.Module"
        )
    return built


@contextmanager
def _parts_at_most(most: int) -> Iterator[None]:
    """Within the context a network of more layers and parameters than this is not built."""
    left = most

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise UserError(
                "its network has far more layers than weights, or than any has",
                "do not trust this file",
            )

    hooks = [
        register(count)
        for register in (
            torch.nn.modules.module.register_module_module_registration_hook,
            torch.nn.modules.module.register_module_parameter_registration_hook,
        )
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write atomically: `path` is either the old file or the complete new one.

    Raises:
        UserError: the disk is full or the folder not writable.
    """
    values = {f.name: getattr(checkpoint, f.name) for f in dataclasses.fields(checkpoint)}
    del values["allow"], values["file"], values["why"]
    with atomic_write(path) as temporary:
        try:
            torch.save({"format": FORMAT, **values}, temporary)
        except RuntimeError as error:  # what torch's writer makes of a full disk
            raise OSError("most likely the disk is full") from error


def load_checkpoint(
    path: str | PathLike[str], allow: str | Sequence[str] = (), key: str = "checkpoint"
) -> Checkpoint:
    """Read a checkpoint; nothing in the file is executed.

    Args:
        path: a file written by `save_checkpoint`, or a run folder, see `weights_of`.
        allow: full names of classes outside `medt.models` that the file may build.
        key: of the setting that names the path, for an error.

    Raises:
        UserError: the file is missing, damaged, or no checkpoint of ours; the path is a folder of
            runs, some of which are named.
    """
    path = Path(path)
    why = ""
    if path.is_dir() and weights_of(path)[0].is_file():
        path, why = weights_of(path)
    elif path.is_dir():
        raise UserError(*told_of_folder(path, key))
    content = read_tensors(path, "checkpoint of medt")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{path} is not a checkpoint of medt",
            "give a best.pt or last.pt that train.py wrote",
        )
    del content["format"]
    names = (allow,) if isinstance(allow, str) else tuple(allow)
    try:
        _check_weights(content.get("weights"))
        for key, part in content.items():
            check_plain(part, str(path), _is_dense if key in WITH_TENSORS else lambda _: False)
        check_arguments(Checkpoint, content, "checkpoint", given=("allow", "file", "why"))
        checkpoint = Checkpoint(**content, allow=names, file=str(path), why=why)
        _check_content(checkpoint)
    except UserError as error:
        raise UserError(
            f"{path} is not a whole checkpoint of this version of medt: {error.message}",
            "use the version that wrote it, or another file",
        ) from error
    check_finite_weights(checkpoint.weights, str(path))
    return checkpoint


def _check_weights(weights: Any) -> None:
    """How much is built is bounded by how many there are, so they must not come for nothing.

    Raises:
        UserError: there are more than any network has, or one holds no value.
    """
    if not isinstance(weights, dict):
        return  # which is said where types are checked
    if len(weights) > MOST_WEIGHTS:
        raise UserError(f"it holds {len(weights):,} weights, more than {MOST_WEIGHTS:,}")
    for name, value in weights.items():
        if isinstance(value, Tensor) and not value.is_nested and not value.numel():
            raise UserError(f"its weights {shortened(name)} hold no value")


def _is_dense(value: Any) -> bool:
    """Whether a value is a plain tensor that takes no more memory than the file stores of it."""
    if not isinstance(value, Tensor) or value.device.type != "cpu" or value.is_nested:
        return False
    if value.layout is not torch.strided or value.is_quantized:
        return False
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise UserError("it holds a tensor that is larger than what is stored of it")
    return True


def _check_content(checkpoint: Checkpoint) -> None:
    """Raises UserError unless the values are what `Checkpoint` says, and agree."""
    steps = Preprocessing.from_dict(checkpoint.preprocessing)
    for values in checkpoint.classes:
        check_arguments(SegmentationClass, values, "classes")
    classes = [SegmentationClass.from_dict(values) for values in checkpoint.classes]
    check_classes(classes)
    name = checkpoint.dataset.get("name")
    if checkpoint.dataset and not (isinstance(name, str) and is_name(name)):
        raise UserError("its dataset has no name")
    given = checkpoint.model
    outputs = len(classes) + (checkpoint.objects is not None)
    size = given.get("image_size")
    agreeing = {
        "classes": (given.get("classes", outputs), outputs),
        "channels": (given.get("channels", steps.channels), steps.channels),
        "image_size": (steps.image_size if size is None else as_size(size), steps.image_size),
    }
    for name, (of_model, of_data) in agreeing.items():
        if of_model != of_data:
            raise UserError(f"its network has {name}={of_model}, its images {of_data}")
    if checkpoint.epoch < 0 or not all(itertools.starmap(_is_score, checkpoint.scores.items())):
        raise UserError("its epoch or a score is not a possible number")
    _check_facts(checkpoint.config)


def _is_score(name: str, value: float) -> bool:
    """Dice and IoU are shares; a loss may be any number, as may the user's own."""
    return 0 <= value <= 1 if name.startswith(SHARES) else math.isfinite(value)


def _check_facts(config: Mapping[str, Any]) -> None:
    """Raises UserError unless what a model card says of a run's config is what it should be."""
    model = config.get("model", {})
    name = model.get("name", "network") if isinstance(model, dict) else None
    if not isinstance(name, str) or not is_name(name):
        raise UserError("its network has no name")
    if type(config.get("seed", 0)) is not int:
        raise UserError("its seed is no number")


def check_finite_weights(weights: Mapping[str, Tensor], file: str) -> None:
    """Refuse weights that can only give NaN.

    Raises:
        UserError: a value is complex, NaN or infinite, as the networks' 32 bit numbers have it, or
            a running variance is negative.
    """
    for name, value in weights.items():
        if value.is_complex():
            fault = "complex numbers"
        elif not value.is_floating_point():
            continue
        elif not value.float().isfinite().all():
            fault = "NaN or infinite values"
        elif name.endswith("running_var") and (value < 0).any():
            fault = "a negative variance"
        else:
            continue
        raise UserError(
            f"{file}: its weights {name} hold {fault}",
            "its training diverged, or the file is damaged: take another checkpoint",
        )
