"""Which cases of a dataset are worth a look: those with findings, the extremes, every class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from medt.check.cases import CaseFacts
from medt.data.layout import SegmentationClass
from medt.data.preview import spread
from medt.data.splits import SPLITS
from medt.io.files import natural_key

Reasons = dict[str, list[str]]  # case -> why it is shown


def worth_a_look(
    cases: Sequence[CaseFacts],
    concerns: Mapping[str, Sequence[str]],
    classes: Sequence[SegmentationClass],
    most: int,
) -> list[tuple[CaseFacts, list[str]]]:
    """At most so many cases, each with why it is shown; by split, those with findings first.

    A third are those of most findings. Then come the largest and the smallest foreground, an empty
    mask, the largest and the smallest image, and a case of each class that none of these shows.
    The rest fills up the splits evenly, spread over the shares of foreground.

    Args:
        cases: whose image and mask could be read.
        concerns: case -> the codes of its findings.
        classes: of the dataset, background first.
        most: cases.
    """
    if not cases:
        return []
    ordered = sorted(cases, key=lambda facts: natural_key(facts.case.name))
    strange = [facts for facts in ordered if facts.case.name in concerns]
    strange.sort(key=lambda facts: -len(concerns[facts.case.name]))
    plain = [facts for facts in ordered if facts.case.name not in concerns]
    reasons: Reasons = {facts.case.name: [] for facts in strange[: (most + 2) // 3]}
    for facts, reason in _extremes(ordered):
        _add(reasons, facts, most, reason)
    for c in classes[1:]:
        if not any(_pixels(facts, c.id) for facts in ordered if facts.case.name in reasons):
            clearest = max(ordered, key=lambda facts: _pixels(facts, c.id))
            if _pixels(clearest, c.id):
                _add(reasons, clearest, most, f"class {c.name}")
    _fill(reasons, ordered, most)
    shown = [facts for facts in (*strange, *plain) if facts.case.name in reasons]
    shown.sort(key=lambda facts: SPLITS.index(facts.case.split))
    whys = [[*concerns.get(f.case.name, ()), *reasons[f.case.name]] for f in shown]
    return [(facts, list(dict.fromkeys(why))) for facts, why in zip(shown, whys, strict=True)]


def _add(reasons: Reasons, facts: CaseFacts, most: int, *why: str) -> None:
    name = facts.case.name
    if name in reasons or len(reasons) < most:
        reasons.setdefault(name, []).extend(why)


def _extremes(cases: Sequence[CaseFacts]) -> Iterator[tuple[CaseFacts, str]]:
    there = [facts for facts in cases if _foreground(facts)]
    if there:
        yield max(there, key=_foreground), "largest foreground"
    if len(there) > 1:
        yield min(there, key=_foreground), "smallest foreground"
    if len(there) < len(cases):
        yield next(facts for facts in cases if not _foreground(facts)), "empty"
    largest, smallest = max(cases, key=_area), min(cases, key=_area)
    if _area(largest) > _area(smallest):
        yield largest, "largest image"
        yield smallest, "smallest image"


def _fill(reasons: Reasons, cases: Sequence[CaseFacts], most: int) -> None:
    """Add cases to the splits that have the fewest so far, spread over the shares of foreground."""
    left = {
        s: [f for f in cases if f.case.split == s and f.case.name not in reasons] for s in SPLITS
    }
    counts = Counter(facts.case.split for facts in cases if facts.case.name in reasons)
    more = Counter[str]()
    for _ in range(min(most - len(reasons), sum(map(len, left.values())))):
        open_to = [split for split in SPLITS if more[split] < len(left[split])]
        more[min(open_to, key=lambda split: counts[split] + more[split])] += 1
    for split, members in left.items():
        for facts in spread(sorted(members, key=_foreground), more[split]):
            _add(reasons, facts, most)


def _pixels(facts: CaseFacts, number: int) -> int:
    return facts.mask.pixels.get(number, 0) if facts.mask else 0


def _foreground(facts: CaseFacts) -> float:
    return facts.mask.foreground if facts.mask else 0.0


def _area(facts: CaseFacts) -> int:
    return facts.image.height * facts.image.width if facts.image else 0
