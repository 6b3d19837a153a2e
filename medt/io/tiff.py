"""Pages of TIFF files: what they announce, and to pixels."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medt.errors import UserError
from medt.io.image_headers import JPEG, Header, HeaderError, read_header
from medt.io.tiff_chain import read_chain

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION_TAG, INK_SET_TAG = 0x0112, 0x014C
# Of the photometric interpretation.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
LAB_AND_LOG = (8, 9, 10, 32844, 32845)  # of which readers make different colours
MULTIPLIED, ALPHA = 1, (1, 2)  # of the extra samples: colours multiplied by it, or either
UNCOMPRESSED, LZW, JPEGS, PACKED_BITS, LZMA = 1, 5, 7, 32773, 34925  # of the compression
FAX, DEFLATED = (2, 3, 4), (8, 32946)
# Compressions whose decoders, imagecodecs or libtiff, write no more than a strip or tile has.
READ = {UNCOMPRESSED, *FAX, LZW, JPEGS, *DEFLATED, PACKED_BITS, LZMA}
SWAPPED = (np.uint8, np.uint16, np.float32)  # the types of which OpenCV swaps channels, fast
MOST_SAMPLES = 2**16


class CompressionError(HeaderError):
    """A page is compressed in a way that is not read."""


class ColorError(HeaderError):
    """The colours of a page are none that are read."""


def page_places(data: bytes) -> list[int]:
    """Where the images of a file stand in it; previews of another size are none.

    Raises:
        HeaderError: the file is damaged, or names more pages than any stack has.
    """
    pages = read_chain(data)
    return [page.place for page in pages if page.shape == pages[0].shape]


def read_page_header(data: bytes) -> Header:
    """What the first page of a file announces, whose chain of pages was checked.

    Raises:
        CompressionError: its compression is not read.
        HeaderError: it is damaged.
    """
    with _first_page(data) as page:
        if page.compression not in READ:
            raise CompressionError(f"has a compression that is not read, {_name(page.compression)}")
        width, height, depth = page.imagewidth, page.imagelength, page.imagedepth
        if min(width, height, depth, *page.chunks) < 1:
            raise HeaderError("it has no pixels")
        _check_places(data, page)
        return Header(
            *(width, height, _sample_bytes(page), _channels(page)),
            bits=8 if page.photometric == PALETTE else max(_sample_bits(page)),
            alpha=_alpha(page),
            depth=depth,
            stored=_tiled_pixels(page) if page.is_tiled else 0,
            passes=_most_scans(data, page) if page.compression == JPEGS else 1,
        )


def decode_page(data: bytes) -> NDArray[Any]:
    """The pixels of the first page: (H, W) or (H, W, samples), as it is to be seen.

    Raises:
        CompressionError: its compression is read, but not of such pixels.
        ColorError: it has colours that are not read.
        HeaderError: it is damaged.
    """
    with _first_page(data) as page:
        _check_colors(page)
        if page.compression in FAX:
            return _faxed(data, page)
        if page.photometric == YCBCR and page.compression != JPEGS:
            return _luma_and_chroma(data, page)
        if page.compression == UNCOMPRESSED:
            page.predictor = 1  # which goes with a compression only
        pixels = np.asarray(page.asarray(maxworkers=1))
        if page.planarconfig == 2 and page.samplesperpixel > 1:
            pixels = np.moveaxis(pixels, 0, -1)
        pixels = _colors(pixels, page)
        tag = page.tags.get(ORIENTATION_TAG)
        return oriented(pixels, tag.value if tag else 1)


def decode_with_opencv(data: bytes) -> NDArray[Any] | None:
    """The first image of a file, channels in RGB order; None where OpenCV cannot."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if pixels is None or pixels.size == 0:
        return None
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        if pixels.dtype in SWAPPED:
            swap = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
            return np.asarray(cv2.cvtColor(pixels, swap))
        pixels = np.ascontiguousarray(pixels[..., (2, 1, 0, 3)[: pixels.shape[2]]])
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


