"""Pages of TIFF files: what they announce, and to pixels."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medt.io.image_headers import JPEG, Header, HeaderError, read_header
from medt.io.tiff_chain import read_chain

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION_TAG = 0x0112
# Of the photometric interpretation.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
ALPHA = (1, 2)  # of the extra samples: colours multiplied by it, or not; 0 is anything else
UNCOMPRESSED, LZW, JPEGS, PACKED_BITS, LZMA = 1, 5, 7, 32773, 34925  # of the compression
FAX, DEFLATED = (2, 3, 4), (8, 32946)
# Compressions whose decoders, libtiff's in OpenCV and Pillow or ours below, write no more than a
# strip or tile has, and that they have wherever medt is installed.
READ = {UNCOMPRESSED, *FAX, LZW, JPEGS, *DEFLATED, PACKED_BITS, LZMA}
UNPACKED = {LZW, *DEFLATED, PACKED_BITS, LZMA}  # by us
SWAPPED = (np.uint8, np.uint16, np.float32)  # the types of which OpenCV swaps channels, fast
MOST_SAMPLES = 2**16
MOST_DICTIONARY = 2**27  # bytes of LZMA; its highest usual setting takes 2**26


class CompressionError(HeaderError):
    """A page is compressed in a way that is not read."""


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
            bits=max(_sample_bits(page)),
            alpha=_alpha(page),
            depth=depth,
            stored=_tiled_pixels(page) if page.is_tiled else 0,
            passes=_most_scans(data, page) if page.compression == JPEGS else 1,
        )


def decode_page(data: bytes) -> NDArray[Any]:
    """The pixels of the first page: (H, W) or (H, W, samples), as it is to be seen.

    OpenCV is the fastest, but inverts 1 bit TIFFs, multiplies colours by alpha, reads but one of
    separate planes and of several channels that are no colours, and neither half precision nor
    small tiles.

    Raises:
        CompressionError: its compression is read, but not of such pixels.
        HeaderError: it is damaged.
    """
    with _first_page(data) as page:
        _check_whole(data, page)
        bits, samples = page.bitspersample, page.samplesperpixel
        if (bits, samples) == (1, 1) or _is_alpha_or_ink(page):
            with opened_by_pillow(data) as image:
                modes = {"RGBA": "RGBA", "CMYK": "RGB"}
                return np.array(image.convert(modes.get(image.mode, "L")))
        if samples == 1 or _is_colored(page):
            pixels = decode_with_opencv(data)
            if pixels is not None:
                # As OpenCV does with 8 bits, but no others.
                inverts = bits == 8 and samples == 1 and page.photometric == WHITE_IS_ZERO
                return 255 - pixels if inverts else pixels
        pixels = _assembled(data, page)
        if page.planarconfig == 2 and samples > 1:
            pixels = np.moveaxis(pixels, 0, -1)
        if bits == 1:
            pixels = pixels * np.uint8(255)
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


@contextmanager
def _first_page(data: bytes) -> Iterator[Any]:
    import tifffile

    try:
        # Of these two makers tifffile would guess at pages that the file does not name.
        with tifffile.TiffFile(io.BytesIO(data), is_scanimage=False, is_ndpi=False) as file:
            yield file.pages.first
    except HeaderError:
        raise
    except Exception as error:  # a broken file makes these readers raise whatever they come across
        raise HeaderError("its pages cannot be read") from error


def _name(compression: int) -> str:
    import tifffile

    try:
        return f"{tifffile.COMPRESSION(compression).name} ({int(compression)})"
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


def _is_colored(page: Any) -> bool:
    """Whether a page holds colours, side by side: three or four channels that are no RGB are not.

    That is how microscopes write them, and OpenCV would read the first one alone.
    """
    grey = page.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
    bare = page.bitspersample == 8 and page.samplesperpixel == 4  # as ink or alpha, but is neither
    return page.samplesperpixel in (3, 4) and page.planarconfig == 1 and not grey and not bare


def _is_alpha_or_ink(page: Any) -> bool:
    """Whether a page has colours of 8 bit with alpha, or CMYK."""
    if page.dtype != np.uint8 or page.samplesperpixel != 4 or page.planarconfig != 1:
        return False
    return page.photometric == CMYK or (page.photometric == RGB and _alpha(page) == (3,))


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


def _check_whole(data: bytes, page: Any) -> None:
    """Refuse a page that holds less than it claims: OpenCV fills what is missing with zeros."""
    claimed: int = page.imagelength * page.imagewidth * sum(_sample_bits(page))
    if page.photometric == YCBCR:  # colours may be stored at half the resolution
        claimed = 0
    held = 8 * len(data)
    if page.compression in (*DEFLATED, LZMA):
        full = _part_bytes(page)
        parts = _parts(data, page, page.compression)
        held = 8 * sum(full if part is None else len(part) for part in parts)
    if page.compression in (UNCOMPRESSED, *DEFLATED, LZMA) and claimed > held:
        raise HeaderError("its page is not whole")


def _assembled(data: bytes, page: Any) -> NDArray[Any]:
    """The pixels of a page that OpenCV does not read, by tifffile."""
    if page.compression not in (UNCOMPRESSED, *UNPACKED) or page.dtype is None:
        raise CompressionError(f"has pixels that are not read with {_name(page.compression)}")
    if page.compression == UNCOMPRESSED:
        page.predictor = 1  # which goes with a compression only
        return np.asarray(page.asarray())
    parts = _parts(data, page, page.compression)
    page.compression = UNCOMPRESSED  # as our parts are; tifffile would unpack without end
    pixels = np.full(page.shaped, page.nodata, page.dtype)
    for number, part in enumerate(parts):
        values, (sample, slices, top, left, _), shape = page.decode(part, number)
        if values is not None:
            place = pixels[sample, slices:, top:, left:][: shape[0], : shape[1], : shape[2]]
            place[...] = values[tuple(slice(size) for size in place.shape)]
    return np.reshape(pixels, page.shape)


def _parts(data: bytes, page: Any, compression: int) -> Iterator[bytes | None]:
    """The strips or tiles of a page, unpacked; None where one is not stored."""
    most = _part_bytes(page)
    for start, size in _places(page):
        yield _unpacked(data[start : start + size], compression, most) if size else None


def _places(page: Any) -> list[tuple[int, int]]:
    """Start and size of the strips or tiles."""
    places = zip(page.dataoffsets, page.databytecounts, strict=True)
    return [*places][: math.prod(page.chunked)]


def _part_bytes(page: Any) -> int:
    """The most that a strip or tile has."""
    size: int = math.prod(page.chunks) * -(-max(_sample_bits(page)) // 8)
    return size


def _unpacked(part: bytes, compression: int, most: int) -> bytes:
    if compression in (PACKED_BITS, LZW):
        unpack = _unpacked_bits if compression == PACKED_BITS else _unpacked_lzw
        content, whole = unpack(part, most), True
    else:
        stream = zlib.decompressobj() if compression in DEFLATED else _lzma()
        content = stream.decompress(part, most + 1)
        whole = stream.eof
    if len(content) > most or not whole:
        raise HeaderError("a strip or tile is damaged, or has more than it claims")
    return content


def _unpacked_lzw(part: bytes, most: int) -> bytes:
    """TIFF 6.0, section 13, no more than just beyond ``most``; a page that lacks some is told."""
    clear, end, start = 256, 257, [bytes([i]) for i in range(256)] + [b"", b""]
    table, content, last = start.copy(), bytearray(), b""
    bits, held, width = 0, 0, 9
    for byte in part:
        bits, held = bits << 8 | byte, held + 8
        if held < width:
            continue
        held -= width
        code, bits = bits >> held, bits & ((1 << held) - 1)
        if code == end or len(content) > most:
            break
        if code == clear:
            table, last, width = start.copy(), b"", 9
            continue
        if code > len(table) - (not last) or len(table) > 4096:
            raise HeaderError("a strip or tile is damaged")
        entry = table[code] if code < len(table) else last + last[:1]
        if last:
            table.append(last + entry[:1])
        width = max(9, (len(table) + 1).bit_length()) if len(table) < 4095 else 12
        content += entry
        last = entry
    return bytes(content)


def _lzma() -> Any:
    import lzma  # which not every Python has

    return lzma.LZMADecompressor(memlimit=MOST_DICTIONARY)


def _unpacked_bits(part: bytes, most: int) -> bytes:
    """TIFF 6.0, section 9: a byte counts those that follow it, or repeats the next one."""
    content, place = bytearray(), 0
    while place < len(part) and len(content) <= most:
        count = part[place]
        if count < 128:
            content += part[place + 1 : place + 2 + count]
            place += 2 + count
        else:
            content += part[place + 1 : place + 2] * (257 - count) if count > 128 else b""
            place += 2 if count > 128 else 1
    return bytes(content)


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
