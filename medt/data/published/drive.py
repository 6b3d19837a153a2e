"""DRIVE: blood vessels in photographs of the retina."""

from __future__ import annotations

import re
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
from medt.data.published.finding import check_found
from medt.data.splits import SplitRow, draw_validation
from medt.errors import UserError
from medt.io.archive import Archive
from medt.io.files import natural_key
from medt.io.images import decode_mask

PAGE = "https://drive.grand-challenge.org/"
OFFICIAL_TRAIN = tuple(f"{number}_training" for number in range(21, 41))
OFFICIAL_TEST = tuple(f"{number:02}_test" for number in range(1, 21))
FILE = re.compile(r"[0-9]{2}_(?:(?:training|test)(?:\.tif|_mask\.gif)|manual1\.gif)")
OUTSIDE = 255


def find(archive: Archive) -> list[ArchivedCase]:
    files = archive.by_name(lambda name: FILE.fullmatch(name) is not None)
    names = [name for name in (*OFFICIAL_TRAIN, *OFFICIAL_TEST) if f"{name}.tif" in files]
    check_found(archive, names, "no DRIVE image (21_training.tif, ...)", PAGE)
    manual = {name: f"{name[:2]}_manual1.gif" for name in names}
    lacking = [f"{name}_mask.gif" for name in names if f"{name}_mask.gif" not in files]
    lacking += [manual[n] for n in names if n in OFFICIAL_TRAIN and manual[n] not in files]
    if lacking:
        raise UserError(f"{archive.source} lacks {listed(lacking)}", "get the whole archive again")
    return [
        ArchivedCase(name, files[f"{name}.tif"], (files[manual[name]], files[f"{name}_mask.gif"]))
        for name in sorted(names, key=natural_key)
        if manual[name] in files  # the archive of today keeps the test's vessels back
    ]


def annotate(archive: Archive, case: ArchivedCase, shape: tuple[int, int]) -> Annotation:
    """Vessels as the first observer drew them; what the camera did not see is ignored."""
    vessels, seen = (decode_mask(archive.read(file), file) > 0 for file in case.annotations)
    if vessels.shape != seen.shape:
        raise UserError(f"{case.name}: vessels and field of view differ in size", f"see {PAGE}")
    return Annotation(np.where(seen, vessels, OUTSIDE).astype(np.uint8))


def draw(cases: Sequence[ArchivedCase], pairs: Sequence[NearDuplicate]) -> list[SplitRow]:
    """Validation is a fifth of the official training images, which name no patients."""
    names = dict.fromkeys(OFFICIAL_TRAIN, "")
    rows = draw_validation(names, names, pairs, SPLIT_SEED)
    return rows + [SplitRow(name, "", "test") for name in OFFICIAL_TEST]


def notes(
    cases: Sequence[ArchivedCase], rows: Sequence[SplitRow], counts: Mapping[str, int]
) -> list[str]:
    return missing_notes(cases, {"training": OFFICIAL_TRAIN, "test": OFFICIAL_TEST})


DRIVE = Published(
    name="drive",
    page=PAGE,
    licence="Research and education only; not to be redistributed.",
    citation="Staal et al., Ridge-based vessel segmentation in color images of the retina, IEEE "
    "Transactions on Medical Imaging 23(4) (2004), 501-509",
    how=f"masks = first observer > 0; outside the field of view {OUTSIDE}, which is ignored",
    classes=("background", "vessel"),
    official_test=OFFICIAL_TEST,
    find=find,
    annotate=annotate,
    draw=draw,
    notes=notes,
    ignore=OUTSIDE,
)
