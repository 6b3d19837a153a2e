"""Any two folders, one of images and one of masks, or one of both."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medt.data.classes import (
    Classes,
    ClassList,
    evident_classes,
    extended_example,
    given_classes,
    instance_classes,
)
from medt.data.duplicates import Hash, near_duplicates, perceptual_hash
from medt.data.layout import Case, DatasetIndex, listed
from medt.data.pairing import pair_files
from medt.data.splits import SPLITS, SplitRow, check_groups, draw_splits, read_splits, write_splits
from medt.errors import UserError
from medt.images import read_colors, read_image, read_values

log = logging.getLogger("medt")

MASK_KINDS = ("classes", "instances")
Pairs = Mapping[str, tuple[Path, Path]]


def open_folder(
    images: Path,
    masks: Path,
    classes: ClassList | None = None,
    seed: int = 0,
    splits_file: Path | None = None,
    channels: int = 3,
    ignore: Any = None,
    mask: str = "classes",
    mask_suffix: str | None = None,
    page: int | None = None,
) -> DatasetIndex:
    """Index a folder of images and one of masks; every file is read once, to find faults now.

    Args:
        images, masks: may be the same folder, see ``pair_files``.
        classes: see ``given_classes``. None infers background and foreground if the masks hold 0
            and one other value.
        seed: of the split, drawn 70/15/15 when ``splits_file`` is absent.
        splits_file: None puts it beside the images folder, as <images folder>_splits.csv.
        channels: of the network's input.
        ignore: the mask value, or colour, that is neither trained on nor scored.
        mask: "classes", or "instances" where the values are object numbers.
        mask_suffix: see ``pair_files``.
        page: which image of a stack, from 0.

    Raises:
        UserError: files without partner, unreadable, or of different sizes; mask values that are no
            class; a split file that does not fit. All faults of a kind are in one line, beyond ten
            the first ten and the count.
    """
    if mask not in MASK_KINDS:
        raise UserError(f"dataset.mask={mask} is not known", f"use {' or '.join(MASK_KINDS)}")
    pairs = pair_files(images, masks, mask_suffix)
    splits_file = splits_file or images.parent / f"{images.name}_splits.csv"
    plan = None
    if mask == "instances":
        plan = instance_classes(classes, ignore)
    elif classes is not None:
        plan = given_classes(classes, ignore)
    painted = plan is not None and plan.labels.painted
    inspected = _inspect(pairs, painted, page, hashing=not splits_file.exists())
    plan = _checked_plan(plan, pairs, inspected, ignore)
    if not splits_file.exists():
        hashes = {name: found.hash for name, found in inspected.items() if found.hash is not None}
        _draw(hashes, seed, splits_file)
    rows = _rows(list(pairs), splits_file)
    cases = tuple(
        Case(
            name,
            image,
            mask_path,
            mask_path if plan.labels.instances else None,
            rows[name].group,
            rows[name].split,
            rows[name].fold,
        )
        for name, (image, mask_path) in pairs.items()
    )
    title = images.resolve().parent.name or images.name
    return DatasetIndex(title, plan.classes, channels, cases, plan.labels)


@dataclass(frozen=True)
class _Inspected:
    """What a pair of files holds: mask value -> pixels, and of what kind the values are."""

    values: Mapping[int, int]
    painted: bool
    hash: Hash | None


def _inspect(pairs: Pairs, painted: bool, page: int | None, hashing: bool) -> dict[str, _Inspected]:
    def examine(name: str) -> _Inspected | UserError:
        image_path, mask_path = pairs[name]
        try:
            image = read_image(image_path, page)
            if painted:
                mask, in_colors = read_colors(mask_path, page), True
            else:
                mask, in_colors = read_values(mask_path, page)
        except UserError as error:
            return error
        if image.shape[:2] != mask.shape:
            (h, w), (mask_h, mask_w) = image.shape[:2], mask.shape
            turned = "; one of them has an orientation tag" if (h, w) == (mask_w, mask_h) else ""
            return UserError(
                f"{image_path.name} is {w} x {h}, its mask {mask_w} x {mask_h} pixels{turned}"
            )
        values, counts = np.unique(mask, return_counts=True)
        counted = dict(zip(values.tolist(), counts.tolist(), strict=True))
        return _Inspected(counted, in_colors, perceptual_hash(image) if hashing else None)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = dict(zip(pairs, pool.map(examine, pairs), strict=True))
    faults = [result.message for result in results.values() if isinstance(result, UserError)]
    if faults:
        hints = {r.hint for r in results.values() if isinstance(r, UserError) and "page" in r.hint}
        raise UserError(
            f"Faulty files: {listed(faults)}",
            min(hints, default="repair, replace or remove them in pairs"),
        )
    return {name: result for name, result in results.items() if isinstance(result, _Inspected)}


def _checked_plan(
    plan: Classes | None, pairs: Pairs, inspected: Mapping[str, _Inspected], ignore: Any
) -> Classes:
    """The classes, inferred where none are given; every mask shows nothing else."""
    in_colors = any(found.painted for found in inspected.values())
    values = {
        name: found.values
        if found.painted or not in_colors
        else {value * 0x010101: count for value, count in found.values.items()}
        for name, found in inspected.items()
    }
    total: Counter[int] = Counter()
    for counted in values.values():
        total.update(counted)
    lossy = any(mask.suffix.lower() in (".jpg", ".jpeg") for _, mask in pairs.values())
    if plan is None or (in_colors and not plan.labels.painted):
        return evident_classes(total, in_colors, ignore, lossy)
    if plan.labels.instances:
        if not set(total) - {0, plan.labels.ignore}:
            raise UserError("The masks hold no object number above 0", "check dataset.masks")
        return plan
    known = set(plan.labels.values or {})
    if plan.labels.ignore is not None:
        known.add(plan.labels.ignore)
    faults = [
        f"mask {pairs[name][1].name} holds {plan.labels.shown(counted.keys() - known)}"
        for name, counted in values.items()
        if counted.keys() - known
    ]
    if faults:
        mend = f"give each value a class: '{extended_example(plan, total)}'"
        if lossy and in_colors:
            mend = "save the masks as PNG, since JPEG changes colours"
        raise UserError(
            f"Mask values that are no class: {listed(faults)}",
            f"known are {plan.labels.shown(known)}; correct the masks, set "
            f"dataset.ignore, or {mend}",
        )
    seen = {(plan.labels.values or {}).get(value) for value in total}
    absent = [c.name for c in plan.classes if c.id not in seen]
    if absent:
        folder = next(iter(pairs.values()))[1].parent
        log.warning(f"warning: no mask in {folder} shows the class {', '.join(absent)}")
    return plan


def _draw(hashes: Mapping[str, Hash], seed: int, splits_file: Path) -> None:
    if len(hashes) < 2:
        raise UserError(
            f"{next(iter(hashes))} is the only image",
            "training and validation need one each at least",
        )
    drawn = draw_splits(list(hashes), seed, pairs=near_duplicates(hashes))
    counts = Counter(row.split for row in drawn)
    if not counts["val"]:
        raise UserError(
            "all images look alike, so that none can be kept for validation",
            f"give images of several subjects, or write {splits_file} yourself",
        )
    write_splits(splits_file, drawn)
    shown = ", ".join(f"{split} {counts[split]}" for split in SPLITS)
    log.warning(f"split drawn: {shown}; edit {splits_file} to keep cases of a patient together")


def _rows(names: list[str], splits_file: Path) -> dict[str, SplitRow]:
    rows = read_splits(splits_file)
    check_groups(rows, splits_file)
    planned = {row.case: row for row in rows}
    faults = [f"added: {name}" for name in names if name not in planned]
    faults += [f"removed: {name}" for name in planned if name not in names]
    if faults:
        raise UserError(
            f"The images changed since {splits_file} was written: {listed(faults)}",
            "edit that file, or delete it to draw a new split",
        )
    return planned
