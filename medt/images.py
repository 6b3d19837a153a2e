"""Reading images and masks: from a file, or its content, to the numbers that it stores.

The content decides how a file is read, never its extension. Orientation tags are followed, as
viewers and annotation tools follow them.
"""

from __future__ import annotations

import io
import logging
import math
import warnings
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medt.errors import UserError
from medt.files import environment_number, read_bytes


class PaintedMaskError(UserError):
    """A mask is painted in colours where numbers are expected."""


# What these would print of a damaged file stands in the error.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
logging.getLogger("tifffile").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", module=r"PIL\.")

MOST_PIXELS = 2**28
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION_TAG = 0x0112
WHITE_IS_ZERO, YCBCR = 0, 6  # of a TIFF's photometric interpretation
UNCOMPRESSED, DEFLATED = 1, (8, 32946)  # of a TIFF's compression


def read_image(path: str | Path, page: int | None = None) -> NDArray[Any]:
    """Decode an image file without changing its values.

    Args:
        path: PNG, JPEG, TIFF, BMP or GIF, of 8 or 16 bits or floating point.
        page: which image of a stack, from 0; a file of one image does not need it.

    Returns:
        (H, W), or (H, W, C) in RGB or RGBA order, in the file's own type (uint8, uint16, float32,
        ...). A palette is resolved to its colours, CMYK becomes RGB.

    Raises:
        UserError: the file is missing, truncated, not an image, or a stack without such a page.
    """
    return decode_image(read_bytes(path), str(path), page)


def read_mask(path: str | Path, page: int | None = None) -> NDArray[Any]:
    """Decode a mask file to the numbers it stores.

    Three equal channels become one plane, an alpha channel is dropped, and of a coloured palette
    (PNG, BMP, TIFF) the indices count, not the colours.

    Returns:
        (H, W), an integer type.

    Raises:
        UserError: as ``read_image``; also for masks painted in colours, and for fractional values.
    """
    return decode_mask(read_bytes(path), str(path), page)


def read_colors(path: str | Path, page: int | None = None) -> NDArray[np.int64]:
    """Decode a mask painted in colours: (H, W), each pixel as one number 0xRRGGBB.

    Raises:
        UserError: as ``read_image``; also for files with more than 8 bits a channel.
    """
    pixels = read_image(path, page)
    if pixels.dtype != np.uint8:
        raise UserError(
            f"Mask {path} has type {pixels.dtype}", "colours have 8 bits a channel: save it as RGB"
        )
    planes = pixels[..., None] if pixels.ndim == 2 else pixels[..., :3]
    red, green, blue = np.broadcast_to(planes, (*planes.shape[:2], 3)).astype(np.int64).T
    packed: NDArray[np.int64] = (red << 16 | green << 8 | blue).T
    return packed


def read_values(path: str | Path, page: int | None = None) -> tuple[NDArray[Any], bool]:
    """Decode a mask file of either kind.

    Returns:
        What ``read_mask`` gives and False or, of a mask painted in colours, what ``read_colors``
        gives and True.

    Raises:
        UserError: as these.
    """
    try:
        return read_mask(path, page), False
    except PaintedMaskError:
        return read_colors(path, page), True


def decode_image(data: bytes, name: str, page: int | None = None) -> NDArray[Any]:
    """``read_image`` for the content of a file; ``name`` is what an error calls it."""
    _check_end(data, name)
    _check_size(data, name)
    pages = _pages(data, name)
    if len(pages) > 1 and (page is None or not 0 <= page < len(pages)):
        raise UserError(
            f"{name} is a stack of {len(pages)} images",
            f"choose one with dataset.page=0 to {len(pages) - 1}, or save one image per file",
        )
    number = pages[page or 0 if len(pages) > 1 else 0]
    if data[:4] in TIFF_STARTS:
        plane = _decode_tiff(data, name, number)
        if plane is not None:
            return plane
    elif len(pages) > 1:
        return _frame(data, name, number)
    pixels: NDArray[Any] | None
    try:
        pixels = _decode(data, number)
    except cv2.error:
        pixels = None
    if (pixels is None or pixels.size == 0) and data[:4] in TIFF_STARTS:
        return _with_tifffile(data, name, number)
    if pixels is None or pixels.size == 0:
        raise _undecodable(name)
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        order = (2, 1, 0, 3)[: pixels.shape[2]]  # from BGR; cvtColor knows fewer types
        pixels = np.ascontiguousarray(pixels[..., order])
    # OpenCV follows the tag of a TIFF, but of nothing else when it leaves values unchanged.
    return pixels if data[:4] in TIFF_STARTS else oriented(pixels, orientation(data))


