"""GlaS: glands in colon tissue, the challenge at MICCAI 2015 (Warwick QU dataset)."""

from __future__ import annotations

import csv
import io
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

PAGE = "https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest/"
OFFICIAL = {
    "train": [f"train_{i}" for i in range(1, 86)],
    "testA": [f"testA_{i}" for i in range(1, 61)],
    "testB": [f"testB_{i}" for i in range(1, 21)],
}
OFFICIAL_TEST = [*OFFICIAL["testA"], *OFFICIAL["testB"]]
IMAGE_NAME = re.compile(r"((?:train|testA|testB)_[0-9]+)\.bmp")


def find(archive: Archive) -> list[ArchivedCase]:
    files = archive.by_name(lambda name: name == "Grade.csv" or name.endswith(".bmp"))
    names = [match[1] for file in files if (match := IMAGE_NAME.fullmatch(file))]
    check_found(archive, names, "no GlaS image (train_1.bmp, ...)", PAGE)
    bare = [name for name in names if f"{name}_anno.bmp" not in files]
    if bare:
        raise UserError(
            f"{archive.source} has no annotation for {listed(bare, limit=None)}",
            "get the whole archive again",
        )
    grades = _read_grades(archive.read(files["Grade.csv"]) if "Grade.csv" in files else b"")
    return [
        ArchivedCase(
            name, files[f"{name}.bmp"], (files[f"{name}_anno.bmp"],), *grades.get(name, ("", ""))
        )
        for name in sorted(names, key=natural_key)
    ]


def _read_grades(content: bytes) -> dict[str, tuple[str, str]]:
    """Case -> (patient, grade), of Grade.csv."""
    lines = csv.reader(io.StringIO(content.decode("utf-8-sig", errors="replace")))
    rows = ([cell.strip() for cell in line] for line in lines)
    return {row[0]: (row[1], row[2]) for row in rows if len(row) >= 3}


def annotate(archive: Archive, case: ArchivedCase, shape: tuple[int, int]) -> Annotation:
    (file,) = case.annotations
    instances = decode_mask(archive.read(file), file)
    return Annotation((instances > 0).astype(np.uint8), instances)


def draw(cases: Sequence[ArchivedCase], pairs: Sequence[NearDuplicate]) -> list[SplitRow]:
    """Validation is a fifth of the training images: whole patients, both grades in both parts."""
    train = [case for case in cases if case.name.startswith("train_")]
    ungraded = [case.name for case in train if not case.group]
    if ungraded or not train:
        raise UserError(
            f"Grade.csv gives no patient for {listed(ungraded or ['any training case'])}",
            "restore the split file from the repository, or use the whole archive",
        )
    groups = {case.name: case.group for case in train}
    strata = {case.name: case.stratum for case in train}
    rows = draw_validation(groups, strata, pairs, SPLIT_SEED)
    return rows + [SplitRow(name, "", "test") for name in OFFICIAL_TEST]


def challenge_part(case: str, split: str) -> str:
    """The part of the official test that a case is of, testA or testB, else its split."""
    return next((part for part in ("testA", "testB") if case.startswith(f"{part}_")), split)


def notes(
    cases: Sequence[ArchivedCase], rows: Sequence[SplitRow], counts: Mapping[str, int]
) -> list[str]:
    said = missing_notes(cases, OFFICIAL)
    patients = {
        is_test: {c.group for c in cases if c.name.startswith("test") == is_test and c.group}
        for is_test in (False, True)
    }
    if any(case.name.startswith("test") for case in cases):
        shared = len(patients[False] & patients[True])
        number = f"{shared} patients" if shared else "patients"
        said.append(f"Warning: the official test shares {number} with the training images.")
    return said


GLAS = Published(
    name="glas",
    page=PAGE,
    licence="Research only, as stated by its authors; not to be redistributed.",
    citation="Sirinukunwattana et al., Gland segmentation in colon histology images: The GlaS "
    "challenge contest, Medical Image Analysis 35 (2017), 489-502, "
    "https://doi.org/10.1016/j.media.2016.08.008",
    pixel_size=0.62005,  # magnified 20 times, as the challenge says
    how="images as PNG; instances = annotation; masks = annotation > 0",
    classes=("background", "gland"),
    official_test=tuple(OFFICIAL_TEST),
    find=find,
    annotate=annotate,
    draw=draw,
    notes=notes,
    grouped_by="patients, by Grade.csv",
)
