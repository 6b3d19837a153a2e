"""Every channel of a file is read, and only what the file calls alpha is taken for it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from medt.data.duplicates import thumbnail
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError
from medt.io import images
from medt.io.images import (
    Samples,
    decode_image,
    decode_samples,
    read_colors,
    read_mask,
    read_samples,
)

PHOTOMETRIC = 262
CHANNELS: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig"}
TYPES = ("u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8")


def noise(channels: int, dtype: Any = np.uint8) -> NDArray[Any]:
    """(24, 40, channels), no two channels alike."""
    values = np.random.default_rng(channels).integers(1, 120, (24, 40, channels))
    return values.astype(dtype)


def written(pixels: NDArray[Any], **how: Any) -> bytes:
    content = io.BytesIO()
    if how.get("planarconfig") == "separate":
        pixels = np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(content, pixels, **how)
    return content.getvalue()


def by_pillow(pixels: NDArray[Any], kind: str, **how: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **how)
    return content.getvalue()


def untagged(data: bytes, photometric: int = 1) -> bytes:
    """The same file without the word that its three samples are colours."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place = file.pages.first.tags[PHOTOMETRIC].valueoffset
    return data[:place] + bytes([photometric, 0]) + data[place + 2 :]


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("channels", [2, 3, 4, 5])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_channels_that_are_no_colours_are_all_read(
    planes: str, dtype: str, channels: int, order: str, photometric: str
) -> None:
    pixels = noise(channels, dtype)
    how = {"planarconfig": planes, "photometric": photometric, "byteorder": order}
    found = decode_samples(written(pixels, **how), "a.tif")
    assert (found.pixels.dtype, found.alpha) == (pixels.dtype, ())
    np.testing.assert_array_equal(found.pixels, pixels)


@pytest.mark.parametrize(
    "how",
    [
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"compression": "lzma"},
        {"tile": (16, 16)},
        {"tile": (16, 16), "compression": "zlib", "predictor": True},
        {"bigtiff": True},
        {"rowsperstrip": 5, "compression": "zlib"},
    ],
)
@pytest.mark.parametrize("channels", [3, 4])
def test_however_they_are_stored(how: dict[str, Any], channels: int) -> None:
    pixels = noise(channels, np.uint16)
    data = written(pixels, **CHANNELS, **how)
    np.testing.assert_array_equal(decode_image(data, "a.tif"), pixels)