def decode_mask(data: bytes, name: str, page: int | None = None) -> NDArray[Any]:
    """``read_mask`` for the content of a file; arguments as those of ``decode_image``."""
    mask = decode_image(data, name, page)
    if mask.ndim == 3:
        pages = _pages(data, name)
        indices = _palette_indices(data, pages[page or 0] if len(pages) > 1 else 0)
        mask = _grey_plane(mask, name) if indices is None else oriented(indices, orientation(data))
    if np.issubdtype(mask.dtype, np.floating):
        whole = np.nan_to_num(mask, nan=0.5, posinf=0.5, neginf=0.5)
        if np.any(whole != np.rint(whole)):
            raise UserError(
                f"Mask {name} holds fractional numbers", "save class numbers as an 8 or 16 bit PNG"
            )
        mask = mask.astype(np.int64)
    return mask


def count_pages(data: bytes, name: str) -> int:
    """The number of images in the content of a file: of a TIFF stack or an animation, else 1.

    Raises:
        UserError: the file is a damaged TIFF.
    """
    return len(_pages(data, name))


def orientation(data: bytes) -> int:
    """The orientation tag in the content of an image file, 1 to 8; 1 where there is none.

    Numbers: Exif 2.32, section 4.6.4, tag 274.
    """
    if data[:3] != b"\xff\xd8\xff" and data[:4] != b"\x89PNG":
        return 1
    try:
        with _pillow().open(io.BytesIO(data)) as image:
            found = image.getexif().get(ORIENTATION_TAG, 1)
    except (OSError, ValueError, SyntaxError):
        return 1
    return found if found in range(1, 9) else 1


def has_orientation(path: str | Path) -> bool:
    """Whether a PNG or JPEG file is to be seen turned or mirrored; False if it does not read."""
    try:
        with Path(path).open("rb") as file:
            return orientation(file.read(2**16)) != 1
    except OSError:
        return False


def oriented(pixels: NDArray[Any], tag: int) -> NDArray[Any]:
    """An image (H, W) or (H, W, C) as its orientation tag (1 to 8) says that it is to be seen."""
    if tag >= 5:
        pixels = pixels.swapaxes(0, 1)
    if tag in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if tag in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _pages(data: bytes, name: str) -> list[int]:
    """Where the images of a file stand in it; previews of another size are none."""
    if data[:4] in TIFF_STARTS:
        import tifffile

        try:
            with tifffile.TiffFile(io.BytesIO(data)) as file:
                first = file.pages.first.shape
                # Their number ends where a damaged file leads in a circle; going through them not.
                return [i for i in range(len(file.pages)) if file.pages[i].shape == first]
        except Exception:  # a broken file makes the reader raise whatever it comes across
            raise _undecodable(name) from None
    if data[:3] == b"GIF" or (data[:4] == b"\x89PNG" and b"acTL" in data[:4096]):
        try:
            with _pillow().open(io.BytesIO(data)) as image:
                return list(range(getattr(image, "n_frames", 1)))
        except (OSError, ValueError, SyntaxError):
            return [0]  # the decoder says what is wrong with it
    return [0]


def _frame(data: bytes, name: str, number: int) -> NDArray[np.uint8]:
    """One image of an animation, as it is to be seen: (H, W, 3)."""
    try:
        with _pillow().open(io.BytesIO(data)) as image:
            image.seek(number)
            return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError):
        raise _undecodable(name) from None


def _decode(data: bytes, number: int) -> NDArray[Any] | None:
    content = np.frombuffer(data, np.uint8)
    if number == 0:
        return cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    _, found = cv2.imdecodemulti(content, cv2.IMREAD_UNCHANGED, range=(number, number + 1))
    return np.asarray(found[0]) if found else None


def _undecodable(name: str) -> UserError:
    return UserError(
        f"{name} cannot be decoded as an image",
        "it is damaged, truncated or of another format: copy it again or convert it to PNG",
    )


def _check_end(data: bytes, name: str) -> None:
    """Some OpenCV versions return the upper part of a truncated PNG or JPEG as if it were whole."""
    cut = data.startswith(b"\x89PNG") and b"IEND" not in data[-4096:]
    if data.startswith(b"\xff\xd8\xff"):
        # A JPEG ends behind its last scan; a preview within it has an end of its own before that,
        # and cameras append what they like.
        cut = data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    if cut:
        raise _undecodable(name)