@contextmanager
def opened_by_pillow(data: bytes) -> Iterator[Any]:
    """An image for Pillow, without its own limit, which warns from 89 million pixels: we have one.

    Raises:
        HeaderError: Pillow cannot read it; a broken file makes it raise whatever it comes across.
    """
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(io.BytesIO(data)) as image:
            yield image
    except Exception as error:
        raise HeaderError("Pillow cannot read it") from error


def _library() -> Any:
    """Tifffile, which without imagecodecs would do with less, and call a good file damaged."""
    try:
        import imagecodecs  # noqa: F401
        import tifffile
    except ImportError as error:
        raise UserError(f"reading TIFF needs {error.name}", f"pip install {error.name}") from None
    return tifffile


@contextmanager
def _first_page(data: bytes) -> Iterator[Any]:
    tifffile = _library()
    try:
        # Of these two makers tifffile would guess at pages that the file does not name.
        with tifffile.TiffFile(io.BytesIO(data), is_scanimage=False, is_ndpi=False) as file:
            yield file.pages.first
    except HeaderError:
        raise
    except Exception as error:  # a broken file makes these readers raise whatever they come across
        raise HeaderError("its pages cannot be read") from error


def _check_colors(page: Any) -> None:
    """Refuse colours that would come out as other ones."""
    samples, deep = page.samplesperpixel, page.dtype not in (np.uint8, np.uint16)
    inks = page.tags.valueof(INK_SET_TAG, 1)
    side_by_side = page.planarconfig == 1 and page.bitspersample == 8
    if (
        page.photometric in LAB_AND_LOG
        or (page.photometric == CMYK and (samples != 4 or inks != 1 or deep))
        or (page.photometric == YCBCR and (samples != 3 or not side_by_side))
        or (page.photometric == PALETTE and samples != 1)
    ):
        raise ColorError(f"has colours that are not read, {page.photometric.name}")


