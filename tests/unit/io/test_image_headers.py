"""What an image costs is read from its header, whatever else the file holds."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medt.errors import UserError
from medt.io import image_headers
from medt.io.image_headers import HeaderError, needed_parts, orientation_parts, read_header
from medt.io.images import (
    count_pages,
    decode_image,
    decode_mask,
    orientation,
    read_image,
    read_mask,
    read_samples,
)

PIXELS = np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8)
SMALL, LARGE = (24, 40), (1200, 1200)
LIMIT = 1_000_000


@pytest.fixture(autouse=True)
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDT_MAX_PIXELS", str(LIMIT))


def chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def png(size: tuple[int, int], *chunks: bytes) -> bytes:
    """A grey PNG of zeros with these chunks behind its header."""
    data = bytes(cv2.imencode(".png", np.zeros(size, np.uint8))[1].tobytes())
    return data[:33] + b"".join(chunks) + data[33:]


def saved(kind: str, size: tuple[int, int] = SMALL, **how: Any) -> bytes:
    content = io.BytesIO()
    pixels = np.resize(PIXELS, (*size, 3))
    Image.fromarray(pixels).save(content, kind, **how)
    return content.getvalue()


# Malformed, or unpacking to far more than they take.
CHUNKS = {
    "pHYs of a byte": chunk(b"pHYs", b"1"),
    "gAMA of a byte": chunk(b"gAMA", b"1"),
    "zTXt that unpacks": chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**28))),
    "iTXt that unpacks": chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(2**28))),
    "iCCP that unpacks": chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**28))),
    "tEXt of a wrong sum": chunk(b"tEXt", b"a\0b")[:-4] + b"\0\0\0\0",
    "long tEXt": chunk(b"tEXt", b"a\0" + b"x" * 2**21),
    "unknown": chunk(b"abCd", b"x" * 100),
}


class TestPngs:
    @pytest.mark.parametrize("name", CHUNKS)
    @pytest.mark.parametrize("read", [decode_image, decode_mask])
    def test_a_chunk_that_nobody_needs_evades_nothing(
        self, name: str, read: Callable[[bytes, str], Any]
    ) -> None:
        with pytest.raises(UserError, match=r"claims 1200 x 1200 pixels, more than 1,000,000"):
            read(png(LARGE, CHUNKS[name]), "a.png")

    @pytest.mark.parametrize("name", CHUNKS)
    def test_and_keeps_no_small_image_from_being_read(self, name: str) -> None:
        assert decode_image(png(SMALL, CHUNKS[name]), "a.png").shape == SMALL

    def test_what_is_taken_out_changes_no_pixel(self) -> None:
        text = PngInfo()
        text.add_text("a", "b" * 1000, zip=True)
        how = {"pnginfo": text, "dpi": (300, 300), "icc_profile": b"x" * 500}
        for mode in ("L", "LA", "RGB", "RGBA", "P", "1", "I;16"):
            content, plain = io.BytesIO(), io.BytesIO()
            grey = PIXELS[..., 0].astype(np.uint16) if mode == "I;16" else PIXELS
            image = (
                Image.fromarray(grey) if mode == "I;16" else Image.fromarray(PIXELS).convert(mode)
            )
            image.save(content, "PNG", gamma=0.45, **how)
            image.save(plain, "PNG")
            assert needed_parts(plain.getvalue()) == plain.getvalue()
            assert needed_parts(content.getvalue()) == plain.getvalue()
            for read in (decode_image, decode_mask):
                if read is decode_mask and mode in ("LA", "RGB", "RGBA"):
                    continue
                assert np.array_equal(read(content.getvalue(), "a"), read(plain.getvalue(), "a"))

    def test_chunks_without_end_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = png(SMALL, *[chunk(b"tEXt", b"a\0b")] * 50)
        assert decode_image(data, "a.png").shape == SMALL
        monkeypatch.setattr(image_headers, "MOST_CHUNKS", 50)
        for read in (decode_image, decode_mask, count_pages):
            with pytest.raises(UserError, match=r"a\.png cannot be decoded"):
                read(data, "a.png")

    def test_a_second_header_is_refused(self) -> None:
        second = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
        with pytest.raises(UserError, match=r"a\.png cannot be decoded"):
            decode_image(png(SMALL, second), "a.png")

    def test_orientation_and_transparency_stay(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        turned = decode_image(saved("PNG", exif=exif, dpi=(72, 72)), "a.png")
        assert np.array_equal(turned, np.rot90(PIXELS, -1))
        clear = Image.fromarray(PIXELS[..., 0]).convert("P")
        content = io.BytesIO()
        clear.save(content, "PNG", transparency=3, dpi=(72, 72))
        assert decode_image(content.getvalue(), "a.png").shape[2] == 4


def scans(data: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


class TestJpegs:
    progressive = saved("JPEG", progressive=True, quality=95)

    def test_a_progressive_one_is_read(self) -> None:
        assert decode_image(self.progressive, "a.jpg").shape == (*SMALL, 3)
        assert read_header(scans(self.progressive, 20)).width == 40

    def test_hundreds_of_scans_are_refused_undecoded(self) -> None:
        with pytest.raises(HeaderError, match="more than 64 scans"):
            read_header(scans(self.progressive, 300))
        with pytest.raises(UserError, match=r"a\.jpg cannot be decoded"):
            decode_image(scans(self.progressive, 300), "a.jpg")

    def test_previews_within_count_for_nothing(self) -> None:
        preview = b"\xff\xd8" + b"\xff\xda\0\x08abcdef" * 200 + b"\xff\xd9"
        segment = b"\xff\xe2" + struct.pack(">H", len(preview) + 2) + preview
        data = self.progressive[:2] + segment + self.progressive[2:]
        assert np.array_equal(decode_image(data, "a"), decode_image(self.progressive, "a"))

    def test_the_size_is_that_of_the_frame(self) -> None:
        with pytest.raises(UserError, match="claims 1200 x 1200 pixels"):
            decode_image(saved("JPEG", LARGE), "a.jpg")

    def test_scans_count_by_the_pixels_that_each_goes_over(self) -> None:
        large = saved("JPEG", (600, 600), progressive=True)
        assert decode_image(scans(large, 30), "a.jpg").shape == (600, 600, 3)
        said = r"takes 5\d passes over 600 x 600 pixels, more than 16,000,000 in all"
        with pytest.raises(UserError, match=said):
            decode_image(scans(large, 45), "a.jpg")

    def test_segments_without_end_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        comments = b"\xff\xfe\0\2" * 50
        data = self.progressive[:2] + comments + self.progressive[2:]
        assert decode_image(data, "a.jpg").shape == (*SMALL, 3)
        monkeypatch.setattr(image_headers, "MOST_SEGMENTS", 50)
        with pytest.raises(UserError, match=r"a\.jpg cannot be decoded"):
            decode_image(data, "a.jpg")

    def test_two_frames_in_one_are_none(self) -> None:
        place = self.progressive.index(b"\xff\xc2")
        frame = self.progressive[place : place + 19]
        with pytest.raises(UserError, match="cannot be decoded"):
            decode_image(self.progressive[:place] + frame + self.progressive[place:], "a.jpg")


def tiff(pixels: NDArray[Any], **how: Any) -> bytes:
    content = io.BytesIO()
    tifffile.imwrite(content, pixels, **how)
    return content.getvalue()


class TestTiffs:
    def test_the_depth_counts(self) -> None:
        volume = np.zeros((40, 960, 960), np.uint8)
        data = tiff(volume, volumetric=True, tile=(16, 64, 64), compression="zlib")
        assert len(data) < 100_000
        with pytest.raises(UserError, match="claims 960 x 960 x 40 pixels"):
            decode_image(data, "a.tif")

    def test_a_small_volume_is_none_of_our_images(self) -> None:
        data = tiff(np.zeros((16, 32, 32), np.uint8), volumetric=True, tile=(16, 16, 16))
        with pytest.raises(UserError, match=r"a\.tif is a volume of 16 slices"):
            decode_image(data, "a.tif")

    @pytest.mark.parametrize(
        ("shape", "kind", "planar"),
        [((990, 1000, 3), np.float64, None), ((990, 1000, 7), np.uint8, "contig")],
    )
    def test_bytes_count(self, shape: tuple[int, ...], kind: Any, planar: str | None) -> None:
        data = (
            tiff(
                np.zeros(shape, kind),
                compression="zlib",
                photometric="minisblack",
                planarconfig=planar,
            )
            if planar
            else tiff(np.zeros(shape, kind), compression="zlib", photometric="rgb")
        )
        with pytest.raises(UserError, match=r"claims [0-9.]+ MB of pixels, more than 4\.0"):
            decode_image(data, "a.tif")

    def test_four_samples_of_the_limit_are_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MEDT_MAX_PIXELS", str(24 * 40))
        assert decode_image(tiff(np.zeros((*SMALL, 4), np.uint8)), "a.tif").shape == (*SMALL, 4)
        with pytest.raises(UserError, match="claims"):
            decode_image(tiff(np.zeros((24, 41, 4), np.uint8)), "a.tif")

    def test_the_page_that_is_read_counts(self) -> None:
        content = io.BytesIO()
        with tifffile.TiffWriter(content) as file:
            file.write(np.zeros((900, 900), np.uint8), compression="zlib", photometric="minisblack")
            file.write(
                np.zeros((900, 900), np.float64), compression="zlib", photometric="minisblack"
            )
        assert decode_image(content.getvalue(), "a.tif", 0).shape == (900, 900)
        with pytest.raises(UserError, match="MB of pixels"):
            decode_image(content.getvalue(), "a.tif", 1)


def animated() -> bytes:
    content = io.BytesIO()
    frames = [Image.fromarray(np.full((8, 8), v, np.uint8)) for v in (0, 100, 200)]
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
    return content.getvalue()


class TestAnimations:
    def test_frames_without_end_are_refused(self) -> None:
        gif = saved("GIF")
        many = gif[:13] + gif[13:-1] + (b",\0\0\0\0\1\0\1\0\0\2\2\x44\1\0") * 100_001 + b";"
        with pytest.raises(UserError, match="more than 100,000 pages"):
            count_pages(many, "a.gif")
        animated = io.BytesIO()
        frames = [Image.fromarray(np.full((8, 8), v, np.uint8)) for v in (0, 100, 200)]
        frames[0].save(animated, "PNG", save_all=True, append_images=frames[1:])
        data = animated.getvalue()
        assert count_pages(data, "a.png") == 3
        place = data.index(b"acTL")
        claims = data[: place - 4] + chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
        with pytest.raises(UserError, match="more than 100,000 pages"):
            count_pages(claims + data[place + 16 :], "a.png")

    @pytest.mark.parametrize("kind", ["GIF", "PNG"])
    def test_the_frames_before_one_count_as_they_are_drawn_too(self, kind: str) -> None:
        frames = [Image.fromarray(np.full((400, 400), i, np.uint8)) for i in range(110)]
        content = io.BytesIO()
        frames[0].save(content, kind, save_all=True, append_images=frames[1:])
        assert np.all(decode_image(content.getvalue(), "a", 99) == 99)
        said = r"a takes 101 passes over 400 x 400 pixels, more than 16,000,000 in all"
        with pytest.raises(UserError, match=said):
            decode_image(content.getvalue(), "a", 100)

    def test_a_timing_that_is_cut_is_damage_like_any_other(self) -> None:
        data = animated()[:-1] + b"!\xf9\1\1\0;"
        for read in (decode_image, decode_mask):
            for page in (None, 1):
                with pytest.raises(UserError, match=r"^(Mask )?a\.gif cannot be decoded[^\n]*$"):
                    read(data, "a.gif", page)

    def test_a_comment_is_shown_to_nobody(self) -> None:
        plain = animated()
        comment = b"!\xfe" + b"\x01x" * 5000 + b"\0"
        data = plain[:-1] + comment + plain[-1:]
        assert b"\x01x" not in needed_parts(data)
        assert np.array_equal(decode_image(data, "a.gif", 2), decode_image(plain, "a.gif", 2))

    def test_blocks_without_end_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = animated()[:-1] + b"!\xfe" + b"\x01x" * 50 + b"\0;"
        assert count_pages(data, "a.gif") == 3
        monkeypatch.setattr(image_headers, "MOST_BLOCKS", 50)
        with pytest.raises(UserError, match=r"a\.gif cannot be decoded"):
            count_pages(data, "a.gif")

    def test_a_frame_behind_what_is_no_block_counts(self) -> None:
        wide = struct.pack("<BHHHHB", 0x2C, 0, 0, 60_000, 60_000, 0) + b"\2\0;"
        with pytest.raises(UserError, match="claims 60000 x 60000 pixels"):
            decode_image(animated()[:-1] + b"\0\0" + wide, "a.gif", 3)

    def test_a_frame_beyond_the_screen_counts(self) -> None:
        gif = saved("GIF")
        wide = gif[:-1] + struct.pack("<BHHHHB", 0x2C, 0, 0, 60_000, 60_000, 0) + b"\2\0;"
        with pytest.raises(UserError, match="claims 60000 x 60000 pixels"):
            decode_image(wide, "a.gif", 0)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "PNG", "JPEG"])
def test_every_format_announces_its_size(kind: str) -> None:
    assert (read_header(saved(kind)).height, read_header(saved(kind)).width) == SMALL
    assert decode_image(saved(kind), "a").shape == (*SMALL, 3)
    with pytest.raises(UserError, match="claims 1200 x 1200 pixels"):
        decode_image(saved(kind, LARGE), "a")


@pytest.mark.parametrize("kind", ["WEBP", "PPM", "TGA", "JPEG2000", "ICO"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(UserError, match="a cannot be decoded"):
        decode_image(saved(kind), "a")


@pytest.mark.parametrize("kind", ["BMP", "GIF", "PNG", "JPEG"])
def test_a_header_that_is_cut_is_refused_wherever(kind: str) -> None:
    data = saved(kind)
    for size in range(40):
        with pytest.raises(UserError, match=r"a (cannot be decoded|claims)"):
            decode_image(data[:size], "a")


@pytest.mark.parametrize("found", [np.zeros((24, 41), np.uint8), np.zeros((24, 40, 4), np.float32)])
def test_what_is_decoded_is_what_was_announced(
    monkeypatch: pytest.MonkeyPatch, found: NDArray[Any]
) -> None:
    monkeypatch.setattr("medt.io.images.decode_with_opencv", lambda data: found)
    with pytest.raises(UserError, match="cannot be decoded"):
        decode_image(saved("PNG"), "a.png")


EXIF = Image.Exif()
EXIF[0x0112] = 6
TURNED = chunk(b"eXIf", EXIF.tobytes()[6:])
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
RAW = b"\nexif\n%8d\n" % len(EXIF.tobytes()) + EXIF.tobytes().hex().encode()
SAYING = {
    "nothing": (False, b"", b""),
    "eXIf": (True, TURNED, b""),
    "eXIf behind the pixels": (True, b"", TURNED),
    "eXIf far behind": (True, chunk(b"tEXt", b"a\0" + b"x" * 2**17), TURNED),
    "XMP": (False, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP), b""),
    "XMP beside an eXIf of other things": (
        False,
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        chunk(b"eXIf", Image.Exif().tobytes()[6:]),
    ),
    "a profile in text": (
        False,
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(RAW)),
        b"",
    ),
}


@pytest.mark.parametrize("name", SAYING)
def test_all_agree_that_the_exif_chunk_of_a_png_turns_it_and_no_text(
    name: str, tmp_path: Path
) -> None:
    turned, before, behind = SAYING[name]
    data = bytes(cv2.imencode(".png", PIXELS[..., 0])[1].tobytes())
    data = data[:33] + before + data[33:-12] + behind + data[-12:]
    (tmp_path / "a.png").write_bytes(data)
    shown = np.rot90(PIXELS[..., 0], -1) if turned else PIXELS[..., 0]
    assert orientation(data) == (6 if turned else 1)
    assert read_samples(tmp_path / "a.png").turned == turned
    assert np.array_equal(read_image(tmp_path / "a.png"), shown)
    assert np.array_equal(read_mask(tmp_path / "a.png"), shown)


def test_the_orientation_of_a_jpeg_may_stand_far_behind_its_start(tmp_path: Path) -> None:
    data = saved("JPEG", exif=EXIF)
    profiles = (b"\xff\xe2" + struct.pack(">H", 60_000) + bytes(59_998)) * 3
    (tmp_path / "a.jpg").write_bytes(data[:2] + profiles + data[2:])
    assert read_samples(tmp_path / "a.jpg").turned
    assert read_image(tmp_path / "a.jpg").shape == (40, 24, 3)


def test_an_orientation_that_is_repeated_is_read_once(tmp_path: Path) -> None:
    data = saved("JPEG", exif=EXIF)
    place = data.index(b"Exif") - 4
    (size,) = struct.unpack_from(">H", data, place + 2)
    segment = data[place : place + 2 + size]
    many = data[:place] + segment * 1000 + data[place:]
    assert len(orientation_parts(many)) < 2 * len(segment) + 100
    assert orientation(many) == 6
