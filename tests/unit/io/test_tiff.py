"""Whatever the tags of a TIFF lead to, it costs what its header announces."""

from __future__ import annotations

import contextlib
import io
import lzma
import struct
import tracemalloc
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from medt.errors import UserError
from medt.io import tiff_chain
from medt.io.images import count_pages, decode_image

PIXELS = np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8)
GREY = PIXELS[..., 0]
WIDTH, BITS, COMPRESSION, PLACES, ROWS, SIZES, TILE_WIDTH = 256, 258, 259, 273, 278, 279, 322
BOMB = 2**28  # bytes, of which an image of 24 x 40 has next to none
REFUSED = r"^a\.tif cannot be decoded [^\n]*$"


def tiff(pixels: NDArray[Any] = GREY, **how: Any) -> bytes:
    content = io.BytesIO()
    how.setdefault("photometric", "minisblack")
    tifffile.imwrite(content, pixels, **how)
    return content.getvalue()


def by_pillow(pixels: NDArray[Any] = GREY, **how: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "TIFF", **how)
    return content.getvalue()


def changed(data: bytes, code: int, value: int, count: int = 1) -> bytes:
    """The first page with another value of a tag, or with the place of several of them."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place = file.pages.first.tags[code].offset
    entry = struct.pack("<HHII", code, 4, count, value)
    return data[:place] + entry + data[place + 12 :]


def with_strip(data: bytes, content: bytes) -> bytes:
    """A file of one strip that holds this instead."""
    return changed(changed(data, PLACES, len(data)), SIZES, len(content)) + content


class TestChains:
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("big", [False, True])
    @pytest.mark.parametrize("back_to", [0, 1, 149])
    def test_a_circle_is_refused_wherever_it_closes(
        self, order: Any, big: bool, back_to: int
    ) -> None:
        pixels = np.zeros((150, 4, 4), np.uint8)
        data = bytearray(tiff(pixels, byteorder=order, bigtiff=big, metadata=None))
        pages = [page.place for page in tiff_chain.read_chain(bytes(data))]
        assert len(pages) == count_pages(bytes(data), "a.tif") == 150
        count, place, tag = ("Q", "Q", 20) if big else ("H", "I", 12)
        (tags,) = struct.unpack_from(order + count, data, pages[-1])
        end = pages[-1] + struct.calcsize(count) + tag * tags
        struct.pack_into(order + place, data, end, pages[back_to])
        for read in (count_pages, decode_image):
            with pytest.raises(UserError, match=REFUSED):
                read(bytes(data), "a.tif")

    @pytest.mark.parametrize("big", [False, True])
    @pytest.mark.parametrize("place", [0, 2**20, 2**32 - 1, 2**63, 2**64 - 1])
    def test_a_first_page_outside_the_file_is_refused(self, big: bool, place: int) -> None:
        data = bytearray(tiff(bigtiff=big))
        struct.pack_into(
            "<Q" if big else "<I", data, 8 if big else 4, place % 2 ** (64 if big else 32)
        )
        for read in (count_pages, decode_image):
            with pytest.raises(UserError, match=REFUSED):
                read(bytes(data), "a.tif")

    def test_a_last_page_that_names_a_next_one_outside_the_file_is_the_last(self) -> None:
        data = bytearray(tiff())
        (page,) = tiff_chain.read_chain(bytes(data))
        (tags,) = struct.unpack_from("<H", data, page.place)
        struct.pack_into("<I", data, page.place + 2 + 12 * tags, 2**31)
        assert np.array_equal(decode_image(bytes(data), "a.tif"), GREY)

    def test_more_pages_than_any_stack_has_are_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = tiff(np.zeros((12, 4, 4), np.uint8), metadata=None)
        monkeypatch.setattr(tiff_chain, "MOST_PAGES", 12)
        assert count_pages(data, "a.tif") == 12
        monkeypatch.setattr(tiff_chain, "MOST_PAGES", 11)
        with pytest.raises(UserError, match=REFUSED):
            count_pages(data, "a.tif")

    @pytest.mark.parametrize("count", [2**10, 2**31, 2**32 - 1])
    def test_values_that_lie_outside_the_file_are_refused(self, count: int) -> None:
        with pytest.raises(UserError, match=REFUSED):
            decode_image(changed(tiff(), ROWS, 8, count), "a.tif")

    def test_tags_that_share_the_values_of_the_whole_file_are_refused(self) -> None:
        data = tiff(np.zeros((100, 100), np.uint8))
        with pytest.raises(UserError, match=REFUSED):
            decode_image(changed(changed(data, ROWS, 8, 2000), BITS, 8, 2000), "a.tif")

    def test_more_numbers_than_any_page_has_are_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        strips = tiff(rowsperstrip=1)
        assert np.array_equal(decode_image(strips, "a.tif"), GREY)
        monkeypatch.setattr(tiff_chain, "MOST_NUMBERS", 40)
        with pytest.raises(UserError, match=REFUSED):
            decode_image(strips, "a.tif")

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("big", [False, True])
    @pytest.mark.parametrize("how", [{}, {"compression": "zlib"}, {"tile": (16, 16)}])
    def test_every_page_of_a_stack_is_read(self, order: Any, big: bool, how: Any) -> None:
        stack = np.random.default_rng(1).integers(0, 2**16, (3, 24, 40)).astype(np.uint16)
        data = tiff(stack, byteorder=order, bigtiff=big, **how)
        for number, pixels in enumerate(stack):
            assert np.array_equal(decode_image(data, "a.tif", number), pixels)

    @pytest.mark.parametrize("compression", [5, 8, 32773])
    def test_pages_that_only_opencv_reads_are_no_exception(self, compression: int) -> None:
        pages = [np.full((24, 40), i, np.float32) for i in range(3)]
        how = [cv2.IMWRITE_TIFF_COMPRESSION, compression]
        data = cv2.imencodemulti(".tif", pages, how)[1].tobytes()
        assert [decode_image(data, "a.tif", i).max() for i in range(3)] == [0, 1, 2]


class TestCompressions:
    @pytest.mark.parametrize(
        ("number", "name"),
        [
            *((6, "OJPEG"), (33003, "APERIO_JP2000_YCBC"), (34712, "JPEG2000"), (34887, "LERC")),
            *((34933, "PNG"), (50000, "ZSTD"), (50001, "WEBP"), (50002, "JPEGXL"), (77, "77")),
        ],
    )
    def test_others_than_a_few_are_refused_by_name(self, number: int, name: str) -> None:
        with pytest.raises(UserError) as caught:
            decode_image(changed(tiff(), COMPRESSION, number), "a.tif")
        assert str(caught.value).startswith(f"a.tif has a compression that is not read, {name}")
        assert str(caught.value).endswith("(save it uncompressed or with Deflate, or as PNG)")

    def test_what_is_read_of_usual_pixels_only_is_said_of_others(self) -> None:
        data = changed(tiff(PIXELS[..., :2], planarconfig="contig"), COMPRESSION, 4)
        with pytest.raises(UserError, match=r"has pixels that are not read with CCITT\w+ \(4\)"):
            decode_image(data, "a.tif")

    @pytest.mark.parametrize("samples", [1, 2, 3, 4])
    @pytest.mark.parametrize("name", ["tiff_lzw", "packbits", "tiff_deflate", "tiff_lzma"])
    def test_these_few_are_read(self, name: str, samples: int) -> None:
        pixels = np.resize(PIXELS, (24, 40, samples)) if samples > 1 else GREY
        data = by_pillow(pixels, compression=name)
        assert np.array_equal(decode_image(data, "a.tif"), pixels)

    @pytest.mark.parametrize("shape", [(24, 40), (24, 40, 5), (24, 40, 2), (3, 24, 40)])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16])
    @pytest.mark.parametrize("name", ["zlib", "lzma"])
    @pytest.mark.parametrize(
        "how", [{}, {"tile": (16, 32)}, {"rowsperstrip": 7}, {"byteorder": ">"}]
    )
    def test_what_we_unpack_is_what_was_packed(
        self, shape: tuple[int, ...], dtype: Any, name: Any, how: Any
    ) -> None:
        pixels = np.random.default_rng(1).integers(0, 200, shape).astype(dtype)
        planar = {2: None, 3: "separate" if shape[0] == 3 else "contig"}[len(shape)]
        data = tiff(pixels, compression=name, planarconfig=planar, **how)
        expected = np.moveaxis(pixels, 0, -1) if shape[0] == 3 else pixels
        assert np.array_equal(decode_image(data, "a.tif"), expected)

    def test_packed_bits_of_many_channels(self) -> None:
        pixels = np.repeat(np.arange(5, dtype=np.uint8), 40).reshape(5, 8, 5)
        rows = b"".join(bytes([256 - 39, value]) for value in range(5))
        data = with_strip(tiff(pixels, planarconfig="contig"), rows)
        assert np.array_equal(decode_image(changed(data, COMPRESSION, 32773), "a.tif"), pixels)

    @pytest.mark.parametrize("samples", [1, 5])
    @pytest.mark.parametrize(
        ("number", "bomb"),
        [
            (8, zlib.compress(bytes(BOMB))),
            (34925, lzma.compress(bytes(BOMB), preset=1)),
            (32773, b"\x81\0" * 2**21),
        ],
    )
    def test_a_strip_unpacks_to_no_more_than_it_claims(
        self, samples: int, number: int, bomb: bytes
    ) -> None:
        pixels = np.zeros((24, 40, samples), np.uint8)[..., 0 if samples == 1 else slice(None)]
        data = with_strip(tiff(pixels, planarconfig=None if samples == 1 else "contig"), bomb)
        data = changed(data, COMPRESSION, number)
        # liblzma stops where the strip is full.
        refused = pytest.raises(UserError, match=REFUSED)
        read = contextlib.nullcontext() if number == 34925 else refused
        tracemalloc.start()
        with read:
            decode_image(data, "a.tif")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**25, "the file and a few pixels"

    def test_a_dictionary_as_large_as_the_memory_is_refused(self) -> None:
        packed = bytearray(lzma.compress(GREY.tobytes(), lzma.FORMAT_ALONE))
        packed[1:5] = struct.pack("<I", 2**32 - 1)
        data = changed(with_strip(tiff(), bytes(packed)), COMPRESSION, 34925)
        with pytest.raises(UserError, match=REFUSED):
            decode_image(data, "a.tif")


class TestStripsAndTiles:
    @pytest.fixture(autouse=True)
    def limited(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MEDT_MAX_PIXELS", "100000")

    def test_what_tiles_have_beyond_the_image_counts(self) -> None:
        data = tiff(np.zeros((10, 10), np.uint8), tile=(16, 16), compression="zlib")
        wide = changed(changed(data, TILE_WIDTH, 2**20), TILE_WIDTH + 1, 2**20)
        said = r"a\.tif claims tiles of 1,099,511,627,776 pixels for 10 x 10, more than 100,000"
        with pytest.raises(UserError, match=said):
            decode_image(wide, "a.tif")

    @pytest.mark.parametrize("code", [WIDTH, TILE_WIDTH])
    def test_nothing_has_no_pixels(self, code: int) -> None:
        data = tiff(np.zeros((10, 10), np.uint8), tile=(16, 16))
        with pytest.raises(UserError, match=REFUSED):
            decode_image(changed(data, code, 0), "a.tif")

    def test_strips_that_share_their_bytes_without_end_are_refused(self) -> None:
        strip = zlib.compress(GREY[:1].tobytes()) + bytes(2**16)
        data = tiff(compression="zlib", rowsperstrip=1)
        places = struct.pack("<24I", *[len(data)] * 24)
        sizes = struct.pack("<24I", *[len(strip)] * 24)
        data = changed(data, PLACES, len(data) + len(strip), 24)
        data = changed(data, SIZES, len(data) + len(strip) + len(places), 24)
        with pytest.raises(UserError, match=REFUSED):
            decode_image(data + strip + places + sizes, "a.tif")

    def test_jpegs_are_read(self) -> None:
        for pixels in (GREY, PIXELS):
            found = decode_image(by_pillow(pixels, compression="jpeg", quality=95), "a.tif")
            assert found.shape == pixels.shape
            assert np.abs(found.astype(int) - pixels).mean() < 30

    @pytest.mark.parametrize("shape", [(24, 41), (25, 40), (23, 40), (24, 39), (300, 300)])
    def test_a_jpeg_of_another_size_than_its_strip_is_refused(self, shape: tuple[int, int]) -> None:
        jpeg = cv2.imencode(".jpg", np.zeros(shape, np.uint8))[1].tobytes()
        data = changed(tiff(), COMPRESSION, 7)
        with pytest.raises(UserError, match=REFUSED):
            decode_image(with_strip(data, jpeg), "a.tif")
        right = cv2.imencode(".jpg", np.full((24, 40), 9, np.uint8))[1].tobytes()
        assert np.all(decode_image(with_strip(data, right), "a.tif") == 9)

    def test_the_scans_of_a_jpeg_count(self) -> None:
        content = io.BytesIO()
        Image.fromarray(np.resize(GREY, (200, 200))).save(content, "JPEG", progressive=True)
        jpeg = content.getvalue()
        last = jpeg.rindex(b"\xff\xda")
        data = changed(tiff(np.zeros((200, 200), np.uint8)), COMPRESSION, 7)
        assert decode_image(with_strip(data, jpeg), "a.tif").shape == (200, 200)
        many = jpeg[:-2] + jpeg[last:-2] * 50 + jpeg[-2:]
        with pytest.raises(UserError, match=r"a\.tif takes \d+ passes over 200 x 200 pixels"):
            decode_image(with_strip(data, many), "a.tif")
        more = jpeg[:-2] + jpeg[last:-2] * 100 + jpeg[-2:]
        with pytest.raises(UserError, match=REFUSED):
            decode_image(with_strip(data, more), "a.tif")
