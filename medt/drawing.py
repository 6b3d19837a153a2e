"""Masks made visible: outlines over images, filled masks, panels and contact sheets.

Images are (H, W), (H, W, 1) or (H, W, C); masks are (H, W) class ids with 255 = ignored; ``colors``
holds one RGB colour (0..255) per class id, background first. Everything drawn is uint8 RGB (H, W,
3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medt.io.text import for_terminal

Color = tuple[int, int, int]
Picture = NDArray[np.uint8]

IGNORED = 255
IGNORED_COLOR = (128, 128, 128)
TRUTH_COLOR = (255, 255, 255)
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # of RGB, as ITU-R BT.601 weights it
MIDDLE = 128  # of it; what is darker has more contrast with white
PAGE_COLOR = (255, 255, 255)
TEXT_COLOR = (0, 0, 0)
# Of an error map; told apart with any colour vision.
ERROR_COLORS = {
    "right foreground": (205, 205, 205),
    "missed": (213, 94, 0),
    "added": (0, 114, 178),
    "another class": (204, 121, 167),
}

GAP = 6  # pixels between the tiles of a panel
COLUMN_GAP = 18  # and between the panels of a sheet
LINE = 34  # pixels a line of text takes
# Large enough to be read where a viewer shrinks a picture to half, such as TensorBoard.
FONT, FONT_WEIGHT = cv2.FONT_HERSHEY_SIMPLEX, 2
FONT_SCALES = 0.75, 0.6, 0.5  # the largest that fits
LINES_ACROSS = 12  # a typical object is across, where one pixel is not too thick for it
NUMBER_SCALES = 0.35, 0.8  # of objects: 8 to 18 pixels high


def displayable(image: NDArray[Any]) -> Picture:
    """Any image as uint8 RGB (H, W, 3).

    One channel is shown as grey, two as the mean of both in grey, more than three by their first
    three. uint8 is kept; of any other type the finite values between their 0.5 and 99.5 percentiles
    are stretched, so that one bright pixel does not leave the rest black.
    """
    planes = image[..., None] if image.ndim == 2 else image
    if planes.ndim != 3 or planes.shape[2] < 1:
        raise ValueError(f"an image is (H, W) or (H, W, C), not {image.shape}")
    if planes.dtype != np.uint8:
        planes = _stretch(planes)
    if planes.shape[2] < 3:
        grey = planes.mean(axis=2, keepdims=True).round().astype(np.uint8)
        planes = np.repeat(grey, 3, axis=2)
    return np.ascontiguousarray(planes[..., :3])


def outline(mask: NDArray[Any], thickness: int = 1) -> NDArray[np.bool_]:
    """The inner border of every region of equal ids but 0 (and ignored), where it meets another id.

    Args:
        mask: (H, W) bool or ids of classes or instances; the image's edge is no border.
        thickness: of the line in pixels.

    Returns:
        (H, W) bool.
    """
    ids = mask.astype(np.int64)
    border = np.zeros(ids.shape, dtype=bool)
    for axis in (0, 1):
        step = np.diff(ids, axis=axis) != 0
        before, after = [(0, 0), (0, 0)], [(0, 0), (0, 0)]
        before[axis], after[axis] = (1, 0), (0, 1)
        border |= np.pad(step, before) | np.pad(step, after)
    shown = ids != 0
    if mask.dtype != bool:
        shown &= ids != IGNORED
    border &= shown
    if thickness > 1:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * thickness - 1,) * 2)
        border = cv2.dilate(border.astype(np.uint8), kernel).astype(bool) & shown
    return border


def fill(mask: NDArray[Any], colors: Sequence[Color]) -> Picture:
    """Each class in its colour; ignored pixels in grey; an id without a colour raises
    ValueError."""
    ids = np.unique(mask)
    strange = [int(i) for i in ids if not (0 <= i < len(colors) or i == IGNORED)]
    if strange:
        raise ValueError(f"the mask holds ids {strange}, but there are {len(colors)} colours")
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colors)] = colors
    table[IGNORED] = IGNORED_COLOR
    filled: Picture = table[mask.astype(np.uint8)]
    return filled


def error_map(truth: NDArray[Any], prediction: NDArray[Any]) -> Picture:
    """Where two masks (H, W) of class ids differ, in ERROR_COLORS; right background is white.

    Missed: foreground taken for background; added: background taken for foreground; another class:
    one class of the foreground taken for another. What the truth ignores is in grey.
    """
    _check_size(truth, prediction)
    there, found = truth != 0, prediction != 0
    picture = np.full((*truth.shape, 3), PAGE_COLOR, np.uint8)
    picture[there & (truth == prediction)] = ERROR_COLORS["right foreground"]
    picture[there & ~found] = ERROR_COLORS["missed"]
    picture[~there & found] = ERROR_COLORS["added"]
    picture[there & found & (truth != prediction)] = ERROR_COLORS["another class"]
    picture[truth == IGNORED] = IGNORED_COLOR
    return picture


def overlay(
    image: NDArray[Any],
    mask: NDArray[Any],
    colors: Sequence[Color],
    opacity: float = 0.25,
    objects: NDArray[Any] | None = None,
) -> Picture:
    """The image with its mask: regions tinted and outlined in the colours of their classes.

    What is ignored turns grey.

    Args:
        image: any image that :func:`displayable` takes.
        mask: (H, W) class ids, of the image's size.
        colors: RGB per class id; the background is left as it is.
        opacity: of the tint inside the outline, 0..1.
        objects: (H, W) numbers of objects from 1, 0 = none: each is outlined and has its number;
            None outlines the classes.
    """
    picture = displayable(image)
    _check_size(picture, mask)
    foreground = (mask != 0) & (mask != IGNORED)
    painted = fill(mask, colors)
    tinted = ((1 - opacity) * picture + opacity * painted).round().astype(np.uint8)
    result = _greyed(np.where(foreground[..., None], tinted, picture), mask)
    thickness = max(1, round(min(mask.shape) / 256))
    if objects is None:
        return _draw_outline(result, mask, painted, thickness)
    _check_size(picture, objects)
    numbers = objects.astype(np.int64)
    regions = numbers + (numbers >= IGNORED)  # so that none is taken for what is ignored
    regions[mask == IGNORED] = IGNORED
    lines = _draw_outline(result, regions, painted, min(thickness, _thickest_line(numbers)))
    return _draw_numbers(lines, numbers)


def panel(
    image: NDArray[Any],
    truth: NDArray[Any] | None,
    prediction: NDArray[Any] | None,
    colors: Sequence[Color],
    caption: str = "",
    height: int = 256,
) -> Picture:
    """One case side by side: image | truth | prediction, each tile captioned.

    The image carries the truth's outlines, or the prediction's where there is no truth; the
    prediction carries the truth's outline in white, so that what it misses and what it adds can be
    seen, and is grey where the truth is ignored.

    Args:
        image: any image that :func:`displayable` takes.
        truth, prediction: (H, W) class ids of the image's size; a tile that is None is left out,
            but not both.
        colors: RGB per class id.
        caption: a line above the tiles, such as "case 7, Dice 0.87".
        height: of a tile in pixels; the tiles keep the image's proportions.
    """
    picture = displayable(image)
    masks = {"truth": truth, "prediction": prediction}
    scaled: dict[str, NDArray[Any]] = {}
    for name, mask in masks.items():
        if mask is not None:
            _check_size(picture, mask)
            scaled[name] = _scaled_mask(mask, height)
    marked = "truth" if truth is not None else "prediction"
    tiles = [(f"image, {marked} outlined", outlined(picture, masks[marked], colors, height))]
    if truth is not None:
        tiles.append(("truth", fill(scaled["truth"], colors)))
    if prediction is not None:
        filled = fill(scaled["prediction"], colors)
        if truth is not None:
            filled[scaled["truth"] == IGNORED] = IGNORED_COLOR
            white = np.full_like(filled, TRUTH_COLOR)
            filled = _draw_outline(filled, scaled["truth"], white, thickness=1)
        tiles.append(("prediction", filled))
    return strip(tiles, caption)


def outlined(
    image: NDArray[Any],
    mask: NDArray[Any] | None,
    colors: Sequence[Color],
    height: int = 256,
    thickness: int | None = None,
) -> Picture:
    """An image scaled to this height in pixels, its mask outlined; what is ignored turns grey.

    Args:
        image: any image that :func:`displayable` takes.
        mask: (H, W) class ids of the image's size, or None to draw the image alone.
        colors: RGB per class id.
        thickness: of the outline in pixels; None suits large regions.
    """
    picture = displayable(image)
    width = _scaled_width(picture, height)
    how = cv2.INTER_AREA if height < picture.shape[0] else cv2.INTER_CUBIC
    scaled: Picture = np.asarray(cv2.resize(picture, (width, height), interpolation=how), np.uint8)
    if mask is None:
        return scaled
    _check_size(picture, mask)
    ids = _scaled_mask(mask, height)
    return _draw_outline(
        _greyed(scaled, ids), ids, fill(ids, colors), thickness or max(1, height // 128)
    )


def strip(tiles: Sequence[tuple[str, Picture]], caption: str = "") -> Picture:
    """Pictures of one height side by side, each with its text beneath, and a line above all."""
    return _with_caption(_row([_captioned(tile, text) for text, tile in tiles]), caption)


def contact_sheet(panels: Sequence[Picture], columns: int = 1) -> Picture:
    """Panels of any size in rows of ``columns``, on white; no panels raises ValueError."""
    if not panels or columns < 1:
        raise ValueError(f"cannot put {len(panels)} panels into {columns} columns")
    rows = [list(panels[i : i + columns]) for i in range(0, len(panels), columns)]
    widths = [max(row[i].shape[1] for row in rows if i < len(row)) for i in range(len(rows[0]))]
    bands = []
    for row in rows:
        tall = max(p.shape[0] for p in row)
        pages = [_page(p, tall, w) for p, w in zip(row, widths, strict=False)]
        bands.append(_row(pages, COLUMN_GAP))
    width = sum(widths) + (len(widths) - 1) * COLUMN_GAP
    separator = _page(np.empty((0, 0, 3), np.uint8), 2 * GAP, width)
    pieces: list[Picture] = []
    for band in bands:
        pieces += [separator] if pieces else []
        pieces.append(_page(band, band.shape[0], width))
    return np.concatenate(pieces)


def _stretch(image: NDArray[Any]) -> Picture:
    values = image.astype(np.float64)
    finite = np.isfinite(values)
    seen = values[finite] if finite.any() else np.array([0.0, 1.0])
    low, high = np.percentile(seen, (0.5, 99.5))
    if low == high:  # a few bright pixels on nothing
        low, high = seen.min(), seen.max()
    shares = np.clip((np.where(finite, values, low) - low) / (high - low or 1.0), 0, 1)
    stretched: Picture = (shares * 255).round().astype(np.uint8)
    return stretched


def _check_size(picture: NDArray[Any], mask: NDArray[Any]) -> None:
    if picture.shape[:2] != mask.shape:
        raise ValueError(f"the image is {picture.shape[:2]}, its mask {mask.shape}")


def _scaled_width(picture: NDArray[Any], height: int) -> int:
    width: int = max(1, round(picture.shape[1] * height / picture.shape[0]))
    return width


def _scaled_mask(mask: NDArray[Any], height: int) -> NDArray[np.uint8]:
    size = (_scaled_width(mask, height), height)
    return np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST))


def _greyed(picture: Picture, mask: NDArray[Any]) -> Picture:
    """The picture, half of it grey where the mask is ignored."""
    result: Picture = picture.copy()
    ignored = mask == IGNORED
    result[ignored] = picture[ignored] // 2 + np.uint8(IGNORED_COLOR[0] // 2)
    return result


def _draw_outline(
    picture: Picture, mask: NDArray[Any], painted: Picture, thickness: int
) -> Picture:
    """Lines in the colours of ``painted``, with a rim beside them: visible on any ground.

    The rim is white beside a dark line and black beside a bright one.
    """
    line = outline(mask, thickness)
    bright = np.zeros_like(line)
    bright[line] = painted[line] @ LUMINANCE >= MIDDLE
    result: Picture = picture.copy()
    for tone, lines in ((255, line & ~bright), (0, line & bright)):
        result[_rim(lines, line, mask, thickness)] = tone
    result[line] = painted[line]
    return result


def _thickest_line(numbers: NDArray[np.int64]) -> int:
    """Of outlines that do not hide a typical object, in pixels."""
    areas = np.unique(numbers[numbers > 0], return_counts=True)[1]
    return max(1, int(math.sqrt(np.median(areas)) / LINES_ACROSS)) if len(areas) else 1


def _draw_numbers(picture: Picture, numbers: NDArray[np.int64]) -> Picture:
    """Each object's number at its innermost place, white with a black rim."""
    result: Picture = picture.copy()
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        if box is None:
            continue
        alone = np.pad(numbers[box] == number, 1).astype(np.uint8)
        depths = cv2.distanceTransform(alone, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        deepest = np.argwhere(depths > depths.max() - 0.5)  # of a long object a line
        middle = deepest[np.square(deepest - deepest.mean(0)).sum(1).argmin()]
        centre = box[1].start + int(middle[1]) - 1, box[0].start + int(middle[0]) - 1
        _draw_number(result, number, centre, float(depths.max()))
    return result


def _draw_number(picture: Picture, number: int, centre: tuple[int, int], radius: float) -> None:
    """As large as fits into a disk of the radius, but never too small to be read."""
    text = str(number)
    width, height = cv2.getTextSize(text, FONT, 1.0, 1)[0]
    low, high = NUMBER_SCALES
    scale = min(high, max(low, 2 * radius / math.hypot(width, height)))
    half = math.ceil(scale * width / 2), math.ceil(scale * height / 2)
    rim, sides = 2, (picture.shape[1], picture.shape[0])
    # Within the picture, as far as it is large enough.
    x, y = (
        max(by + rim, min(at, side - by - rim - 1))
        for at, by, side in zip(centre, half, sides, strict=True)
    )
    where = x - half[0], y + half[1]
    for tone, weight in ((TEXT_COLOR, 3), (PAGE_COLOR, 1)):
        cv2.putText(picture, text, where, FONT, scale, tone, weight, cv2.LINE_AA)


def _rim(
    lines: NDArray[np.bool_], every: NDArray[np.bool_], mask: NDArray[Any], thickness: int
) -> NDArray[np.bool_]:
    """Outside of the regions of some lines; inside where they touch others or the ignored."""
    width = max(1, thickness // 2)
    outer = _grown(lines, width) & (mask == 0)
    bare = lines & ~_grown(outer, thickness)
    inner = _grown(bare, width) & (mask != 0) & (mask != IGNORED) & ~every
    rim: NDArray[np.bool_] = outer | inner
    return rim


def _grown(area: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    kernel = np.ones((2 * by + 1,) * 2, np.uint8)
    grown: NDArray[np.bool_] = cv2.dilate(area.astype(np.uint8), kernel) > 0
    return grown


def _page(picture: Picture, height: int, width: int) -> Picture:
    page = np.full((height, width, 3), PAGE_COLOR, dtype=np.uint8)
    page[: picture.shape[0], : picture.shape[1]] = picture
    return page


def _row(tiles: Sequence[Picture], gap_width: int = GAP) -> Picture:
    gap = np.full((tiles[0].shape[0], gap_width, 3), PAGE_COLOR, dtype=np.uint8)
    pieces = [tiles[0]]
    for tile in tiles[1:]:
        pieces += [gap, tile]
    return np.concatenate(pieces, axis=1)


def _captioned(tile: Picture, text: str) -> Picture:
    return np.concatenate([tile, _text_line(text, tile.shape[1])])


def _with_caption(picture: Picture, text: str) -> Picture:
    return np.concatenate([_text_line(text, picture.shape[1]), picture]) if text else picture


def _text_line(text: str, width: int) -> Picture:
    """A line of text, smaller where it is long, cut where even that does not fit."""
    line = np.full((LINE, width, 3), PAGE_COLOR, dtype=np.uint8)
    # The font has no other characters.
    shown = text = for_terminal(text).encode("ascii", "replace").decode()

    def is_too_long(scale: float) -> bool:
        size: int = cv2.getTextSize(shown, FONT, scale, FONT_WEIGHT)[0][0]
        return size > width - 4

    scale = next((s for s in FONT_SCALES if not is_too_long(s)), FONT_SCALES[-1])
    while shown and is_too_long(scale):
        text = text[:-1]
        shown = text + "..." if text else ""
    where = (2, LINE - 10)
    cv2.putText(line, shown, where, FONT, scale, TEXT_COLOR, FONT_WEIGHT, cv2.LINE_AA)
    return line
