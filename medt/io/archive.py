"""A published archive, packed or already extracted, as names and the bytes behind them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from medt.errors import UserError
from medt.io.files import largest_file, read_bytes
from medt.io.links import check_link

_UNREADABLE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError),
    # zipfile: unknown compression, encryption; tarfile: names of names, numbers that are none
    *(NotImplementedError, RuntimeError, ValueError),
)
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_NAMING = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, *_EXTENDED)
_COMPRESSED: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
SPARSE = "an entry has holes, of which a few bytes make a file of any size"
NEGATIVE = "an entry has less than no bytes"
MOST_ENTRIES = 2**20
MOST_LISTING = 2**26  # bytes of a zip's list of entries, at least 46 for each
MOST_NAME = 2**20  # bytes of a tar's record for a long name, read into memory
MOST_SHARED = 100  # values of a tar that hold for all entries; git writes one
MOST_UNPACKED = 200  # times the bytes of a tar; plain masks take a hundredth
LEAST_UNPACKED = 2**26  # bytes that a tar may have however small it is
MOST_PADDING = 2**26  # bytes behind the last entry of a tar; 10 KB are usual
UNPACKED_AT_ONCE = 2**16


@dataclass(frozen=True)
class Archive:
    """The files of an archive.

    Attributes:
        source: what was opened.
        sizes: uncompressed bytes of each file, by its path in the archive, with forward slashes, in
            the order of the names.
        read: the content of one file, by that path; from several threads at once, too.
    """

    source: Path
    sizes: Mapping[str, int]
    read: Callable[[str], bytes]

    def by_name(self, wanted: Callable[[str], bool]) -> dict[str, str]:
        """Name without folders -> path, of the files whose name is wanted.

        Raises:
            UserError: two of them have one name.
        """
        found: dict[str, str] = {}
        for path in self.sizes:
            name = PurePosixPath(path).name
            if not wanted(name):
                continue
            if name in found:
                raise UserError(
                    f"{self.source} holds several files {name}", "give the folder of one copy only"
                )
            found[name] = path
        return found

    def verify(self, paths: Iterable[str]) -> None:
        """Read files to their end, so that damage shows before anything is made of them.

        Raises:
            UserError: a file is damaged.
        """
        for path in paths:
            self.read(path)


@contextmanager
def open_archive(source: Path, scratch: Path) -> Iterator[Archive]:
    """Open a zip or tar file (also compressed by gzip, bzip2 or xz), or a folder.

    Hidden files and those that macOS adds are left out.

    Args:
        source: the file, or the folder it was extracted to, or a folder above that.
        scratch: where a tar file, which cannot be read in any order, is extracted to; it must not
            exist, and is not removed.

    Raises:
        UserError: no such source; it is damaged or encrypted; an entry points outside the archive,
            is a link or a device, or is larger than any file may be; there are too many.
    """
    if source.is_dir():
        yield _folder(source, source)
    elif not source.is_file():
        raise UserError(
            f"No archive {source}", "give source=<zip or tar file, or extracted folder>"
        )
    elif zipfile.is_zipfile(source):
        with ExitStack() as stack:
            with _readable(source):
                listed = stack.enter_context(_ListedFile(io.FileIO(source)))
                file = stack.enter_context(zipfile.ZipFile(listed))
            yield _zip(source, file)
    elif _is_tar(source):
        _extract(source, scratch)
        yield _folder(source, scratch)
    else:
        raise UserError(
            f"{source} is no readable zip or tar file",
            "it is damaged, truncated or of another format: download it again",
        )


def _folder(source: Path, root: Path) -> Archive:
    entries = sorted(root.rglob("*"))
    for path in entries:
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path} is a link to nothing", "restore the file, or remove the link")
        check_link(path, root)
    paths = [path for path in entries if path.is_file()]
    names = {path.relative_to(root).as_posix(): path for path in paths}
    sizes = {name: path.stat().st_size for name, path in names.items() if _is_content(name)}
    return Archive(source, sizes, lambda name: read_bytes(names[name]))


class _ListedFile(io.BufferedReader):
    """A zip whose list of entries does not fill the memory: zipfile reads it at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MOST_LISTING:
            raise zipfile.BadZipFile(f"its list of entries has {size / 1e6:,.1f} MB")
        return super().read(size)


