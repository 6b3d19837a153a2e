"""CVC-ClinicDB: polyps in frames of colonoscopy videos."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence

import numpy as np

from medt.data.duplicates import NearDuplicate
from medt.data.layout import listed
from medt.data.published.dataset import (
    SPLIT_SEED,
    Annotation,
    ArchivedCase,
    Published,
    missing_notes,
)
from medt.data.splits import SplitRow, draw_splits
from medt.errors import UserError
from medt.io.archive import Archive
from medt.io.images import decode_image

PAGE = "https://polyp.grand-challenge.org/CVCClinicDB/"
FRAMES = 612
# The first frame of each of the 29 sequences, by the list that comes with the dataset.
STARTS = (
    *(1, 26, 51, 68, 79, 104, 127, 152, 178, 200, 206, 228, 253, 278, 298),
    *(318, 343, 364, 384, 409, 429, 448, 467, 479, 504, 529, 547, 572, 592),
)
# Copies of the archive hold the frames as TIFF, as PNG, or as both.
FILE = re.compile(r"(?:.*/)?(Original|Ground Truth)/([1-9][0-9]{0,2})\.(tif|png)")
THRESHOLD = 128


def find(archive: Archive) -> list[ArchivedCase]:
    found: dict[tuple[str, str], dict[int, str]] = {}
    for path in archive.sizes:
        match = FILE.fullmatch(path)
        if match and int(match[2]) <= FRAMES:
            found.setdefault((match[3], match[1]), {})[int(match[2])] = path
    kind = "tif" if ("tif", "Original") in found else "png"
    images, masks = (found.get((kind, part), {}) for part in ("Original", "Ground Truth"))
    if not images:
        raise UserError(
            f"{archive.source} holds no frame of CVC-ClinicDB (Original/1.tif, ...)",
            f"get the archive from {PAGE}",
        )
    if bare := images.keys() ^ masks.keys():
        raise UserError(
            f"{archive.source} has image or mask only of {listed(map(str, bare))}",
            "get the whole archive again",
        )
    return [
        ArchivedCase(f"{n:03}", images[n], (masks[n],), group=sequence_of(n))
        for n in sorted(images)
    ]


def sequence_of(frame: int) -> str:
    """The sequence of a frame, which is numbered from 1."""
    return f"sequence_{bisect_right(STARTS, frame):02}"


def annotate(archive: Archive, case: ArchivedCase, shape: tuple[int, int]) -> Annotation:
    (file,) = case.annotations
    values = decode_image(archive.read(file), file)
    plane = values if values.ndim == 2 else values[..., :3].mean(axis=2)
    return Annotation((plane >= THRESHOLD).astype(np.uint8))


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