@pytest.mark.parametrize("size", [(24, 40), (150, 200)])
@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_deflate", "raw"])
def test_as_libtiff_compresses_them(size: tuple[int, int], compression: str) -> None:
    pixels = np.resize(noise(3) // 16, (*size, 3))
    data = untagged(by_pillow(pixels, "TIFF", compression=compression))
    np.testing.assert_array_equal(decode_image(data, "a.tif"), pixels)


def test_four_bits_are_four_channels() -> None:
    bits = noise(4) % 2 == 0
    data, packed = written(bits, **CHANNELS), np.packbits(bits).tobytes()
    with tifffile.TiffFile(io.BytesIO(data)) as file:  # whose writer packs bits in another order
        place = file.pages.first.dataoffsets[0]
    data = data[:place] + packed + data[place + len(packed) :]
    np.testing.assert_array_equal(decode_image(data, "a.tif"), bits * np.uint8(255))


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
@pytest.mark.parametrize(("extra", "marked"), [("unassalpha", True), ("unspecified", False)])
def test_a_tiff_says_which_channel_is_alpha(
    dtype: str, photometric: str, extra: str, marked: bool
) -> None:
    pixels = noise(2 if photometric == "minisblack" else 4, dtype)
    how = {"photometric": photometric, "extrasamples": [extra], "planarconfig": "contig"}
    found = decode_samples(written(pixels, **how), "a.tif")
    np.testing.assert_array_equal(found.pixels, pixels)
    last = pixels.shape[2] - 1
    assert found.alpha == ((last,) if marked else ())
    kept = pixels[..., :last] if marked else pixels
    np.testing.assert_array_equal(found.opaque(), kept)


def test_alpha_need_not_be_the_last() -> None:
    pixels = noise(5)
    extra = ["unassalpha", "unspecified"]
    data = written(pixels, photometric="rgb", extrasamples=extra, planarconfig="contig")
    found = decode_samples(data, "a.tif")
    assert found.alpha == (3,)
    np.testing.assert_array_equal(found.opaque(), pixels[..., [0, 1, 2, 4]])


@pytest.mark.parametrize(
    ("shape", "kind", "how", "marked"),
    [
        ((24, 40), "PNG", {}, False),
        ((24, 40, 2), "PNG", {}, True),
        ((24, 40, 3), "PNG", {}, False),
        ((24, 40, 3), "PNG", {"transparency": (1, 2, 3)}, True),
        ((24, 40, 4), "PNG", {}, True),
        ((24, 40, 3), "BMP", {}, False),
        ((24, 40, 3), "JPEG", {}, False),
        ((24, 40), "GIF", {"transparency": 5}, True),
    ],
)
def test_other_formats_say_so_too(
    shape: tuple[int, ...], kind: str, how: dict[str, Any], marked: bool
) -> None:
    pixels = noise(4)[..., 0] if len(shape) == 2 else noise(shape[2])
    found = decode_samples(by_pillow(pixels, kind, **how), "a")
    assert found.alpha == ((3,) if marked else ())
    if kind not in ("JPEG", "GIF"):  # which change colours
        planes = found.opaque() if found.opaque().ndim == 3 else found.pixels[..., None]
        colors = pixels[..., None] if pixels.ndim == 2 else pixels[..., : (1, 3)[shape[2] > 2]]
        np.testing.assert_array_equal(planes, np.broadcast_to(colors, planes.shape))


def test_what_a_library_leaves_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = by_pillow(noise(3), "PNG")
    monkeypatch.setattr(images, "decode_with_opencv", lambda data: noise(3)[..., 0])
    with pytest.raises(UserError, match=r"a announces 3 channels of 8 bits, of which 1 of 8 bits"):
        decode_image(rgb, "a")


def test_only_what_is_marked_is_dropped_for_the_network() -> None:
    steps = Preprocessing((24, 40), 1, (0.0,), (1.0,))
    grey = noise(2)[..., :1]
    np.testing.assert_array_equal(steps.original(Samples(noise(2), (1,))), grey)
    with pytest.raises(UserError, match=r"2 channels.* network takes 1 .*dataset\.channels=2"):
        steps.original(Samples(noise(2)))


def test_thumbnails_show_every_channel_but_alpha(tmp_path: Path) -> None:
    image = np.full((64, 64, 5), 50, np.uint8)
    other = image.copy()
    other[10:40, 20:50, 4] = 200
    for name, pixels in (("a", image), ("b", other)):
        (tmp_path / f"{name}.tif").write_bytes(written(pixels, **CHANNELS))
    first, second = (thumbnail(read_samples(tmp_path / f"{n}.tif").opaque()) for n in "ab")
    assert not np.array_equal(first, second)
    rgba = np.concatenate([noise(3), noise(4)[..., 3:]], axis=2)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    seen = thumbnail(read_samples(tmp_path / "rgba.png").opaque())
    np.testing.assert_array_equal(seen, thumbnail(noise(3)))


def test_masks_of_several_channels(tmp_path: Path) -> None:
    ids = noise(2)[..., :1] % 3
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, np.concatenate([ids, 255 - ids], axis=2), extrasamples=[2], **CHANNELS)
    np.testing.assert_array_equal(read_mask(path), ids[..., 0])
    tifffile.imwrite(path, np.concatenate([ids, 255 - ids], axis=2), **CHANNELS)
    for read in (read_mask, read_colors):
        with pytest.raises(UserError, match=r"Mask .*mask\.tif has 2 channels"):
            read(path)
    tifffile.imwrite(path, np.repeat(ids, 3, axis=2), **CHANNELS)
    np.testing.assert_array_equal(read_mask(path), ids[..., 0])
