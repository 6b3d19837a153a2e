"""Images and masks are read as they are, or refused by name."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medt.errors import UserError
from medt.io.files import write_png
from medt.io.images import decode_image, read_colors, read_image, read_mask, read_values

STARTS = [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"\xff\xd8\xff"]
RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
IDS = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)


@pytest.mark.parametrize(
    ("extension", "shape"),
    [
        (extension, shape)
        for extension in (".png", ".tif")
        for shape in ((5, 7), (5, 7, 3), (5, 7, 4))
    ]
    + [(".bmp", (5, 7)), (".bmp", (5, 7, 3))],
)
def test_reads_channels_in_rgb_order(
    tmp_path: Path, extension: str, shape: tuple[int, ...]
) -> None:
    from PIL import Image

    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / f"image{extension}")
    np.testing.assert_array_equal(read_image(tmp_path / f"image{extension}"), image)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda dtype: st.sampled_from([(3, 5), (3, 5, 3), (3, 5, 4)]).flatmap(
            lambda shape: arrays(dtype, shape)
        )
    )
)
def test_a_written_png_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, image: np.ndarray
) -> None:
    path = tmp_path_factory.mktemp("png") / "image.png"
    write_png(path, image)
    found = read_image(path)
    assert found.dtype == image.dtype
    np.testing.assert_array_equal(found, image)


def test_floating_point_tiff_keeps_its_values(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    cv2.imwrite(str(tmp_path / "a.tif"), values)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), values)


@pytest.mark.parametrize("extension", [".png", ".tif", ".bmp"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "group4"])
def test_one_bit_images_are_black_and_white(
    tmp_path: Path, extension: str, compression: str | None
) -> None:
    from PIL import Image

    path = tmp_path / f"bits{extension}"
    options = {"compression": compression} if extension == ".tif" else {}
    Image.fromarray(IDS == 2).save(path, **options)
    np.testing.assert_array_equal(read_image(path), np.where(IDS == 2, 255, 0))


def test_separate_planes_of_a_tiff_become_channels(tmp_path: Path) -> None:
    import tifffile

    planes = np.moveaxis(RGB, 2, 0)
    for name, photometric in (("rgb", "rgb"), ("any", "minisblack")):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, planes, planarconfig="separate", photometric=photometric)
        np.testing.assert_array_equal(read_image(path), RGB)


def test_reads_names_outside_ascii(tmp_path: Path) -> None:
    path = tmp_path / "Drüse 腺 1.png"
    write_png(path, RGB)
    np.testing.assert_array_equal(read_image(path), RGB)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No file .*absent\.png"):
        read_image(tmp_path / "absent.png")


@pytest.mark.parametrize("extension", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.95])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, extension: str, kept: float) -> None:
    encoding = [cv2.IMWRITE_TIFF_COMPRESSION, 1] if extension == ".tif" else []
    data = cv2.imencode(extension, RGB, encoding)[1].tobytes()
    path = tmp_path / f"part{extension}"
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(UserError, match=r"part\.\w+ cannot be decoded"):
        read_image(path)


def test_something_else_than_an_image_is_refused() -> None:
    with pytest.raises(UserError, match="notes cannot be decoded"):
        decode_image(b"these are notes", "notes")


def test_a_stack_is_refused(tmp_path: Path) -> None:
    cv2.imwritemulti(str(tmp_path / "stack.tif"), [IDS, IDS, IDS])
    with pytest.raises(UserError, match=r"stack\.tif is a stack of 3 pages"):
        read_image(tmp_path / "stack.tif")


def test_equal_channels_of_a_mask_become_one_plane(tmp_path: Path) -> None:
    for channels in (3, 4):
        grey = np.repeat(IDS[..., None], channels, axis=2)
        grey[..., 3:] = 255
        write_png(tmp_path / "mask.png", grey)
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), IDS)


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tif"])
def test_indices_of_a_palette_count_not_its_colours(tmp_path: Path, extension: str) -> None:
    from PIL import Image

    image = Image.fromarray(IDS)
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(tmp_path / f"mask{extension}")
    np.testing.assert_array_equal(read_mask(tmp_path / f"mask{extension}"), IDS)


def test_a_mask_in_colours_is_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "mask.png", RGB)
    with pytest.raises(UserError, match=r"mask\.png is painted in colours"):
        read_mask(tmp_path / "mask.png")


def test_a_mask_of_floats_must_hold_whole_numbers(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    cv2.imwrite(str(path), IDS.astype(np.float32))
    found = read_mask(path)
    assert found.dtype.kind == "i"
    np.testing.assert_array_equal(found, IDS)
    cv2.imwrite(str(path), IDS / np.float32(2))
    with pytest.raises(UserError, match="fractional"):
        read_mask(path)


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("extension", [".png", ".jpg", ".tif"])
def test_orientation_tags_are_followed_as_viewers_do(
    tmp_path: Path, tag: int, extension: str
) -> None:
    from PIL import Image, ImageOps

    blocks = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, np.ones((8, 8), np.uint8))
    image = Image.fromarray(blocks)
    image.getexif()[0x0112] = tag
    image.save(tmp_path / f"a{extension}", exif=image.getexif())
    expected = np.array(ImageOps.exif_transpose(image)).astype(int)
    found = read_image(tmp_path / f"a{extension}")
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 2
    np.testing.assert_array_equal(read_mask(tmp_path / f"a{extension}"), found)


@pytest.mark.parametrize("extension", [".tif", ".gif", ".png"])
def test_a_page_of_a_stack_is_chosen(tmp_path: Path, extension: str) -> None:
    from PIL import Image

    pages = [Image.fromarray(np.full((6, 8), 50 * i, np.uint8)) for i in range(3)]
    pages[0].save(tmp_path / f"s{extension}", save_all=True, append_images=pages[1:])
    for number in range(3):
        assert set(read_mask(tmp_path / f"s{extension}", number).ravel()) == {50 * number}
    for wrong in (None, 3, -1):
        with pytest.raises(UserError, match=r"stack of 3 pages .*dataset\.page=0 to 2"):
            read_image(tmp_path / f"s{extension}", wrong)


def test_a_page_is_not_needed_where_there_is_one(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", IDS)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", page=7), IDS)


def test_a_preview_in_a_tiff_is_no_page(tmp_path: Path) -> None:
    import tifffile

    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(RGB, photometric="rgb")
        file.write(RGB[::2, ::2], photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), RGB)


@pytest.mark.parametrize("extension", [".jpg", ".tif"])
def test_cmyk_becomes_rgb(tmp_path: Path, extension: str) -> None:
    from PIL import Image

    Image.new("CMYK", (8, 6), (0, 255, 255, 0)).save(tmp_path / f"a{extension}")
    found = read_image(tmp_path / f"a{extension}")
    assert found.shape[:2] == (6, 8)
    assert np.abs(found[..., :3].astype(int) - (255, 0, 0)).max() <= 3


def test_the_content_counts_not_the_extension(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", RGB)
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), RGB)


def test_colours_are_read_as_one_number(tmp_path: Path) -> None:
    from PIL import Image

    colors = np.array([[[255, 0, 16], [0, 2, 0]]], np.uint8)
    Image.fromarray(colors).save(tmp_path / "a.png")
    assert read_colors(tmp_path / "a.png").tolist() == [[0xFF0010, 0x000200]]
    assert read_values(tmp_path / "a.png").painted
    Image.fromarray(colors[..., 0]).save(tmp_path / "grey.png")
    assert read_colors(tmp_path / "grey.png").tolist() == [[0xFFFFFF, 0]]
    assert not read_values(tmp_path / "grey.png").painted


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"\xff\xd8\xff"]),
)
def test_any_bytes_are_an_image_or_refused_in_one_line(content: bytes, start: bytes) -> None:
    with pytest.raises(UserError, match=r"^noise (cannot be decoded|claims)[^\n]*$"):
        decode_image(start + content, "noise")


def test_more_than_four_channels_of_a_tiff(tmp_path: Path) -> None:
    import tifffile

    image = np.random.default_rng(0).integers(0, 65536, (6, 8, 5), dtype=np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(read_image(path), image)


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tif"])
def test_a_palette_of_greys_counts_as_it_is_shown(tmp_path: Path, extension: str) -> None:
    from PIL import Image

    shown = np.array([[0, 255, 255], [255, 0, 255]], np.uint8)
    image = Image.fromarray((shown == 0).astype(np.uint8), "P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / f"a{extension}")
    np.testing.assert_array_equal(read_mask(tmp_path / f"a{extension}"), shown)


def test_the_palette_of_a_page_is_that_pages(tmp_path: Path) -> None:
    from PIL import Image

    pages = [Image.fromarray(np.full((4, 4), i, np.uint8), "P") for i in range(3)]
    for page in pages:
        page.putpalette([9, 0, 0, 0, 90, 0, 0, 0, 200])
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert [np.unique(read_mask(tmp_path / "a.tif", i)).tolist() for i in range(3)] == [
        [0],
        [1],
        [2],
    ]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_where_white_is_zero_the_stored_numbers_count(tmp_path: Path, dtype: type) -> None:
    import tifffile

    stored = np.array([[0, 1], [1, 0]], dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), stored)


@pytest.mark.parametrize(
    "settings", [{"dtype": np.float16}, {"tile": (16, 16)}, {"compression": "lzma"}]
)
def test_rare_kinds_of_tiff_are_read(tmp_path: Path, settings: dict[str, object]) -> None:
    import tifffile

    pixels = (
        np.random.default_rng(0).integers(0, 2, (40, 36)).astype(settings.pop("dtype", np.uint8))
    )
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", **settings)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), pixels)


def test_what_a_camera_appends_to_a_jpeg_does_no_harm(tmp_path: Path) -> None:
    data = cv2.imencode(".jpg", RGB)[1].tobytes()
    (tmp_path / "a.jpg").write_bytes(data + bytes(5000))
    assert read_image(tmp_path / "a.jpg").shape == RGB.shape
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2] + bytes(5000))
    with pytest.raises(UserError, match="cannot be decoded"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("layout", [{"rowsperstrip": 16}, {"tile": (16, 32)}, {"predictor": True}])
def test_a_damaged_deflated_tiff_is_refused(tmp_path: Path, layout: dict[str, object]) -> None:
    import tifffile

    image = np.random.default_rng(0).integers(0, 9, (60, 50), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image, compression="zlib", **layout)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), image)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        place = file.pages.first.dataoffsets[-1] + file.pages.first.databytecounts[-1] // 2
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[place] ^= 1
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.tif cannot be decoded"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.int16, np.float64, np.uint32])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_any_type(tmp_path: Path, dtype: type, channels: int) -> None:
    import tifffile

    image = np.random.default_rng(0).integers(0, 200, (6, 8, channels)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), image)


def test_two_channels_of_16_bits(tmp_path: Path) -> None:
    import tifffile

    image = np.random.default_rng(0).integers(0, 65536, (6, 8, 2), dtype=np.uint16)
    settings = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", image, **settings)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), image)
