"""A recipe for a dataset: an experiment of values that suit its images, each with its reason."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import yaml

from medt.check import Check
from medt.check.cases import CaseFacts, ImageFacts, MaskFacts
from medt.check.finding import percent
from medt.check.suggestions import shrinkage, suggest_normalize, suggest_size
from medt.models.sizes import as_size

COLUMNS = 100
STRIDE = 32  # of the networks, whose inputs are multiples of it
MULTIPLE = 16  # of medt_plus, whose inputs are multiples of it, too
CROP = 256  # a side of crops: the larger, the more of an object's surroundings is seen
THINNEST = 4.0  # pixels at the network's size: two at half of it, where much of the work is done
PARTED = 20.0  # pixels across of the smaller objects: borders of two pixels leave an inside
TOUCHING = 0.02  # share of the objects from which on it pays to learn their borders
COLOURED = 0.03  # difference of the channels' means, as a share of the image's range
SEEN = 8000  # images in all that a network is shown: 120 times the training cases of GlaS
EPOCHS = (30, 300)
PRETRAINED_SIDE = 256  # at which pretrained networks were measured
VALIDATIONS = 40
OF_PRETRAINED = (2700, (20, 100), 20)  # the same three: 40 times the training cases of GlaS
PIXEL_BYTES = 4_300  # a step of medt_plus takes 280 MB for 4 x 128 x 128, as one of unet does
BATCHES = (4, 2, 1)


@dataclass(frozen=True)
class Machine:
    """What trains.

    Attributes:
        cores: that can be taken.
        memory: the bytes of it that can be taken; None: not known.
        encoders: whether there are pretrained encoders, the extra smp.
    """

    cores: int
    memory: int | None
    encoders: bool = False


@dataclass(frozen=True)
class Choice:
    """A value of the recipe.

    Attributes:
        key: such as "trainer.epochs", or a group of configs, such as "model", or "experiment", from
            which the recipe goes on.
        reason: why this value, in words.
    """

    key: str
    value: Any
    reason: str


PRETRAINED = Choice(
    "experiment",
    "pretrained",
    "weights of ImageNet, downloaded once: far ahead on Kvasir-SEG, and on patients of GlaS unlike "
    "those trained on: docs/experiments.md",
)


def choose(check: Check, machine: Machine, given: Mapping[str, Any]) -> list[Choice]:
    """What suits the training cases of a dataset, and the machine, beside what the user gave.

    Args:
        check: of a dataset with at least one training case whose image and mask can be read.
        given: keys of ``dataset``, and ``augmentation``, with what the user wants of them.
    """
    facts = [
        f for f in check.cases if f.case.split == "train" and f.image and f.mask and not f.faults
    ]
    images = [fact.image for fact in facts if fact.image is not None]
    masks = [fact.mask for fact in facts if fact.mask is not None]
    near = _near(masks)
    parted = given.get("objects") != "none" and bool(near)
    seeing = _seeing(facts, images, masks, parted, given)
    augmentation, sampling = _augmentation(images), _value(seeing, "dataset.sampling")
    size = as_size(given["image_size"]) if "image_size" in given else (STRIDE, STRIDE)
    coloured = augmentation.value == "histology"
    pretrained = machine.encoders and coloured and sampling == "resize" and _takes(size, STRIDE)
    found = [
        PRETRAINED if pretrained else _network(size),
        augmentation,
        *(map(_enlarged, seeing) if pretrained else seeing),
        *([_parting(near, sampling)] if near else []),
        *([] if pretrained else [Choice("dataset.normalize", *suggest_normalize(facts))]),
        *_loading(machine),
    ]
    found = [choice for choice in found if choice.key.removeprefix("dataset.") not in given]
    values = {choice.key: choice.value for choice in found}
    side = given.get("image_size", values.get("dataset.image_size"))
    crops = given.get("crops_per_case", values.get("dataset.crops_per_case", 1))
    return [*found, *_length(len(facts), crops, pretrained), _batch(as_size(side), machine)]


def recipe_text(
    choices: Sequence[Choice], given: Mapping[str, Any], dataset: str, about: str, command: str
) -> str:
    """The experiment as YAML, a comment above each value.

    Args:
        given: as for `choose`, which left it out.
        dataset: the option of the group ``dataset``.
        about: what stands above it all.
        command: what trains with it.
    """
    parts: dict[str, list[str]] = {"dataset": [], "trainer": []}
    lines = ["# @package _global_", *_comment(about, ""), f"#   {command}", "defaults:"]
    for base in (choice for choice in choices if choice.key == "experiment"):
        lines += [*_comment(base.reason, "  "), f"  - {base.value}"]
    lines.append(f"  - override /dataset: {dataset}")
    for key, value in given.items():
        if key == "augmentation":
            lines.append(f"  - override /augmentation: {value} # as given")
        else:
            parts["dataset"].append(f"  {key}: {_plain(value)} # as given")
    for choice in (choice for choice in choices if choice.key != "experiment"):
        group, _, key = choice.key.partition(".")
        comment = _comment(choice.reason, "  ")
        if key:
            parts[group] += [*comment, f"  {key}: {_plain(choice.value)}"]
        else:
            lines += [*comment, f"  - override /{group}: {choice.value}"]
    for group, inner in parts.items():
        lines += ["", f"{group}:", *inner]
    return "\n".join([*lines, ""])


def _network(size: tuple[int, int]) -> Choice:
    """The one that is most accurate, if it takes the size that the user gave."""
    if not _takes(size, MULTIPLE):
        return Choice(
            "model", "unet", f"takes any size from 32 on; medt_plus multiples of {MULTIPLE}"
        )
    return Choice("model", "medt_plus", "ahead of unet on GlaS: docs/experiments.md")


def _takes(size: Sequence[int], multiple: int) -> bool:
    return all(side >= STRIDE and side % multiple == 0 for side in size)


def _enlarged(choice: Choice) -> Choice:
    """The size of a network's input, but at least that at which pretrained ones were measured."""
    sides = as_size(choice.value) if choice.key == "dataset.image_size" else (math.inf,)
    if min(sides) >= PRETRAINED_SIDE:
        return choice
    return Choice(choice.key, PRETRAINED_SIDE, "as the pretrained network was measured")


