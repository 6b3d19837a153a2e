"""CVC-ClinicDB: polyps in frames of colonoscopy videos."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence

import numpy as np

from medt.data.duplicates import NearDuplicate
from medt.data.published.dataset import (
    SPLIT_SEED,
    Annotation,
    ArchivedCase,
    Published,
    missing_notes,
)
from medt.data.published.finding import brightness, by_kind, check_found, check_paired
from medt.data.splits import SplitRow, draw_splits
from medt.io.archive import Archive

PAGE = "https://polyp.grand-challenge.org/CVCClinicDB/"
FRAMES = 612
# The first frame of each of the 29 sequences, by the list that comes with the dataset.
STARTS = (
    *(1, 26, 51, 68, 79, 104, 127, 152, 178, 200, 206, 228, 253, 278, 298),
    *(318, 343, 364, 384, 409, 429, 448, 467, 479, 504, 529, 547, 572, 592),
)
# Copies of the archive hold the frames as TIFF, as PNG, or as both.
KINDS = ("Original", "Ground Truth")
_FRAME = r"(?:.*/)?(Original|Ground Truth)/([1-9][0-9]?|[1-5][0-9]{2}|60[0-9]|61[0-2])"
TIFF, PNG = re.compile(rf"{_FRAME}\.tif"), re.compile(rf"{_FRAME}\.png")
THRESHOLD = 128


def find(archive: Archive) -> list[ArchivedCase]:
    images, masks = by_kind(archive, TIFF, KINDS, key=int)
    if not images:
        images, masks = by_kind(archive, PNG, KINDS, key=int)
    check_found(archive, images, "no frame of CVC-ClinicDB (Original/1.tif, ...)", PAGE)
    check_paired(archive, images, masks)
    return [
        ArchivedCase(f"{n:03}", images[n], (masks[n],), group=sequence_of(n))
        for n in sorted(images)
    ]


def sequence_of(frame: int) -> str:
    """The sequence of a frame, which is numbered from 1."""
    return f"sequence_{bisect_right(STARTS, frame):02}"


def annotate(archive: Archive, case: ArchivedCase, shape: tuple[int, int]) -> Annotation:
    (file,) = case.annotations
    return Annotation((brightness(archive, file) >= THRESHOLD).astype(np.uint8))


def draw(cases: Sequence[ArchivedCase], pairs: Sequence[NearDuplicate]) -> list[SplitRow]:
    """70/15/15 of all frames by whole sequences; the archive at hand may lack some."""
    groups = {f"{frame:03}": sequence_of(frame) for frame in range(1, FRAMES + 1)}
    return draw_splits(list(groups), SPLIT_SEED, pairs=pairs, groups=groups)


def notes(
    cases: Sequence[ArchivedCase], rows: Sequence[SplitRow], counts: Mapping[str, int]
) -> list[str]:
    return missing_notes(cases, {"published": [f"{n:03}" for n in range(1, FRAMES + 1)]})


CVC_CLINICDB = Published(
    name="cvc_clinicdb",
    page=PAGE,
    licence="Research and education only, as stated by its authors.",
    citation="Bernal et al., WM-DOVA maps for accurate polyp highlighting in colonoscopy, "
    "Computerized Medical Imaging and Graphics 43 (2015), 99-111",
    how=f"masks = mean of the channels >= {THRESHOLD}",
    classes=("background", "polyp"),
    find=find,
    annotate=annotate,
    draw=draw,
    notes=notes,
    grouped_by="videos, by the dataset's list of sequences",
)
