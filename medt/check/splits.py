"""What can be wrong with the splits: cases that leak from one into another, and too few of them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import combinations
from statistics import fmean, pstdev
from typing import NamedTuple

from medt.check.cases import CaseFacts
from medt.check.finding import ERROR, WARNING, Finding
from medt.data.duplicates import joined_groups, near_duplicates
from medt.data.layout import Case, listed
from medt.data.splits import SPLITS
from medt.errors import UserError

FEW = {"train": 10, "val": 5, "test": 5}
# Where so many cases, and more than half of all, look alike, they are one scene.
ALIKE = 10
MOST_TO_PASTE = 20
SHIFT = 2.0  # deviations of the training images' mean intensities
LEAST_DEVIATION = 0.02

ONE_SPLIT = (
    "scores would be too good: give them one split in the split file, or delete it to have a new "
    "one drawn that keeps them together"
)
OFFICIAL = (
    "the split is the publisher's, so it stays; scores there flatter, say so where you report"
)
# Code -> what such pairs are, and what to do.
PAIRS = {
    "leak": ("The same image in several splits", ONE_SPLIT),
    "near_leak": (
        "Images that look alike in several splits",
        f"{ONE_SPLIT}; if you looked and they show different things, say so: {{distinct}}",
    ),
    "duplicate": ("The same image twice in a split", "it counts twice: remove one with its mask"),
    "near_duplicate": (
        "Images that look alike within a split",
        "if they show the same, give them one group in the split file, so that no other split gets "
        "one of them, or remove all but one; if they show different things, say so: {distinct}",
    ),
    "contradiction": (
        "The same image with different masks",
        "look at both masks, and remove the worse with its image",
    ),
}


class Twins(NamedTuple):
    """Two cases whose images look alike."""

    first: CaseFacts
    second: CaseFacts

    @property
    def cases(self) -> tuple[Case, Case]:
        return self.first.case, self.second.case

    @property
    def same(self) -> bool:
        """Whether all pixels of the images are equal."""
        images = [facts.image for facts in self]
        return len({image.digest for image in images if image is not None}) == 1

    @property
    def contradict(self) -> bool:
        """Whether the masks differ."""
        masks = [facts.mask for facts in self]
        return len({mask.digest for mask in masks if mask is not None}) == 2

    @property
    def in_one_split(self) -> bool:
        first, second = self.cases
        return first.split == second.split

    @property
    def in_one_group(self) -> bool:
        first, second = self.cases
        return first.group == second.group != ""

    def __str__(self) -> str:
        first, second = self.cases
        splits = dict.fromkeys((first.split, second.split))
        return f"{first.name} and {second.name} ({' and '.join(splits)})"


def split_findings(
    facts: Sequence[CaseFacts],
    official: Collection[str],
    distinct: Collection[frozenset[str]] = (),
) -> Iterator[Finding]:
    """Leaks between splits, duplicates, splits with too few cases, splits that differ.

    Args:
        official: splits that the dataset's publisher has fixed; leaks into them are warnings.
        distinct: pairs of cases that look alike and are not.

    Raises:
        UserError: `distinct` names no case.
    """
    names = {fact.case.name for fact in facts}
    if unknown := sorted(frozenset().union(*distinct) - names):
        raise UserError(
            f"dataset.distinct names {listed(unknown)}, which are no cases", "check the spelling"
        )
    yield from _few(facts)
    yield from _shared_groups([fact.case for fact in facts], official)
    yield from _duplicates(facts, official, distinct)
    yield from _shifted(facts)


def _few(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    counts = Counter(fact.case.split for fact in facts)
    for split in ("train", "val"):
        if not counts[split]:
            message = f"There are no cases in split {split}"
            yield Finding(ERROR, "no_cases", message, "training needs some: edit the split file")
    few = [f"{split} {counts[split]}" for split in SPLITS if 0 < counts[split] < FEW[split]]
    if few:
        dealt = [fact.case for fact in facts if fact.case.split != "test"]
        folds = min(5, len({case.group or case.name for case in dealt}))
        turns = f", or dataset.folds={folds} to train and validate on all in turn"
        yield Finding(
            WARNING,
            "few_cases",
            f"Splits of few cases: {', '.join(few)}",
            f"scores of so few vary much: add cases{turns if folds > 1 else ''}",
        )


def _shared_groups(cases: Iterable[Case], official: Collection[str]) -> Iterator[Finding]:
    members: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.group:
            members[case.group].append(case)
    for severity in (ERROR, WARNING):
        shared = {
            group: found
            for group, group_cases in members.items()
            if (found := _leak(group_cases, official, severity))
        }
        if shared:
            shown = listed(f"{group} ({', '.join(splits)})" for group, splits in shared.items())
            names = tuple(case.name for group in shared for case in members[group])
            hint = ONE_SPLIT if severity == ERROR else OFFICIAL
            message = f"Groups (patients, slides) in several splits: {shown}"
            yield Finding(severity, "shared_group", message, hint, names)


def _leak(cases: Sequence[Case], official: Collection[str], severity: str) -> list[str]:
    """The splits that these cases, which belong together, are in, if that is so severe; else []."""
    splits = [split for split in SPLITS if any(case.split == split for case in cases)]
    ours = [split for split in splits if split not in official]
    if len(splits) < 2 or (len(ours) > 1) != (severity == ERROR):
        return []
    return splits


def _duplicates(
    facts: Sequence[CaseFacts], official: Collection[str], distinct: Collection[frozenset[str]]
) -> Iterator[Finding]:
    shown = {
        fact.case.name: fact
        for fact in facts
        if fact.image is not None and fact.image.low < fact.image.high
    }
    small = {name: fact.image.thumbnail for name, fact in shown.items() if fact.image is not None}
    pairs = [
        pair
        for pair in near_duplicates(small)
        if frozenset((pair.first, pair.second)) not in distinct
    ]
    twins = [Twins(shown[pair.first], shown[pair.second]) for pair in pairs]
    same = _copies(shown.values())
    similar = [pair for pair in twins if not pair.same]
    together = joined_groups(dict.fromkeys(shown, ""), pairs)
    largest = max((len(members) for members in together.values()), default=0)
    if largest >= ALIKE and 2 * largest > len(shown):
        similar = []
        yield Finding(
            WARNING,
            "alike",
            f"{largest} of {len(shown)} images look alike, too many to tell which show the same",
            "if these are frames of few videos or slices of few patients, give those as groups in "
            "the split file, so that none is in two splits",
        )
    for code, leaking in (("leak", same), ("near_leak", similar)):
        for severity in (ERROR, WARNING):
            found = [pair for pair in leaking if _leak(pair.cases, official, severity)]
            yield from _pairs(severity, code, found)
    yield from _pairs(WARNING, "duplicate", [pair for pair in same if pair.in_one_split])
    within = [pair for pair in similar if pair.in_one_split and not pair.in_one_group]
    yield from _pairs(WARNING, "near_duplicate", within)
    yield from _pairs(WARNING, "contradiction", [pair for pair in same if pair.contradict])


def _copies(facts: Iterable[CaseFacts]) -> list[Twins]:
    """Every case whose image another one has, too, beside the first such case of each split."""
    alike: defaultdict[bytes, list[CaseFacts]] = defaultdict(list)
    for fact in facts:
        if fact.image is not None:
            alike[fact.image.digest].append(fact)
    pairs = []
    for copies in alike.values():
        firsts: dict[str, CaseFacts] = {}
        for fact in copies:
            pairs += [Twins(first, fact) for first in firsts.values()]
            firsts.setdefault(fact.case.split, fact)
    return pairs


def _pairs(severity: str, code: str, found: Sequence[Twins]) -> Iterator[Finding]:
    if found:
        title, remedy = PAIRS[code]
        official = severity == WARNING and code in ("leak", "near_leak")
        names = tuple(dict.fromkeys(case.name for pair in found for case in pair.cases))
        message = f"{title}: {listed(map(str, found))}"
        pairs = [[case.name for case in pair.cases] for pair in found[:MOST_TO_PASTE]]
        pasted = f"'dataset.distinct={json.dumps(pairs, ensure_ascii=False)}'".replace(", ", ",")
        hint = OFFICIAL if official else remedy.replace("{distinct}", pasted)
        yield Finding(severity, code, message, hint, names)


def _shifted(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Whether images of one split are much brighter or darker than those of another."""
    means: defaultdict[str, list[float]] = defaultdict(list)
    for fact in facts:
        if fact.image is not None:
            means[fact.case.split].append(fmean(fact.image.mean))
    enough = [split for split in SPLITS if len(means[split]) >= FEW[split]]
    for first, second in combinations(enough, 2):
        if first != "train":
            continue
        expected, found = fmean(means[first]), fmean(means[second])
        deviation = max(pstdev(means[first]), LEAST_DEVIATION)
        if abs(found - expected) > SHIFT * deviation:
            yield Finding(
                WARNING,
                "shifted",
                f"The {second} images are {'brighter' if found > expected else 'darker'} than "
                f"those trained on: mean {found:.2f}, there {expected:.2f} +- {deviation:.2f}",
                "scores there tell of other images than were trained on: mix the sources in the "
                "split file, or dataset.normalize=percentile",
            )
