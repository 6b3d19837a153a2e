"""Archives of any kind give the same files; what is damaged or dangerous is refused by name."""

from __future__ import annotations

import contextlib
import io
import lzma
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medt.errors import UserError
from medt.io import archive as archive_module
from medt.io.archive import open_archive

NOISE = np.random.default_rng(0).bytes(20_000)
FILES = {"set/a.bin": NOISE, "set/sub dir/ä.txt": b"text", "set/empty": b""}
CLUTTER = {"set/.DS_Store": b"x", "__MACOSX/set/a.bin": b"y"}


def as_folder(folder: Path) -> Path:
    for name, content in {**FILES, **CLUTTER}.items():
        path = folder / "extracted" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / "extracted"


def as_zip(folder: Path) -> Path:
    path = folder / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in {**FILES, **CLUTTER}.items():
            file.writestr(name, content)
    return path


def as_tar(mode: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / f"archive.tar.{mode}".rstrip(".")
        with tarfile.open(path, f"w:{mode}") as file:
            for name, content in {**FILES, **CLUTTER}.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                file.addfile(entry, io.BytesIO(content))
        return path

    return make


KINDS = {
    "folder": as_folder,
    "zip": as_zip,
    **{f"tar {mode}": as_tar(mode) for mode in ("", "gz", "bz2", "xz")},
}
TARS = [make for name, make in KINDS.items() if name.startswith("tar")]


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_every_kind_gives_the_same_files(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with open_archive(make(tmp_path), tmp_path / "scratch") as archive:
        assert {name: archive.read(name) for name in archive.sizes} == FILES
        assert dict(archive.sizes) == {name: len(content) for name, content in FILES.items()}
        assert archive.by_name(lambda name: name.endswith(".bin")) == {"a.bin": "set/a.bin"}


@pytest.mark.parametrize("make", [as_zip, *TARS])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.75])
def test_a_truncated_archive_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], kept: float
) -> None:
    path = make(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with (
        pytest.raises(UserError, match=r"archive\..*read.*download it again") as caught,
        open_archive(path, tmp_path / "scratch") as archive,
    ):
        archive.verify(archive.sizes)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_found_where_it_is(tmp_path: Path) -> None:
    path = as_zip(tmp_path)
    content = bytearray(path.read_bytes())
    content[content.index(NOISE[:8]) + 500] ^= 1
    path.write_bytes(content)
    with (
        open_archive(path, tmp_path / "scratch") as archive,
        pytest.raises(UserError, match=r"set/a\.bin in .*archive\.zip cannot be read"),
    ):
        archive.verify(archive.sizes)


def test_two_files_of_one_name_are_refused_where_only_the_name_counts(tmp_path: Path) -> None:
    folder = as_folder(tmp_path)
    (folder / "copy").mkdir()
    (folder / "copy" / "a.bin").touch()
    with (
        open_archive(folder, tmp_path / "scratch") as archive,
        pytest.raises(UserError, match=r"holds several files a\.bin"),
    ):
        archive.by_name(lambda name: name == "a.bin")


def test_a_missing_source_and_another_format_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no archive")
    for name, message in (("absent.zip", "No archive"), ("notes.txt", "no readable zip or tar")):
        with (
            pytest.raises(UserError, match=message),
            open_archive(tmp_path / name, tmp_path / "scratch"),
        ):
            pass


@pytest.mark.parametrize("name", ["../a", "/a", "..\\a", "C:/a", "a/../../b"])
def test_names_that_leave_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
        file.writestr(name, b"")
    with tarfile.open(tmp_path / "evil.tar", "w") as file:
        file.addfile(tarfile.TarInfo(name))
    for path in (tmp_path / "evil.zip", tmp_path / "evil.tar"):
        with (
            pytest.raises(UserError, match=r"evil\.\w+ has an entry outside the archive") as caught,
            open_archive(path, tmp_path / "scratch" / path.suffix),
        ):
            pass
        assert "\n" not in str(caught.value)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.stem != "evil"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_a_tar_with_links_or_devices_is_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as file:
        entry = tarfile.TarInfo("link")
        entry.type, entry.linkname = kind, "/etc/passwd"
        file.addfile(entry)
    with (
        pytest.raises(UserError, match="an entry that is no file: link"),
        open_archive(tmp_path / "evil.tar", tmp_path / "scratch"),
    ):
        pass


@pytest.mark.parametrize("make", [as_zip, *TARS])
def test_a_file_that_claims_to_be_huge_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDT_MAX_FILE_BYTES", "10000")
    with (
        pytest.raises(UserError, match=r"claims 0\.0 GB for set/a\.bin"),
        open_archive(make(tmp_path), tmp_path / "scratch"),
    ):
        pass


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = as_zip(tmp_path)
    content = bytearray(path.read_bytes())
    for start, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := content.find(start, at + 1)) >= 0:
            content[at + flag] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is encrypted"), open_archive(path, tmp_path / "scratch"):
        pass


