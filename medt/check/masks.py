"""What can be wrong with the masks of a dataset, and with its balance of classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from medt.check.cases import CaseFacts, MaskFacts
from medt.check.finding import ERROR, WARNING, Finding, about, percent
from medt.data.layout import SegmentationClass

RARE = 0.01  # a class with a smaller share of the training pixels is easily missed
HEAVIEST = 20.0  # more, and a handful of pixels decides about each step
INVERTED = 0.9

Pair = tuple[CaseFacts, MaskFacts]


def mask_findings(
    facts: Sequence[CaseFacts], classes: Sequence[SegmentationClass]
) -> Iterator[Finding]:
    """Masks that say nothing, classes that are absent or rare."""
    readable = [(fact, fact.mask) for fact in facts if fact.mask is not None]
    yield from _empty(readable)
    yield from _absent(readable, classes)
    yield from _imbalanced(readable, classes)
    yield from about(
        WARNING,
        "inverted",
        f"Masks with more than {percent(INVERTED)} foreground ({{n}}): {{cases}}",
        "look at them: if object and background are swapped, repair the masks or swap the values "
        "in dataset.classes",
        (fact for fact, mask in readable if mask.foreground > INVERTED),
    )


def class_pixels(masks: Sequence[MaskFacts]) -> Counter[int]:
    """Pixels of each class id over all these masks."""
    total: Counter[int] = Counter()
    for mask in masks:
        total.update(mask.pixels)
    return total


def _of_split(readable: Sequence[Pair], split: str) -> list[MaskFacts]:
    return [mask for fact, mask in readable if fact.case.split == split]


def _empty(readable: Sequence[Pair]) -> Iterator[Finding]:
    yield from about(
        WARNING,
        "empty",
        "Masks without foreground ({n}): {cases}",
        "right if there is nothing to find; else look at them, and repair or remove them",
        (fact for fact, mask in readable if mask.labelled and not mask.foreground),
    )
    yield from about(
        WARNING,
        "ignored",
        "Masks that are ignored throughout ({n}): {cases}",
        "nothing is learnt from them nor scored; remove them, or check dataset.ignore",
        (fact for fact, mask in readable if not mask.labelled),
    )
    training = _of_split(readable, "train")
    if training and not any(mask.foreground for mask in training):
        yield Finding(
            ERROR,
            "no_foreground",
            f"None of the {len(training)} training masks shows any foreground",
            "there is nothing to learn: check the masks, dataset.classes and the split file",
        )


def _absent(readable: Sequence[Pair], classes: Sequence[SegmentationClass]) -> Iterator[Finding]:
    everywhere = class_pixels([mask for _, mask in readable])
    for c in classes:
        if not readable or everywhere[c.id]:
            continue
        yield Finding(
            WARNING,
            "absent_class",
            f"No mask shows the class {c.name}",
            "it cannot be learnt: take it out of dataset.classes, or check what value it has",
        )
    reasons = {
        "train": "it cannot be learnt: move cases that show it there, in the split file",
        "val": "its score is unknown while training: move a case that shows it there, in the "
        "split file",
    }
    for split, hint in reasons.items():
        masks = _of_split(readable, split)
        there = class_pixels(masks)
        for c in classes:
            if masks and everywhere[c.id] and not there[c.id]:
                message = f"No {split} mask shows the class {c.name}, but others do"
                yield Finding(WARNING, "absent_class", message, hint)


def _imbalanced(
    readable: Sequence[Pair], classes: Sequence[SegmentationClass]
) -> Iterator[Finding]:
    pixels = class_pixels(_of_split(readable, "train"))
    total = sum(pixels.values())
    rare = [c for c in classes if 0 < pixels[c.id] < RARE * total]
    if not rare:
        return
    commonest = max(pixels.values())
    weights = [
        min(HEAVIEST, round((commonest / pixels[c.id]) ** 0.5, 1)) if pixels[c.id] else 1.0
        for c in classes
    ]
    shown = ", ".join(f"{c.name} {percent(pixels[c.id] / total)}" for c in rare)
    yield Finding(
        WARNING,
        "imbalance",
        f"Rare classes, in shares of the training pixels: {shown}",
        f"a network easily misses them: loss.class_weights=[{','.join(f'{w:g}' for w in weights)}]"
        ", loss=tversky, or dataset.sampling=crop",
    )
