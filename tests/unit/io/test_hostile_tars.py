"""Tars that were made to fill disk or memory: nothing of them is written."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from medt.errors import UserError
from medt.io.archive import open_archive


def header(
    name: str, size: int, kind: bytes = tarfile.REGTYPE, pax: dict[str, str] | None = None
) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    if pax is None:
        return entry.tobuf(tarfile.GNU_FORMAT)
    entry.pax_headers = pax
    return entry.tobuf(tarfile.PAX_FORMAT)


def sparse(size: int) -> bytes:
    """A file of one byte and a hole, in the old way of GNU."""
    block = bytearray(header("a", 512, tarfile.GNUTYPE_SPARSE))
    block[386:410] = b"%011o\0%011o\0" % (0, 1)
    block[483:495] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(512)


def refused(source: Path, message: str) -> None:
    scratch = source.with_name("scratch")
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message) as caught, open_archive(source, scratch):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**24
    assert "\n" not in str(caught.value)
    assert not [path for path in scratch.rglob("*") if path.is_file()]


END = bytes(1024)
GOOD = header("a.bin", 1000) + bytes(1024)
HOSTILE = {
    "holes": (sparse(2**30), "an entry has holes"),
    "holes behind a file": (GOOD + sparse(2**30), "an entry has holes"),
    "holes of version 0.1": (
        header("a", 0, pax={"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**30)}),
        "an entry has holes",
    ),
    "holes of version 0.0": (header("a", 0, pax={"GNU.sparse.size": "9"}), "an entry has holes"),
    "holes of version 1.0": (
        header("a", 2**25, pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}) + bytes(2**25),
        "an entry has holes",
    ),
    "a record of 64 MB": (header("a", 2**26, tarfile.XHDTYPE) + bytes(2**26), "longer than any"),
    "for all entries": (header("a", 2**26, tarfile.XGLTYPE) + bytes(2**26), "longer than any"),
    "a name of 64 MB": (
        header("a", 2**26, tarfile.GNUTYPE_LONGNAME) + bytes(2**26),
        "longer than any",
    ),
    "a record of less": (header("a", -513, tarfile.XHDTYPE) + bytes(2**26), "less than no bytes"),
    "a file of less": (GOOD + header("b", -1536), "less than no bytes"),
    "a file of less, said before it": (
        GOOD + header("b", 0, pax={"size": "-1536"}),
        "less than no bytes",
    ),
    "digits": (header("a", 0, pax={"comment": "1" * 500_000}), "longer than any"),
    "names of names": (
        (header("a", 1, tarfile.GNUTYPE_LONGNAME) + bytes(512)) * 2000 + header("a", 0),
        "no readable",
    ),
    "values for all": (
        tarfile.TarInfo.create_pax_global_header({f"k{i}": "v" for i in range(101)})
        + header("a", 0, pax={"comment": "c"}),
        "longer than any",
    ),
    "another entry outside": (
        header("a.bin", 2**24) + bytes(2**24) + header("../evil", 0),
        "an entry outside the archive",
    ),
    "more than it packs": (
        b"".join(header(f"{name}.bin", 2**24) + bytes(2**24) for name in "abcde"),
        "unpacks to more than 67 MB from 0",
    ),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["", "gz"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tar_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes]
) -> None:
    content, message = HOSTILE[name]
    if name == "more than it packs" and pack is bytes:
        pytest.skip("it packs nothing")
    (tmp_path / "evil.tar").write_bytes(pack(content + END))
    refused(tmp_path / "evil.tar", rf"evil\.tar.* {message}")


def test_what_tar_programs_write_is_read(tmp_path: Path) -> None:
    """Long names, and values of the pax format."""
    names = ["b" * 90 + "/" + "c" * 90 + "/" + "ä" * 30 + ".bin", "a.bin"]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        path = tmp_path / f"{form}.tar.gz"
        shared = {"comment": "0" * 40} if form == tarfile.PAX_FORMAT else {}
        with tarfile.open(path, "w:gz", format=form, pax_headers=shared) as file:
            for name in names:
                entry = tarfile.TarInfo(name)
                entry.size, entry.mtime = 3, 1.5 if shared else 1
                entry.pax_headers = {"SCHILY.xattr.user.note": "n" * 9000} if shared else {}
                file.addfile(entry, io.BytesIO(b"abc"))
        with open_archive(path, tmp_path / str(form)) as archive:
            assert {name: archive.read(name) for name in archive.sizes} == dict.fromkeys(
                sorted(names), b"abc"
            )