def test_names_that_are_odd_but_harmless_do_no_harm(tmp_path: Path) -> None:
    odd = {"Screenshot 1.23\u202fPM.png": b"1", "notes 12:30.txt": b"2"}
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as file:
        for name, content in {**odd, "__MACOSX/Icon\r": b"", ".": b""}.items():
            file.writestr(name, content)
    with open_archive(tmp_path / "odd.zip", tmp_path / "scratch") as archive:
        assert {name: archive.read(name) for name in archive.sizes} == odd


def test_a_line_break_in_a_name_is_refused_in_one_line(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as file:
        file.writestr("a\nb", b"")
    with (
        pytest.raises(UserError, match=r"an unusable name: 'a\\nb'"),
        open_archive(tmp_path / "odd.zip", tmp_path / "scratch"),
    ):
        pass


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
        file.writestr(entry, "/etc/passwd")
    with (
        pytest.raises(UserError, match="an entry that is no file: link"),
        open_archive(tmp_path / "evil.zip", tmp_path / "scratch"),
    ):
        pass


def test_a_tar_that_names_a_file_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "twice.tar", "w") as file:
        for _ in range(2):
            file.addfile(tarfile.TarInfo("a"))
    with (
        pytest.raises(UserError, match=r"twice\.tar names a twice"),
        open_archive(tmp_path / "twice.tar", tmp_path / "scratch"),
    ):
        pass


def test_a_tar_that_does_not_fit_on_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_tar("gz")(tmp_path)
    usage = archive_module.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(archive_module.shutil, "disk_usage", lambda _: usage)
    with (
        pytest.raises(UserError, match="too little space to unpack"),
        open_archive(path, tmp_path / "scratch"),
    ):
        pass


def test_a_damaged_header_in_the_middle_of_a_tar_is_not_its_end(tmp_path: Path) -> None:
    path = as_tar("")(tmp_path)
    content = bytearray(path.read_bytes())
    at = content.index(b"set/empty\0")
    content[at : at + 4] = b"\1\2\3\4"
    path.write_bytes(content)
    with (
        pytest.raises(UserError, match=r"archive\.tar cannot be read: its end is missing"),
        open_archive(path, tmp_path / "scratch"),
    ):
        pass


