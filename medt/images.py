"""Reading images and masks: from a file, or its content, to the numbers that it stores.

The content decides how a file is read, never its extension. Orientation tags are followed, as
viewers and annotation tools follow them.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medt import tiff
from medt.errors import UserError
from medt.files import environment_number, read_bytes
from medt.image_headers import (
    JPEG,
    MOST_FRAMES,
    PNG,
    Header,
    HeaderError,
    needed_chunks,
    png_chunks,
    read_header,
)
from medt.tiff import ORIENTATION_TAG, decode_with_opencv, oriented, pillow


class PaintedMaskError(UserError):
    """A mask is painted in colours where numbers are expected."""


# What these would print of a damaged file stands in the error.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
logging.getLogger("tifffile").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", module=r"PIL\.")

MOST_PIXELS = 2**28
PIXEL_BYTES = 4  # that the limit takes a pixel for: 8 bit RGBA


def read_image(path: str | Path, page: int | None = None) -> NDArray[Any]:
    """Decode an image file without changing its values.

    Args:
        path: PNG, JPEG, TIFF, BMP or GIF, of 8 or 16 bits or floating point.
        page: which image of a stack, from 0; a file of one image does not need it.

    Returns:
        (H, W), or (H, W, C) in RGB or RGBA order, in the file's own type (uint8, uint16, float32,
        ...). A palette is resolved to its colours, CMYK becomes RGB.

    Raises:
        UserError: the file is missing, truncated, not an image, or a stack without such a page.
    """
    return decode_image(read_bytes(path), str(path), page)


def read_mask(path: str | Path, page: int | None = None) -> NDArray[Any]:
    """Decode a mask file to the numbers it stores.

    Three equal channels become one plane, an alpha channel is dropped, and of a coloured palette
    (PNG, BMP, TIFF) the indices count, not the colours.

    Returns:
        (H, W), an integer type.

    Raises:
        UserError: as ``read_image``; also for masks painted in colours, and for fractional values.
    """
    return decode_mask(read_bytes(path), str(path), page)


def read_colors(path: str | Path, page: int | None = None) -> NDArray[np.int64]:
    """Decode a mask painted in colours: (H, W), each pixel as one number 0xRRGGBB.

    Raises:
        UserError: as ``read_image``; also for files with more than 8 bits a channel.
    """
    pixels = read_image(path, page)
    if pixels.dtype != np.uint8:
        raise UserError(
            f"Mask {path} has type {pixels.dtype}", "colours have 8 bits a channel: save it as RGB"
        )
    planes = pixels[..., None] if pixels.ndim == 2 else pixels[..., :3]
    red, green, blue = np.broadcast_to(planes, (*planes.shape[:2], 3)).astype(np.int64).T
    packed: NDArray[np.int64] = (red << 16 | green << 8 | blue).T
    return packed


def read_values(path: str | Path, page: int | None = None) -> tuple[NDArray[Any], bool]:
    """Decode a mask file of either kind.

    Returns:
        What ``read_mask`` gives and False or, of a mask painted in colours, what ``read_colors``
        gives and True.

    Raises:
        UserError: as these.
    """
    try:
        return read_mask(path, page), False
    except PaintedMaskError:
        return read_colors(path, page), True


def decode_image(data: bytes, name: str, page: int | None = None) -> NDArray[Any]:
    """``read_image`` for the content of a file; ``name`` is what an error calls it."""
    _check_end(data, name)
    data = needed_chunks(data) if data.startswith(PNG) else data
    pages = _pages(data, name)
    if len(pages) > 1 and (page is None or not 0 <= page < len(pages)):
        raise UserError(
            f"{name} is a stack of {len(pages)} images",
            f"choose one with dataset.page=0 to {len(pages) - 1}, or save one image per file",
        )
    number = pages[page or 0 if len(pages) > 1 else 0]
    header = _checked_header(data, name, number)
    pixels = _decode(data, name, number, animated=len(pages) > 1)
    if sorted(pixels.shape[:2]) != sorted((header.height, header.width)):
        raise _undecodable(name)
    return pixels


def decode_mask(data: bytes, name: str, page: int | None = None) -> NDArray[Any]:
    """``read_mask`` for the content of a file; arguments as those of ``decode_image``."""
    data = needed_chunks(data) if data.startswith(PNG) else data
    mask = decode_image(data, name, page)
    if mask.ndim == 3:
        pages = _pages(data, name)
        indices = _palette_indices(data, pages[page or 0] if len(pages) > 1 else 0)
        mask = _grey_plane(mask, name) if indices is None else oriented(indices, orientation(data))
    if np.issubdtype(mask.dtype, np.floating):
        whole = np.nan_to_num(mask, nan=0.5, posinf=0.5, neginf=0.5)
        if np.any(whole != np.rint(whole)):
            raise UserError(
                f"Mask {name} holds fractional numbers", "save class numbers as an 8 or 16 bit PNG"
            )
        mask = mask.astype(np.int64)
    return mask


def count_pages(data: bytes, name: str) -> int:
    """The number of images in the content of a file: of a TIFF stack or an animation, else 1.

    Raises:
        UserError: the file is damaged, or not an image.
    """
    return len(_pages(data, name))


def orientation(data: bytes) -> int:
    """The orientation tag in the content of an image file, 1 to 8; 1 where there is none.

    Numbers: Exif 2.32, section 4.6.4, tag 274.
    """
    if data.startswith(PNG):
        if not any(kind == b"eXIf" for kind, _, _ in png_chunks(data)):
            return 1
    elif not data.startswith(JPEG):
        return 1
    try:
        with pillow().open(io.BytesIO(data)) as image:
            found = image.getexif().get(ORIENTATION_TAG, 1)
    except (OSError, ValueError, SyntaxError):
        return 1
    return found if found in range(1, 9) else 1


def has_orientation(path: str | Path) -> bool:
    """Whether a PNG or JPEG file is to be seen turned or mirrored; False if it does not read."""
    try:
        with Path(path).open("rb") as file:
            return orientation(file.read(2**16)) != 1
    except OSError:
        return False


def _pages(data: bytes, name: str) -> list[int]:
    """Where the images of a file stand in it."""
    if data[:4] in tiff.STARTS:
        with _readable(name):
            return tiff.page_numbers(data)
    header = _header(data, name)
    if header.frames > MOST_FRAMES:
        raise UserError(
            f"{name} has more than {MOST_FRAMES:,} images", "save those that count on their own"
        )
    if header.frames == 1:
        return [0]
    try:
        with pillow().open(io.BytesIO(data)) as image:
            return list(range(getattr(image, "n_frames", 1)))
    except (OSError, ValueError, SyntaxError):
        return [0]  # the decoder says what is wrong with it


def _header(data: bytes, name: str) -> Header:
    with _readable(name):
        return read_header(data)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except HeaderError:
        raise _undecodable(name) from None


def _checked_header(data: bytes, name: str, number: int) -> Header:
    """What an image announces; a small file can claim one that fills the memory."""
    if data[:4] in tiff.STARTS:
        with _readable(name):
            header = tiff.read_page_header(data, number)
    else:
        header = _header(data, name)
    pixels = header.width * header.height * header.depth
    most = environment_number("MEDT_MAX_PIXELS", MOST_PIXELS)
    allow = "if it is right, set MEDT_MAX_PIXELS in the environment to allow it"
    if pixels > most:
        slices = f" x {header.depth}" if header.depth > 1 else ""
        raise UserError(
            f"{name} claims {header.width} x {header.height}{slices} pixels, more than {most:,}",
            allow,
        )
    if pixels * header.sample_bytes > PIXEL_BYTES * most:
        raise UserError(
            f"{name} claims {pixels * header.sample_bytes / 1e6:,.1f} MB of pixels, "
            f"more than {PIXEL_BYTES * most / 1e6:,.1f}",
            allow,
        )
    if header.depth != 1:
        raise UserError(
            f"{name} is a volume of {header.depth} slices", "save each slice as an image"
        )
    return header


def _decode(data: bytes, name: str, number: int, animated: bool) -> NDArray[Any]:
    if data[:4] in tiff.STARTS:
        with _readable(name):
            return tiff.decode_page(data, number)
    if animated:
        return _frame(data, name, number)
    pixels = decode_with_opencv(data)
    if pixels is None:
        raise _undecodable(name)
    return oriented(pixels, orientation(data))  # OpenCV does not when it leaves values unchanged


def _frame(data: bytes, name: str, number: int) -> NDArray[np.uint8]:
    """One image of an animation, as it is to be seen: (H, W, 3)."""
    try:
        with pillow().open(io.BytesIO(data)) as image:
            image.seek(number)
            return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError):
        raise _undecodable(name) from None


def _undecodable(name: str) -> UserError:
    return UserError(
        f"{name} cannot be decoded as an image",
        "it is damaged, truncated or of another format: copy it again or convert it to PNG",
    )


def _check_end(data: bytes, name: str) -> None:
    """Some OpenCV versions return the upper part of a truncated PNG or JPEG as if it were whole."""
    cut = data.startswith(b"\x89PNG") and b"IEND" not in data[-4096:]
    if data.startswith(b"\xff\xd8\xff"):
        # A JPEG ends behind its last scan; a preview within it has an end of its own before that,
        # and cameras append what they like.
        cut = data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    if cut:
        raise _undecodable(name)


def _palette_indices(data: bytes, number: int) -> NDArray[np.uint8] | None:
    """(H, W) indices of a palette image in colours, else None.

    A palette of greys, and that of a GIF, is arbitrary: there the shown values count.
    """
    try:
        with pillow().open(io.BytesIO(data)) as image:
            if image.mode != "P" or image.format == "GIF":
                return None
            image.seek(number)
            indices = np.array(image)
            palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
    except (OSError, ValueError, EOFError):
        return None
    return None if np.all(palette == palette[:, :1]) else indices


def _without_alpha(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels[..., :1] if pixels.shape[2] == 2 else pixels[..., :3]


def _grey_plane(mask: NDArray[Any], name: str) -> NDArray[Any]:
    colors = _without_alpha(mask)
    if mask.shape[2] > 4 or np.any(colors != colors[..., :1]):
        raise PaintedMaskError(
            f"Mask {name} is painted in colours",
            "give each class its colour: 'dataset.classes=[{name:background,color:[0,0,0]},...]'",
        )
    return np.ascontiguousarray(colors[..., 0])
