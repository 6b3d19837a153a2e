"""Reading images and masks: from a file, or its content, to the numbers that it stores."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medt.errors import UserError
from medt.files import read_bytes

TIFF_STARTS = (b"II*\0", b"MM\0*")


def read_image(path: str | Path) -> NDArray[Any]:
    """Decode an image file without changing its values.

    Returns:
        (H, W), or (H, W, C) in RGB or RGBA order, in the file's own type (uint8, uint16, float32,
        ...). A palette is resolved to its colours. Orientation tags are not applied, so that image
        and mask agree.

    Raises:
        UserError: the file is missing, truncated, not an image, or a stack of several images.
    """
    return decode_image(read_bytes(path), str(path))


def read_mask(path: str | Path) -> NDArray[Any]:
    """Decode a mask file to the numbers it stores.

    Three equal channels become one plane, an alpha channel is dropped, and of a coloured palette
    (PNG, BMP, TIFF) the indices count, not the colours.

    Returns:
        (H, W), an integer type.

    Raises:
        UserError: as ``read_image``; also for masks painted in colours, and for fractional values.
    """
    return decode_mask(read_bytes(path), str(path))


def decode_image(data: bytes, name: str, page: int | None = None) -> NDArray[Any]:
    """``read_image`` for the content of a file; ``name`` is what an error calls it.

    ``page`` chooses one of a TIFF stack, from 0.
    """
    _check_end(data, name)
    if data[:4] in TIFF_STARTS:
        plane = _decode_tiff(data, name, page)
        if plane is not None:
            return plane
    pixels: NDArray[Any] | None
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.size == 0:
        raise _undecodable(name)
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        code = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        return np.asarray(cv2.cvtColor(pixels, code))
    return pixels


def decode_mask(data: bytes, name: str, page: int | None = None) -> NDArray[Any]:
    """``read_mask`` for the content of a file; arguments as those of ``decode_image``."""
    mask = decode_image(data, name, page)
    if mask.ndim == 3:
        indices = _palette_indices(data)
        mask = _grey_plane(mask, name) if indices is None else indices
    if np.issubdtype(mask.dtype, np.floating):
        whole = np.nan_to_num(mask, nan=0.5, posinf=0.5, neginf=0.5)
        if np.any(whole != np.rint(whole)):
            raise UserError(
                f"Mask {name} holds fractional numbers", "save class numbers as an 8 or 16 bit PNG"
            )
        mask = mask.astype(np.int64)
    return mask


def count_pages(data: bytes, name: str) -> int:
    """The number of images in the content of a TIFF file, 1 for any other.

    Raises:
        UserError: the TIFF is damaged.
    """
    if data[:4] not in TIFF_STARTS:
        return 1
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            return len(_images(file))
    except Exception:  # a broken file makes the reader raise whatever it comes across
        raise _undecodable(name) from None


def _undecodable(name: str) -> UserError:
    return UserError(
        f"{name} cannot be decoded as an image",
        "it is damaged, truncated or of another format: copy it again or convert it to PNG",
    )


def _check_end(data: bytes, name: str) -> None:
    """Some OpenCV versions return the upper part of a truncated PNG or JPEG as if it were whole."""
    for start, end in ((b"\x89PNG", b"IEND"), (b"\xff\xd8\xff", b"\xff\xd9")):
        if data.startswith(start) and end not in data[-4096:]:
            raise _undecodable(name)


def _images(file: Any) -> list[Any]:
    """The pages of a TIFF that are images of the first one's size, not previews of it."""
    first = file.pages.first
    return [page for page in file.pages if page.shape == first.shape]


def _decode_tiff(data: bytes, name: str, number: int | None) -> NDArray[Any] | None:
    """One page, or None where OpenCV does as well.

    OpenCV inverts 1 bit TIFFs, multiplies colours by alpha, and reads but one of separate planes.
    """
    import tifffile
    from PIL import Image

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            pages = _images(file)
            if len(pages) > 1:
                if number is None or number >= len(pages):
                    raise UserError(
                        f"{name} is a stack of {len(pages)} images", "save one image per file"
                    )
                return np.asarray(pages[number].asarray())
            (first,) = pages
            bits, samples = first.bitspersample, first.samplesperpixel
            if bits == 1 or (bits == 8 and samples == 4 and first.planarconfig == 1):
                with Image.open(io.BytesIO(data)) as image:
                    return np.array(image.convert("L") if bits == 1 else image)
            if samples > 1 and first.planarconfig == 2:
                return np.moveaxis(np.asarray(first.asarray()), 0, -1)
            return None
    except UserError:
        raise
    except Exception:  # a broken file makes these readers raise whatever they come across
        raise _undecodable(name) from None


def _palette_indices(data: bytes) -> NDArray[np.uint8] | None:
    """(H, W) indices of a palette image, else None. A GIF's palette is arbitrary: colours count."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image) if image.mode == "P" and image.format != "GIF" else None
    except (OSError, ValueError):
        return None


def _grey_plane(mask: NDArray[Any], name: str) -> NDArray[Any]:
    colors = mask[..., :1] if mask.shape[2] == 2 else mask[..., :3]
    if mask.shape[2] > 4 or np.any(colors != colors[..., :1]):
        raise UserError(
            f"Mask {name} is painted in colours",
            "save class numbers as one grey plane, e.g. an 8 bit PNG",
        )
    return np.ascontiguousarray(colors[..., 0])
