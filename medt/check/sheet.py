"""The contact sheet of a check: cases to look at, each with why."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from medt.check import CaseFacts, Check
from medt.check.finding import percent
from medt.check.sample import worth_a_look
from medt.data.preview import Tiles, read_pair, tiles_for
from medt.drawing import Picture, contact_sheet, outlined, strip

COLUMNS = 2


def draw_sheet(check: Check, most: int) -> Picture | None:
    """Image and outlined mask of the cases most worth a look; None if no case can be drawn.

    Args:
        most: cases to draw, see ``medt.check.sample.worth_a_look``.
    """
    concerns = check.concerns()
    whole = [facts for facts in check.cases if facts.image and facts.mask and not facts.faults]
    chosen = worth_a_look(whole, concerns, check.index.classes, most)
    if not chosen:
        return None
    tiles = tiles_of(check)
    panels = [_panel(check, facts, reasons, tiles) for facts, reasons in chosen]
    return contact_sheet(panels, COLUMNS)


def tiles_of(check: Check) -> Tiles:
    """How to draw the cases of this dataset."""
    masks = [facts.mask for facts in check.cases if facts.mask is not None]
    across = [mask.typical / mask.height for mask in masks if mask.typical is not None]
    return tiles_for(median(across) if across else 1.0)


def _panel(check: Check, facts: CaseFacts, reasons: Sequence[str], tiles: Tiles) -> Picture:
    case, image, mask = facts.case, facts.image, facts.mask
    assert image is not None
    assert mask is not None
    pixels, ids = read_pair(case, check.index.labels, check.index.page)
    height = tiles.fitting((image.height, image.width))
    colors = [c.color for c in check.index.classes]
    marked = outlined(pixels, ids, colors, height, tiles.thickness)
    caption = f"{case.name} ({case.split})" + (f": {', '.join(reasons)}" if reasons else "")
    pair = [
        (f"{image.width} x {image.height}, {image.kind}", outlined(pixels, None, colors, height)),
        (f"foreground {percent(mask.foreground)}", marked),
    ]
    return strip(pair, caption)
