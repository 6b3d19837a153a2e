"""What a dataset is to the program, and how a prepared one lies on disk (see data/README.md)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from medt.data.changes import FileFacts
from medt.data.labels import IDS, Labels
from medt.data.scan import Scan
from medt.data.splits import SPLITS, check_groups, digest_of, lost_zeros, read_splits
from medt.errors import UserError
from medt.io.files import list_images, natural_key, write_text
from medt.io.links import check_link
from medt.io.plain import read_yaml
from medt.io.text import abridged, for_terminal, is_folder_name
from medt.metrics.pixel_size import PIXELS, PixelSize
from medt.shipped import typed
from medt.signatures import shortened

CARD = "dataset.yaml"
MOST_CLASSES = 255  # their ids fit 8 bit, with 255 left to mean ignored
LONGEST_NAME = 100


@dataclass(frozen=True)
class SegmentationClass:
    """One class: ``id`` is its channel in the logits, 0 the background; ``color`` RGB, 0..255.

    Raises:
        UserError: the id is not 0..254, the colour not three numbers, or the name not one line of
            1 to 100 printable characters, since it becomes a title, a column and a cell.
    """

    id: int
    name: str
    color: tuple[int, int, int]

    def __post_init__(self) -> None:
        name: Any = self.name
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            told = ascii(name[:LONGEST_NAME]) if isinstance(name, str) else type(name).__name__
            raise UserError(f"the name {told} of a class is not printable text", "give it another")
        if len(name) > LONGEST_NAME:
            raise UserError(
                f"the name {name[:20]}... of a class has {len(name)} characters",
                f"give it one of at most {LONGEST_NAME}",
            )
        if not _within(self.id, MOST_CLASSES - 1):
            raise UserError(f"the id of class {name} is not a whole number 0..254", "0, 1, 2, ...")
        color: Any = self.color
        if not isinstance(color, tuple) or len(color) != 3 or not all(_within(c) for c in color):
            raise UserError(
                f"the colour of class {name} is not three whole numbers 0..255", "[red,green,blue]"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints and ``dataset.yaml``."""
        return {"id": self.id, "name": self.name, "color": list(self.color)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SegmentationClass:
        """The inverse of ``to_dict``.

        Raises:
            UserError: they are not such values.
        """
        if not isinstance(values, Mapping) or not {"id", "name", "color"} <= values.keys():
            raise UserError("a class is not described by id, name and color", "give all three")
        color = values["color"]
        given = tuple(color) if isinstance(color, list) else color
        return cls(values["id"], values["name"], given)


def check_classes(classes: Sequence[SegmentationClass]) -> None:
    """Refuse classes that a network cannot have.

    Raises:
        UserError: fewer than 2 or more than 255, ids that are not 0, 1, 2, ... in this order, or a
            name twice.
    """
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise UserError(f"there are {len(classes)} classes", "2 to 255, background first")
    if [c.id for c in classes] != list(range(len(classes))):
        raise UserError("the ids of the classes are not in order", "0, 1, 2, ..., background first")
    counted = Counter(c.name for c in classes)
    if twice := [name for name, count in counted.items() if count > 1]:
        raise UserError(f"several classes have the name {listed(twice)}", "each class once")


@dataclass(frozen=True)
class Case:
    """One image with its mask.

    Attributes:
        name: unique in the dataset, without extension.
        image: the image file.
        mask: the file with one class value per pixel, or None where there is none.
        instances: the file with one object number per pixel (0 = none), where the source has it.
        group: patient or slide; cases of one group share a split. May be empty where it is not
            known.
        split: "train", "val" or "test".
        fold: of a cross-validation, where the split file names it.
    """

    name: str
    image: Path
    mask: Path | None
    instances: Path | None
    group: str
    split: str
    fold: int | None = None


@dataclass(frozen=True)
class DatasetIndex:
    """All cases of a dataset and how to read their masks.

    Attributes:
        classes: by id, 0 first.
        channels: of the network's input.
        labels: what the values of the masks mean.
        official: the splits that the dataset's publisher has fixed; the others are ours.
        page: which image of stacks, from 0; None refuses them.
        pixel_size: of the images; in pixels where it is not known.
        splits_file: where the splits were read; None where they were not.
        grouped_by: what the groups of the cases are, and who says so.
        splits_digest: of what that file says of these cases; empty where there is none.
        facts: of the files that a training uses, as they were when the dataset was opened.
        scan: knows what was found in files that were read already.
    """

    name: str
    classes: tuple[SegmentationClass, ...]
    channels: int
    cases: tuple[Case, ...]
    labels: Labels = IDS
    official: tuple[str, ...] = ()
    page: int | None = None
    pixel_size: PixelSize = PIXELS
    splits_file: Path | None = None
    splits_digest: str = ""
    grouped_by: str = "groups"
    facts: FileFacts = field(default_factory=FileFacts)
    scan: Scan = field(default_factory=Scan, compare=False, repr=False)

    def split(self, name: str) -> tuple[Case, ...]:
        """The cases of one split, or of "all", in natural order of their names.

        Raises:
            UserError: the split has no cases.
        """
        chosen = tuple(case for case in self.cases if name in (case.split, "all"))
        if not chosen:
            there = ", ".join(f"{split} ({n})" for split, n in self.counts().items()) or "no cases"
            raise UserError(
                f"Dataset {self.name} has no cases in split {name!r}", f"there is: {there}"
            )
        return chosen

    def training_files(self) -> list[Path]:
        """Images and masks of train and val, and the split file."""
        used = [case for case in self.cases if case.split != "test"]
        files = [file for case in used for file in (case.image, case.mask) if file is not None]
        return files if self.splits_file is None else [*files, self.splits_file]

    def counts(self) -> dict[str, int]:
        """Number of cases of each split that has any."""
        found = Counter(case.split for case in self.cases)
        return {split: found[split] for split in SPLITS if found[split]}


@dataclass(frozen=True)
class DatasetCard:
    """The content of ``dataset.yaml``.

    Attributes:
        prepared: how the files were made: plain values, e.g. a description, or the numbers of a
            generator.
        absent: official cases that the archive at hand did not contain; a split file may name them.
        ignore: the mask value that is neither trained on nor scored, or None.
        checksums: SHA-256 of every file, by its path relative to the folder, with forward slashes.
    """

    name: str
    classes: tuple[SegmentationClass, ...]
    channels: int
    licence: str
    source: str
    citation: str
    prepared: Mapping[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    ignore: int | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """What preparing a dataset came to.

    Attributes:
        counts: cases per split.
        notes: whatever the user should know: what is missing, warnings.
        existed: True if a complete copy was there already and nothing was written.
    """

    name: str
    root: Path
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()
    existed: bool = False

    def summary(self) -> str:
        """A few lines for the terminal."""
        state = "was already prepared" if self.existed else "prepared"
        counts = ", ".join(f"{split} {n}" for split, n in self.counts.items())
        return "\n".join((f"{self.name} {state} in {self.root}: {counts}", *self.notes))


def write_card(root: Path, card: DatasetCard) -> None:
    """Write ``dataset.yaml`` with the checksums of all files that lie in ``root`` now."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != CARD)
    content = {
        "name": card.name,
        "classes": [c.to_dict() for c in card.classes],
        "channels": card.channels,
        "licence": card.licence,
        "source": card.source,
        "citation": card.citation,
        "prepared": dict(card.prepared),
        "absent": list(card.absent),
        "ignore": card.ignore,
        "sha256": {path.relative_to(root).as_posix(): checksum_of(path) for path in files},
    }
    write_text(root / CARD, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100))


def read_card(root: Path) -> DatasetCard:
    """Read ``dataset.yaml``.

    Raises:
        UserError: the file is absent, a link out of the folder, no YAML, lacks a key, or lists
            impossible classes.
    """
    path = root / CARD
    check_link(path, root)
    content = read_yaml(path)
    try:
        classes = [SegmentationClass.from_dict(c) for c in content["classes"]]
        check_classes(classes)
        name = str(content["name"])
        if not is_folder_name(name):
            raise UserError(f"the name {shortened(name)} cannot be a folder's", "")
        return DatasetCard(
            name=name,
            classes=tuple(classes),
            channels=int(content["channels"]),
            licence=str(content["licence"]),
            source=str(content["source"]),
            citation=str(content["citation"]),
            prepared=dict(content["prepared"]),
            absent=tuple(content.get("absent", ())),
            ignore=content.get("ignore"),
            checksums=dict(content["sha256"]),
        )
    except (KeyError, TypeError, ValueError, UserError) as error:
        said = f"{type(error).__name__}: {error}"
        problem = error.message if isinstance(error, UserError) else said
        raise UserError(
            f"{path} is not a valid dataset description: {abridged(problem)}",
            f"delete {root} and prepare the dataset again",
        ) from error


def existing_card(root: Path, name: str) -> DatasetCard | None:
    """The card of dataset ``name`` in ``root``; None if ``root`` is absent or empty.

    Raises:
        UserError: ``root`` holds anything else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    if not (root / CARD).is_file():
        raise UserError(
            f"{root} exists and is no prepared dataset", "move it away, or choose another root"
        )
    card = read_card(root)
    if card.name != name:
        raise UserError(f"{root} holds the dataset {card.name}", "choose another root")
    return card


def changed_files(root: Path, card: DatasetCard) -> list[str]:
    """Files, relative to ``root``, that are missing or differ from their checksum. Reads all."""
    return [
        name
        for name, checksum in card.checksums.items()
        if not (root / name).is_file() or checksum_of(root / name) != checksum
    ]


def open_prepared(root: Path, splits_file: Path, hint: str = "") -> DatasetIndex:
    """Index a dataset that lies prepared on disk.

    Cases that the split file names and ``dataset.yaml`` lists as absent are left out.

    Args:
        root: the folder with ``dataset.yaml``.
        splits_file: the split of each case.
        hint: how to get and prepare the dataset, for the error that it is not prepared.

    Raises:
        UserError: the dataset is not prepared, a link leads out of it, images and masks do not
            pair up, or the split file names unknown cases, leaves some out, or puts one group into
            two splits. Every name at fault is listed.
    """
    if not (root / CARD).is_file():
        command = f"{typed('prepare_data')} dataset={root.name} source=<archive or folder>"
        raise UserError(
            f"Dataset {root.name} is not prepared: no {CARD} in {root}", hint or f"run: {command}"
        )
    card = read_card(root)
    images, masks = _by_stem(root, "images"), _by_stem(root, "masks")
    again = f"delete {root} and prepare the dataset again"
    unpaired = [f"image without mask: {name}" for name in images if name not in masks]
    unpaired += [f"mask without image: {name}" for name in masks if name not in images]
    if unpaired:
        raise UserError(f"{root}: {listed(unpaired, limit=None)}", again)
    rows = [
        row for row in read_splits(splits_file) if row.case in images or row.case not in card.absent
    ]
    check_groups(rows, splits_file)
    planned = {row.case: row for row in rows}
    faults = [f"no image of case {name}" for name in planned if name not in images]
    faults += [f"no row for image {name}" for name in images if name not in planned]
    if faults:
        raise UserError(
            f"{splits_file} does not fit {root}: {listed(faults, limit=None)}",
            lost_zeros(images, planned) or f"correct the split file, or {again}",
        )
    instances = _by_stem(root, "instances") if (root / "instances").is_dir() else {}
    cases = tuple(
        Case(
            name,
            image,
            masks[name],
            instances.get(name),
            planned[name].group,
            planned[name].split,
            planned[name].fold,
        )
        for name, image in images.items()
    )
    labels = Labels({c.id: c.id for c in card.classes}, card.ignore)
    index = DatasetIndex(card.name, card.classes, card.channels, cases, labels)
    digest, by = digest_of(planned[name] for name in images), f"groups, by {splits_file.name}"
    return replace(index, splits_file=splits_file, splits_digest=digest, grouped_by=by)


def listed(items: Iterable[str], limit: int | None = 10) -> str:
    """Items on one line, each as a terminal can show it; beyond ``limit`` the first and a count."""
    every = [for_terminal(item) for item in sorted(items, key=natural_key)]
    if limit is None or len(every) <= limit:
        return "; ".join(every)
    return "; ".join(every[:limit]) + f"; ... {len(every)} in all"


def default_classes(names: Sequence[str]) -> tuple[SegmentationClass, ...]:
    """Classes with ids 0, 1, ... and colours that tell them apart; class 0 is black."""
    palette = (
        (0, 158, 115), (230, 159, 0), (86, 180, 233), (204, 121, 167),
        (240, 228, 66), (0, 114, 178), (213, 94, 0), (148, 103, 189),
    )  # fmt: skip
    return tuple(
        SegmentationClass(i, name, (0, 0, 0) if i == 0 else palette[(i - 1) % len(palette)])
        for i, name in enumerate(names)
    )


def _within(value: Any, most: int = 255) -> bool:
    """Whether it is a whole number 0..most; True and False are none."""
    return type(value) is int and 0 <= value <= most


def _by_stem(root: Path, name: str) -> dict[str, Path]:
    """The images of a folder of a dataset, which may come from anybody; its own is no link out."""
    check_link(root / name, root)
    return {path.stem: path for path in list_images(root / name)}


def checksum_of(path: Path) -> str:
    """SHA-256 of a file, as a card has it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
