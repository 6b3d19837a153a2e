"""Finding files, reading them as data, and writing them so that they are whole or not there."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import stat
import uuid
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from medt.errors import UserError
from medt.io.links import check_link, open_own
from medt.io.pickles import HostilePickleError, check_pickle

# Of what `atomic_write` has not brought to its end.
TORN = re.compile(r"\..*\.(?=[0-9]*[a-f])[0-9a-f]{8}(\..*)?")
IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")
LARGEST_FILE = 2**30  # bytes
ZIP = b"PK\x03\x04"


def list_images(folder: str | Path) -> list[Path]:
    """Image files directly inside a folder, in natural order (2 before 10), without hidden ones.

    Raises:
        UserError: there is no such folder, or a link leads out of it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"No folder {folder}", looked_for(folder))
    files = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_EXTENSIONS
        and not path.name.startswith(".")
        and not path.is_dir()
    ]
    for path in files:
        check_link(path, folder)
    return sorted(files, key=lambda path: natural_key(path.name))


def looked_for(path: str | Path) -> str:
    """What to do about a path at which there is nothing."""
    where = "" if Path(path).is_absolute() else f": it was looked for in {Path.cwd()}"
    return f"check the path{where}"


def environment_number(name: str, otherwise: int) -> int:
    """A limit that the environment may set.

    Raises:
        UserError: what it sets is no whole number above 0.
    """
    text = os.environ.get(name, str(otherwise))
    if not text.isdecimal() or not int(text):
        raise UserError(f"{name}={text} is no number", "give a whole number above 0")
    return int(text)


def natural_key(name: str) -> tuple[tuple[int, str], ...]:
    """A sort key that orders the numbers in names by value, however long they are."""
    parts = re.split(r"([0-9]+)", name)
    numbers = (part.lstrip("0") if i % 2 else part for i, part in enumerate(parts))
    ordered = ((len(part) if i % 2 else 0, part) for i, part in enumerate(numbers))
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
    temporary = path.with_name(f".{path.stem}.{_mark()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def atomic_folder(path: str | Path, replace: bool = True) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; it takes that place when the block succeeds.

    A folder that is there already is replaced or, without ``replace``, stays as it is. Where
    several processes make the same new folder at once, the first one stays and the others are
    dropped.
    """
    path = Path(path)
    existed = replace and path.exists()
    temporary = temporary_beside(path)
    replaced = temporary.with_suffix(".old")
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
        raise _unwritable(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def remove_torn(folder: Path, in_use: str) -> None:
    """Remove the temporary files of `atomic_write` that killed processes left below a folder.

    Only for whoever knows that no other process is writing there. Hidden and linked folders are
    passed over, and those that hold a file of the name `in_use`, as others write into them.
    """
    for root, below, files in os.walk(folder):
        below[:] = [
            name
            for name in below
            if not name.startswith(".") and not Path(root, name, in_use).exists()
        ]
        for path in (Path(root, name) for name in files if TORN.fullmatch(name)):
            if path.is_file() and not path.is_symlink():
                with suppress(OSError):  # somebody else's, which does no harm
                    path.unlink()


def _mark() -> str:
    """Eight hexadecimal digits, of which one is a letter: no date of a file that somebody named."""
    return f"{uuid.uuid4().hex[:7]}f"


def _sync_folder(folder: Path) -> None:
    """Make a new name last through a loss of power, where the file system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"Cannot write {path}: {error.strerror or error}", "check free space and permissions"
    )


def temporary_beside(path: Path) -> Path:
    """A new hidden name in the same folder."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.new")


def remove_abandoned(path: Path) -> None:
    """Remove the temporary folders that processes which were killed left beside ``path``.

    Only for whoever knows that no other process is writing there.
    """
    mark = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.(new|old)")
    for sibling in path.parent.iterdir():
        if mark.fullmatch(sibling.name):
            shutil.rmtree(sibling, ignore_errors=True)


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


def append_text(path: Path, text: str) -> None:
    """Append to a UTF-8 text file, made if absent with its folder.

    Raises:
        UserError: the disk is full or the file not writable, or as `open_own`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", opener=open_own) as file:
            file.write(text.encode())
    except OSError as error:
        raise _unwritable(path, error) from error


