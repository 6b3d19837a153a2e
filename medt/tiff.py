"""Pages of TIFF files: what they announce, and to pixels."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medt.image_headers import Header, HeaderError

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION_TAG = 0x0112
WHITE_IS_ZERO, YCBCR = 0, 6  # of the photometric interpretation
UNCOMPRESSED, DEFLATED = 1, (8, 32946)  # of the compression
MOST_PAGES = 100_000


def page_numbers(data: bytes) -> list[int]:
    """Where the images of a file stand in it; previews of another size are none.

    Raises:
        HeaderError: the file is damaged, or names more pages than any stack has.
    """
    with _opened(data) as file:
        first = file.pages.first.shape
        count = len(file.pages)  # ends where a damaged file leads in a circle
        if count > MOST_PAGES:
            raise HeaderError(f"it names more than {MOST_PAGES:,} pages")
        return [i for i in range(count) if file.pages[i].shape == first]


def read_page_header(data: bytes, number: int) -> Header:
    """What a page announces.

    Raises:
        HeaderError: the file is damaged.
    """
    with _opened(data) as file:
        page = file.pages[number]
        return Header(page.imagewidth, page.imagelength, -(-_bits(page) // 8), page.imagedepth)


def decode_page(data: bytes, number: int) -> NDArray[Any]:
    """The pixels of a page: (H, W) or (H, W, samples), as it is to be seen.

    OpenCV is the fastest, but inverts 1 bit TIFFs, multiplies colours by alpha, reads but one of
    separate planes, two channels as 8 bit, no more than four channels, and neither half precision
    nor small tiles.

    Raises:
        HeaderError: the page is damaged.
    """
    with _opened(data) as file:
        page = file.pages[number]
        if not _is_whole(data, page):
            raise HeaderError("its page is not whole")
        bits, samples = page.bitspersample, page.samplesperpixel
        if bits == 1 or (bits == 8 and samples == 4 and page.planarconfig == 1):
            with pillow().open(io.BytesIO(data)) as image:
                image.seek(number)
                modes = {1: "L", 4: "RGB" if image.mode == "CMYK" else image.mode}
                return np.array(image.convert(modes[samples] if bits == 8 else "L"))
        if not (samples > 4 or samples == 2 or (samples > 1 and page.planarconfig == 2)):
            pixels = decode_with_opencv(data, number)
            if pixels is not None:
                # As OpenCV does with 8 bits, but no others.
                inverts = bits == 8 and samples == 1 and page.photometric == WHITE_IS_ZERO
                return 255 - pixels if inverts else pixels
        pixels = np.asarray(page.asarray())
        if page.planarconfig == 2 and samples > 1:
            pixels = np.moveaxis(pixels, 0, -1)
        tag = page.tags.get(ORIENTATION_TAG)
        return oriented(pixels, tag.value if tag else 1)


def decode_with_opencv(data: bytes, number: int = 0) -> NDArray[Any] | None:
    """One image of a file in OpenCV's formats, channels in RGB order; None where it cannot."""
    content = np.frombuffer(data, np.uint8)
    try:
        if number == 0:
            pixels = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
        else:
            several = range(number, number + 1)
            _, found = cv2.imdecodemulti(content, cv2.IMREAD_UNCHANGED, range=several)
            pixels = found[0] if found else None
    except cv2.error:
        return None
    if pixels is None or pixels.size == 0:
        return None
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        order = (2, 1, 0, 3)[: pixels.shape[2]]  # from BGR; cvtColor knows fewer types
        pixels = np.ascontiguousarray(pixels[..., order])
    return np.asarray(pixels)


def oriented(pixels: NDArray[Any], tag: int) -> NDArray[Any]:
    """An image (H, W) or (H, W, C) as its orientation tag (1 to 8) says that it is to be seen."""
    if tag >= 5:
        pixels = pixels.swapaxes(0, 1)
    if tag in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if tag in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def pillow() -> ModuleType:
    """Pillow without its own limit, which warns from 89 million pixels on: we have one."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    return Image


@contextmanager
def _opened(data: bytes) -> Iterator[Any]:
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            yield file
    except HeaderError:
        raise
    except Exception as error:  # a broken file makes these readers raise whatever they come across
        raise HeaderError("its pages cannot be read") from error


def _bits(page: Any) -> int:
    """Of all samples of a pixel."""
    bits = page.bitspersample  # a tuple where the samples differ
    return int(sum(bits) if isinstance(bits, tuple) else bits * page.samplesperpixel)


def _is_whole(data: bytes, page: Any) -> bool:
    """Whether a TIFF page holds what it claims: OpenCV fills what is missing with zeros."""
    claimed: int = page.imagelength * page.imagewidth * _bits(page)
    if len(page.dataoffsets) < math.prod(page.chunked):
        return False
    if page.photometric == YCBCR:  # colours may be stored at half the resolution
        claimed = 0
    if page.compression in DEFLATED:
        return claimed <= 8 * _inflated_bytes(data, page)
    return page.compression != UNCOMPRESSED or claimed <= 8 * len(data)


def _inflated_bytes(data: bytes, page: Any) -> int:
    """The bytes in a deflated page; an EOFError or zlib.error where it is damaged."""
    most = 8 * math.prod(page.chunks)  # of a strip or tile, whatever its type
    found = 0
    for start, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        if size == 0:  # a part that is not stored: zeros
            found += most
            continue
        stream = zlib.decompressobj()
        found += len(stream.decompress(data[start : start + size], most))
        if not stream.eof:
            raise EOFError
    return found
