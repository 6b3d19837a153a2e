"""Reading images and masks, and writing files so that they are either whole or not there."""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from medt.errors import UserError

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")


def read_image(path: str | Path) -> NDArray[Any]:
    """Decode an image file without changing its values.

    Returns:
        (H, W), or (H, W, C) in RGB or RGBA order, in the file's own type (uint8, uint16, float32,
        ...). A palette is resolved to its colours. Orientation tags are not applied, so that image
        and mask agree.

    Raises:
        UserError: the file is missing, truncated, not an image, or a stack of several images.
    """
    return decode_image(_read_bytes(Path(path)), str(path))


def read_mask(path: str | Path) -> NDArray[Any]:
    """Decode a mask file to the numbers it stores.

    Three equal channels become one plane, an alpha channel is dropped, and of a coloured palette
    (PNG, BMP, TIFF) the indices count, not the colours.

    Returns:
        (H, W), an integer type.

    Raises:
        UserError: as ``read_image``; also for masks painted in colours, and for fractional values.
    """
    return decode_mask(_read_bytes(Path(path)), str(path))


def decode_image(data: bytes, name: str) -> NDArray[Any]:
    """``read_image`` for the content of a file; ``name`` is what an error calls it."""
    _check_end(data, name)
    if data[:4] in (b"II*\0", b"MM\0*"):
        page = _decode_tiff(data, name)
        if page is not None:
            return page
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


def decode_mask(data: bytes, name: str) -> NDArray[Any]:
    """``read_mask`` for the content of a file; ``name`` is what an error calls it."""
    mask = decode_image(data, name)
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


def list_images(folder: str | Path) -> list[Path]:
    """Image files directly inside a folder, in natural order (2 before 10), without hidden ones.

    Raises:
        UserError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"No folder {folder}", "check the path")
    files = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_EXTENSIONS and not path.name.startswith(".")
    ]
    return sorted(files, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> tuple[tuple[int, str], ...]:
    """A sort key that orders the numbers in names by value."""
    parts = re.split(r"([0-9]+)", name)
    ordered = ((int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts))
    return (*ordered, (0, name))


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes that name when the block succeeds.

    Readers see the old file or the whole new one, never a part, even after a loss of power. A
    missing folder is made. When the block fails, the temporary file is removed and the old file
    stays.

    Raises:
        UserError: the disk is full or the folder not writable.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}", "check free space and permissions"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; it takes that place when the block succeeds.

    Where several processes make the same new folder at once, the first one stays and the others are
    dropped.
    """
    path = Path(path)
    existed = path.exists()
    mark = uuid.uuid4().hex[:8]
    temporary = path.with_name(f".{path.name}.{mark}.new")
    replaced = path.with_name(f".{path.name}.{mark}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if existed:
            path.rename(replaced)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    except OSError as error:
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}", "check free space and permissions"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def write_png(path: str | Path, array: NDArray[Any]) -> None:
    """Write (H, W), RGB or RGBA of bool (as 0 and 1), uint8 or uint16 as PNG."""
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"a PNG holds uint8 or uint16, not {array.dtype}")
    if array.ndim == 3 and array.shape[2] in (3, 4):
        code = cv2.COLOR_RGB2BGR if array.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        array = cv2.cvtColor(array, code)
    _, encoded = cv2.imencode(".png", array)
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file with ``\\n`` line ends, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(text.encode())


def read_tensors(path: str | Path, kind: str) -> Any:
    """Read what ``torch.save`` wrote: tensors and plain values; nothing in the file is executed.

    Args:
        path: the file.
        kind: what an error says the file should be, such as "checkpoint of medt".

    Raises:
        UserError: the file is missing, damaged, or holds anything else.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}", f"give the path of a {kind}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, BadZipFile, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path} is damaged or not a {kind}", "copy it again or use another"
        ) from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"No file {path}", "check the path") from None
    except OSError as error:
        raise UserError(
            f"Cannot read {path}: {error.strerror or error}", "check that it is a readable file"
        ) from error


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


def _decode_tiff(data: bytes, name: str) -> NDArray[Any] | None:
    """The first page, or None where OpenCV does as well.

    OpenCV inverts 1 bit TIFFs, multiplies colours by alpha, and reads but one of separate planes.
    """
    import tifffile
    from PIL import Image

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            first = file.pages.first
            pages = sum(page.shape == first.shape for page in file.pages)
            if pages > 1:
                raise UserError(f"{name} is a stack of {pages} images", "save one image per file")
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
