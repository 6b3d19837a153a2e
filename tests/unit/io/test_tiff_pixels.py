"""Pixels of TIFFs mean what they meant to their writer, or the file is refused in one line."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from medt.errors import UserError
from medt.io.images import decode_image, decode_samples

Y, X = np.mgrid[0:33, 0:47]
WAVES = np.stack([(np.sin(X / 9 + i) + np.cos(Y / 7 - i) + 2) / 4 for i in range(5)], -1)
PACKED = {1: bytes, 5: imagecodecs.lzw_encode, 8: zlib.compress, 32773: imagecodecs.packbits_encode}
COLORS = r"^a\.tif has colours that are not read, {} \(save it as RGB\)$"
REFUSED = r"^a\.tif cannot be decoded [^\n]*$"


def waves(samples: int, dtype: Any = np.uint8, most: int | None = None) -> NDArray[Any]:
    values = (WAVES[..., :samples] * (most or np.iinfo(dtype).max)).astype(dtype)
    return values[..., 0] if samples == 1 else values


def tiff(pixels: NDArray[Any], **how: Any) -> bytes:
    content = io.BytesIO()
    tifffile.imwrite(content, pixels, **how)
    return content.getvalue()


def by_hand(content: bytes, bits: int, samples: int, compression: int, *tags: Any) -> bytes:
    """A file of one strip, with as many bits and what else the tags (code, type, values) say."""
    entries = [
        *((256, "H", [47]), (257, "H", [33]), (258, "H", [bits] * samples)),
        *((259, "H", [compression]), (277, "H", [samples]), (278, "H", [33])),
        *((279, "I", [len(content)]), *tags),
    ]
    end = 8 + 2 + 12 * (len(entries) + 1) + 4
    values, table = b"", b""
    for code, kind, numbers in sorted([*entries, (273, "I", [0])]):
        packed = struct.pack(f"<{len(numbers)}{kind}", *numbers)
        if code == 273:
            packed = b"here"
        elif len(packed) > 4:
            packed, values = struct.pack("<I", end + len(values)), values + packed
        table += struct.pack("<HHI", code, {"H": 3, "I": 4}[kind], len(numbers))
        table += packed.ljust(4, b"\0")
    table = table.replace(b"here", struct.pack("<I", end + len(values)))
    start = b"II*\0" + struct.pack("<IH", 8, len(entries) + 1)
    return start + table + bytes(4) + values + content


def packed_bits(numbers: NDArray[Any], bits: int) -> bytes:
    rows = (numbers[..., None] >> np.arange(bits)[::-1] & 1).astype(np.uint8)
    return np.packbits(rows.reshape(len(numbers), -1), axis=1).tobytes()


def luma_and_chroma(across: int, down: int) -> bytes:
    pixels = np.asarray(Image.fromarray(waves(3)).convert("YCbCr"))
    padding = ((0, -33 % down), (0, -47 % across), (0, 0))
    pixels = np.pad(pixels, padding, mode="edge")
    content = b""
    for top in range(0, len(pixels), down):
        for left in range(0, pixels.shape[1], across):
            block = pixels[top : top + down, left : left + across]
            chroma = block[..., 1:].mean((0, 1)).astype(np.uint8)
            content += block[..., 0].tobytes() + chroma.tobytes()
    return content


class TestNumbers:
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("how", [{}, {"tile": (16, 32)}, {"rowsperstrip": 5}])
    @pytest.mark.parametrize("samples", [1, 3, 5])
    @pytest.mark.parametrize(
        ("dtype", "predictor"),
        [
            *(("u1", 2), ("i1", 2), ("u2", 2), ("i2", 2), ("u4", 2), ("i4", 2), ("u8", 2)),
            *(("i8", 2), ("f2", 3), ("f4", 3), ("f8", 3), ("i1", 1), ("i4", 1), ("f8", 1)),
        ],
    )
    def test_predictors_are_undone(
        self, dtype: str, predictor: int, samples: int, how: Any, order: str
    ) -> None:
        kind = np.dtype(dtype)
        pixels = np.random.default_rng(0).normal(0, 50, (33, 47, samples)).astype(kind)
        pixels = pixels[..., 0] if samples == 1 else pixels
        planar = None if samples == 1 else "contig"
        how = dict(how, byteorder=order, photometric="minisblack", planarconfig=planar)
        for compression in ("zlib", "lzw"):
            data = tiff(pixels, compression=compression, predictor=predictor, **how)
            found = decode_image(data, "a.tif")
            assert found.dtype == kind
            np.testing.assert_array_equal(found, pixels)

    @pytest.mark.parametrize("compression", PACKED)
    @pytest.mark.parametrize("samples", [1, 3])
    @pytest.mark.parametrize("bits", [2, 4, 6, 10, 12, 14])
    def test_odd_bits_are_the_numbers_that_they_store(
        self, bits: int, samples: int, compression: int
    ) -> None:
        pixels = np.random.default_rng(bits).integers(0, 2**bits, (33, 47, samples))
        content = PACKED[compression](packed_bits(pixels, bits))
        data = by_hand(content, bits, samples, compression, (262, "H", [1 if samples == 1 else 2]))
        found = decode_image(data, "a.tif")
        np.testing.assert_array_equal(found, pixels[..., 0] if samples == 1 else pixels)

    @pytest.mark.parametrize(("samples", "bits"), [(1, 12), (3, 12), (1, 8), (2, 8), (3, 8)])
    def test_jpegs_of_numbers(self, samples: int, bits: int) -> None:
        pixels = waves(samples, np.uint8 if bits == 8 else np.uint16, 2**bits - 1)
        planar = None if samples == 1 else "contig"
        how = {"bitspersample": bits, "photometric": "minisblack", "planarconfig": planar}
        found = decode_image(tiff(pixels, compression="jpeg", **how), "a.tif")
        assert (found.dtype, found.shape) == (pixels.dtype, pixels.shape)
        assert np.abs(found.astype(int) - pixels).max() < 2**bits / 25


class TestColors:
    @pytest.mark.parametrize("planar", ["contig", "separate"])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_ink_becomes_light(self, dtype: Any, planar: str) -> None:
        pixels = waves(4, dtype)
        stored = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
        found = decode_image(tiff(stored, photometric="separated", planarconfig=planar), "a.tif")
        light = 1 - pixels / np.iinfo(dtype).max
        expected = light[..., :3] * light[..., 3:] * np.iinfo(dtype).max
        assert found.dtype == dtype
        assert np.abs(found - expected).max() <= 0.5
        if dtype == np.uint8:
            pillow = Image.fromarray(pixels, "CMYK").convert("RGB")
            np.testing.assert_array_equal(found, np.asarray(pillow))

    @pytest.mark.parametrize(
        ("pixels", "how", "name"),
        [
            (waves(5), {"photometric": "separated", "extrasamples": [2]}, "SEPARATED"),
            (waves(4), {"photometric": "separated", "extratags": [(332, 3, 1, 2)]}, "SEPARATED"),
            (waves(4, "f4", 1), {"photometric": "separated"}, "SEPARATED"),
            (waves(3, np.uint16), {"photometric": "ycbcr"}, "YCBCR"),
            *((waves(3), {"photometric": n}, n.upper()) for n in ("cielab", "icclab", "logluv")),
        ],
    )
    def test_colours_that_would_be_wrong_are_refused(
        self, pixels: NDArray[Any], how: Any, name: str
    ) -> None:
        with pytest.raises(UserError, match=COLORS.format(name)):
            decode_image(tiff(pixels, planarconfig="contig", **how), "a.tif")

    @pytest.mark.parametrize("compression", [None, "jpeg", "lzw"])
    def test_separate_planes_of_chroma_are_refused(self, compression: str | None) -> None:
        planes = np.moveaxis(waves(3), -1, 0)
        how = {"photometric": "ycbcr", "planarconfig": "separate", "compression": compression}
        with pytest.raises(UserError, match=COLORS.format("YCBCR")):
            decode_image(tiff(planes, **how), "a.tif")

    @pytest.mark.parametrize("compression", PACKED)
    @pytest.mark.parametrize("shared", [(1, 1), (2, 1), (2, 2), (1, 2), (4, 1), (4, 2), (4, 4)])
    def test_several_pixels_share_a_chroma(self, shared: tuple[int, int], compression: int) -> None:
        content = PACKED[compression](luma_and_chroma(*shared))
        tags = (262, "H", [6]), (530, "H", [*shared])
        data = by_hand(content, 8, 3, compression, *tags)
        found = decode_image(data, "a.tif").astype(int)
        assert np.abs(found - waves(3)).max() < 8 * max(shared) + 4
        if compression != 1:  # which Pillow cannot
            with Image.open(io.BytesIO(data)) as image:
                np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))
        short = PACKED[compression](luma_and_chroma(*shared)[:-12])
        with pytest.raises(UserError, match=REFUSED):
            decode_image(by_hand(short, 8, 3, compression, *tags), "a.tif")

    def test_damaged_chroma_is_refused(self) -> None:
        content = bytearray(zlib.compress(luma_and_chroma(2, 2)))
        content[500:520] = bytes(20)
        with pytest.raises(UserError, match=REFUSED):
            decode_image(by_hand(bytes(content), 8, 3, 8, (262, "H", [6])), "a.tif")

    @pytest.mark.parametrize("shared", [(1, 1), (2, 1), (2, 2)])
    @pytest.mark.parametrize("how", [{}, {"tile": (16, 32)}, {"rowsperstrip": 16}])
    def test_jpegs_share_it_as_well(self, how: Any, shared: tuple[int, int]) -> None:
        kind = {"photometric": "ycbcr", "compression": "jpeg", "subsampling": shared}
        stored = np.asarray(Image.fromarray(waves(3)).convert("YCbCr"))
        data = tiff(stored, **kind, **how)
        found = decode_image(data, "a.tif").astype(int)
        assert np.abs(found - waves(3)).mean() < 6
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.abs(found - decoded[..., ::-1]).max() <= 1

    @pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
    @pytest.mark.parametrize("compression", PACKED)
    def test_palettes_of_all_sizes(self, bits: int, compression: int) -> None:
        rng = np.random.default_rng(bits)
        table, pixels = rng.integers(0, 256, (3, 2**bits)), rng.integers(0, 2**bits, (33, 47))
        content = pixels.astype("<u2").tobytes() if bits == 16 else packed_bits(pixels, bits)
        for factor in (257, 256, 1):  # the last is how old writers have it
            tags = (262, "H", [3]), (320, "H", (table * factor).ravel().tolist())
            data = by_hand(PACKED[compression](content), bits, 1, compression, *tags)
            np.testing.assert_array_equal(decode_image(data, "a.tif"), table.T[pixels])

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("planar", ["contig", "separate"])
    def test_colours_are_freed_of_the_alpha_in_them(self, dtype: Any, planar: str) -> None:
        pixels = waves(4, dtype)
        pixels[:5, :, 3], pixels[5:9, :, 3] = 0, np.iinfo(dtype).max
        pixels[..., :3] = np.minimum(pixels[..., :3], pixels[..., 3:])
        stored = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
        how = {"photometric": "rgb", "planarconfig": planar, "extrasamples": [1]}
        found = decode_samples(tiff(stored, **how), "a.tif")
        assert found.alpha == (3,)
        np.testing.assert_array_equal(found.pixels[..., 3], pixels[..., 3])
        assert not found.pixels[:5].any()
        np.testing.assert_array_equal(found.pixels[5:9], pixels[5:9])
        again = found.pixels[..., :3] * (pixels[..., 3:] / np.iinfo(dtype).max)
        assert np.abs(again - pixels[..., :3]).max() < 1.001
        if dtype == np.uint8 and planar == "contig":
            with Image.open(io.BytesIO(tiff(stored, **how))) as image:
                np.testing.assert_array_equal(found.pixels, np.asarray(image))


class TestLibraries:
    @pytest.mark.parametrize("name", ["imagecodecs", "tifffile"])
    def test_a_missing_one_is_one_line(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        data = tiff(waves(1))
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(UserError, match=rf"^reading TIFF needs {name} \(pip install {name}\)$"):
            decode_image(data, "a.tif")

    def test_they_are_imported_for_a_tiff_only(self) -> None:
        code = (
            "import sys, medt, medt.io.images; print({'tifffile', 'imagecodecs'} & {*sys.modules})"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert done.stdout.strip() == b"set()"
