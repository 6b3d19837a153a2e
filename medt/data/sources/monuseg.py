"""MoNuSeg: nuclei in H&E-stained tissue of many organs, the challenge at MICCAI 2018."""

from __future__ import annotations

import re
from collections import Counter
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
from medt.data.sources.aperio import describe, draw_instances, read_outlines
from medt.data.sources.archive import read_archive
from medt.data.splits import SplitRow, read_splits, validation_groups, write_splits
from medt.errors import UserError
from medt.files import atomic_folder, natural_key, write_png
from medt.images import decode_image

SOURCE = "https://monuseg.grand-challenge.org/Data/"
LICENCE = "CC BY-NC-SA 4.0, https://creativecommons.org/licenses/by-nc-sa/4.0/"
CITATION = (
    "Kumar et al., A Multi-organ Nucleus Segmentation Challenge, IEEE Transactions on Medical "
    "Imaging 39(5) (2020), 1380-1391, https://doi.org/10.1109/TMI.2019.2947628; Kumar et al., A "
    "Dataset and a Technique for Generalized Nuclear Segmentation for Computational Pathology, "
    "IEEE Transactions on Medical Imaging 36(7) (2017), 1550-1560, "
    "https://doi.org/10.1109/TMI.2017.2677499"
)
OFFICIAL_TEST = (
    "TCGA-2Z-A9J9-01A-01-TS1", "TCGA-44-2665-01B-06-BS6", "TCGA-69-7764-01A-01-TS1",
    "TCGA-A6-6782-01A-01-BS1", "TCGA-AC-A2FO-01A-01-TS1", "TCGA-AO-A0J2-01A-01-BSA",
    "TCGA-CU-A0YN-01A-02-BSB", "TCGA-EJ-A46H-01A-03-TSC", "TCGA-FG-A4MU-01B-01-TS1",
    "TCGA-GL-6846-01A-01-BS1", "TCGA-HC-7209-01A-01-TS1", "TCGA-HT-8564-01Z-00-DX1",
    "TCGA-IZ-8196-01A-01-BS1", "TCGA-ZF-A9R5-01A-01-TS1",
)  # fmt: skip
FILE_NAME = re.compile(r"(TCGA-[\w-]+)\.(tif|xml)")
SPLIT_SEED = 0


def prepare(source: Path, root: Path, splits_file: Path) -> Prepared:
    """Convert the published archive: instances are 1..N by outline, masks 0 and 1.

    Follows ``splits_file`` where it exists, else writes it: validation is about 20 % of the
    training images, whole patients; the 14 official test cases are the test.

    Args:
        source: the zip file of the training or the test cases as published, or a folder with one
            or both of them extracted.
        root: the folder to write, usually data/monuseg. It appears whole or not at all.
        splits_file: usually data/splits/monuseg.csv.

    Raises:
        UserError: the archive is damaged, not MoNuSeg, or its images and annotations do not pair
            up; a case has no row in ``splits_file``; ``root`` is a folder of other things.
    """
    files = read_archive(source, lambda name: FILE_NAME.fullmatch(name) is not None)
    cases = _paired(files, source)
    rows = read_splits(splits_file) if splits_file.exists() else _draw(cases, splits_file)
    split_of = {row.case: row.split for row in rows}
    unplanned = [name for name in cases if name not in split_of]
    if unplanned:
        raise UserError(
            f"{splits_file} has no row for {listed(unplanned)}", "add the rows, or delete it"
        )
    absent = tuple(name for name in split_of if name not in cases)
    card = _complete_card(root, cases, absent)
    found = card.prepared["outlines"] if card else _convert(files, cases, absent, root)
    counts = {s: sum(split_of[name] == s for name in cases) for s in ("train", "val", "test")}
    return Prepared("monuseg", root, counts, _notes(cases, rows, found), card is not None)


def _paired(files: Mapping[str, bytes], source: Path) -> list[str]:
    """The cases, each of which has an image and an annotation."""
    names = {Path(name).stem for name in files}
    if not names:
        raise UserError(
            f"{source} holds no MoNuSeg image (TCGA-....tif)", f"get the archive from {SOURCE}"
        )
    bare = [f"{name}.xml" for name in names if f"{name}.xml" not in files]
    bare += [f"{name}.tif" for name in names if f"{name}.tif" not in files]
    if bare:
        raise UserError(f"{source} lacks {listed(bare, limit=None)}", "get the whole archive again")
    return sorted(names, key=natural_key)


def _draw(cases: list[str], splits_file: Path) -> list[SplitRow]:
    train = {name: _patient(name) for name in cases if name not in OFFICIAL_TEST}
    held_out = validation_groups(train, dict.fromkeys(train, ""), SPLIT_SEED)
    rows = [SplitRow(n, p, "val" if p in held_out else "train") for n, p in train.items()]
    rows += [SplitRow(name, _patient(name), "test") for name in OFFICIAL_TEST]
    write_splits(splits_file, rows)
    return rows


def _patient(case: str) -> str:
    """TCGA-<site>-<patient>: what follows names the sample and the slide."""
    return "-".join(case.split("-")[:3])


def _complete_card(root: Path, cases: list[str], absent: tuple[str, ...]) -> DatasetCard | None:
    """The card in ``root`` if that holds exactly these cases, unchanged since they were written."""
    card = existing_card(root, "monuseg")
    if card is None or set(card.absent) != set(absent) or changed_files(root, card):
        return None
    written = {Path(name).stem for name in card.checksums if name.startswith("images/")}
    return card if written == set(cases) else None


def _convert(
    files: Mapping[str, bytes], cases: list[str], absent: tuple[str, ...], root: Path
) -> Mapping[str, int]:
    """Write ``root`` and count the outlines of each kind."""
    found: Counter[str] = Counter()
    with atomic_folder(root) as folder:
        for name in cases:
            image = decode_image(files[f"{name}.tif"], f"{name}.tif")
            outlines = read_outlines(files[f"{name}.xml"], f"{name}.xml")
            instances, kinds = draw_instances(outlines, image.shape[:2])
            if not instances.any():
                raise UserError(f"{name}.xml outlines no nucleus", "get the archive again")
            found += kinds
            write_png(folder / "images" / f"{name}.png", image)
            write_png(folder / "masks" / f"{name}.png", (instances > 0).astype(np.uint8))
            write_png(folder / "instances" / f"{name}.png", instances)
        prepared = {
            "by": "python scripts/prepare_data.py dataset=monuseg",
            "how": "instances = pixel centres in outlines, the first wins; masks = instances > 0",
            "outlines": dict(found),
        }
        classes = default_classes(("background", "nucleus"))
        card = DatasetCard("monuseg", classes, 3, LICENCE, SOURCE, CITATION, prepared, absent)
        write_card(folder, card)
    return found


def _notes(cases: list[str], rows: list[SplitRow], found: Mapping[str, int]) -> tuple[str, ...]:
    notes = []
    for part, splits in (("training", ("train", "val")), ("test", ("test",))):
        there = [row.case in cases for row in rows if row.split in splits]
        if missing := there.count(False):
            notes.append(f"Missing in the archive: {missing} of the {len(there)} {part} cases.")
    return (*notes, *describe(found), f"Terms: {LICENCE}", f"Cite: {CITATION}")
