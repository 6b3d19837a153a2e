"""Any two folders, one of images and one of masks, paired by file name without extension."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from medt.data.labels import Labels
from medt.data.layout import Case, DatasetIndex, default_classes, listed
from medt.data.splits import SPLITS, check_groups, draw_splits, read_splits, write_splits
from medt.errors import UserError
from medt.files import list_images
from medt.images import read_image, read_mask

log = logging.getLogger("medt")

LARGEST_VALUE = 0xFFFF
ClassList = Sequence[str | Mapping[str, Any]]


def open_folder(
    images: Path,
    masks: Path,
    classes: ClassList | None = None,
    seed: int = 0,
    splits_file: Path | None = None,
    channels: int = 3,
    ignore: int | None = None,
) -> DatasetIndex:
    """Index a folder of images and one of masks; every file is read once, to find faults now.

    Args:
        classes: names (mask values are then 0, 1, ...), or mappings with ``name`` and ``value``, a
            number or an inclusive range ``[low, high]`` for masks stored as JPEG; the first is the
            background. None infers background and foreground if the masks hold 0 and one other
            value.
        seed: of the split, drawn 70/15/15 when ``splits_file`` is absent.
        splits_file: None puts it beside the images folder, as <images folder>_splits.csv.
        channels: of the network's input.
        ignore: the mask value that is neither trained on nor scored.

    Raises:
        UserError: files without partner, unreadable, or of different sizes; mask values that are no
            class; a split file that does not fit. All faults of a kind are in one line, beyond ten
            the first ten and the count.
    """
    pairs = _pair(images, masks)
    values = _inspect(pairs)
    names, label_map = _classes(classes, values, ignore, (mask for _, mask in pairs.values()))
    known = set(label_map) if ignore is None else {*label_map, ignore}
    faults = [
        f"mask {pairs[name][1].name} holds {_numbers(found - known)}"
        for name, found in values.items()
        if found - known
    ]
    if faults:
        raise UserError(
            f"Mask values that are no class: {listed(faults)}",
            f"known are {_numbers(known)}; correct the masks, set dataset.ignore, or give "
            f"each value a class: '{_example(names, label_map, values)}'",
        )
    seen = {label_map[value] for found in values.values() for value in found if value in label_map}
    absent = [name for index, name in enumerate(names) if index not in seen]
    if absent:
        log.warning(f"warning: no mask in {masks} shows the class {', '.join(absent)}")
    splits_file = splits_file or images.parent / f"{images.name}_splits.csv"
    plan = _splits(list(pairs), seed, splits_file)
    cases = tuple(
        Case(name, image, mask, None, *plan[name]) for name, (image, mask) in pairs.items()
    )
    labels = Labels(label_map, ignore)
    title = images.resolve().parent.name or images.name
    return DatasetIndex(title, default_classes(names), channels, cases, labels)


def _pair(images: Path, masks: Path) -> dict[str, tuple[Path, Path]]:
    sides: list[dict[str, Path]] = []
    faults = []
    for folder in (images, masks):
        by_stem: dict[str, Path] = {}
        for path in list_images(folder):
            if path.stem in by_stem:
                faults.append(f"{folder.name} has both {by_stem[path.stem].name} and {path.name}")
            by_stem.setdefault(path.stem, path)
        if not by_stem:
            raise UserError(f"No images in {folder}", "PNG, JPEG, BMP, TIFF and GIF are read")
        sides.append(by_stem)
    image_of, mask_of = sides
    bare = [image_of[name].name for name in image_of if name not in mask_of]
    stray = [mask_of[name].name for name in mask_of if name not in image_of]
    faults += [f"images without mask ({len(bare)}): {', '.join(bare)}"] * bool(bare)
    faults += [f"masks without image ({len(stray)}): {', '.join(stray)}"] * bool(stray)
    if faults:
        raise UserError(
            f"{images} and {masks} do not pair up: {listed(faults, limit=None)}",
            "an image and its mask have the same name up to the extension",
        )
    return {name: (image_of[name], mask_of[name]) for name in image_of}


def _inspect(pairs: Mapping[str, tuple[Path, Path]]) -> dict[str, set[int]]:
    """Case -> the values of its mask."""

    def examine(name: str) -> set[int] | UserError:
        image_path, mask_path = pairs[name]
        try:
            image, mask = read_image(image_path), read_mask(mask_path)
        except UserError as error:
            return error
        if image.shape[:2] != mask.shape:
            (h, w), (mask_h, mask_w) = image.shape[:2], mask.shape
            return UserError(f"{image_path.name} is {w} x {h}, its mask {mask_w} x {mask_h} pixels")
        return set(np.unique(mask).tolist())

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = dict(zip(pairs, pool.map(examine, pairs), strict=True))
    faults = [result.message for result in results.values() if isinstance(result, UserError)]
    if faults:
        raise UserError(
            f"Faulty files: {listed(faults)}", "repair, replace or remove them in pairs"
        )
    return {name: result for name, result in results.items() if isinstance(result, set)}


def _classes(
    classes: ClassList | None,
    values: Mapping[str, set[int]],
    ignore: int | None,
    masks: Iterable[Path],
) -> tuple[list[str], dict[int, int]]:
    """Class names and the map from mask value to class id."""
    if classes is not None:
        return _given_classes(classes)
    found = set().union(*values.values()) - {ignore}
    foreground = found - {0}
    if 0 in found and len(foreground) == 1 and min(foreground) > 0:
        return ["background", "foreground"], {0: 0, min(foreground): 1}
    if len(found) > 2 and any(mask.suffix.lower() in (".jpg", ".jpeg") for mask in masks):
        example = "[{name:background,value:[0,127]},{name:foreground,value:[128,255]}]"
    else:
        entries = [f"{{name:class_{v},value:{v}}}" for v in sorted(found)[:20]] or ["..."]
        example = f"[{','.join(entries)}]"
    if len(found) < 2:
        raise UserError(
            f"The masks hold only the value {_numbers(found)}: there is nothing to tell apart",
            "check that these are the masks",
        )
    raise UserError(
        f"The masks hold the values {_numbers(found)}: which class is which is not evident",
        f"name the classes, background first, e.g. 'dataset.classes={example}'",
    )


def _example(
    names: Sequence[str], label_map: Mapping[int, int], values: Mapping[str, set[int]]
) -> str:
    """The setting that keeps the classes and makes one of every other value found."""
    entries = [
        f"{{name:{name},value:{min(v for v, i in label_map.items() if i == index)}}}"
        for index, name in enumerate(names)
    ]
    others = sorted(set().union(*values.values()) - set(label_map))
    entries += [f"{{name:class_{value},value:{value}}}" for value in others[:20]]
    return f"dataset.classes=[{','.join(entries)}]"


def _given_classes(classes: ClassList) -> tuple[list[str], dict[int, int]]:
    names: list[str] = []
    label_map: dict[int, int] = {}
    for i, entry in enumerate(classes):
        given = {"name": entry, "value": i} if isinstance(entry, str) else entry
        name, value = given.get("name"), given.get("value")
        bounds: list[Any] = list(value) if isinstance(value, list | tuple) else [value, value]
        if (
            not isinstance(name, str)
            or len(bounds) != 2
            or not all(isinstance(bound, int) for bound in bounds)
            or not 0 <= bounds[0] <= bounds[1] <= LARGEST_VALUE
        ):
            raise UserError(
                f"dataset.classes entry {i} is {entry!r}",
                "give a name, or {name: gland, value: 255}, or {name: gland, value: [128, 255]}",
            )
        covered = range(bounds[0], bounds[1] + 1)
        if name in names or any(number in label_map for number in covered):
            raise UserError(f"dataset.classes names {name!r} or its value twice", "each class once")
        names.append(name)
        label_map.update(dict.fromkeys(covered, i))
    if not 2 <= len(names) <= 255:
        raise UserError(f"dataset.classes has {len(names)} entries", "2 to 255, background first")
    return names, label_map


def _splits(names: list[str], seed: int, splits_file: Path) -> dict[str, tuple[str, str]]:
    """Case -> (group, split)."""
    if not splits_file.exists():
        if len(names) < 2:
            raise UserError(
                f"{names[0]} is the only image", "training and validation need one each at least"
            )
        drawn = draw_splits(names, seed)
        write_splits(splits_file, drawn)
        counts = Counter(row.split for row in drawn)
        shown = ", ".join(f"{split} {counts[split]}" for split in SPLITS)
        log.warning(f"split drawn: {shown}; edit {splits_file} to keep cases of a patient together")
    rows = read_splits(splits_file)
    check_groups(rows, splits_file)
    planned = {row.case for row in rows}
    faults = [f"added: {name}" for name in names if name not in planned]
    faults += [f"removed: {name}" for name in planned if name not in names]
    if faults:
        raise UserError(
            f"The images changed since {splits_file} was written: {listed(faults)}",
            "edit that file, or delete it to draw a new split",
        )
    return {row.case: (row.group, row.split) for row in rows}


def _numbers(values: Iterable[int]) -> str:
    every = sorted(values)
    shown = ", ".join(map(str, every[:20]))
    return (
        shown if len(every) <= 20 else f"{shown}, ... ({len(every)} different, up to {every[-1]})"
    )
