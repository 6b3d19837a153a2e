"""Outlines drawn in Aperio ImageScope (XML), as numbered pixels."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from medt.errors import UserError

# Which pixels are an object's: see `draw_instances`.
RASTERS = ("challenge", "centres", "outline")
FORMER_RASTER = "centres"  # of sets that were prepared before there was a choice
# ImageScope counts from the corner of the first pixel, whose centre is at 0.5. MATLAB's poly2mask
# puts that centre at 1, and the challenge's converter hands it the numbers as they are: its masks
# lie half a pixel up and left. The rest of 1e-7 decides about a centre on an edge: to poly2mask
# it is inside on a right or lower one.
MOVED = {"challenge": 0.5 - 1e-7, "centres": 0.0, "outline": 0.0}
FINE = 8  # bits behind the point in the coordinates that OpenCV draws by

FARTHEST = 1e6
LEFT_OUT = ("without a pixel", "outside the image", "hidden by earlier ones")
KEPT = (
    "cross or touch themselves",
    "reach beyond the image",
    "overlap an earlier one",
    "cut out as holes",
)

LARGEST = 2**26  # bytes; those of MoNuSeg have less than 10 million
DEEPEST = 100  # elements within each other; annotations have seven
MOST_OUTLINES = 2**16 - 1  # of an image, as their numbers fit 16 bit
MOST_WORK = 200  # steps of drawing for each pixel of the image; those of MoNuSeg take up to four
LEAST_WORK = 2**20  # steps that any image may take
MOST_AT_ONCE = 2**24  # steps of one outline, which its arrays hold


@dataclass(frozen=True)
class Outline:
    """One region.

    Attributes:
        vertices: (n, 2), x and y in pixels from the upper left corner of the image.
        hole: whether it takes away what was drawn before.
    """

    vertices: NDArray[np.float64]
    hole: bool = False


class _Builder(ET.TreeBuilder):
    def __init__(self) -> None:
        super().__init__()
        self.depth = 0

    def start(self, tag: str, attributes: dict[str, str]) -> ET.Element:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ValueError(f"nested deeper than {DEEPEST} elements")
        return super().start(tag, attributes)

    def end(self, tag: str) -> ET.Element:
        self.depth -= 1
        return super().end(tag)

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Called before any entity is declared, and entities can expand without bound."""
        raise ValueError("a DOCTYPE is not accepted")


def read_outlines(data: bytes, name: str) -> list[Outline]:
    """The regions of all layers, in the order drawn. ``MicronsPerPixel`` is not needed.

    Args:
        data: the XML file.
        name: what an error calls it.

    Raises:
        UserError: it is too large, no XML, has a DOCTYPE, is nested deeply, or a vertex lacks a
            number or is absurdly far away.
    """
    if len(data) > LARGEST:
        raise UserError(
            f"{name} has {len(data) / 1e6:,.1f} MB, more than {LARGEST / 1e6:,.1f}",
            "no annotation of an image is so large: check what it is",
        )
    try:
        root = ET.fromstring(data, ET.XMLParser(target=_Builder()))
        return [_outline(region) for region in root.iter("Region")]
    except (ET.ParseError, ValueError, LookupError) as error:
        raise UserError(
            f"{name} is no readable annotation: {type(error).__name__}: {error}",
            "get the archive again",
        ) from error


def _outline(region: ET.Element) -> Outline:
    points = [(float(v.attrib["X"]), float(v.attrib["Y"])) for v in region.iter("Vertex")]
    vertices = np.array(points, np.float64).reshape(-1, 2)
    if not (np.abs(vertices) < FARTHEST).all():  # holds for NaN too
        raise ValueError(f"region {region.get('Id')} has a vertex that is no place in an image")
    return Outline(vertices, region.get("NegativeROA") == "1")


def draw_instances(
    outlines: Sequence[Outline], shape: tuple[int, int], name: str, raster: str = RASTERS[0]
) -> tuple[NDArray[np.uint16], Counter[str]]:
    """Number the pixels inside outlines.

    A pixel belongs to the first outline that winds around its centre. What an outline encloses by
    crossing itself is inside. A hole clears what was drawn before it.

    Args:
        outlines: in the order drawn.
        shape: height and width of the image.
        name: of the file, for the error.
        raster: "centres" where ImageScope has them, the first at 0.5; "challenge" at 1, as in the
            converter that the MoNuSeg challenge published; or "outline", which adds to "centres"
            the pixels that the outline runs through, as ``cv2.fillPoly`` does.

    Raises:
        UserError: there are more outlines than numbers, or so large ones that drawing them all
            would take hours.

    Returns:
        (H, W) of 0 and 1..N without gaps; the number of ``nuclei`` N, and of outlines of each kind
        in ``LEFT_OUT`` and ``KEPT`` (of which one outline can be several). Crossing or touching
        itself is to return to a vertex, or to wind around a pixel twice or both ways: loops
        smaller than that change nothing.
    """
    outlines = [Outline(o.vertices - MOVED[raster], o.hole) for o in outlines]
    _check_work(outlines, shape, name)
    drawn = np.zeros(shape, np.int64)
    kinds: Counter[str] = Counter()
    for number, outline in enumerate(outlines, start=1):
        kinds.update(_draw(outline, number, drawn, raster == "outline"))
    numbers = np.unique(drawn[drawn > 0])
    kinds["nuclei"] = len(numbers)
    instances = np.where(drawn > 0, np.searchsorted(numbers, drawn) + 1, 0)
    return instances.astype(np.uint16), kinds