def _check_size(data: bytes, name: str) -> None:
    """A small file can claim an image that fills the memory."""
    if data[:4] in TIFF_STARTS:
        import tifffile

        try:
            with tifffile.TiffFile(io.BytesIO(data)) as file:
                height, width = file.pages.first.imagelength, file.pages.first.imagewidth
                planes = max(1, file.pages.first.samplesperpixel // 4)
        except Exception:  # a broken file makes the reader raise whatever it comes across
            raise _undecodable(name) from None
    else:
        try:
            with _pillow().open(io.BytesIO(data)) as image:
                width, height = image.size
        except (OSError, ValueError, SyntaxError):
            return  # the decoder says what is wrong with it, or reads what Pillow does not
        planes = 1
    most = environment_number("MEDT_MAX_PIXELS", MOST_PIXELS)
    if height * width * planes > most:
        raise UserError(
            f"{name} claims {width} x {height} pixels, more than {most:,}",
            "if it is right, set MEDT_MAX_PIXELS in the environment to allow it",
        )


def _pillow() -> ModuleType:
    """Pillow without its own limit, which warns from 89 million pixels on: we have one."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    return Image


def _with_tifffile(data: bytes, name: str, number: int) -> NDArray[Any]:
    """Kinds of TIFF that OpenCV does not read, such as half precision or small tiles."""
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[number]
            tag = page.tags.get(ORIENTATION_TAG)
            return oriented(np.asarray(page.asarray()), tag.value if tag else 1)
    except Exception:  # a broken file makes the reader raise whatever it comes across
        raise _undecodable(name) from None


def _decode_tiff(data: bytes, name: str, number: int) -> NDArray[Any] | None:
    """One page, or None where OpenCV does as well.

    OpenCV inverts 1 bit TIFFs, multiplies colours by alpha, and reads but one of separate planes,
    two channels as 8 bit, and no more than four channels.
    """
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[number]
            bits, samples = page.bitspersample, page.samplesperpixel
            if not _is_whole(data, page):
                raise _undecodable(name)
            if bits == 1 or (bits == 8 and samples == 4 and page.planarconfig == 1):
                with _pillow().open(io.BytesIO(data)) as image:
                    image.seek(number)
                    modes = {1: "L", 4: "RGB" if image.mode == "CMYK" else image.mode}
                    return np.array(image.convert(modes[samples] if bits == 8 else "L"))
            if bits == 8 and samples == 1 and page.photometric == WHITE_IS_ZERO:
                inverted = _decode(data, number)  # as OpenCV does with 8 bits, but no others
                return None if inverted is None else 255 - inverted
            if samples > 4 or samples == 2 or (samples > 1 and page.planarconfig == 2):
                pixels = np.asarray(page.asarray())
                if page.planarconfig == 2:
                    pixels = np.moveaxis(pixels, 0, -1)
                tag = page.tags.get(ORIENTATION_TAG)
                return oriented(pixels, tag.value if tag else 1)
            return None
    except Exception:  # a broken file makes these readers raise whatever they come across
        raise _undecodable(name) from None


def _is_whole(data: bytes, page: Any) -> bool:
    """Whether a TIFF page holds what it claims: OpenCV fills what is missing with zeros."""
    bits = page.bitspersample  # a tuple where the samples differ
    sample = sum(bits) if isinstance(bits, tuple) else bits * page.samplesperpixel
    claimed: int = page.imagelength * page.imagewidth * sample
    if len(page.dataoffsets) < math.prod(page.chunked):
        return False
    if page.photometric == YCBCR:  # colours may be stored at half the resolution
        claimed = 0
    if page.compression in DEFLATED:
        return claimed <= 8 * _inflated_bytes(data, page)
    return page.compression != UNCOMPRESSED or claimed <= 8 * len(data)


def _inflated_bytes(data: bytes, page: Any) -> int:
    """The bytes in a deflated page; an EOFError or zlib.error where it is damaged."""
    most = 8 * math.prod(page.chunks)  # of a strip or tile, whatever its type
    found = 0
    for start, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        if size == 0:  # a part that is not stored: zeros
            found += most
            continue
        stream = zlib.decompressobj()
        found += len(stream.decompress(data[start : start + size], most))
        if not stream.eof:
            raise EOFError
    return found


def _palette_indices(data: bytes, number: int) -> NDArray[np.uint8] | None:
    """(H, W) indices of a palette image in colours, else None.

    A palette of greys, and that of a GIF, is arbitrary: there the shown values count.
    """
    try:
        with _pillow().open(io.BytesIO(data)) as image:
            if image.mode != "P" or image.format == "GIF":
                return None
            image.seek(number)
            indices = np.array(image)
            palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
    except (OSError, ValueError, EOFError):
        return None
    return None if np.all(palette == palette[:, :1]) else indices


def _without_alpha(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels[..., :1] if pixels.shape[2] == 2 else pixels[..., :3]


def _grey_plane(mask: NDArray[Any], name: str) -> NDArray[Any]:
    colors = _without_alpha(mask)
    if mask.shape[2] > 4 or np.any(colors != colors[..., :1]):
        raise PaintedMaskError(
            f"Mask {name} is painted in colours",
            "give each class its colour: 'dataset.classes=[{name:background,color:[0,0,0]},...]'",
        )
    return np.ascontiguousarray(colors[..., 0])
