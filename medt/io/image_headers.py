"""What the header of an image file announces, read before anything is decoded.

Small readers of our own, since a library that stumbles over one part of a header says nothing of
the rest, and the decoder then reads what nobody has counted.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from medt.errors import UserError
from medt.io.files import environment_number

PNG, JPEG, BMP, GIFS = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", (b"GIF87a", b"GIF89a")
MOST_FRAMES = 100_000
MOST_SCANS = 64  # of a progressive JPEG, which has ten or so, and is decoded anew for each
MOST_CHUNKS = 2**20  # of a PNG; one of a gigabyte has a tenth, of 8 KB each
MOST_BLOCKS = 2**23  # of a GIF; one of a gigabyte has half, of 255 bytes each
MOST_SEGMENTS = 2**16  # of a JPEG; thousands are rare
# All that pixels, palette, transparency, orientation and animation need. Text, profiles and the
# like may unpack to gigabytes, or be damaged so that one library refuses what another reads.
PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IEND"}
PNG_CHANNELS = {0: (1,), 2: (3,), 3: (3, 4), 4: (4,), 6: (4,)}  # decoded, by colour type
# What ends the data of a scan: a marker that is neither a stuffed zero nor a restart.
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
JPEG_FRAMES = {0xC0 + n for n in range(16)} - {0xC4, 0xC8, 0xCC}
END_OF_IMAGE, START_OF_SCAN, APP1 = 0xD9, 0xDA, 0xE1
ORIENTING = (b"Exif", b"http://ns.adobe.com/xap/1.0/")  # names of such segments
GIF_BLOCK = re.compile(rb"[!,;]")
GIF_CONTROL = 0xF9  # transparency and timing; other extensions are comments and the like

MOST_PIXELS = 2**28
PIXEL_BYTES = 4  # that the limit takes a pixel for: 8 bit RGBA
MOST_PASSES = 16  # over an image of the limit; more over a smaller one


class HeaderError(ValueError):
    """A header that cannot be read, or announces what no image has."""


@dataclass(frozen=True)
class Header:
    """What a file announces.

    Attributes:
        width, height: pixels of an image.
        sample_bytes: of all samples of a pixel.
        channels: how many a decoded pixel may have: a palette becomes colours, grey with alpha
            RGBA, CMYK RGB.
        bits: of a sample.
        alpha: which of these channels, from 0, are transparency where they are there.
        depth: slices of a volume; 1 of an image.
        frames: images in the file.
        stored: pixels that are unpacked, where they are more than those of the image; else 0.
        passes: how often every pixel is decoded.
    """

    width: int
    height: int
    sample_bytes: int
    channels: tuple[int, ...]
    bits: int = 8
    alpha: tuple[int, ...] = ()
    depth: int = 1
    frames: int = 1
    stored: int = 0
    passes: int = 1


def check_size(header: Header, name: str, passes: int) -> None:
    """Raises UserError for an image that takes more memory or time than allowed."""
    pixels = header.width * header.height * header.depth
    most = environment_number("MEDT_MAX_PIXELS", MOST_PIXELS)
    size = f"{header.width} x {header.height}" + (f" x {header.depth}" * (header.depth > 1))
    stored = max(pixels, header.stored)
    memory, most_memory = stored * header.sample_bytes, PIXEL_BYTES * most
    claim = ""
    if pixels > most:
        claim = f"claims {size} pixels, more than {most:,}"
    elif stored > most:
        claim = f"claims tiles of {stored:,} pixels for {size}, more than {most:,}"
    elif memory > most_memory:
        claim = f"claims {memory / 1e6:,.1f} MB of pixels, more than {most_memory / 1e6:,.1f}"
    elif passes * stored > MOST_PASSES * most:
        claim = f"takes {passes} passes over {size} pixels, more than {MOST_PASSES * most:,} in all"
    if claim:
        raise UserError(
            f"{name} {claim}", "if it is right, set MEDT_MAX_PIXELS in the environment to allow it"
        )


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


def needed_parts(data: bytes) -> bytes:
    """A PNG or GIF without the parts that its pixels do not need; others as they are.

    Raises:
        HeaderError: it has more parts than any image.
    """
    if data.startswith(PNG):
        chunks = png_chunks(data)
        return _kept(data, len(PNG), [part for part in chunks if part[0] in PNG_CHUNKS], b"")
    if data.startswith(GIFS):
        try:
            start = _first_gif_block(data)
            return _kept(data, start, [*gif_blocks(data)], b";")
        except (struct.error, IndexError):
            return data  # whose reader says that it is cut
    return data


def _kept(data: bytes, start: int, parts: list[tuple[bytes, int, int]], end: bytes) -> bytes:
    return b"".join([data[:start], *(data[a:b] for _, a, b in parts), end])


def orientation_parts(data: bytes) -> bytes:
    """A PNG or JPEG with nothing but what may say how it is to be seen; empty if nothing does.

    Of a PNG that is the eXIf chunk only: what text chunks say of it, few programs follow.

    Raises:
        HeaderError: it has more parts than any image.
    """
    if data.startswith(PNG):
        first = {kind: (kind, a, b) for kind, a, b in reversed([*png_chunks(data)])}
        parts = [first[kind] for kind in (b"IHDR", b"eXIf", b"IEND") if kind in first]
        return _kept(data, len(PNG), parts, b"") if b"eXIf" in first else b""
    kept: dict[bytes, bytes] = {}
    try:
        for marker, start, end in jpeg_segments(data):
            name = data[start + 4 : start + 40].split(b"\0")[0]
            if marker in JPEG_FRAMES or (marker == APP1 and name in ORIENTING):
                kept.setdefault(b"frame" if marker in JPEG_FRAMES else name, data[start:end])
            if marker == START_OF_SCAN:
                break
    except struct.error:
        pass  # the decoder says that it is cut
    scan = b"\xff\xda\0\2\xff\xd9"  # the header ends here
    return b"".join([data[:2], *kept.values(), scan]) if {*ORIENTING} & {*kept} else b""


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the whole chunks of a PNG, up to its end or the first that is cut."""
    start = len(PNG)
    for _ in range(MOST_CHUNKS):
        if start + 12 > len(data):
            return
        (size,) = struct.unpack_from(">I", data, start)
        end = start + 12 + size
        if end > len(data):
            return
        kind = data[start + 4 : start + 8]
        yield kind, start, end
        if kind == b"IEND":
            return
        start = end
    raise HeaderError("it has more chunks than any PNG")


