"""What all published datasets share: from their archive to the layout on disk.

A source says what it is, finds its cases among the names in the archive, and turns one case into
arrays; reading, splitting, writing and recognising what is there already happen here.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medt.data.duplicates import NearDuplicate, Thumbnail, near_duplicates, thumbnail
from medt.data.layout import (
    DatasetCard,
    Prepared,
    default_classes,
    listed,
    write_card,
)
from medt.data.published.recognition import complete_card
from medt.data.splits import (
    SPLITS,
    SplitRow,
    draw_beside,
    draw_splits,
    read_splits,
    write_splits,
)
from medt.errors import UserError
from medt.io.archive import Archive, open_archive
from medt.io.files import atomic_folder, remove_abandoned, temporary_beside, write_png
from medt.io.images import decode_image, decode_samples
from medt.io.locks import locked_beside
from medt.shipped import typed

Progress = Callable[[int, int], None]
Result = TypeVar("Result")
SPLIT_SEED = 0
WORK = "prepare_data.py"
# A photograph as PNG takes several times its JPEG.
GROWTH = {".jpg": 10.0, ".jpeg": 10.0}


@dataclass(frozen=True)
class ArchivedCase:
    """A case as it lies in the archive.

    Attributes:
        name: unique in the dataset.
        image: its image file, by the path in the archive.
        annotations: the files that its mask is made from.
        group: patient or slide; empty where the source does not name it.
        stratum: what validation should hold its share of, such as a grade.
        page: of the files, where they are stacks.
    """

    name: str
    image: str
    annotations: tuple[str, ...]
    group: str = ""
    stratum: str = ""
    page: int | None = None


@dataclass(frozen=True)
class Annotation:
    """What a case's annotation says.

    Attributes:
        mask: (H, W) uint8 class ids.
        instances: (H, W) object numbers from 1, 0 = none, or None where the source has no objects.
        counts: what there was of each kind the source speaks of.
    """

    mask: NDArray[np.uint8]
    instances: NDArray[np.integer[Any]] | None = None
    counts: Counter[str] = field(default_factory=Counter)


Notes = Callable[[Sequence[ArchivedCase], Sequence[SplitRow], Mapping[str, int]], list[str]]


def _no_notes(
    cases: Sequence[ArchivedCase], rows: Sequence[SplitRow], counts: Mapping[str, int]
) -> list[str]:
    return []


@dataclass(frozen=True)
class Published:
    """A dataset that somebody publishes.

    Attributes:
        name: of the dataset.
        page: where its archive is found.
        licence, citation: its terms.
        how: what was done to the files.
        classes: background first.
        find: the cases in an archive; a UserError if it is another dataset or a part is missing.
        annotate: the annotation of a case whose image has this height and width.
        draw: the split of all cases, of whom no file says it yet; the pairs are near-duplicates.
        notes: what the user should know, of the cases found, all rows of the split file and the
            counts.
        official_test: the names of the cases that are only ever the test.
        open_ended: whether there may be cases that no row names; they are drawn and added.
        channels: of the images.
        ignore: the mask value that is neither trained on nor scored, or None.
        pixel_size: micrometres per pixel, or None where its authors do not say.
        grouped_by: what the groups are, and who says so; empty where nobody does.
        raster: the ``dataset.raster`` that its masks are drawn by; empty where there is one way.
    """

    name: str
    page: str
    licence: str
    citation: str
    how: str
    classes: tuple[str, ...]
    find: Callable[[Archive], list[ArchivedCase]]
    annotate: Callable[[Archive, ArchivedCase, tuple[int, int]], Annotation]
    draw: Callable[[Sequence[ArchivedCase], Sequence[NearDuplicate]], list[SplitRow]]
    notes: Notes = _no_notes
    official_test: tuple[str, ...] = ()
    open_ended: bool = False
    channels: int = 3
    ignore: int | None = None
    pixel_size: float | None = None
    grouped_by: str = ""
    raster: str = ""


def prepare(
    published: Published,
    source: Path,
    root: Path,
    splits_file: Path,
    progress: Progress = lambda done, total: None,
    committed: Sequence[SplitRow] = (),
) -> Prepared:
    """Convert a published archive. A complete copy that is there already is left as it is.

    Follows ``splits_file``, and adds to it what it lacks where the dataset is open-ended; writes it
    where there is none.

    Args:
        source: the zip or tar file as published, or the folder it was extracted to.
        root: the folder to write, usually data/<name>. It appears whole or not at all.
        splits_file: usually data/splits/<name>.csv.
        progress: called with (cases done, cases in all), twice for each case: read, written.
        committed: what ``splits_file`` begins with, if it is not there.

    Raises:
        UserError: the archive is damaged or another dataset's; a case has no row in the split file;
            the disk is too small; ``root`` is a folder of other things, or being written by
            another process.
    """
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{root} cannot be made: {error.strerror}", "choose another dataset.root"
        ) from error
    with locked_beside(root, WORK, "dataset.root=...") as alone:
        if alone:
            remove_abandoned(root)
        return _prepare(published, source, root, splits_file, progress, committed)


def _prepare(
    published: Published,
    source: Path,
    root: Path,
    splits_file: Path,
    progress: Progress,
    committed: Sequence[SplitRow],
) -> Prepared:
    scratch = temporary_beside(root)
    try:
        with open_archive(source, scratch) as archive:
            cases = published.find(archive)
            rows = planned = _rows(splits_file) or list(committed)
            unplanned = _unplanned(published, cases, rows, splits_file)
            check_official_test(published, rows, splits_file)
            names = {case.name for case in cases}
            card = complete_card(root, published.name, names, published.raster)
            existed = card is not None
            if card is None or unplanned:
                bar = _Bar(progress, (1 + (card is None)) * len(cases))
                pairs = list(near_duplicates(_read_all(archive, cases, root, bar)))
                rows = _plan(published, cases, rows, pairs)
                if card is None:
                    card = _write(published, archive, cases, rows, pairs, root, bar)
            if unplanned or not splits_file.exists():
                _write_rows(splits_file, planned, rows)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    split_of = {row.case: row.split for row in rows}
    counts = Counter(split_of[case.name] for case in cases)
    notes = [*published.notes(cases, rows, card.prepared["counts"])]
    if committed:
        notes.append(
            f"Splits: those of {published.name} that come with medt, copied to {splits_file}."
        )
    if unplanned and len(unplanned) < len(cases):
        notes.append(f"Added to {splits_file}: {len(unplanned)} cases, each drawn.")
    notes += _straddling(card.prepared["near_duplicates"], split_of)
    notes += [f"Terms: {published.licence}", f"Cite: {published.citation}"]
    shown = {split: counts[split] for split in SPLITS}
    return Prepared(published.name, root, shown, tuple(notes), existed)


def _rows(splits_file: Path) -> list[SplitRow]:
    return read_splits(splits_file) if splits_file.exists() else []


def _write_rows(splits_file: Path, planned: Sequence[SplitRow], rows: Sequence[SplitRow]) -> None:
    """Write the split file, which a preparation into another root may have written meanwhile."""
    with locked_beside(splits_file, WORK, "dataset.splits_file=...", wait=True):
        found = set(_rows(splits_file))
        if found and found not in (set(planned), set(rows)):
            raise UserError(
                f"{splits_file} was changed while the dataset was prepared",
                "run this again, which takes its splits from there",
            )
        write_splits(splits_file, rows)


def draw_all_splits(
    cases: Sequence[ArchivedCase], pairs: Sequence[NearDuplicate]
) -> list[SplitRow]:
    """70/15/15, for a dataset without an official test; cases of a group go together."""
    groups = {case.name: case.group for case in cases if case.group}
    return draw_splits([case.name for case in cases], SPLIT_SEED, pairs=pairs, groups=groups)


def missing_notes(cases: Sequence[ArchivedCase], parts: Mapping[str, Sequence[str]]) -> list[str]:
    """What an archive lacks of the official cases.

    Args:
        cases: that it holds.
        parts: name of a part, such as "test" -> the names of all its cases.
    """
    there = {case.name for case in cases}
    missing = {part: len(set(names) - there) for part, names in parts.items()}
    return [
        f"Missing in the archive: {count} of the {len(parts[part])} {part} cases."
        for part, count in missing.items()
        if count
    ]


def check_official_test(published: Published, rows: Iterable[SplitRow], source: Path) -> None:
    """Refuse a split file that trains or validates on cases of the official test.

    Raises:
        UserError: it does; all of them are named.
    """
    official = set(published.official_test)
    moved = [row.case for row in rows if row.case in official and row.split != "test"]
    if moved:
        raise UserError(
            f"{source} trains or validates on the official test: {listed(moved)}",
            "an official test is only ever the test: give these rows the split test",
        )


class _Bar:
    """Counts steps of several threads for a progress callback."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def advance(self) -> None:
        self.done += 1
        self.progress(self.done, self.total)


