"""The contact sheet of a check: cases to look at, those with findings first."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from medt.data.checks import CaseFacts, Check
from medt.data.checks.finding import percent
from medt.data.preview import Tiles, read_pair, spread, tiles_for
from medt.data.splits import SPLITS
from medt.drawing import Picture, contact_sheet, outlined, strip
from medt.files import natural_key

COLUMNS = 2


def draw_sheet(check: Check, most: int) -> Picture | None:
    """Image and outlined mask of some cases of every split; None if no case can be drawn.

    Args:
        most: cases to draw; each split gets an equal share, as far as it has cases.
    """
    concerns = check.concerns()
    whole = [facts for facts in check.cases if facts.image and facts.mask and not facts.faults]
    by_split = {s: [facts for facts in whole if facts.case.split == s] for s in SPLITS}
    shares = _shares([len(cases) for cases in by_split.values()], most)
    chosen = [
        facts
        for cases, share in zip(by_split.values(), shares, strict=True)
        for facts in _chosen(cases, concerns, share)
    ]
    if not chosen:
        return None
    tiles = tiles_of(check)
    panels = [_panel(check, facts, concerns.get(facts.case.name, []), tiles) for facts in chosen]
    return contact_sheet(panels, COLUMNS)


def tiles_of(check: Check) -> Tiles:
    """How to draw the cases of this dataset."""
    masks = [facts.mask for facts in check.cases if facts.mask is not None]
    across = [mask.typical / mask.height for mask in masks if mask.typical is not None]
    return tiles_for(median(across) if across else 1.0)


def _shares(counts: Sequence[int], most: int) -> list[int]:
    """Dealt in turn to all that have some left."""
    shares = [0] * len(counts)
    for _ in range(min(most, sum(counts))):
        open_to = [i for i, count in enumerate(counts) if shares[i] < count]
        shares[min(open_to, key=lambda i: shares[i])] += 1
    return shares


def _chosen(
    cases: Sequence[CaseFacts], concerns: dict[str, list[str]], share: int
) -> list[CaseFacts]:
    """Those of most findings, then others evenly spread over the names."""
    ordered = sorted(cases, key=lambda facts: natural_key(facts.case.name))
    strange = [facts for facts in ordered if facts.case.name in concerns]
    strange.sort(key=lambda facts: -len(concerns[facts.case.name]))
    plain = [facts for facts in ordered if facts.case.name not in concerns]
    return [*strange[:share], *spread(plain, max(share - len(strange), 0))]


def _panel(check: Check, facts: CaseFacts, codes: Sequence[str], tiles: Tiles) -> Picture:
    case, image, mask = facts.case, facts.image, facts.mask
    assert image is not None
    assert mask is not None
    pixels, ids = read_pair(case, check.index.labels, check.index.page)
    height = tiles.fitting((image.height, image.width))
    colors = [c.color for c in check.index.classes]
    marked = outlined(pixels, ids, colors, height, tiles.thickness)
    caption = f"{case.name} ({case.split})" + (f": {', '.join(codes)}" if codes else "")
    pair = [
        (f"{image.width} x {image.height}, {image.kind}", outlined(pixels, None, colors, height)),
        (f"foreground {percent(mask.foreground)}", marked),
    ]
    return strip(pair, caption)