def _png(data: bytes) -> Header:
    kind = data[12:16]
    width, height, bits, color = struct.unpack_from(">IIBB", data, 16)
    if kind != b"IHDR" or color not in PNG_CHANNELS:
        raise HeaderError("its first chunk is not a header")
    frames, channels = 1, PNG_CHANNELS[color]
    for name, start, _ in png_chunks(data):
        if name == b"IHDR" and start != len(PNG):
            raise HeaderError("it has several headers")
        if name == b"acTL":
            (frames,) = struct.unpack_from(">I", data, start + 8)
        if name in (b"acTL", b"tRNS"):
            # An animation is read in colours, and transparency may become alpha.
            channels = (*PNG_CHANNELS[color], 3, 4)
    size = max(channels) * max(1, bits // 8)
    return Header(width, height, size, channels, bits, alpha=(3,), frames=frames)


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of the segments of a JPEG that have content, up to its end.

    Raises:
        struct.error: the last one is cut.
    """
    place = 2
    for _ in range(MOST_SEGMENTS):
        found = JPEG_MARKER.search(data, place)
        if found is None or found[0][1] == END_OF_IMAGE:
            return
        place = found.end()
        if found[0][1] != 0x01:
            (size,) = struct.unpack_from(">H", data, place)
            place += size
            yield found[0][1], found.start(), place
    raise HeaderError("it has more segments than any JPEG")


def _jpeg(data: bytes) -> Header:
    header, scans = None, 0
    for marker, start, _ in jpeg_segments(data):
        if marker in JPEG_FRAMES:
            bits, height, width, samples = struct.unpack_from(">BHHB", data, start + 4)
            if header is not None:
                raise HeaderError("it announces several images in one")
            channels = (1,) if samples == 1 else (3,)
            header = Header(width, height, samples * (1 if bits <= 8 else 2), channels, bits)
        elif marker == START_OF_SCAN:
            scans += 1
            if scans > MOST_SCANS:
                raise HeaderError(f"it has more than {MOST_SCANS} scans")
    if header is None:
        raise HeaderError("it announces no image")
    return replace(header, passes=max(1, scans))


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
    channels = (1, 3) if bits <= 8 else (3, 4) if bits == 32 else (3,)
    return Header(abs(width), abs(height), max(3, bits // 8), channels, alpha=(3,))


def gif_blocks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the blocks of a GIF that its pixels need: images, and their timing.

    What stands between blocks is passed over, as Pillow does.

    Raises:
        IndexError: the last one is cut.
    """
    place, blocks = _first_gif_block(data), 0
    while (found := GIF_BLOCK.search(data, place)) is not None and found[0] != b";":
        start = found.start()
        place = start + (2 if found[0] == b"!" else 11 + _colors(data[start + 9]))
        while data[place]:
            place += 1 + data[place]
            blocks += 1
        place += 1
        blocks += 1
        if blocks > MOST_BLOCKS:
            raise HeaderError("it has more blocks than any GIF")
        if found[0] == b"," or data[start + 1] == GIF_CONTROL:
            yield found[0], start, place


def _gif(data: bytes) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    frames = 0
    for kind, start, _ in gif_blocks(data):
        if kind == b",":
            left, top, wide, tall = struct.unpack_from("<HHHH", data, start + 1)
            width, height = max(width, left + wide), max(height, top + tall)
            frames += 1
            if frames > MOST_FRAMES:
                break
    return Header(width, height, 4, (1, 3, 4), alpha=(3,), frames=frames)


def _first_gif_block(data: bytes) -> int:
    return 13 + _colors(data[10])


def _colors(flags: int) -> int:
    """The bytes of a table of colours."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
