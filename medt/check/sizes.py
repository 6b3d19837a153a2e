"""Whether the network sees the objects of a dataset at a size that suits them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from medt.check.cases import CaseFacts, MaskFacts, Settings
from medt.check.finding import WARNING, Finding, size_text
from medt.check.suggestions import SizeSuggestion, shrinkage, suggest_size

SMALLEST_OBJECT = 4.0  # pixels at the network's size: two in the finest map of its encoder
MOST_OFF = 2.0


def size_findings(facts: Sequence[CaseFacts], settings: Settings) -> Iterator[Finding]:
    """One finding at most: objects that vanish, or a size far from the one that is suggested."""
    masks = [fact.mask for fact in facts if fact.mask is not None and fact.mask.typical is not None]
    if not masks or not any(fact.image is not None for fact in facts):
        return
    better = suggest_size(facts)
    if settings.crops:
        yield from _narrow_crops(masks, settings.image_size, better)
        return
    across = _typical(masks, settings.image_size)
    wanted = _wanted(masks, better)
    crop = "dataset.sampling=crop, which keeps the images' own resolution"
    larger = f"dataset.image_size={size_text(better.size)}, or {crop}" if better.enough else crop
    seen = f"At dataset.image_size={size_text(settings.image_size)} the objects are "
    seen += f"{across:.1f} pixels across (median), "
    if across < SMALLEST_OBJECT:
        yield Finding(WARNING, "small_objects", f"{seen}too small for a network", larger)
    elif wanted > MOST_OFF * across:
        told = f"{seen}{wanted / across:.1f} times less than at the size that is suggested"
        yield Finding(WARNING, "size", told, larger)
    elif better.enough and across > MOST_OFF * _typical(masks, better.size):
        factor = across / _typical(masks, better.size)
        yield Finding(
            WARNING,
            "size",
            f"{seen}{factor:.1f} times more than at the size that is suggested",
            f"dataset.image_size={size_text(better.size)} saves most of the time",
        )


def _typical(masks: Sequence[MaskFacts], size: tuple[int, int]) -> float:
    """The median over the masks of their typical object, in pixels at a network's size."""
    return median(mask.typical * shrinkage(mask, size) for mask in masks if mask.typical)


def _wanted(masks: Sequence[MaskFacts], better: SizeSuggestion) -> float:
    """As `_typical` at the suggested size, or as stored where crops are suggested.

    No more than as stored: enlarging shows nothing new.
    """
    kept = [min(1.0, shrinkage(mask, better.size)) if better.enough else 1.0 for mask in masks]
    return median(
        mask.typical * scale for mask, scale in zip(masks, kept, strict=True) if mask.typical
    )


def _narrow_crops(
    masks: Sequence[MaskFacts], size: tuple[int, int], better: SizeSuggestion
) -> Iterator[Finding]:
    """Crops that hardly hold an object, where whole images would show it at half its size."""
    across = median(mask.typical for mask in masks if mask.typical)
    factor = across / _typical(masks, better.size)
    if better.enough and factor > MOST_OFF and MOST_OFF * across > min(size):
        yield Finding(
            WARNING,
            "size",
            f"Crops of dataset.image_size={size_text(size)} hardly hold the objects, "
            f"{across:.0f} pixels across (median), {factor:.1f} times more than at the size that "
            "is suggested",
            f"dataset.sampling=resize dataset.image_size={size_text(better.size)}",
        )
