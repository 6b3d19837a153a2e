"""Reading images and masks: from a file, or its content, to the numbers that it stores.

The content decides how a file is read, never its extension. Orientation tags are followed, as
viewers and annotation tools follow them.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from medt.errors import UserError
from medt.io import tiff
from medt.io.files import read_bytes
from medt.io.image_headers import (
    JPEG,
    MOST_FRAMES,
    PNG,
    Header,
    HeaderError,
    check_size,
    needed_parts,
    orientation_parts,
    read_header,
)
from medt.io.palettes import palette_colors, palette_indices
from medt.io.tiff import (
    ORIENTATION_TAG,
    ColorError,
    CompressionError,
    decode_with_opencv,
    opened_by_pillow,
    oriented,
)
from medt.io.tiff_chain import page_alone


class PaintedMaskError(UserError):
    """A mask is painted in colours where numbers are expected."""


# What these would print of a damaged file stands in the error.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
logging.getLogger("tifffile").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", module=r"PIL\.")


class Samples(NamedTuple):
    """What a file stores of an image, as it is to be seen, and what that is.

    Attributes:
        pixels: (H, W), or (H, W, C) in RGB or RGBA order, in the file's own type.
        alpha: the channels, from 0, of which the file says that they are transparency: TIFF by its
            extra samples, PNG by its colour type. No channel is taken for it by its place.
        turned: whether a PNG or JPEG says that it is to be seen turned or mirrored.
    """

    pixels: NDArray[Any]
    alpha: tuple[int, ...] = ()
    turned: bool = False

    def opaque(self) -> NDArray[Any]:
        """The pixels without transparency: (H, W), or (H, W, channels)."""
        if not self.alpha:
            return self.pixels
        return np.ascontiguousarray(np.delete(self.pixels, self.alpha, axis=2))

    def transparency(self) -> NDArray[Any] | None:
        """The first alpha channel, (H, W); None without one."""
        return np.ascontiguousarray(self.pixels[..., self.alpha[0]]) if self.alpha else None


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
    return read_samples(path, page).pixels


def read_samples(path: str | Path, page: int | None = None) -> Samples:
    """``read_image``, and which channels are transparency."""
    return decode_samples(read_bytes(path), str(path), page)


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
        UserError: as ``read_image``; also for files with more than 8 bits a channel, or channels
            that are no colours.
    """
    name = f"Mask {path}"
    return _colors(decode_samples(read_bytes(path), name, page), name)


def read_alpha(path: str | Path, page: int | None = None) -> NDArray[Any]:
    """Decode a mask whose numbers are its transparency: (H, W), an integer type.

    Raises:
        UserError: as ``read_image``; also for files without an alpha channel of whole numbers.
    """
    name = f"Mask {path}"
    return _alpha(decode_samples(read_bytes(path), name, page), name)


class MaskContent(NamedTuple):
    """All that a mask file may mean.

    Attributes:
        values: (H, W), as one of the readers above gives them.
        painted: whether that is ``read_colors``.
        samples: what the values were made of.
        palette: which colour, 0xRRGGBB, it gives to each number; empty without a palette.
    """

    values: NDArray[Any]
    painted: bool
    samples: Samples
    palette: dict[int, int]


def read_values(
    path: str | Path, page: int | None = None, painted: bool = False, alpha: bool = False
) -> MaskContent:
    """Decode a mask file, once; unless told how, as numbers or, if it is painted, as colours.

    Raises:
        UserError: as ``read_mask``, ``read_colors`` and ``read_alpha``.
    """
    data, name = read_bytes(path), f"Mask {path}"
    samples = decode_samples(data, name, page)
    if alpha:
        return MaskContent(_alpha(samples, name), False, samples, {})
    if painted:
        return MaskContent(_colors(samples, name), True, samples, {})
    chosen = _chosen(data, name, page)
    palette = palette_colors(chosen.data, chosen.frame or 0)
    try:
        return MaskContent(_numbers(samples, data, name, page), False, samples, palette)
    except PaintedMaskError:
        return MaskContent(_colors(samples, name), True, samples, palette)


def decode_image(data: bytes, name: str, page: int | None = None) -> NDArray[Any]:
    """``read_image`` for the content of a file; ``name`` is what an error calls it."""
    return decode_samples(data, name, page).pixels