@pytest.mark.parametrize("damage", [lambda data: data[:-4], lambda data: data[:-8] + bytes(8)])
def test_the_checksum_of_a_compressed_tar_is_looked_at(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = as_tar("gz")(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with (
        pytest.raises(UserError, match=r"archive\.tar\.gz .*download it again"),
        open_archive(path, tmp_path / "scratch"),
    ):
        pass


def test_a_link_to_nothing_in_a_folder_is_named(tmp_path: Path) -> None:
    folder = as_folder(tmp_path)
    (folder / "set" / "gone.bin").symlink_to("nowhere")
    with (
        pytest.raises(UserError, match=r"gone\.bin is a link to nothing"),
        open_archive(folder, tmp_path / "scratch"),
    ):
        pass


@pytest.mark.parametrize("name", ["secret.bin", "secrets"])
def test_a_link_out_of_a_folder_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it points to would be copied into the prepared dataset."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secret.bin").write_bytes(b"secret")
    folder = as_folder(tmp_path)
    (folder / "set" / "x.bin").symlink_to(tmp_path / name)
    with (
        pytest.raises(UserError, match=r"x\.bin is a link out of the folder"),
        open_archive(folder, tmp_path / "scratch"),
    ):
        pass
    monkeypatch.setenv("MEDT_ALLOW_LINKS", "1")
    with open_archive(folder, tmp_path / "scratch") as archive:
        assert ("set/x.bin" in archive.sizes) == (name == "secret.bin")


def test_a_link_within_a_folder_is_followed(tmp_path: Path) -> None:
    folder = as_folder(tmp_path)
    (folder / "set" / "x.bin").symlink_to("a.bin")
    with open_archive(folder, tmp_path / "scratch") as archive:
        assert archive.read("set/x.bin") == NOISE


def test_a_zip_whose_list_of_entries_fills_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as file:
        for number in range(2000):
            file.writestr(f"{number:04}", b"")
    with open_archive(tmp_path / "many.zip", tmp_path / "scratch") as archive:
        assert len(archive.sizes) == 2000
    monkeypatch.setattr(archive_module, "MOST_LISTING", 2000 * 46)
    with (
        pytest.raises(
            UserError, match=r"many\.zip cannot be read: its list of entries has 0\.1 MB"
        ),
        open_archive(tmp_path / "many.zip", tmp_path / "scratch"),
    ):
        pass


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_is_unpacked_without_bound_is_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as file:
        file.writestr("a.bin", NOISE)
    said = rf"a\.zip packs a\.bin by method {method}, which is not read \(extract it and give"
    with (
        pytest.raises(UserError, match=said),
        open_archive(tmp_path / "a.zip", tmp_path / "scratch"),
    ):
        pass


def test_an_entry_that_unpacks_to_more_than_it_claims_is_not(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.bin", bytes(2**28))
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(struct.pack("<I", 2**28), struct.pack("<I", 10)))
    tracemalloc.start()
    with (
        open_archive(tmp_path / "a.zip", tmp_path / "scratch") as archive,
        pytest.raises(UserError, match=r"a\.bin in .*a\.zip cannot be read"),
    ):
        archive.read("a.bin")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**23


@pytest.mark.parametrize("make", TARS)
def test_a_tar_with_entries_without_end_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path)
    monkeypatch.setattr(archive_module, "MOST_ENTRIES", len(FILES) + len(CLUTTER) - 1)
    with (
        pytest.raises(UserError, match=r"archive\.tar.* has more than 4 entries"),
        open_archive(path, tmp_path / "scratch"),
    ):
        pass


def test_a_tar_whose_names_fill_the_memory_is_refused(tmp_path: Path) -> None:
    for length, fine in ((1000, True), (2**20, False)):
        with tarfile.open(tmp_path / "a.tar.xz", "w:xz", format=tarfile.GNU_FORMAT) as file:
            file.addfile(tarfile.TarInfo("a"))
            file.addfile(tarfile.TarInfo("__MACOSX/" + "b" * length))
        with contextlib.ExitStack() as stack:
            if not fine:
                said = r"a\.tar\.xz cannot be read: a name is longer than any"
                stack.enter_context(pytest.raises(UserError, match=said))
            stack.enter_context(open_archive(tmp_path / "a.tar.xz", tmp_path / f"{length}"))


def test_a_tar_that_goes_on_behind_its_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_tar("")(tmp_path)
    packed = tmp_path / "long.tar.xz"
    packed.write_bytes(lzma.compress(path.read_bytes() + bytes(2**20)))
    with open_archive(packed, tmp_path / "scratch") as archive:
        assert archive.sizes
    monkeypatch.setattr(archive_module, "MOST_PADDING", 2**19)
    with (
        pytest.raises(UserError, match=r"long\.tar\.xz cannot be read: it goes on behind its end"),
        open_archive(packed, tmp_path / "another"),
    ):
        pass


def test_what_is_left_out_of_a_tar_takes_room_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        entry = tarfile.TarInfo("__MACOSX/a")
        entry.size = 2000
        file.addfile(entry, io.BytesIO(bytes(2000)))
    usage = archive_module.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(archive_module.shutil, "disk_usage", lambda _: usage)
    with (
        pytest.raises(UserError, match="too little space to unpack"),
        open_archive(tmp_path / "a.tar", tmp_path / "scratch"),
    ):
        pass