def _unplanned(
    published: Published,
    cases: Sequence[ArchivedCase],
    rows: Sequence[SplitRow],
    splits_file: Path,
) -> list[str]:
    planned = {row.case for row in rows}
    unplanned = [case.name for case in cases if case.name not in planned]
    if unplanned and rows and not published.open_ended:
        raise UserError(
            f"{splits_file} has no row for {listed(unplanned)}", "add the rows, or delete it"
        )
    return unplanned


def _read_all(
    archive: Archive, cases: Sequence[ArchivedCase], root: Path, bar: _Bar
) -> dict[str, Thumbnail]:
    """Read every file once, so that damage shows before anything is written; gives thumbnails."""
    files = {file for case in cases for file in (case.image, *case.annotations)}
    needed = sum(
        archive.sizes[file] * GROWTH.get(PurePosixPath(file).suffix.lower(), 1.0) for file in files
    )
    free = shutil.disk_usage(root.parent).free
    if needed > free:
        raise UserError(
            f"{root.parent} has {free / 1e9:.1f} GB free, the dataset may take {needed / 1e9:.1f}",
            "free space, or give dataset.root on another disk",
        )

    def read(case: ArchivedCase) -> Thumbnail:
        archive.verify(case.annotations)
        samples = decode_samples(archive.read(case.image), case.image, case.page)
        return thumbnail(samples.opaque())

    return dict(_in_threads(read, cases, bar))


