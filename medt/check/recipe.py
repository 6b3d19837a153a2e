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

COLUMNS = 100
STRIDE = 32  # of the networks, whose inputs are multiples of it
CROP = 256  # a side of crops: the larger, the more of an object's surroundings is seen
THINNEST = 4.0  # pixels at the network's size: two at half of it, where much of the work is done
PARTED = 20.0  # pixels across of the smaller objects: borders of two pixels leave an inside
TOUCHING = 0.02  # share of the objects from which on it pays to learn their borders
COLOURED = 0.02  # difference of the channels' means, as a share of full scale
SEEN = 8000  # images in all that a network is shown: 120 times the training cases of GlaS
EPOCHS = (30, 300)
VALIDATIONS = 40
PIXEL_BYTES = 7_000  # of memory that a training step of U-Net takes for a pixel of a batch
BATCHES = (4, 2, 1)


@dataclass(frozen=True)
class Machine:
    """What trains: its cores, and the bytes of memory that can be taken; None: not known."""

    cores: int
    memory: int | None


@dataclass(frozen=True)
class Choice:
    """A value of the recipe.

    Attributes:
        key: such as "trainer.epochs", or a group of configs, such as "model".
        reason: why this value, in words.
    """

    key: str
    value: Any
    reason: str


def choose(check: Check, machine: Machine) -> list[Choice]:
    """What suits the training cases of a dataset, and the machine.

    Args:
        check: of a dataset with at least one training case whose image and mask can be read.
    """
    facts = [
        f for f in check.cases if f.case.split == "train" and f.image and f.mask and not f.faults
    ]
    images = [fact.image for fact in facts if fact.image is not None]
    masks = [fact.mask for fact in facts if fact.mask is not None]
    parting = _parting(masks)
    size, seeing = _size(facts, images, masks, parted=bool(parting))
    crops = next((one.value for one in seeing if one.key == "dataset.crops_per_case"), 1)
    return [
        Choice("model", "unet", "the most accurate of those that start from random weights here"),
        _augmentation(images),
        *seeing,
        *parting,
        Choice("dataset.normalize", *suggest_normalize(facts)),
        *_loading(images, machine),
        *_length(len(facts) * crops, len(facts), crops),
        _batch(size, machine),
    ]


def recipe_text(
    choices: Sequence[Choice], given: Mapping[str, Any], dataset: str, about: str, command: str
) -> str:
    """The experiment as YAML, a comment above each value.

    Args:
        given: keys of ``dataset`` that the user gave, which are kept; no choice stands against one.
        dataset: the option of the group ``dataset``.
        about: what stands above it all.
        command: what trains with it.
    """
    choices = [c for c in choices if c.key.removeprefix("dataset.") not in given]
    parts: dict[str, list[str]] = {"dataset": [], "trainer": []}
    lines = ["# @package _global_", *_comment(about, ""), f"#   {command}", "defaults:"]
    lines.append(f"  - override /dataset: {dataset}")
    for key, value in given.items():
        parts["dataset"].append(f"  {key}: {_plain(value)} # as given")
    for choice in choices:
        group, _, key = choice.key.partition(".")
        comment = _comment(choice.reason, "  ")
        if key:
            parts[group] += [*comment, f"  {key}: {_plain(choice.value)}"]
        else:
            lines += [*comment, f"  - override /{group}: {choice.value}"]
    for group, inner in parts.items():
        lines += ["", f"{group}:", *inner]
    return "\n".join([*lines, ""])


def _parting(masks: Sequence[MaskFacts]) -> list[Choice]:
    """Whether the network learns to part objects."""
    objects = sum(mask.objects for mask in masks)
    near = sum(mask.touching for mask in masks)
    if not objects or near < TOUCHING * objects:
        return []
    why = f"{percent(near / objects)} of the {objects:,} objects lie close to another one"
    return [Choice("dataset.objects", "distance", why)]


def _size(
    facts: Sequence[CaseFacts],
    images: Sequence[ImageFacts],
    masks: Sequence[MaskFacts],
    parted: bool,
) -> tuple[tuple[int, int], list[Choice]]:
    """Height and width of the network's input, and how images get to it."""
    whole = suggest_size(facts, PARTED) if parted else suggest_size(facts)
    thin = median(mask.thinnest for mask in masks)
    thinner = median(mask.thinnest * min(1.0, shrinkage(mask, whole.size)) for mask in masks)
    if whole.enough and thinner >= min(THINNEST, thin):
        value = whole.size[0] if whole.size[0] == whole.size[1] else list(whole.size)
        sized = Choice("dataset.image_size", value, whole.reason)
        return whole.size, [sized, Choice("dataset.sampling", "resize", "whole images show enough")]
    sides = median(min(image.height, image.width) for image in images)
    side = max(STRIDE, min(CROP, int(sides) // STRIDE * STRIDE))
    area = median(image.height * image.width for image in images)
    count = max(1, min(16, round(area / side**2)))
    why = (
        f"structures are {thin:.1f} pixels thick and would become {thinner:.1f}"
        if whole.enough
        else whole.reason.split(";")[-1].split(":")[0].strip() + f" at {whole.size[0]} pixels"
    )
    return (side, side), [
        Choice("dataset.sampling", "crop", f"whole images would not show enough: {why}"),
        Choice("dataset.image_size", side, f"of a crop; the shorter side of images is {sides:g}"),
        Choice("dataset.crops_per_case", count, "so many cover an image"),
    ]


def _augmentation(images: Sequence[ImageFacts]) -> Choice:
    coloured = sum(len(i.mean) == 3 and max(i.mean) - min(i.mean) > COLOURED for i in images)
    share = coloured / len(images)
    if share > 0.1:
        return Choice("augmentation", "histology", f"{percent(share)} of the images have colours")
    return Choice("augmentation", "grey", "the images have no colours")


def _loading(images: Sequence[ImageFacts], machine: Machine) -> list[Choice]:
    size = sum(i.height * i.width * (i.channels * (1 if i.dtype == "uint8" else 4)) for i in images)
    megabytes = math.ceil(1.2 * size / 2**20)
    found = []
    if megabytes > 1024 and machine.memory and megabytes < machine.memory / 4 / 2**20:
        why = "megabytes that hold all training images, less than a quarter of the memory"
        found.append(Choice("dataset.cache", megabytes, why))
    if machine.cores > 2:
        workers = min(4, machine.cores // 2)
        why = f"processes that load images, of {machine.cores} cores"
        found.append(Choice("dataset.workers", workers, why))
    return found


def _length(shown: int, cases: int, crops: int) -> list[Choice]:
    """Epochs, for so many images shown in each, and how often it is validated."""
    epochs = max(EPOCHS[0], min(EPOCHS[1], round(SEEN / shown / 10) * 10))
    each = f"{cases} cases" if crops == 1 else f"{cases} cases, {crops} crops of each"
    why = f"{each}: the network is shown {epochs * shown:,} images"
    every = max(1, round(epochs / VALIDATIONS))
    return [
        Choice("trainer.epochs", epochs, why),
        Choice("trainer.validate_every", every, f"about {epochs // every} validations"),
    ]


def _batch(size: tuple[int, int], machine: Machine) -> Choice:
    """The largest batch whose training step takes at most half of the memory."""
    taken = {count: PIXEL_BYTES * size[0] * size[1] * count for count in BATCHES}
    fits = [n for n in BATCHES if machine.memory is None or taken[n] < machine.memory / 2]
    count = fits[0] if fits else 1
    return Choice(
        "trainer.batch_size", count, f"a step takes about {taken[count] / 2**30:.1f} GB of memory"
    )


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
    text: str = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