def _colors(pixels: NDArray[Any], page: Any) -> NDArray[Any]:
    """What the numbers of a page mean."""
    if page.photometric == PALETTE:
        table = page.colormap if page.colormap.max() < 256 else page.colormap >> 8
        indices = pixels.astype(np.uint16)  # bits come as bool
        return np.asarray(table.astype(np.uint8).T[indices])
    if page.bitspersample == 1:
        return np.where(pixels == (page.photometric == WHITE_IS_ZERO), 0, 255).astype(np.uint8)
    if pixels.dtype not in (np.uint8, np.uint16):
        return pixels
    most = np.iinfo(pixels.dtype).max
    if page.photometric == CMYK:
        light = most - pixels.astype(np.uint32)
        return ((light[..., :3] * light[..., 3:] + most // 2) // most).astype(pixels.dtype)
    if page.photometric == RGB and page.extrasamples == (MULTIPLIED,):
        alpha = pixels[..., 3:].astype(np.uint32)
        colors = np.minimum(pixels[..., :3] * np.uint32(most) // np.maximum(alpha, 1), most)
        return np.concatenate([colors * (alpha > 0), alpha], axis=2).astype(pixels.dtype)
    return pixels


def _faxed(data: bytes, page: Any) -> NDArray[Any]:
    """By Pillow, since imagecodecs for Python 3.10 does not know CCITT."""
    if (page.bitspersample, page.samplesperpixel) != (1, 1) or page.photometric == PALETTE:
        raise CompressionError(f"has pixels that are not read with {_name(page.compression)}")
    with opened_by_pillow(data) as image:
        return np.array(image.convert("L"))


def _luma_and_chroma(data: bytes, page: Any) -> NDArray[Any]:
    """The colours of a page that has one chroma for several pixels; libtiff fills what is missing.

    With JPEG its decoder does that.
    """
    tall, wide = page.chunks[-3:-1]
    across, down = page.subsampling or (2, 2)
    unpack = _library().TIFF.DECOMPRESSORS
    for number, (start, size) in enumerate(_places(page)):
        rows = tall if page.is_tiled else min(tall, page.imagelength - number * tall)
        claimed = -(-wide // across) * -(-rows // down) * (across * down + 2)
        part = data[start : start + size]
        if page.compression != UNCOMPRESSED:
            part = unpack[page.compression](part, out=claimed)
        if len(part) < claimed:
            raise HeaderError("a strip or tile is not whole")
    pixels = decode_with_opencv(data)
    if pixels is None:
        raise HeaderError("OpenCV cannot read it")
    return pixels


def _name(compression: int) -> str:
    try:
        return f"{_library().COMPRESSION(compression).name} ({int(compression)})"
    except ValueError:
        return str(compression)


def _channels(page: Any) -> tuple[int, ...]:
    """How many a decoded pixel may have."""
    samples: int = page.samplesperpixel
    if page.photometric == PALETTE:
        return samples, 3
    return (samples, 3) if page.photometric == CMYK else (samples,)


def _alpha(page: Any) -> tuple[int, ...]:
    """Which of a pixel's samples the file says are transparency; the extra ones are its last."""
    first = page.samplesperpixel - len(page.extrasamples)
    return tuple(first + i for i, kind in enumerate(page.extrasamples) if kind in ALPHA)


def _sample_bits(page: Any) -> list[int]:
    bits = page.bitspersample  # a tuple where the samples differ
    if page.samplesperpixel > MOST_SAMPLES:
        raise HeaderError("it has more samples than any image")
    return [*bits] if isinstance(bits, tuple) else [bits] * page.samplesperpixel


def _sample_bytes(page: Any) -> int:
    """Of a decoded pixel, whose samples have types of 1, 2, 4 or 8 bytes."""
    total = sum(1 << max(0, (bits - 1).bit_length() - 3) for bits in _sample_bits(page))
    return 3 * total if page.photometric == PALETTE else total


def _tiled_pixels(page: Any) -> int:
    """Of all tiles, also where they reach beyond the image."""
    sizes = (page.imagewidth, page.imagelength, page.imagedepth)
    tiles = (page.tilewidth, page.tilelength, page.tiledepth)
    return math.prod(-(-size // tile) * tile for size, tile in zip(sizes, tiles, strict=True))


def _check_places(data: bytes, page: Any) -> None:
    """Strips or tiles may share their bytes, as empty ones do, but not without end."""
    pixels = math.prod(page.chunks) * math.prod(page.chunked)
    if len(page.dataoffsets) < math.prod(page.chunked):
        raise HeaderError("it lacks strips or tiles")
    if sum(page.databytecounts) > len(data) + pixels * max(_sample_bits(page)):
        raise HeaderError("its strips or tiles share their bytes")


def _places(page: Any) -> list[tuple[int, int]]:
    """Start and size of the strips or tiles."""
    places = zip(page.dataoffsets, page.databytecounts, strict=True)
    return [*places][: math.prod(page.chunked)]


def _most_scans(data: bytes, page: Any) -> int:
    """Of the JPEGs in a page, each as large as its strip or tile; the lowest may be shorter."""
    tiled = page.is_tiled
    wide, tall = (
        (page.tilewidth, page.tilelength) if tiled else (page.imagewidth, page.rowsperstrip)
    )
    rows, columns = -(-page.imagelength // tall), -(-page.imagewidth // wide)
    scans = 1
    for number, (start, size) in enumerate(_places(page)):
        if size == 0:
            continue
        part = data[start : start + size]
        header = read_header(part)
        left = page.imagelength - number // columns % rows * tall
        if not part.startswith(JPEG) or header.width != wide:
            raise HeaderError("a strip or tile has another width than it claims")
        if header.height not in (tall, min(tall, left)):
            raise HeaderError("a strip or tile has another height than it claims")
        scans = max(scans, header.passes)
    return scans