def _plan(
    published: Published,
    cases: Sequence[ArchivedCase],
    rows: list[SplitRow],
    pairs: Sequence[NearDuplicate],
) -> list[SplitRow]:
    """The split of every case; rows that are there already stay."""
    if not rows:
        return published.draw(cases, pairs)
    planned = {row.case for row in rows}
    new = [case.name for case in cases if case.name not in planned]
    return [*rows, *draw_beside(rows, new, pairs, SPLIT_SEED)]


def _write(
    published: Published,
    archive: Archive,
    cases: Sequence[ArchivedCase],
    rows: Sequence[SplitRow],
    pairs: Sequence[NearDuplicate],
    root: Path,
    bar: _Bar,
) -> DatasetCard:
    with atomic_folder(root) as folder:

        def convert(case: ArchivedCase) -> Counter[str]:
            image = decode_image(archive.read(case.image), case.image, case.page)
            annotation = published.annotate(archive, case, image.shape[:2])
            if annotation.mask.shape != image.shape[:2]:
                raise UserError(
                    f"{case.name}: image and annotation differ in size", "get the archive again"
                )
            write_png(folder / "images" / f"{case.name}.png", image)
            write_png(folder / "masks" / f"{case.name}.png", annotation.mask)
            if annotation.instances is not None:
                numbers = annotation.instances.astype(np.uint16)
                write_png(folder / "instances" / f"{case.name}.png", numbers)
            return annotation.counts

        counts: Counter[str] = Counter()
        for _, found in _in_threads(convert, cases, bar):
            counts.update(found)  # a sum would drop what was counted zero times
        there = {case.name for case in cases}
        card = DatasetCard(
            name=published.name,
            classes=default_classes(published.classes),
            channels=published.channels,
            licence=published.licence,
            source=published.page,
            citation=published.citation,
            prepared={
                "by": f"{typed('prepare_data')} dataset={published.name}"
                + (f" dataset.raster={published.raster}" if published.raster else ""),
                "how": published.how,
                **({"raster": published.raster} if published.raster else {}),
                "counts": dict(counts),
                "near_duplicates": [[pair.first, pair.second] for pair in pairs],
            },
            absent=tuple(row.case for row in rows if row.case not in there),
            ignore=published.ignore,
        )
        write_card(folder, card)
    return card


def _straddling(pairs: Iterable[Sequence[str]], split_of: Mapping[str, str]) -> list[str]:
    across = [f"{a} and {b}" for a, b in pairs if split_of[a] != split_of[b]]
    if not across:
        return []
    return [f"Warning: images that look alike lie in different splits: {listed(across)}."]


def _in_threads(
    work: Callable[[ArchivedCase], Result], cases: Sequence[ArchivedCase], bar: _Bar
) -> list[tuple[str, Result]]:
    """Name and result of each case, on all cores; an error stops what has not begun yet."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = {pool.submit(work, case): case.name for case in cases}
        try:
            for future in as_completed(futures):
                future.result()
                bar.advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [(name, future.result()) for future, name in futures.items()]