def write_tiff(
    path: str | Path, array: NDArray[Any], axes: str, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write (H, W) or (pages, H, W) as a compressed grey TIFF.

    Args:
        path: the file.
        array: uint8, uint16 or float32.
        axes: "YX" or "CYX".
        metadata: plain values for its description, as JSON.
    """
    import tifffile

    with atomic_write(path) as temporary:
        tifffile.imwrite(
            temporary,
            array,
            photometric="minisblack",
            compression="zlib",
            metadata={"axes": axes, **(metadata or {})},
        )


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
    _check_claims(path)
    try:
        with warnings.catch_warnings():  # of what is refused anyway, such as sparse tensors
            warnings.simplefilter("ignore")
            return torch.load(_checked(path), map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file makes the reader raise whatever it comes across
        reason = f": {error}" if isinstance(error, HostilePickleError) else ""
        raise UserError(
            f"{path} is damaged or not a {kind}{reason}", "copy it again or use another"
        ) from error


def _checked(path: Path) -> Path | io.BytesIO:
    """What torch may load, after a look at all that it would unpickle."""
    import torch

    with path.open("rb") as file:
        is_zip = file.read(len(ZIP)) == ZIP  # as torch decides
    if is_zip:
        check_pickle(io.BytesIO(torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")))
        return path
    # The older format. What is no file on the disk torch does not try to open as a tar, too.
    content = io.BytesIO(read_bytes(path))
    # A magic number, a version, facts of the machine, the tensors, and the keys of their storages.
    for flat in (True, True, False, False, True):
        check_pickle(content, flat)
    content.seek(0)
    return content


def _check_claims(path: Path) -> None:
    """``torch.save`` packs nothing, so a record that claims more than the file holds is a bomb."""
    try:
        with zipfile.ZipFile(path) as file:
            claimed = sum(entry.file_size for entry in file.infolist())
    except (BadZipFile, OSError, ValueError):
        return  # of the older format, which has no records, or damaged, which its reader says
    if claimed > path.stat().st_size:
        raise UserError(
            f"{path} claims {claimed / 1e9:.1f} GB and has {path.stat().st_size / 1e9:.1f} GB",
            "do not trust this file",
        )


def read_bytes(path: str | Path, most: int | None = None) -> bytes:
    """Read a whole file, which may come from anybody.

    Args:
        path: the file.
        most: bytes; None is MEDT_MAX_FILE_BYTES of the environment, or 1 GiB.

    Raises:
        UserError: it is missing, larger, not a regular file, or cannot be read.
    """
    path = Path(path)
    limit = largest_file() if most is None else most
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):  # a pipe would be waited for, a device not end
                raise UserError(
                    f"{path} is no regular file", "give files, not folders, pipes or devices"
                )
            data = None
            if facts.st_size <= limit:
                data = file.read(facts.st_size + 1)  # a buffer for the limit takes its time
                data += file.read(limit + 1 - len(data)) if len(data) > facts.st_size else b""
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"No file {path}", looked_for(path)) from None
    except OSError as error:
        raise UserError(
            f"Cannot read {path}: {error.strerror or error}", "check that it is a readable file"
        ) from error
    if data is None or len(data) > limit:
        allow = "if it is right, set MEDT_MAX_FILE_BYTES in the environment to allow it"
        raise UserError(
            f"{path} has {facts.st_size / 1e6:,.1f} MB, more than {limit / 1e6:,.1f}",
            allow if most is None else "no file of this kind is so large: check what it is",
        )
    return data


def largest_file() -> int:
    """The bytes that a file may have, or claim to have when it is unpacked."""
    return environment_number("MEDT_MAX_FILE_BYTES", LARGEST_FILE)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