def decode_samples(data: bytes, name: str, page: int | None = None) -> Samples:
    """``read_samples`` for the content of a file; arguments as those of ``decode_image``."""
    _check_end(data, name)
    chosen = _chosen(data, name, page)
    header = _checked_header(chosen, name)
    tag = orientation(chosen.data)
    pixels = oriented(_decode(chosen, name), tag)
    if sorted(pixels.shape[:2]) != sorted((header.height, header.width)):
        raise _undecodable(name)
    if pixels.nbytes > header.width * header.height * header.sample_bytes:
        raise _undecodable(name)
    _check_promise(pixels, header, name)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    alpha = tuple(i for i in header.alpha if i < channels)
    return Samples(pixels, alpha, tag != 1)


def decode_mask(data: bytes, name: str, page: int | None = None) -> NDArray[Any]:
    """``read_mask`` for the content of a file; arguments as those of ``decode_image``."""
    name = f"Mask {name}"  # in every error of it
    return _numbers(decode_samples(data, name, page), data, name, page)


def count_pages(data: bytes, name: str) -> int:
    """The number of images in the content of a file: of a TIFF stack or an animation, else 1.

    Raises:
        UserError: the file is damaged, or not an image.
    """
    return len(_opened(data, name)[2])


def orientation(data: bytes) -> int:
    """The orientation tag in the content of a PNG or JPEG file, 1 to 8; 1 where there is none.

    Numbers: Exif 2.32, section 4.6.4, tag 274. Of a PNG its eXIf chunk counts, no text.
    """
    if not data.startswith((PNG, JPEG)):
        return 1
    try:
        parts = orientation_parts(data)
        if not parts:
            return 1
        with opened_by_pillow(parts) as image:
            found = image.getexif().get(ORIENTATION_TAG, 1)
    except HeaderError:
        return 1
    return found if found in range(1, 9) else 1


def _numbers(samples: Samples, data: bytes, name: str, page: int | None) -> NDArray[Any]:
    mask = samples.opaque()
    if mask.ndim == 3:
        chosen = _chosen(data, name, page)
        indices = palette_indices(chosen.data, chosen.frame or 0)
        if indices is None:
            mask = _grey_plane(mask, name)
        else:
            mask = oriented(indices, orientation(chosen.data))
    if np.issubdtype(mask.dtype, np.floating):
        whole = np.nan_to_num(mask, nan=0.5, posinf=0.5, neginf=0.5)
        if np.any(whole != np.rint(whole)):
            raise UserError(
                f"{name} holds fractional numbers", "save class numbers as an 8 or 16 bit PNG"
            )
        mask = mask.astype(np.int64)
    return mask


def _colors(samples: Samples, name: str) -> NDArray[np.int64]:
    pixels = samples.opaque()
    if pixels.dtype != np.uint8:
        raise UserError(
            f"{name} has type {pixels.dtype}", "colours have 8 bits a channel: save it as RGB"
        )
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    if planes.shape[2] not in (1, 3):
        raise _no_mask(name, planes.shape[2])
    red, green, blue = np.broadcast_to(planes, (*planes.shape[:2], 3)).astype(np.int64).T
    packed: NDArray[np.int64] = (red << 16 | green << 8 | blue).T
    return packed


def _alpha(samples: Samples, name: str) -> NDArray[Any]:
    alpha = samples.transparency()
    if alpha is None or alpha.dtype.kind not in "iu":
        raise UserError(f"{name} has no alpha channel", "leave out dataset.mask=alpha")
    return alpha


class _Chosen(NamedTuple):
    """One image of a file: its number if that is an animation, no header if that is a TIFF."""

    data: bytes
    header: Header | None
    frame: int | None


def _chosen(data: bytes, name: str, page: int | None) -> _Chosen:
    data, header, places = _opened(data, name)
    if len(places) > 1 and (page is None or not 0 <= page < len(places)):
        raise UserError(
            f"{name} is a stack of {len(places)} pages",
            f"choose one with dataset.page=0 to {len(places) - 1}, or save one page per file",
        )
    place = places[page or 0 if len(places) > 1 else 0]
    if header is None:
        return _Chosen(page_alone(data, place), None, None)
    return _Chosen(data, header, place if len(places) > 1 else None)


