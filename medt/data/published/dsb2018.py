"""DSB2018: nuclei in many kinds of light microscopy, the 2018 Data Science Bowl, stage 1."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from medt.data.published.dataset import Annotation, ArchivedCase, Published, draw_all_splits
from medt.data.published.finding import check_found, check_paired
from medt.data.splits import SplitRow
from medt.errors import UserError
from medt.io.archive import Archive
from medt.io.images import decode_mask

PAGE = "https://bbbc.broadinstitute.org/BBBC038"
FILE = re.compile(r"(?:.*/)?([0-9a-f]+)/(images|masks)/[^/]+\.png")


def find(archive: Archive) -> list[ArchivedCase]:
    images: dict[str, str] = {}
    nuclei: defaultdict[str, list[str]] = defaultdict(list)
    for path in archive.sizes:
        if match := FILE.fullmatch(path):
            case, folder = match.groups()
            if folder == "masks":
                nuclei[case].append(path)
            elif images.setdefault(case, path) != path:
                raise UserError(
                    f"{archive.source} holds several images of {case}", "give one copy only"
                )
    check_found(archive, images, "no image of stage1_train (<id>/images/<id>.png)", PAGE)
    whole = "give stage1_train alone, the only part with both"
    check_paired(archive, images, nuclei, "image or masks only of", whole)
    return [
        ArchivedCase(case, images[case], tuple(sorted(nuclei[case]))) for case in sorted(images)
    ]


def annotate(archive: Archive, case: ArchivedCase, shape: tuple[int, int]) -> Annotation:
    """Each mask file is a nucleus; a pixel of several belongs to the first by file name."""
    drawn = np.zeros(shape, np.uint16)
    counts = Counter({"nuclei": 0})
    for file in case.annotations:
        nucleus = decode_mask(archive.read(file), file) > 0
        if nucleus.shape != shape:
            raise UserError(f"{file} differs from its image in size", "get the archive again")
        free = nucleus & (drawn == 0)
        counts["pixels of several nuclei"] += int(nucleus.sum() - free.sum())
        counts["nuclei without a pixel of their own"] += not free.any()
        if free.any():
            counts["nuclei"] += 1
            drawn[free] = drawn.max() + 1
    return Annotation((drawn > 0).astype(np.uint8), drawn, counts)


def notes(
    cases: Sequence[ArchivedCase], rows: Sequence[SplitRow], counts: Mapping[str, int]
) -> list[str]:
    return [", ".join(f"{count} {kind}" for kind, count in counts.items() if count) + "."]


DSB2018 = Published(
    name="dsb2018",
    page=PAGE,
    licence="CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/",
    citation="Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data "
    "Science Bowl, Nature Methods 16 (2019), 1247-1253, https://doi.org/10.1038/s41592-019-0612-7",
    how="instances = mask files in order of their names, the first wins; masks = instances > 0; "
    "alpha dropped",
    classes=("background", "nucleus"),
    find=find,
    annotate=annotate,
    draw=draw_all_splits,
    notes=notes,
    open_ended=True,
)
