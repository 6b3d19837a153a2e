"""What can be wrong with the files of a dataset, and with its images."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from statistics import median

import numpy as np

from medt.check.cases import CaseFacts, Fault, ImageFacts, Settings, full_scale
from medt.check.finding import ERROR, WARNING, Finding, about, size_text
from medt.data.layout import listed

FAULTS = {
    "unreadable": "Files that do not read",
    "sizes": "Image and mask differ in size",
    "labels": "Mask values that are no class",
    "unsuitable": "Images that the network cannot take",
}
SMALLEST_SIDE = 32  # pixels; what one cell of the networks' coarsest feature map covers
LARGEST_SIDE = 4096
LARGEST_SQUASH = 2.0
LOW_RANGE = 1 / 8  # of the numbers that 16 bits hold
LARGEST_SPAN = 8.0  # of an image's values, in those of most others: 12 bits in 16 have a 16th
FLAT_RANGE = 0.02  # of 255, or of what images of another type usually span

Pair = tuple[CaseFacts, ImageFacts]


def image_findings(facts: Sequence[CaseFacts], settings: Settings) -> Iterator[Finding]:
    """Files that cannot be used, and images that a training would make little of."""
    yield from _faults(facts)
    readable = [
        (fact, fact.image)
        for fact in facts
        if fact.image is not None and "unsuitable" not in {fault.code for fault in fact.faults}
    ]
    yield from _mixed(readable)
    yield from _pages(readable)
    yield from _unknown_range(readable, settings)
    yield from _scales(readable, settings)
    yield from _dark(readable, settings)
    yield from _shapes(readable, settings)


def _faults(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    found: defaultdict[str, list[tuple[str, Fault]]] = defaultdict(list)
    for fact in facts:
        for fault in fact.faults:
            found[fault.code].append((fact.case.name, fault))
    for code, title in FAULTS.items():
        if faults := found[code]:
            message = f"{title}: {listed(fault.message for _, fault in faults)}"
            names = tuple(dict.fromkeys(name for name, _ in faults))
            yield Finding(ERROR, code, message, faults[0][1].hint, names)


def _mixed(readable: Sequence[Pair]) -> Iterator[Finding]:
    kinds: defaultdict[str, list[CaseFacts]] = defaultdict(list)
    for fact, image in readable:
        kinds[image.kind].append(fact)
    if len(kinds) > 1:
        ordered = sorted(kinds.items(), key=lambda item: -len(item[1]))
        shown = ", ".join(f"{len(cases)} {kind}" for kind, cases in ordered)
        fewer = [fact for _, cases in ordered[1:] for fact in cases]
        yield from about(
            WARNING,
            "mixed",
            f"Images of several kinds: {shown}; not of the commonest: {{cases}}",
            "each is brought to dataset.channels and by its type to 0..1; if these come from "
            "another source, convert all alike",
            fewer,
        )


def _pages(readable: Sequence[Pair]) -> Iterator[Finding]:
    """One page of each stack is taken; where stacks differ, it may be another thing in each."""
    counts = Counter(image.pages for _, image in readable)
    if len(counts) > 1:
        (usual, _), *_ = counts.most_common()
        shown = ", ".join(f"{n} of {pages} pages" for pages, n in sorted(counts.items()))
        yield from about(
            WARNING,
            "pages",
            f"Stacks of several lengths, of which dataset.page is one page: {shown}; not of the "
            "commonest: {cases}",
            "if their pages are not in the same order, save the page that counts on its own",
            (fact for fact, image in readable if image.pages != usual),
        )


def _unknown_range(readable: Sequence[Pair], settings: Settings) -> Iterator[Finding]:
    """Beside images of 8 bits others go by their type, and not all types have a range."""
    small = any(image.dtype in ("uint8", "bool") for _, image in readable)
    if not small or settings.normalize != "dataset" or settings.window:
        return
    for fact, image in readable:
        unit = image.dtype.startswith("float") and image.low >= 0 and image.high <= 1
        if not unit and not image.dtype.startswith(("uint", "bool")):
            yield Finding(
                ERROR,
                "unsuitable",
                f"{FAULTS['unsuitable']}: beside images of 8 bits {fact.case.image} holds "
                f"{image.dtype} from {image.low:g} to {image.high:g}",
                "convert all alike, or give dataset.window=[low,high]",
                (fact.case.name,),
            )


def _scales(readable: Sequence[Pair], settings: Settings) -> Iterator[Finding]:
    """Values that are taken as they are mean the same in all files, or some have another unit."""
    deep = [
        (fact, full_scale(np.dtype(image.dtype)) * image.span)  # as stored
        for fact, image in readable
        if image.dtype != "uint8"
    ]
    usual = median(span for _, span in deep) if deep else 0.0
    if settings.normalize in ("dataset", "percentile_dataset"):
        yield from about(
            WARNING,
            "scale",
            f"Images whose values span more than {LARGEST_SPAN:g} times those of most others, "
            f"{usual:.4g} ({{n}}): {{cases}}",
            "bring all to one scale; or give dataset.window=[low,high], or "
            "dataset.normalize=percentile, which stretches each image",
            (fact for fact, span in deep if span > LARGEST_SPAN * usual > 0),
        )


def _dark(readable: Sequence[Pair], settings: Settings) -> Iterator[Finding]:
    deep = [pair for pair in readable if pair[1].dtype == "uint16"]
    low = [pair for pair in deep if _brightest(pair[1]) < LOW_RANGE]
    if 2 * len(low) >= len(deep) > 0 and not settings.takes_own_range and not settings.window:
        top = round(max(_brightest(image) for _, image in low) * 0xFFFF)
        yield from about(
            WARNING,
            "low_range",
            f"Images of 16 bits with low numbers only, 99 % of the pixels up to {top}: of "
            f"65535 that is almost black ({{n}}): {{cases}}",
            "dataset.normalize=dataset takes the images' own range, percentile stretches each",
            (fact for fact, _ in low),
        )
    yield from _flat(readable)


def _flat(readable: Sequence[Pair]) -> Iterator[Finding]:
    spans: defaultdict[str, list[float]] = defaultdict(list)
    for _, image in readable:
        spans[image.dtype].append(image.high - image.low)
    usual = {dtype: median(found) for dtype, found in spans.items()}
    usual["uint8"] = 255.0
    yield from about(
        WARNING,
        "flat",
        "Images of one value throughout, or nearly ({n}): {cases}",
        "look at them; remove them with their masks, or export them again",
        (fact for fact, i in readable if i.high - i.low <= FLAT_RANGE * usual[i.dtype]),
    )


def _brightest(image: ImageFacts) -> float:
    """The 99th percentile of the brightest channel, 0..1."""
    return max(percentiles[-1] for percentiles in image.percentiles)


def _shapes(readable: Sequence[Pair], settings: Settings) -> Iterator[Finding]:
    yield from about(
        WARNING,
        "tiny",
        f"Images less than {SMALLEST_SIDE} pixels high or wide ({{n}}): {{cases}}",
        "enlarged to dataset.image_size they are a blur; use the originals",
        (fact for fact, image in readable if min(image.height, image.width) < SMALLEST_SIDE),
    )
    yield from about(
        WARNING,
        "huge",
        f"Images more than {LARGEST_SIDE} pixels high or wide ({{n}}): {{cases}}",
        "they are slow to load and need memory; cut them, with their masks, into tiles",
        (fact for fact, image in readable if max(image.height, image.width) > LARGEST_SIDE),
    )
    if settings.crops:
        return
    height, width = settings.image_size
    squashed = [
        (fact, squash)
        for fact, image in readable
        if (squash := _squash(image, height, width)) > LARGEST_SQUASH
    ]
    if squashed:
        worst = max(squash for _, squash in squashed)
        yield from about(
            WARNING,
            "squashed",
            f"Images that dataset.image_size={size_text(settings.image_size)} squashes by a factor "
            f"of up to {worst:.1f} ({{n}}): {{cases}}",
            "give dataset.image_size=[height,width] in the images' proportions, or "
            "dataset.sampling=crop",
            (fact for fact, _ in squashed),
        )


def _squash(image: ImageFacts, height: int, width: int) -> float:
    """How much more one side is shrunk than the other, at least 1."""
    ratio = image.height / height / (image.width / width)
    return math.exp(abs(math.log(ratio)))