def _check_work(outlines: Sequence[Outline], shape: tuple[int, int], name: str) -> None:
    hint = "no annotation of an image needs so much: check what it is"
    if len(outlines) > MOST_OUTLINES:
        raise UserError(f"{name} has {len(outlines):,} outlines, more than {MOST_OUTLINES:,}", hint)
    left = max(LEAST_WORK, MOST_WORK * shape[0] * shape[1])
    for outline in outlines:
        if not len(outline.vertices):
            continue
        rows, columns = _box(outline.vertices, shape)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        work = height * (width + len(outline.vertices))
        left -= work
        if work > max(MOST_AT_ONCE, 2 * shape[0] * shape[1]) or left < 0:
            raise UserError(
                f"{name} has outlines that cover the image too often or have too many corners", hint
            )


def describe(kinds: Mapping[str, int]) -> tuple[str, str]:
    """Two lines for the terminal about the counts of ``draw_instances``, of one or more images."""

    def listing(names: tuple[str, ...]) -> str:
        return ", ".join(f"{kinds[name]} {name}" for name in names if kinds.get(name)) or "none"

    return (
        f"Nuclei: {kinds['nuclei']}. Outlines left out: {listing(LEFT_OUT)}.",
        f"Of the outlines kept: {listing(KEPT)}.",
    )


def _draw(outline: Outline, number: int, drawn: NDArray[np.int64], wide: bool = False) -> list[str]:
    """Write the number into the free pixels inside, or 0 for a hole; what kinds the outline is.

    Inside are those of the outline, too, where it is drawn ``wide``.
    """
    corners = _without_repeats(outline.vertices)
    distinct = len(np.unique(corners, axis=0))
    if distinct < 3:
        return ["without a pixel"]
    box = _box(corners, drawn.shape, margin=int(wide))
    view = drawn[box]
    if view.size == 0:
        return ["outside the image"]
    turns = _turns(corners, box)
    inside = turns != 0
    if wide and not outline.hole:
        inside |= _passed(corners, box)
    if outline.hole:
        view[inside] = 0
        return ["cut out as holes"]
    free = inside & (view == 0)
    if not free.any():
        return ["hidden by earlier ones" if inside.any() else "without a pixel"]
    view[free] = number
    crosses = turns.min() < 0 < turns.max() or np.abs(turns).max() > 1
    beyond = (corners < 0).any() or (corners > drawn.shape[::-1]).any()
    return [
        *["cross or touch themselves"] * bool(crosses or distinct < len(corners)),
        *["reach beyond the image"] * bool(beyond),
        *["overlap an earlier one"] * bool(free.sum() < inside.sum()),
    ]


def _without_repeats(vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without vertices that stand where the one before them does; the last precedes the first."""
    moves: NDArray[np.bool_] = (vertices != np.roll(vertices, 1, axis=0)).any(axis=1)
    return vertices[moves]


def _box(
    corners: NDArray[np.float64], shape: tuple[int, ...], margin: int = 0
) -> tuple[slice, slice]:
    """Rows and columns of the image that the corners span; empty where they span none."""
    limits = np.array(shape[::-1])
    left, top = np.clip(np.floor(corners.min(axis=0)) - margin, 0, limits).astype(int).tolist()
    right, bottom = np.clip(np.ceil(corners.max(axis=0)) + margin, 0, limits).astype(int).tolist()
    return slice(top, bottom), slice(left, right)


def _turns(corners: NDArray[np.float64], box: tuple[slice, slice]) -> NDArray[np.int64]:
    """How often the outline winds around the centre of each pixel of the box, clockwise above 0.

    Each edge that passes a row of centres adds its direction to all centres right of it. A centre
    on a left or upper edge is inside, on a right or lower one outside, so that outlines with an
    edge in common do not both claim it. OpenCV's fillPoly would claim it twice: it paints edges.
    """
    height, width = box[0].stop - box[0].start, box[1].stop - box[1].start
    x, y = (corners - 0.5 - (box[1].start, box[0].start)).T  # centres at 0, 1, 2, ...
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    rows = np.arange(height)
    edge, row = np.nonzero((y[:, None] <= rows) != (next_y[:, None] <= rows))
    slope = (next_x - x)[edge] / (next_y - y)[edge]
    column = np.clip(np.ceil(x[edge] + (row - y[edge]) * slope), 0, width).astype(int)
    passes = np.zeros((height, width + 1), np.int64)
    np.add.at(passes, (row, column), np.where(next_y > y, -1, 1)[edge])
    turns: NDArray[np.int64] = passes.cumsum(axis=1)[:, :-1]
    return turns


def _passed(corners: NDArray[np.float64], box: tuple[slice, slice]) -> NDArray[np.bool_]:
    """Which pixels of the box the outline runs through."""
    line = np.zeros((box[0].stop - box[0].start, box[1].stop - box[1].start), np.uint8)
    places = np.rint((corners - 0.5 - (box[1].start, box[0].start)) * 2**FINE)
    cv2.polylines(line, [places.astype(np.int32)], isClosed=True, color=1, shift=FINE)
    return line > 0
