"""What names and neighbours tell of cases that belong together, where nobody has said it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from medt.check.cases import CaseFacts
from medt.check.finding import WARNING, Finding, percent
from medt.data.grouping import suggested_groups
from medt.data.layout import Case, listed

NUMBERED = re.compile(r"(.*?)([0-9]{1,9})([^0-9]*)", re.DOTALL)
FEWEST_NEIGHBOURS = 10
# A neighbour is nearer than this share of all other images, on average; by chance it is half.
# Measured: 0.94 in generated videos, 0.88 in the sections of ISBI 2012; where numbers mean nothing
# (GlaS, DSB2018, Kvasir-SEG, MoNuSeg, DRIVE, glands of our own) at most 0.55.
ALIKE = 0.75
STRADDLING = 0.1  # of the neighbours; at the ends of contiguous parts there are fewer
COARSE = 16  # pixels of a thumbnail


def group_findings(facts: Sequence[CaseFacts], splits_file: Path | None) -> Iterator[Finding]:
    """Cases that names or neighbours in number put together, and that lie in several splits.

    Nothing where the split file, or a rule, names groups of several cases.

    Args:
        splits_file: that a new split takes the place of.
    """
    cases = [fact.case for fact in facts]
    sizes = Counter(case.group for case in cases if case.group)
    if any(size > 1 for size in sizes.values()):
        return
    yield from _by_names(cases, splits_file or "the split file")
    yield from _by_neighbours(facts)


def _by_names(cases: Sequence[Case], splits_file: Path | str) -> Iterator[Finding]:
    suggestion = suggested_groups([case.name for case in cases])
    if suggestion is None:
        return
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for case in cases:
        splits[suggestion.groups[case.name]].add(case.split)
    shared = [group for group, found in splits.items() if len(found) > 1]
    if shared:
        yield Finding(
            WARNING,
            "ungrouped",
            f"The names suggest {len(splits)} groups, of which {len(shared)} lie in several "
            f"splits: {listed(shared)}",
            f"if each is a patient, slide or video, give 'dataset.group={suggestion.pattern}' and "
            f"delete {splits_file}, so that a new split is drawn; else leave it",
        )


def _by_neighbours(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    seen = [fact for fact in facts if fact.image is not None]
    pairs = _neighbours([fact.case for fact in seen])
    apart = [pair for pair in pairs if len({seen[index].case.split for index in pair}) > 1]
    if len(pairs) < FEWEST_NEIGHBOURS or len(apart) < STRADDLING * len(pairs):
        return
    nearer = _nearer_than([fact.image.thumbnail for fact in seen if fact.image], pairs)
    if nearer >= ALIKE:
        shown = listed(f"{seen[i].case.name} and {seen[j].case.name}" for i, j in apart)
        yield Finding(
            WARNING,
            "neighbours",
            f"Neighbours in number look alike (nearer than {percent(nearer)} of the other images), "
            f"and {len(apart)} of {len(pairs)} lie in different splits: {shown}",
            "frames of a video, slices of a volume? dataset.group=... or the column group of the "
            "split file keeps them together",
        )


def _neighbours(cases: Sequence[Case]) -> list[tuple[int, int]]:
    """Places of cases whose names differ by one in their last number."""
    places = {}
    for place, case in enumerate(cases):
        if match := NUMBERED.fullmatch(case.name):
            places[match[1], int(match[2]), match[3]] = place
    return [
        (place, places[before, number + 1, after])
        for (before, number, after), place in places.items()
        if (before, number + 1, after) in places
    ]


def _nearer_than(
    thumbnails: Sequence[NDArray[np.uint8]], pairs: Sequence[tuple[int, int]]
) -> float:
    """The share of other images that are farther from an image than its neighbour, on average."""
    size = COARSE, COARSE
    small = [cv2.resize(one, size, interpolation=cv2.INTER_AREA).ravel() for one in thumbnails]
    points = np.stack(small).astype(np.float32)
    points -= points.mean(axis=1, keepdims=True)  # light
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-3)
    shares = []
    for place, neighbour in pairs:
        alike = points @ points[place]
        others = np.delete(alike, [place, neighbour])
        shares.append(np.mean(others < alike[neighbour]) if len(others) else 0.0)
    return float(np.mean(shares))
