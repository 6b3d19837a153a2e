"""MoNuSeg: nuclei in H&E-stained tissue of many organs, the challenge at MICCAI 2018."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from medt.data.duplicates import NearDuplicate
from medt.data.layout import listed
from medt.data.published.aperio import RASTERS, describe, draw_instances, read_outlines
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

PAGE = "https://monuseg.grand-challenge.org/Data/"
OFFICIAL_TEST = (
    "TCGA-2Z-A9J9-01A-01-TS1", "TCGA-44-2665-01B-06-BS6", "TCGA-69-7764-01A-01-TS1",
    "TCGA-A6-6782-01A-01-BS1", "TCGA-AC-A2FO-01A-01-TS1", "TCGA-AO-A0J2-01A-01-BSA",
    "TCGA-CU-A0YN-01A-02-BSB", "TCGA-EJ-A46H-01A-03-TSC", "TCGA-FG-A4MU-01B-01-TS1",
    "TCGA-GL-6846-01A-01-BS1", "TCGA-HC-7209-01A-01-TS1", "TCGA-HT-8564-01Z-00-DX1",
    "TCGA-IZ-8196-01A-01-BS1", "TCGA-ZF-A9R5-01A-01-TS1",
)  # fmt: skip
# What an object is by each `dataset.raster`; see data/README.md.
PIXELS = {
    "challenge": "pixel centres in outlines as in the challenge's converter",
    "centres": "pixel centres in outlines",
    "outline": "pixel centres in outlines, and the pixels these run through",
}
FILE_NAME = re.compile(r"(TCGA-[\w-]+)\.(tif|xml)")


def find(archive: Archive) -> list[ArchivedCase]:
    files = archive.by_name(lambda name: FILE_NAME.fullmatch(name) is not None)
    names = sorted({Path(name).stem for name in files}, key=natural_key)
    check_found(archive, names, "no MoNuSeg image (TCGA-....tif)", PAGE)
    bare = [f"{name}{kind}" for kind in (".xml", ".tif") for name in names]
    bare = [file for file in bare if file not in files]
    if bare:
        raise UserError(
            f"{archive.source} lacks {listed(bare, limit=None)}", "get the whole archive again"
        )
    return [
        ArchivedCase(name, files[f"{name}.tif"], (files[f"{name}.xml"],), _patient(name))
        for name in names
    ]


def _patient(case: str) -> str:
    """TCGA-<site>-<patient>: what follows names the sample and the slide."""
    return "-".join(case.split("-")[:3])


def annotate(
    archive: Archive, case: ArchivedCase, shape: tuple[int, int], raster: str = RASTERS[0]
) -> Annotation:
    (file,) = case.annotations
    outlines = read_outlines(archive.read(file), file)
    instances, kinds = draw_instances(outlines, shape, file, raster)
    if not instances.any():
        raise UserError(f"{file} outlines no nucleus", "get the archive again")
    return Annotation((instances > 0).astype(np.uint8), instances, kinds)


def draw(cases: Sequence[ArchivedCase], pairs: Sequence[NearDuplicate]) -> list[SplitRow]:
    """Validation is about 20 % of the training images, whole patients."""
    train = {case.name: case.group for case in cases if case.name not in OFFICIAL_TEST}
    rows = draw_validation(train, dict.fromkeys(train, ""), pairs, SPLIT_SEED)
    return rows + [SplitRow(name, _patient(name), "test") for name in OFFICIAL_TEST]


def notes(
    cases: Sequence[ArchivedCase], rows: Sequence[SplitRow], counts: Mapping[str, int]
) -> list[str]:
    train = [row.case for row in rows if row.split != "test"]
    return [*missing_notes(cases, {"training": train, "test": OFFICIAL_TEST}), *describe(counts)]


def drawn_by(raster: str) -> Published:
    """MoNuSeg with its outlines drawn by a rule of `medt.data.published.aperio.RASTERS`.

    Raises:
        UserError: there is no such rule.
    """
    if raster not in RASTERS:
        raise UserError(
            f"dataset.raster={raster} is not known", f"choose one of {', '.join(RASTERS)}"
        )
    drawn = partial(annotate, raster=raster)
    return replace(MONUSEG, annotate=drawn, raster=raster, how=_how(raster))


def _how(raster: str) -> str:
    return f"instances = {PIXELS[raster]}, the first wins; masks = instances > 0"


MONUSEG = Published(
    name="monuseg",
    page=PAGE,
    licence="CC BY-NC-SA 4.0, https://creativecommons.org/licenses/by-nc-sa/4.0/",
    citation="Kumar et al., A Multi-organ Nucleus Segmentation Challenge, IEEE Transactions on "
    "Medical Imaging 39(5) (2020), 1380-1391, https://doi.org/10.1109/TMI.2019.2947628; Kumar et "
    "al., A Dataset and a Technique for Generalized Nuclear Segmentation for Computational "
    "Pathology, IEEE Transactions on Medical Imaging 36(7) (2017), 1550-1560, "
    "https://doi.org/10.1109/TMI.2017.2677499",
    pixel_size=0.25,  # magnified 40 times; the annotations say 0.2456 to 0.2527
    how=_how(RASTERS[0]),
    classes=("background", "nucleus"),
    official_test=OFFICIAL_TEST,
    find=find,
    annotate=annotate,
    draw=draw,
    notes=notes,
    raster=RASTERS[0],
    grouped_by="patients, by the TCGA barcodes",
)