def _opened(data: bytes, name: str) -> tuple[bytes, Header | None, list[int]]:
    """What the pixels of a file need of it, its header if it has one, where its images stand."""
    with _readable(name):
        data = needed_parts(data)
        if data[:4] in tiff.STARTS:
            return data, None, tiff.page_places(data)
        header = read_header(data)
        if header.frames > MOST_FRAMES:
            raise UserError(
                f"{name} has more than {MOST_FRAMES:,} pages", "save those that count on their own"
            )
        if header.frames == 1:
            return data, header, [0]
        with opened_by_pillow(data) as image:
            return data, header, list(range(getattr(image, "n_frames", 1)))


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except CompressionError as error:
        raise UserError(
            f"{name} {error}", "save it uncompressed or with Deflate, or as PNG"
        ) from None
    except ColorError as error:
        raise UserError(f"{name} {error}", "save it as RGB") from None
    except HeaderError:
        raise _undecodable(name) from None


def _checked_header(chosen: _Chosen, name: str) -> Header:
    """What an image announces; a small file can claim one that fills the memory."""
    header = chosen.header
    if header is None:
        with _readable(name):
            header = tiff.read_page_header(chosen.data)
    # An animation takes a pass over all frames before the chosen one.
    check_size(header, name, max(header.passes, 1 + (chosen.frame or 0)))
    if header.depth != 1:
        raise UserError(f"{name} is a volume of {header.depth} slices", "save each slice as a file")
    return header


def _check_promise(pixels: NDArray[Any], header: Header, name: str) -> None:
    """Libraries may leave out channels or bits that they do not know, and say nothing of it."""
    found = pixels.shape[2] if pixels.ndim == 3 else 1
    if found not in header.channels or 8 * pixels.itemsize < header.bits:
        many = f"{header.channels[0]} channels" if header.channels[0] > 1 else "1 channel"
        raise UserError(
            f"{name} announces {many} of {header.bits} bits, of which {found} of "
            f"{8 * pixels.itemsize} bits can be read",
            "save it as uncompressed TIFF without a colour space, or as PNG",
        )


def _decode(chosen: _Chosen, name: str) -> NDArray[Any]:
    data, header, frame = chosen
    if header is None:
        with _readable(name):
            return tiff.decode_page(data)
    pixels = decode_with_opencv(data) if frame is None else _frame(data, name, frame)
    if pixels is None:
        raise _undecodable(name)
    return pixels


def _frame(data: bytes, name: str, number: int) -> NDArray[np.uint8]:
    """One image of an animation, as it is to be seen: (H, W, 3)."""
    with _readable(name), opened_by_pillow(data) as image:
        image.seek(number)
        return np.array(image.convert("RGB"))


def _undecodable(name: str) -> UserError:
    return UserError(
        f"{name} cannot be decoded",
        "it is damaged, truncated or of another format: copy it again or convert it to PNG",
    )


def _check_end(data: bytes, name: str) -> None:
    """Some OpenCV versions return the upper part of a truncated PNG or JPEG as if it were whole."""
    cut = data.startswith(b"\x89PNG") and b"IEND" not in data[-4096:]
    if data.startswith(b"\xff\xd8\xff"):
        # A JPEG ends behind its last scan; a preview within it has an end of its own before that,
        # and cameras append what they like.
        cut = data.find(b"\xff\xda", data.rfind(b"\xff\xd9") + 1) >= 0
    if cut:
        raise _undecodable(name)


def _no_mask(name: str, channels: int) -> UserError:
    return UserError(
        f"{name} has {channels} channels",
        "a mask is one plane of class numbers, or RGB: save it as PNG",
    )


def _grey_plane(mask: NDArray[Any], name: str) -> NDArray[Any]:
    if np.any(mask != mask[..., :1]):
        if mask.shape[2] != 3:
            raise _no_mask(name, mask.shape[2])
        raise PaintedMaskError(
            f"{name} is painted in colours",
            "give each class its colour: 'dataset.classes=[{name:background,color:[0,0,0]},...]'",
        )
    return np.ascontiguousarray(mask[..., 0])
