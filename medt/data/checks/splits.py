"""What can be wrong with the splits: cases that leak from one into another, and too few of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from statistics import fmean, pstdev
from typing import NamedTuple

from medt.data.checks.cases import CaseFacts, ImageFacts
from medt.data.checks.finding import ERROR, WARNING, Finding
from medt.data.duplicates import joined_groups, near_duplicates
from medt.data.layout import Case, listed
from medt.data.splits import SPLITS

FEW = {"train": 10, "val": 5, "test": 5}
# Where so many cases, and more than half of all, look alike to the hash, it tells them not apart.
ALIKE = 10
MOST_PAIRS = 1_000_000
SHIFT = 2.0  # deviations of the training images' mean intensities
LEAST_DEVIATION = 0.02

ONE_SPLIT = (
    "scores would be too good: give them one split in the split file, or delete it to have a new "
    "one drawn that keeps them together"
)
OFFICIAL = (
    "the split is the publisher's, so it stays; scores there flatter, say so where you report"
)


class Twins(NamedTuple):
    """Two cases with one image; ``same`` if all pixels are equal, else they only look alike."""

    first: Case
    second: Case
    same: bool

    def __str__(self) -> str:
        splits = dict.fromkeys((self.first.split, self.second.split))
        return f"{self.first.name} and {self.second.name} ({' and '.join(splits)})"


def split_findings(facts: Sequence[CaseFacts], official: Collection[str]) -> Iterator[Finding]:
    """Leaks between splits, duplicates, splits with too few cases, splits that differ.

    Args:
        official: splits that the dataset's publisher has fixed; leaks into them are warnings.
    """
    yield from _few(facts)
    yield from _shared_groups([fact.case for fact in facts], official)
    yield from _duplicates(facts, official)
    yield from _shifted(facts)


def _few(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    for split, least in FEW.items():
        cases = [fact for fact in facts if fact.case.split == split]
        if not cases and split != "test":
            message = f"There are no cases in split {split}"
            yield Finding(ERROR, "no_cases", message, "training needs some: edit the split file")
        elif 0 < len(cases) < least:
            purpose = "to learn from" if split == "train" else "for a score that says much"
            yield Finding(
                WARNING,
                "few_cases",
                f"Split {split} has {len(cases)} case{'s' * (len(cases) > 1)} only: few {purpose}",
                "add cases, or dataset.folds=5 to train and validate on all in turn",
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


def _duplicates(facts: Sequence[CaseFacts], official: Collection[str]) -> Iterator[Finding]:
    by_name = {fact.case.name: fact for fact in facts if _shows_something(fact.image)}
    images = {name: fact.image for name, fact in by_name.items() if fact.image is not None}
    hashes = {name: image.hash for name, image in images.items()}
    pairs = near_duplicates(hashes, most=MOST_PAIRS)
    twins = [
        Twins(
            by_name[pair.first].case,
            by_name[pair.second].case,
            images[pair.first].digest == images[pair.second].digest,
        )
        for pair in pairs
    ]
    together = joined_groups(dict.fromkeys(by_name, ""), pairs)
    largest = max((len(members) for members in together.values()), default=0)
    undecided = largest >= ALIKE and 2 * largest > len(by_name)
    same = [twin for twin in twins if twin.same]
    yield from _leaks(same, "leak", "The same image in several splits", official)
    similar = [twin for twin in twins if not twin.same]
    if undecided:
        yield Finding(
            WARNING,
            "alike",
            f"{largest} of {len(by_name)} images look alike, too many to tell which are one",
            "if these are frames of few videos or slices of few patients, give those groups in the "
            "split file, so that none is in two splits",
        )
    else:
        title = "Images that look alike in several splits"
        yield from _leaks(similar, "near_leak", title, official)
        within = [
            t
            for t in similar
            if _same_split(t) and (t.first.group != t.second.group or not t.first.group)
        ]
        yield from _pairs(
            WARNING,
            "near_duplicate",
            "Images that look alike within a split",
            within,
            "if they show the same, give them one group in the split file, so that no other split "
            "gets one of them, or remove all but one",
        )
    yield from _pairs(
        WARNING,
        "duplicate",
        "The same image twice in a split",
        filter(_same_split, same),
        "it counts twice: remove one with its mask",
    )
    yield from _pairs(
        WARNING,
        "contradiction",
        "The same image with different masks",
        (twin for twin in same if _masks_differ(by_name, twin)),
        "look at both masks, and remove the worse with its image",
    )


def _leaks(
    twins: Sequence[Twins], code: str, title: str, official: Collection[str]
) -> Iterator[Finding]:
    for severity, hint in ((ERROR, ONE_SPLIT), (WARNING, OFFICIAL)):
        leaking = [t for t in twins if _leak([t.first, t.second], official, severity)]
        yield from _pairs(severity, code, title, leaking, hint)


def _pairs(
    severity: str, code: str, title: str, twins: Iterable[Twins], hint: str
) -> list[Finding]:
    found = list(twins)
    if not found:
        return []
    names = tuple(dict.fromkeys(case.name for twin in found for case in twin[:2]))
    return [Finding(severity, code, f"{title}: {listed(map(str, found))}", hint, names)]


def _same_split(twin: Twins) -> bool:
    return twin.first.split == twin.second.split


def _masks_differ(by_name: Mapping[str, CaseFacts], twin: Twins) -> bool:
    masks = [by_name[case.name].mask for case in (twin.first, twin.second)]
    return None not in masks and len({mask.digest for mask in masks if mask is not None}) > 1


def _shows_something(image: ImageFacts | None) -> bool:
    return image is not None and image.low < image.high


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
