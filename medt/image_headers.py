"""What the header of an image file announces, read before anything is decoded.

Small readers of our own, since a library that stumbles over one part of a header says nothing of
the rest, and the decoder then reads what nobody has counted.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

PNG, JPEG, BMP, GIFS = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", (b"GIF87a", b"GIF89a")
MOST_FRAMES = 100_000
MOST_SCANS = 64  # of a progressive JPEG, which has ten or so, and is decoded anew for each
# All that pixels, palette, transparency, orientation and animation need. Text, profiles and the
# like may unpack to gigabytes, or be damaged so that one library refuses what another reads.
PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IEND"}
PNG_SAMPLES = {0: 1, 2: 3, 3: 4, 4: 2, 6: 4}  # by colour type; a palette's colours may have alpha
# What ends the data of a scan: a marker that is neither a stuffed zero nor a restart.
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
JPEG_FRAMES = {0xC0 + n for n in range(16)} - {0xC4, 0xC8, 0xCC}
END_OF_IMAGE, START_OF_SCAN = 0xD9, 0xDA


class HeaderError(ValueError):
    """A header that cannot be read, or announces what no image has."""


@dataclass(frozen=True)
class Header:
    """What a file announces.

    Attributes:
        width, height: pixels of an image.
        sample_bytes: of all samples of a pixel.
        depth: slices of a volume; 1 of an image.
        frames: images in the file.
    """

    width: int
    height: int
    sample_bytes: int
    depth: int = 1
    frames: int = 1


def read_header(data: bytes) -> Header:
    """The header of a PNG, JPEG, BMP or GIF.

    Raises:
        HeaderError: it is of another format, or cannot be read.
    """
    try:
        if data.startswith(PNG):
            return _png(data)
        if data.startswith(JPEG):
            return _jpeg(data)
        if data.startswith(BMP):
            return _bmp(data)
        if data.startswith(GIFS):
            return _gif(data)
    except (struct.error, IndexError) as error:
        raise HeaderError("it ends too early") from error
    raise HeaderError("it is of another format")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the whole chunks of a PNG, up to its end or the first that is cut."""
    start = len(PNG)
    while start + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, start)
        end = start + 12 + size
        if end > len(data):
            return
        kind = data[start + 4 : start + 8]
        yield kind, start, end
        if kind == b"IEND":
            return
        start = end


def needed_chunks(data: bytes) -> bytes:
    """A PNG without the chunks that its pixels do not need."""
    chunks = list(png_chunks(data))
    kept = [data[start:end] for kind, start, end in chunks if kind in PNG_CHUNKS]
    if len(kept) == len(chunks) and chunks and chunks[-1][2] == len(data):
        return data
    return b"".join([data[: len(PNG)], *kept])


def _png(data: bytes) -> Header:
    kind = data[12:16]
    width, height, bits, color = struct.unpack_from(">IIBB", data, 16)
    if kind != b"IHDR" or color not in PNG_SAMPLES:
        raise HeaderError("its first chunk is not a header")
    frames = 1
    for name, start, _ in png_chunks(data):
        if name == b"acTL":
            (frames,) = struct.unpack_from(">I", data, start + 8)
    return Header(width, height, PNG_SAMPLES[color] * max(1, bits // 8), frames=frames)


def _jpeg(data: bytes) -> Header:
    header, scans, place = None, 0, 2
    while True:
        found = JPEG_MARKER.search(data, place)
        if found is None:
            break
        marker, place = found[0][1], found.end()
        if marker == END_OF_IMAGE:
            break
        if marker == 0x01:
            continue
        (size,) = struct.unpack_from(">H", data, place)
        if marker in JPEG_FRAMES:
            bits, height, width, samples = struct.unpack_from(">BHHB", data, place + 2)
            if header is not None:
                raise HeaderError("it announces several images in one")
            header = Header(width, height, samples * (1 if bits <= 8 else 2))
        elif marker == START_OF_SCAN:
            scans += 1
            if scans > MOST_SCANS:
                raise HeaderError(f"it has more than {MOST_SCANS} scans")
        place += size
    if header is None:
        raise HeaderError("it announces no image")
    return header


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
    return Header(abs(width), abs(height), max(3, bits // 8))


def _gif(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    place = 13 + _colors(flags)
    frames = 0
    while data[place : place + 1] in (b"!", b","):
        if data[place] == 0x2C:
            left, top, wide, tall, flags = struct.unpack_from("<HHHHB", data, place + 1)
            width, height = max(width, left + wide), max(height, top + tall)
            place += 11 + _colors(flags)
            frames += 1
            if frames > MOST_FRAMES:
                break
        else:
            place += 2
        while data[place]:
            place += 1 + data[place]
        place += 1
    return Header(width, height, 4, frames=frames)


def _colors(flags: int) -> int:
    """The bytes of a table of colours."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
