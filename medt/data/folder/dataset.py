"""Any two folders, one of images and one of masks, or one of both."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medt.data.duplicates import Thumbnail, near_duplicates
from medt.data.folder.classes import (
    Classes,
    ClassList,
    given_classes,
    instance_classes,
    is_open,
)
from medt.data.folder.inspection import Inspected, Pairs, checked_classes, inspect
from medt.data.folder.pairing import pair_files
from medt.data.grouping import groups_by
from medt.data.layout import Case, DatasetIndex, listed
from medt.data.scan import Plan, Scan, nothing_planned
from medt.data.splits import (
    SPLITS,
    SplitRow,
    check_groups,
    digest_of,
    draw_splits,
    lost_zeros,
    read_splits,
    write_splits,
)
from medt.errors import UserError
from medt.io.locks import locked_beside

log = logging.getLogger("medt")

MASK_KINDS = ("classes", "instances", "alpha")


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
    group: str | None = None,
    draws: bool = False,
    splits: bool = True,
    planned: Plan = nothing_planned,
    only: str | None = None,
) -> DatasetIndex:
    """Index a folder of images and one of masks; every file is read once, to find faults now.

    Args:
        images, masks: may be the same folder, see ``pair_files``.
        classes: see ``given_classes``. None infers background and foreground if the masks hold 0
            and one other value.
        seed: of the split, drawn 70/15/15.
        splits_file: None looks for it beside the images folder, as <images folder>_splits.csv.
        channels: of the network's input.
        ignore: the mask value, or colour, that is neither trained on nor scored.
        mask: "classes", "instances" where the values are object numbers, or "alpha" where the
            alpha channel holds the values.
        mask_suffix: see ``pair_files``.
        page: which image of a stack, from 0.
        group: what the split that is drawn keeps together, see ``groups_by``.
        draws: whether the split is drawn and ``splits_file`` written where that is absent.
        splits: whether there are splits; without them all cases are of the test.
        planned: what the files will be looked at for.
        only: the split, or "all", whose cases are read later. Then masks alone are read, to tell
            the classes: none where their values are given, those of this split where the names
            are, and all where neither is, or a split is drawn.

    Raises:
        UserError: files without partner, unreadable, or of different sizes; mask values that are no
            class; a split file that does not fit, or is absent and may not be drawn. All faults of
            a kind are in one line, beyond ten the first ten and the count.
    """
    if mask not in MASK_KINDS:
        raise UserError(f"dataset.mask={mask} is not known", f"use one of {', '.join(MASK_KINDS)}")
    splits_file = splits_file or splits_beside(images)
    undrawn = splits and not splits_file.exists()
    if undrawn and not draws:
        raise UserError(f"No split file {splits_file}", "give dataset.splits_file=...")
    pairs = pair_files(images, masks, mask_suffix)
    plan = None
    if mask == "instances":
        plan = instance_classes(classes, ignore)
    elif classes is not None:
        plan = given_classes(classes, ignore)
    painted = plan is not None and plan.labels.painted
    if painted and mask == "alpha":
        raise UserError("dataset.mask=alpha has values, no colours", "give each class its value")
    scan = Scan(*planned(channels))
    rows = {} if splits else {name: SplitRow(name, "", "test") for name in pairs}
    if only is None or undrawn:
        inspected = inspect(pairs, scan, plan, ignore, mask, page, small=undrawn)
        plan = checked_classes(plan, pairs, inspected, ignore)
    else:
        rows = rows or _rows(list(pairs), splits_file)
        scored = {name: pair for name, pair in pairs.items() if only in (rows[name].split, "all")}
        plan = _told_classes(plan, scored, pairs, ignore, mask, page)
    plan = replace(plan, labels=replace(plan.labels, alpha=mask == "alpha"))
    if undrawn:
        found = {name: one.thumbnail for name, one in inspected.items()}
        groups = groups_by(group, {name: pair[0] for name, pair in pairs.items()}) if group else {}
        _draw({k: v for k, v in found.items() if v is not None}, groups, seed, splits_file)
    rows = rows or _rows(list(pairs), splits_file)
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
    return DatasetIndex(
        title,
        plan.classes,
        channels,
        cases,
        plan.labels,
        splits_file=splits_file if splits else None,
        splits_digest=digest_of(rows.values()) if splits else "",
        grouped_by=f"groups, by {splits_file.name}",
        scan=scan,
    )


def _told_classes(
    plan: Classes | None, scored: Pairs, pairs: Pairs, ignore: Any, kind: str, page: int | None
) -> Classes:
    """The classes, by as few masks as tell them."""
    if plan is not None and not is_open(plan):
        return plan
    inspected: dict[str, Inspected] = {}
    for read in (pairs,) if plan is None else (scored, pairs):
        inspected = inspect(read, Scan(), plan, ignore, kind, page, small=False, images=False)
        if not read or any(0 in found.values for found in inspected.values()):
            break
    return checked_classes(plan, read, inspected, ignore, whole=read is pairs)


def splits_beside(images: Path) -> Path:
    """Where the split of a folder of images lies unless the user says otherwise."""
    return images.parent / f"{images.name}_splits.csv"


def _draw(
    thumbnails: Mapping[str, Thumbnail], groups: Mapping[str, str], seed: int, splits_file: Path
) -> None:
    if len(thumbnails) < 2:
        raise UserError(
            f"{next(iter(thumbnails))} is the only image",
            "training and validation need one each at least",
        )
    drawn = draw_splits(list(thumbnails), seed, pairs=near_duplicates(thumbnails), groups=groups)
    counts = Counter(row.split for row in drawn)
    if not counts["val"]:
        raise UserError(
            "all images look alike or are of one group, so that none can be kept for validation",
            f"give images of several subjects, or write {splits_file} yourself",
        )
    with locked_beside(splits_file, "a split", "dataset.splits_file=...", wait=True):
        if splits_file.exists():  # another process was faster, and its split counts
            return
        write_splits(splits_file, drawn)
    shown = ", ".join(f"{split} {counts[split]}" for split in SPLITS)
    apart = "" if groups else f"; dataset.group=... or editing {splits_file} keeps cases together"
    log.warning(f"split drawn: {shown}{apart}")


def _rows(names: list[str], splits_file: Path) -> dict[str, SplitRow]:
    rows = read_splits(splits_file)
    check_groups(rows, splits_file)
    planned = {row.case: row for row in rows}
    faults = [f"added: {name}" for name in names if name not in planned]
    faults += [f"removed: {name}" for name in planned if name not in names]
    if faults:
        raise UserError(
            f"The images changed since {splits_file} was written: {listed(faults)}",
            lost_zeros(names, planned) or "edit that file, or delete it to draw a new split",
        )
    return planned
