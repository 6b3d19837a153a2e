"""GlaS: glands in colon tissue, the challenge at MICCAI 2015 (Warwick QU dataset)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medt.data.layout import (
    DatasetCard,
    Prepared,
    changed_files,
    default_classes,
    existing_card,
    listed,
    write_card,
)
from medt.data.sources.archive import read_archive
from medt.data.splits import SplitRow, read_splits, validation_groups, write_splits
from medt.errors import UserError
from medt.files import atomic_folder, natural_key, write_png
from medt.images import decode_image, decode_mask

SOURCE = "https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest/"
LICENCE = "Research only, as stated by its authors; not to be redistributed."
CITATION = (
    "Sirinukunwattana et al., Gland segmentation in colon histology images: The GlaS challenge "
    "contest, Medical Image Analysis 35 (2017), 489-502, https://doi.org/10.1016/j.media.2016.08.008"
)
OFFICIAL_TEST = (*(f"testA_{i}" for i in range(1, 61)), *(f"testB_{i}" for i in range(1, 21)))
OFFICIAL = (*(f"train_{i}" for i in range(1, 86)), *OFFICIAL_TEST)
IMAGE_NAME = re.compile(r"((?:train|testA|testB)_[0-9]+)\.bmp")
SPLIT_SEED = 0


def prepare(source: Path, root: Path, splits_file: Path) -> Prepared:
    """Convert the published archive: masks are 0 and 1, instances 0..N.

    Follows ``splits_file`` where it exists, else writes it: validation is about 20 % of the
    training images, whole patients, both grades in both parts; testA and testB are the test.

    Args:
        source: the zip file as published, or the folder it was extracted to.
        root: the folder to write, usually data/glas. It appears whole or not at all.
        splits_file: usually data/splits/glas.csv.

    Raises:
        UserError: the archive is damaged, not GlaS, or lacks annotations; ``root`` is a folder of
            other things.
    """
    files = read_archive(source, lambda name: name == "Grade.csv" or name.endswith(".bmp"))
    found = [match[1] for name in files if (match := IMAGE_NAME.fullmatch(name))]
    if not found:
        raise UserError(
            f"{source} holds no GlaS image (train_1.bmp, ...)", f"get the archive from {SOURCE}"
        )
    cases = sorted(found, key=natural_key)
    bare = [name for name in cases if f"{name}_anno.bmp" not in files]
    if bare:
        raise UserError(
            f"{source} has no annotation for {listed(bare, limit=None)}",
            "get the whole archive again",
        )
    grades = _read_grades(files)
    rows = read_splits(splits_file) if splits_file.exists() else _draw(grades, cases, splits_file)
    split_of = {row.case: row.split for row in rows}
    unplanned = [name for name in cases if name not in split_of]
    if unplanned:
        raise UserError(
            f"{splits_file} has no row for {listed(unplanned)}", "add the rows, or delete it"
        )

    existed = _is_complete(root, cases)
    if not existed:
        _convert(files, cases, root)
    counts = {s: sum(split_of[name] == s for name in cases) for s in ("train", "val", "test")}
    return Prepared("glas", root, counts, _notes(cases, grades), existed)


def _read_grades(files: Mapping[str, bytes]) -> dict[str, tuple[str, str]]:
    """Case -> (patient, grade), for the cases that Grade.csv lists."""
    lines = csv.reader(io.StringIO(files.get("Grade.csv", b"").decode("utf-8-sig")))
    rows = ([cell.strip() for cell in line] for line in lines)
    return {row[0]: (row[1], row[2]) for row in rows if len(row) >= 3 and row[0] in OFFICIAL}


def _draw(
    grades: Mapping[str, tuple[str, str]], cases: list[str], splits_file: Path
) -> list[SplitRow]:
    train = [name for name in cases if name.startswith("train_")]
    ungraded = [name for name in train if name not in grades]
    if ungraded or not train:
        raise UserError(
            f"Grade.csv gives no patient for {listed(ungraded or ['any training case'])}",
            f"restore {splits_file} from the repository, or use the whole archive",
        )
    patients = {name: grades[name][0] for name in train}
    held_out = validation_groups(patients, {name: grades[name][1] for name in train}, SPLIT_SEED)
    rows = [SplitRow(n, p, "val" if p in held_out else "train") for n, p in patients.items()]
    rows += [SplitRow(name, "", "test") for name in OFFICIAL_TEST]
    write_splits(splits_file, rows)
    return rows


def _is_complete(root: Path, cases: list[str]) -> bool:
    """Whether ``root`` holds exactly these cases, unchanged since they were written."""
    card = existing_card(root, "glas")
    if card is None:
        return False
    written = {Path(name).stem for name in card.checksums if name.startswith("images/")}
    return written == set(cases) and not changed_files(root, card)


def _convert(files: Mapping[str, bytes], cases: list[str], root: Path) -> None:
    with atomic_folder(root) as folder:
        for name in cases:
            image = decode_image(files[f"{name}.bmp"], f"{name}.bmp")
            instances = decode_mask(files[f"{name}_anno.bmp"], f"{name}_anno.bmp")
            if image.shape[:2] != instances.shape:
                raise UserError(
                    f"{name}: image and annotation differ in size", "get the archive again"
                )
            write_png(folder / "images" / f"{name}.png", image)
            write_png(folder / "masks" / f"{name}.png", (instances > 0).astype(np.uint8))
            write_png(folder / "instances" / f"{name}.png", instances.astype(np.uint16))
        how = "images as PNG; instances = annotation; masks = annotation > 0"
        absent = tuple(name for name in OFFICIAL if name not in cases)
        classes = default_classes(("background", "gland"))
        prepared = {"by": "python scripts/prepare_data.py dataset=glas", "how": how}
        write_card(
            folder, DatasetCard("glas", classes, 3, LICENCE, SOURCE, CITATION, prepared, absent)
        )


def _notes(cases: list[str], grades: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    notes = []
    for part, total in (("train", 85), ("testA", 60), ("testB", 20)):
        count = sum(name.startswith(f"{part}_") for name in cases)
        if count < total:
            notes.append(f"Missing in the archive: {total - count} of the {total} {part} cases.")
    if any(name.startswith("test") for name in cases):
        patients = {
            p: {n[:5] for n, (q, _) in grades.items() if q == p} for p, _ in grades.values()
        }
        shared = sum(len(parts) > 1 and "train" in parts for parts in patients.values())
        number = f"{shared} patients" if shared else "patients"
        notes.append(f"Warning: the official test shares {number} with the training images.")
    return (*notes, f"Terms: {LICENCE}", f"Cite: {CITATION}")
