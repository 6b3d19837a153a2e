"""Kvasir-SEG: polyps in colonoscopies."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from medt.data.published.dataset import Annotation, ArchivedCase, Published, draw_all_splits
from medt.data.published.finding import brightness, by_kind, check_found, check_paired
from medt.data.splits import SplitRow
from medt.io.archive import Archive

PAGE = "https://datasets.simula.no/kvasir-seg/"
FILE = re.compile(r"(?:.*/)?(images|masks)/([^/]+)\.jpg")
# Masks are JPEGs, whose values ring around 0 and 255.
THRESHOLD = 128
UNCLEAR = (64, 192)


def find(archive: Archive) -> list[ArchivedCase]:
    images, masks = by_kind(archive, FILE, ("images", "masks"), key=str)
    check_found(archive, images, "no image of Kvasir-SEG (images/<name>.jpg)", PAGE)
    check_paired(archive, images, masks)
    return [ArchivedCase(name, images[name], (masks[name],)) for name in sorted(images)]


def annotate(archive: Archive, case: ArchivedCase, shape: tuple[int, int]) -> Annotation:
    (file,) = case.annotations
    plane = brightness(archive, file)
    unclear = (plane >= UNCLEAR[0]) & (plane < UNCLEAR[1])
    counts = Counter({"pixels": plane.size, "unclear pixels": int(unclear.sum())})
    return Annotation((plane >= THRESHOLD).astype(np.uint8), counts=counts)


def notes(
    cases: Sequence[ArchivedCase], rows: Sequence[SplitRow], counts: Mapping[str, int]
) -> list[str]:
    share = counts["unclear pixels"] / counts["pixels"]
    return [
        f"Masks are JPEGs, cut at {THRESHOLD}; "
        f"{share:.2%} of the pixels are from {UNCLEAR[0]} to {UNCLEAR[1] - 1}."
    ]


KVASIR_SEG = Published(
    name="kvasir_seg",
    page=PAGE,
    licence="Research and education only, as stated by its authors.",
    citation="Jha et al., Kvasir-SEG: A Segmented Polyp Dataset, MultiMedia Modeling (2020), "
    "451-462, https://arxiv.org/abs/1911.07069",
    how=f"masks = mean of the channels >= {THRESHOLD}",
    classes=("background", "polyp"),
    find=find,
    annotate=annotate,
    draw=draw_all_splits,
    notes=notes,
    open_ended=True,
)
