"""Files are listed, and written whole or not at all."""

import errno
import os
import stat
from pathlib import Path

import pytest

from medt.errors import UserError
from medt.io.files import atomic_folder, atomic_write, list_images, natural_key, write_text


def test_images_are_listed_in_natural_order(tmp_path: Path) -> None:
    for name in ("a10.PNG", "a2.tiff", "a1.jpeg", "b.GIF", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in list_images(tmp_path)] == ["a1.jpeg", "a2.tiff", "a10.PNG", "b.GIF"]
    with pytest.raises(UserError, match="No folder"):
        list_images(tmp_path / "absent")


def test_a_relative_folder_that_is_not_there_is_told_with_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        list_images("imags")
    assert str(caught.value) == f"No folder imags (check the path: it was looked for in {tmp_path})"


def test_numbers_in_names_may_have_any_length() -> None:
    names = ["a", "a1", "a02", "a2", "a10", "a" + "9" * 5000, "a1" + "0" * 5000, "b"]
    assert sorted({*names}, key=natural_key) == names


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text(path, "old\n")

    def fail() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old\n"
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_the_system_refuses_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Cannot write .*below\.txt"):
        write_text(tmp_path / "file" / "below.txt", "")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    root = tmp_path / "folder"

    def make(text: str, fails: bool = False) -> None:
        with atomic_folder(root) as folder:
            (folder / text).touch()
            if fails:
                raise RuntimeError

    make("first")
    with pytest.raises(RuntimeError):
        make("broken", fails=True)
    assert [path.name for path in root.iterdir()] == ["first"]
    make("second")
    assert [path.name for path in root.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [root]


def test_of_two_that_make_a_folder_at_once_the_first_stays(tmp_path: Path) -> None:
    root = tmp_path / "folder"
    with atomic_folder(root) as late:
        (late / "late").touch()
        with atomic_folder(root) as early:
            (early / "early").touch()
    assert [path.name for path in root.iterdir()] == ["early"]
    assert list(tmp_path.iterdir()) == [root]


@pytest.mark.parametrize(("number", "written"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_folder_that_cannot_be_flushed_is_no_fault_but_a_broken_disk_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, written: bool
) -> None:
    fsync = os.fsync

    def of_files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", of_files_only)
    if written:
        write_text(tmp_path / "a.txt", "whole")
    else:
        with pytest.raises(UserError, match="Cannot write"):
            write_text(tmp_path / "a.txt", "whole")
    assert (tmp_path / "a.txt").read_text() == "whole"