def _zip(source: Path, file: zipfile.ZipFile) -> Archive:
    entries = [entry for entry in file.infolist() if not entry.is_dir()]
    for entry in entries:
        linked = stat.S_ISLNK(entry.external_attr >> 16)
        _check_entry(source, entry.filename, entry.file_size, linked)
        if entry.flag_bits & 1:
            raise UserError(
                f"{source} is encrypted", "extract it with its password and give the folder"
            )
        # Of others zipfile unpacks what it has read whole, whatever the entry claims.
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(
                f"{source} packs {entry.filename} by method {entry.compress_type}, which is not "
                "read",
                "extract it and give the folder",
            )
    sizes = {e.filename: e.file_size for e in entries if _is_content(e.filename)}
    if len(sizes) < sum(_is_content(e.filename) for e in entries):
        raise UserError(f"{source} names a file twice", "download it again")

    def read(name: str) -> bytes:
        with _readable(source, name), file.open(name) as content:
            return b"".join(iter(lambda: content.read(UNPACKED_AT_ONCE), b""))

    return Archive(source, dict(sorted(sizes.items())), read)


class _RefusedError(tarfile.TarError):
    """A record that would take more memory or time than any archive needs."""


class _Entry(tarfile.TarInfo):
    """An entry of a tar, none of whose records takes much memory or time."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        """Called by tarfile for each record, before it reads what belongs to it."""
        if self.size < 0:  # would be read to the end of the file, or begin again
            raise _RefusedError(NEGATIVE)
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise _RefusedError(SPARSE)
        if self.type in _NAMING and self.size > MOST_NAME:
            raise _RefusedError("a name is longer than any")
        if self.type in _EXTENDED:
            self._check_extended(tar)
        entry: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return entry

    def _check_extended(self, tar: tarfile.TarFile) -> None:
        """tarfile looks for numbers in time that grows with the square of their digits, copies what
        holds for all entries for each, and reads lists of holes without end."""
        assert tar.fileobj is not None
        start = tar.fileobj.tell()
        content = tar.fileobj.read(self.size)
        tar.fileobj.seek(start)  # `_tar` has it in its buffer
        if b"GNU.sparse" in content:
            raise _RefusedError(SPARSE)
        if re.search(rb"[0-9]{256}", content) or len(tar.pax_headers) > MOST_SHARED:
            raise _RefusedError("a name is longer than any")


@contextmanager
def _tar(source: Path) -> Iterator[tarfile.TarFile]:
    """A tar, which is inflated no further than it is read.

    Raises:
        tarfile.TarError: it is none; and what the file's compression raises.
    """
    with source.open("rb") as start:
        magic = start.read(6)
    kind = next((kind for kind in _COMPRESSED if magic.startswith(kind)), b"")
    opened: Any = _COMPRESSED[kind](source) if kind else io.FileIO(source)
    with (
        io.BufferedReader(opened, 2 * MOST_NAME) as stream,
        tarfile.open(fileobj=stream, mode="r:", tarinfo=_Entry) as file,
    ):
        yield file


def _entries(file: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """All that are no folders, one after the other, without those before in memory."""
    while (entry := file.next()) is not None:
        if entry.size < 0:  # said by a record before it
            raise _RefusedError(NEGATIVE)
        file.members = []  # type: ignore[attr-defined]
        yield entry


def _is_tar(source: Path) -> bool:
    try:
        with _tar(source):
            return True
    except _RefusedError:
        return True  # which is said when its entries are read
    except _UNREADABLE:
        return False


def _extract(source: Path, folder: Path) -> None:
    """The content of a tar file; the folder appears even where it fails, empty where the archive
    is refused."""
    folder.mkdir(parents=True)
    with _readable(source):
        with _tar(source) as file:
            _check_tar(source, file, folder)
        with _tar(source) as file:
            for entry in _entries(file):
                if not entry.isdir() and _is_content(entry.name):
                    _extract_entry(file, entry, folder / entry.name)


def _check_tar(source: Path, file: tarfile.TarFile, folder: Path) -> None:
    """Read all headers, so that nothing is written of a file that is refused in the end."""
    most = max(LEAST_UNPACKED, MOST_UNPACKED * source.stat().st_size)
    room = shutil.disk_usage(folder).free
    names: set[PurePosixPath] = set()
    for count, entry in enumerate(_entries(file)):
        if count >= MOST_ENTRIES:
            raise UserError(
                f"{source} has more than {MOST_ENTRIES:,} entries, more than any dataset",
                "do not trust it or, if it is right, extract it and give the folder",
            )
        if not entry.isdir():
            _check_entry(source, entry.name, entry.size, not entry.isfile())
        # Also of what is left out, which is unpacked to find the next.
        unpacked = entry.offset_data + entry.size
        if unpacked > most:
            raise UserError(
                f"{source} unpacks to more than {most / 1e6:,.0f} MB from "
                f"{source.stat().st_size / 1e6:,.3f}",
                "do not trust it or, if it is right, extract it and give the folder",
            )
        room -= entry.size
        if room < 0:
            raise UserError(
                f"{folder.parent} has too little space to unpack {source}",
                "free space, or give dataset.root on another disk",
            )
        path = PurePosixPath(entry.name)
        if path in names and not entry.isdir():
            raise UserError(f"{source} names {entry.name} twice", "download it again")
        names.add(path)
    _check_tar_end(file)


def _extract_entry(file: tarfile.TarFile, entry: tarfile.TarInfo, target: Path) -> None:
    content = file.extractfile(entry)
    assert content is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as out:
        shutil.copyfileobj(content, out, 2**20)


def _check_tar_end(file: tarfile.TarFile) -> None:
    """A damaged header looks like the end to tarfile, which leaves the checksum of a compressed
    stream, at its very end, unread, too."""
    assert file.fileobj is not None
    file.fileobj.seek(file.offset)
    if file.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise EOFError("its end is missing")
    for _ in range(MOST_PADDING // UNPACKED_AT_ONCE):
        if not file.fileobj.read(UNPACKED_AT_ONCE):
            return
    raise EOFError("it goes on behind its end")


def _check_entry(source: Path, name: str, size: int, special: bool) -> None:
    """Refuse what could write elsewhere or fill the disk; ``special`` is a link or a device."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        raise UserError(
            f"{source} has an entry outside the archive: {name!r}", "do not trust this file"
        )
    if special:
        raise UserError(
            f"{source} has an entry that is no file: {name}", "do not trust this archive"
        )
    if _is_content(name) and any(unicodedata.category(letter) == "Cc" for letter in name):
        raise UserError(
            f"{source} has an entry of an unusable name: {name!r}", "rename it in the archive"
        )
    largest = largest_file()
    if size > largest:
        raise UserError(
            f"{source} claims {size / 1e9:.1f} GB for {name}",
            f"no file of a dataset is larger than {largest / 1e9:.1f} GB: do not trust it or, if "
            "it is right, set MEDT_MAX_FILE_BYTES in the environment",
        )


def _is_content(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and "__MACOSX" not in parts and not parts[-1].startswith(".")


@contextmanager
def _readable(source: Path, entry: str | None = None) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except _UNREADABLE as error:
        where = f"{entry} in {source}" if entry else str(source)
        hint = "the archive is damaged or truncated: download it again"
        if isinstance(error, OSError) and error.errno is not None:
            hint = "check free space and permissions"
        elif isinstance(error, _RefusedError):
            hint = "do not trust it or, if it is right, extract it and give the folder"
        raise UserError(f"{where} cannot be read: {' '.join(str(error).split())}", hint) from error
