"""What a dataset is to the program, and how a prepared one lies on disk (see data/README.md)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from medt.data.labels import IDS, Labels
from medt.data.splits import SPLITS, SplitRow, check_groups, draw_folds, read_splits
from medt.errors import UserError
from medt.files import list_images, natural_key, write_text

CARD = "dataset.yaml"
FOLD_SEED = 0


@dataclass(frozen=True)
class SegmentationClass:
    """One class: ``id`` is its channel in the logits, 0 the background; ``color`` RGB, 0..255."""

    id: int
    name: str
    color: tuple[int, int, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints and ``dataset.yaml``."""
        return {"id": self.id, "name": self.name, "color": list(self.color)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SegmentationClass:
        """The inverse of ``to_dict``."""
        red, green, blue = (int(v) for v in values["color"])
        return cls(int(values["id"]), str(values["name"]), (red, green, blue))


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
        pixel_size: micrometres per pixel of the images; None where it is not known.
    """

    name: str
    classes: tuple[SegmentationClass, ...]
    channels: int
    cases: tuple[Case, ...]
    labels: Labels = IDS
    official: tuple[str, ...] = ()
    page: int | None = None
    pixel_size: float | None = None

    def split(self, name: str) -> tuple[Case, ...]:
        """The cases of one split, in natural order of their names.

        Raises:
            UserError: the split has no cases.
        """
        chosen = tuple(case for case in self.cases if case.split == name)
        if not chosen:
            there = ", ".join(f"{split} ({n})" for split, n in self.counts().items()) or "no cases"
            raise UserError(
                f"Dataset {self.name} has no cases in split {name!r}", f"there is: {there}"
            )
        return chosen

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
        "sha256": {path.relative_to(root).as_posix(): _checksum(path) for path in files},
    }
    write_text(root / CARD, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100))


def read_card(root: Path) -> DatasetCard:
    """Read ``dataset.yaml``.

    Raises:
        UserError: the file is absent, is no YAML, or lacks a key.
    """
    path = root / CARD
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        classes = [SegmentationClass.from_dict(c) for c in content["classes"]]
        if [c.id for c in classes] != list(range(len(classes))):
            raise ValueError("class ids must be 0, 1, 2, ... in this order")
        return DatasetCard(
            name=str(content["name"]),
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
    except FileNotFoundError:
        raise UserError(
            f"No file {path}", "prepare the dataset first, see data/README.md"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise UserError(
            f"{path} is not a valid dataset description: {type(error).__name__}: {problem}",
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
        if not (root / name).is_file() or _checksum(root / name) != checksum
    ]


def open_prepared(root: Path, splits_file: Path, hint: str = "") -> DatasetIndex:
    """Index a dataset that lies prepared on disk.

    Cases that the split file names and ``dataset.yaml`` lists as absent are left out.

    Args:
        root: the folder with ``dataset.yaml``.
        splits_file: the split of each case.
        hint: how to get and prepare the dataset, for the error that it is not prepared.

    Raises:
        UserError: the dataset is not prepared, images and masks do not pair up, or the split file
            names unknown cases, leaves some out, or puts one group into two splits. Every name at
            fault is listed.
    """
    if not (root / CARD).is_file():
        command = f"python scripts/prepare_data.py dataset={root.name} source=<archive or folder>"
        raise UserError(
            f"Dataset {root.name} is not prepared: no {CARD} in {root}", hint or f"run: {command}"
        )
    card = read_card(root)
    images, masks = _by_stem(root / "images"), _by_stem(root / "masks")
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
            f"correct the split file, or {again}",
        )
    instances = _by_stem(root / "instances") if (root / "instances").is_dir() else {}
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
    return DatasetIndex(card.name, card.classes, card.channels, cases, labels)


def with_fold(index: DatasetIndex, folds: int, fold: int) -> DatasetIndex:
    """The dataset for one round of a cross-validation; its test cases stay what they are.

    The cases of train and val are dealt to the folds: as the split file's column ``fold`` says
    where it has one for each of them, else drawn, cases of a group together. Whatever run draws
    them, the folds are the same. Fold ``fold`` validates, the others train.

    Raises:
        UserError: fewer than two folds, no such fold, folds that the split file does not have, or
            too few groups.
    """
    if folds < 2 or not 0 <= fold < folds:
        raise UserError(
            f"dataset.folds={folds} dataset.fold={fold} is impossible",
            "folds from 2, fold from 0 to folds - 1",
        )
    dealt = [case for case in index.cases if case.split != "test"]
    unnamed = [case.name for case in dealt if case.fold is None]
    if 0 < len(unnamed) < len(dealt):
        raise UserError(
            f"The split file names no fold for {listed(unnamed)}",
            "name one for every case of train and val, or for none",
        )
    if not unnamed:
        fold_of = {case.name: case.fold for case in dealt}
        named = set(fold_of.values())
        if named != set(range(folds)):
            raise UserError(
                f"dataset.folds={folds}, but the split file names the folds "
                f"{listed(map(str, named))}",
                "give as many as it names, or take its column fold away",
            )
    else:
        pairs = [(case.name, case.group) for case in dealt]
        fold_of = dict(draw_folds(pairs, folds, FOLD_SEED))
    cases = tuple(
        replace(case, split="val" if fold_of[case.name] == fold else "train")
        if case.name in fold_of
        else case
        for case in index.cases
    )
    rows = [SplitRow(case.name, case.group, case.split) for case in cases if case.name in fold_of]
    check_groups(rows, f"fold {fold} of {folds}")
    return replace(index, cases=cases)


def listed(items: Iterable[str], limit: int | None = 10) -> str:
    """Items on one line; beyond ``limit`` the first ones and the count."""
    every = sorted(items, key=natural_key)
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


def _by_stem(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in list_images(folder)}


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
