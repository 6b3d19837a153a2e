"""The pages of a TIFF file, found before a library looks for them.

Each page names the place of the next and of its tags' values. Libraries follow such places wherever
they lead: in a circle, or to the same gigabyte again and again.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from medt.io.image_headers import HeaderError

MOST_PAGES = 100_000
MOST_TAGS = 4096  # of a page; a few dozen are usual
MOST_TAGS_IN_ALL = 2**22
MOST_NUMBERS = 2**22  # of a page's tags, which become Python objects; two are for a strip or tile
SHARED_BYTES = 2**12  # of values that a page may have in common with others, such as a resolution
# The bytes of a value by the number of its type: TIFF 6.0, pages 15 and 16; BigTIFF from 16 on.
VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
VALUE_BYTES |= {16: 8, 17: 8, 18: 8}
WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
WIDTH, HEIGHT, SAMPLES, DEPTH = 256, 257, 277, 32997


@dataclass(frozen=True)
class Page:
    """Where a page stands in its file, and its (width, height, samples, depth)."""

    place: int
    shape: tuple[int, int, int, int]


class _Format:
    """How a file writes its numbers: classic or BigTIFF, little or big endian."""

    def __init__(self, data: bytes) -> None:
        self.order = "<" if data.startswith(b"II") else ">"
        big = b"+" in data[:4]
        self.first = 8 if big else 4  # where the place of the first page stands
        self.place = struct.Struct(self.order + ("Q" if big else "I"))
        self.count = struct.Struct(self.order + ("Q" if big else "H"))
        self.tag = struct.Struct(self.order + ("HHQ8s" if big else "HHI4s"))


def read_chain(data: bytes) -> list[Page]:
    """The pages of a TIFF, at least one, up to the last or to the end of a file that is cut.

    Raises:
        HeaderError: they lead in a circle, are too many, or name more values than the file holds.
    """
    try:
        return _follow(data, _Format(data))
    except struct.error as error:
        raise HeaderError("it ends too early") from error


def page_alone(data: bytes, place: int) -> bytes:
    """The same file with the page at ``place`` as its first, so that nobody looks for it."""
    form = _Format(data)
    end = form.first + form.place.size
    if form.place.unpack_from(data, form.first) == (place,):
        return data
    return b"".join([data[: form.first], form.place.pack(place), memoryview(data)[end:]])


def _follow(data: bytes, form: _Format) -> list[Page]:
    pages: list[Page] = []
    seen: set[int] = set()
    tags_left, bytes_left = MOST_TAGS_IN_ALL, len(data)
    (place,) = form.place.unpack_from(data, form.first)
    while 0 < place < len(data):
        if place in seen:
            raise HeaderError("its pages lead in a circle")
        seen.add(place)
        (tags,) = form.count.unpack_from(data, place)
        start = place + form.count.size
        end = start + tags * form.tag.size
        tags_left -= tags
        if len(seen) > MOST_PAGES or tags > MOST_TAGS or tags_left < 0 or end > len(data):
            raise HeaderError("it has more pages or tags than any file")
        shape, size = _tags(data, form, start, end)
        bytes_left += SHARED_BYTES - size
        if bytes_left < 0:
            raise HeaderError("its tags have more values than the file")
        pages.append(Page(place, shape))
        (place,) = form.place.unpack_from(data, end)
    if not pages:
        raise HeaderError("it has no page")
    return pages


def _tags(
    data: bytes, form: _Format, start: int, end: int
) -> tuple[tuple[int, int, int, int], int]:
    """The shape that a page's tags name, and the bytes of the values that stand elsewhere."""
    found = {WIDTH: 0, HEIGHT: 0, SAMPLES: 1, DEPTH: 1}
    elsewhere, numbers = 0, 0
    for code, kind, count, value in form.tag.iter_unpack(memoryview(data)[start:end]):
        each = VALUE_BYTES.get(kind, 0)  # nobody reads a type that nobody knows
        size = count * each
        numbers += count if each > 1 else 0
        if size > len(value):
            (place,) = form.place.unpack(value)
            if place + size > len(data):
                raise HeaderError("a tag's values lie outside the file")
            elsewhere += size
        elif code in found and count == 1 and kind in WHOLE_NUMBERS:
            (found[code],) = struct.unpack_from(form.order + WHOLE_NUMBERS[kind], value)
    if numbers > MOST_NUMBERS:
        raise HeaderError("its tags have more values than any page")
    return (found[WIDTH], found[HEIGHT], found[SAMPLES], found[DEPTH]), elsewhere