def _value(choices: Sequence[Choice], key: str) -> Any:
    return next(choice.value for choice in choices if choice.key == key)


def _near(masks: Sequence[MaskFacts]) -> str:
    """In words, how many objects lie close to others; nothing if so few that it does not matter."""
    objects = sum(mask.objects for mask in masks)
    near = sum(mask.touching for mask in masks)
    if not objects or near < TOUCHING * objects:
        return ""
    return f"{percent(near / objects)} of the {objects:,} objects lie close to another one"


def _parting(near: str, sampling: str) -> Choice:
    """How the network learns to part objects, which are large where whole images show enough."""
    large = sampling == "resize"
    kind, known = ("borders", "large, of GlaS") if large else ("distance", "small, of DSB2018")
    return Choice("dataset.objects", kind, f"{near}; of the targets the better if they are {known}")


def _seeing(
    facts: Sequence[CaseFacts],
    images: Sequence[ImageFacts],
    masks: Sequence[MaskFacts],
    parted: bool,
    given: Mapping[str, Any],
) -> list[Choice]:
    """How images get to the network, and the size of its input."""
    whole = suggest_size(facts, PARTED) if parted else suggest_size(facts)
    thin = median(mask.thinnest for mask in masks)
    thinner = median(mask.thinnest * min(1.0, shrinkage(mask, whole.size)) for mask in masks)
    visible = thinner >= min(THINNEST, thin)
    sampling = given.get("sampling", "resize" if whole.enough and visible else "crop")
    if sampling == "resize":
        value = whole.size[0] if whole.size[0] == whole.size[1] else list(whole.size)
        sized = Choice("dataset.image_size", value, whole.reason)
        return [sized, Choice("dataset.sampling", "resize", "whole images show enough")]
    if visible:
        why = whole.reason
    else:
        why = f"structures are {thin:.1f} pixels thick and would become {thinner:.1f}"
    sides = median(min(image.height, image.width) for image in images)
    side = max(STRIDE, min(CROP, int(sides) // STRIDE * STRIDE))
    covered = math.prod(as_size(given.get("image_size", side)))
    area = median(image.height * image.width for image in images)
    count = max(1, min(16, round(area / covered)))
    return [
        Choice("dataset.sampling", "crop", f"whole images would not show enough: {why}"),
        Choice("dataset.image_size", side, f"of a crop; the shorter side of images is {sides:g}"),
        Choice("dataset.crops_per_case", count, "so many cover an image"),
    ]


def _augmentation(images: Sequence[ImageFacts]) -> Choice:
    count = median(len(image.mean) for image in images)
    if count not in (1, 3):
        return Choice("augmentation", "grey", f"{count:g} channels, which are no colours")
    apart = [(max(i.mean) - min(i.mean)) > COLOURED * i.span for i in images]
    share = sum(apart) / len(images)
    if share > 0.1:
        return Choice("augmentation", "histology", f"{percent(share)} of the images have colours")
    return Choice("augmentation", "grey", "the images have no colours")


def _loading(machine: Machine) -> list[Choice]:
    if machine.cores <= 2:
        return []
    workers = min(4, machine.cores // 2)
    return [Choice("dataset.workers", workers, f"to load images, of {machine.cores} cores here")]


def _length(cases: int, crops: int, pretrained: bool) -> list[Choice]:
    """Epochs, for so many images shown in all, and how often it is validated."""
    shown = cases * crops
    own = SEEN, EPOCHS, VALIDATIONS
    seen, (least, most), validations = OF_PRETRAINED if pretrained else own
    epochs = max(least, min(most, round(seen / shown / 10) * 10))
    each = f"{cases} cases" if crops == 1 else f"{cases} cases, {crops} crops of each"
    every = max(1, round(epochs / validations))
    return [
        Choice("trainer.epochs", epochs, f"{each}: {epochs * shown:,} images are shown in all"),
        Choice("trainer.validate_every", every, f"about {epochs // every} validations"),
    ]


def _batch(size: tuple[int, int], machine: Machine) -> Choice:
    """The largest batch whose training step takes at most half of the memory."""
    taken = {count: PIXEL_BYTES * size[0] * size[1] * count for count in BATCHES}
    half = math.inf if machine.memory is None else machine.memory / 2
    count = next((n for n in BATCHES if taken[n] < half), BATCHES[-1])
    why = f"a step takes about {taken[count] / 1e9:.1f} GB"
    if machine.memory is not None:
        why += f" of the {machine.memory / 1e9:.1f} GB that are free here"
    return Choice("trainer.batch_size", count, why)


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        *(text, COLUMNS),
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _plain(value: Any) -> str:
    """A value in the flow style of YAML, on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...").replace("${", "\\${")
