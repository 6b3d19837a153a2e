"""ISBI 2012: neuronal membranes in electron microscopy, 30 consecutive sections of one volume."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from medt.data.duplicates import NearDuplicate
from medt.data.published.dataset import Annotation, ArchivedCase, Published
from medt.data.published.finding import by_kind, check_found, check_paired
from medt.data.splits import SplitRow
from medt.errors import UserError
from medt.io.archive import Archive
from medt.io.images import count_pages, decode_mask

PAGE = "https://imagej.net/events/isbi-2012-segmentation-challenge"
FILE = re.compile(r"(?:.*/)?(image|label)s?/([0-9]+)\.(?:png|tif)")
STACKS = ("train-volume.tif", "train-labels.tif")
HELD_OUT = 0.15
FOLDS = 5


def find(archive: Archive) -> list[ArchivedCase]:
    """The sections, as one file each or as the authors' two stacks."""
    stacks = archive.by_name(lambda name: name in STACKS)
    if len(stacks) == len(STACKS):
        image, label = (stacks[name] for name in STACKS)
        pages, others = (count_pages(archive.read(file), file) for file in (image, label))
        if pages != others:
            raise UserError(
                f"{image} has {pages} sections, {label} has {others}", "get both files again"
            )
        return [ArchivedCase(f"section_{i:02}", image, (label,), page=i) for i in range(pages)]
    images, labels = by_kind(archive, FILE, ("image", "label"), key=int)
    check_found(archive, images, f"neither {STACKS[0]} nor image/0.png, ...", PAGE)
    check_paired(archive, images, labels, "image or label only of section")
    return [
        ArchivedCase(f"section_{number:02}", images[number], (labels[number],))
        for number in sorted(images)
    ]


def annotate(archive: Archive, case: ArchivedCase, shape: tuple[int, int]) -> Annotation:
    (file,) = case.annotations
    label = decode_mask(archive.read(file), file, case.page)
    return Annotation((label == 0).astype(np.uint8))


def draw(cases: Sequence[ArchivedCase], pairs: Sequence[NearDuplicate]) -> list[SplitRow]:
    """Neighbouring sections look alike: validation, test and folds are sections in a row."""
    names = [case.name for case in cases]
    held_out = max(1, int(HELD_OUT * len(names)))
    if len(names) < 3:
        raise UserError(f"{len(names)} sections make no split", "get the whole archive again")
    first_val, first_test = len(names) - 2 * held_out, len(names) - held_out
    return [
        SplitRow(name, "", "train" if i < first_val else "val", FOLDS * i // first_test)
        if i < first_test
        else SplitRow(name, "", "test")
        for i, name in enumerate(names)
    ]


def notes(
    cases: Sequence[ArchivedCase], rows: Sequence[SplitRow], counts: Mapping[str, int]
) -> list[str]:
    return ["All sections are of one volume: scores say nothing about other tissue."]


ISBI2012 = Published(
    name="isbi2012",
    page=PAGE,
    licence="Research and education only, as stated by its authors.",
    citation="Arganda-Carreras et al., Crowdsourcing the creation of image segmentation algorithms "
    "for connectomics, Frontiers in Neuroanatomy 9:142 (2015), "
    "https://doi.org/10.3389/fnana.2015.00142",
    how="masks = label 0, which is membrane",
    classes=("cell", "membrane"),
    channels=1,
    find=find,
    annotate=annotate,
    draw=draw,
    notes=notes,
)
