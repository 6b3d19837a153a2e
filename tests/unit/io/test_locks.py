"""Two at one place: the second is refused with who the first is, and a crash frees the place."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import filelock
import pytest

from medt.errors import UserError
from medt.io.files import write_text
from medt.io.locks import LOCK_FILE, HeldError, claimed_folder, locked, locked_beside

HOLDER = """
import sys
from pathlib import Path
from medt.io.locks import locked
with locked(Path(sys.argv[1]), "predict.py"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds `tmp_path`/out until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def enter(folder: Path) -> None:
    with locked(folder, "a test"):
        pass


class TestHeld:
    def test_the_second_is_told_who_holds_what_and_what_to_do(
        self, holder: subprocess.Popen[str], tmp_path: Path
    ) -> None:
        with pytest.raises(HeldError) as refused:
            enter(tmp_path / "out")
        message = str(refused.value)
        start = f"{tmp_path}/out is being written by predict.py (process {holder.pid} on "
        assert message.startswith(start)
        assert ", since 20" in message
        assert message.endswith("(wait for its end, or give another output=...)")
        with pytest.raises(HeldError, match=f"process {holder.pid} "):  # its record is whole yet
            enter(tmp_path / "out")
        holder.communicate("")
        enter(tmp_path / "out")

    def test_a_crash_frees_it(self, holder: subprocess.Popen[str], tmp_path: Path) -> None:
        holder.kill()
        holder.communicate()
        assert (tmp_path / "out" / LOCK_FILE).exists()
        with locked(tmp_path / "out", "evaluate.py"):
            with pytest.raises(HeldError, match=f"evaluate.py .process {os.getpid()} "):
                enter(tmp_path / "out")
            write_text(tmp_path / "out" / "a.txt", "")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.txt"]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
    def test_a_forked_child_neither_keeps_nor_frees_it(self, tmp_path: Path) -> None:
        fork = multiprocessing.get_context("fork")
        go = fork.Event()
        with locked(tmp_path, "a test"):
            child = fork.Process(target=go.wait)
            child.start()
            with pytest.raises(HeldError):
                enter(tmp_path)
        enter(tmp_path)  # though the child lives on
        go.set()
        child.join()

    def test_what_comes_to_nothing_leaves_nothing(self, tmp_path: Path) -> None:
        with (
            pytest.raises(KeyboardInterrupt),
            locked(tmp_path / "a/b", "a test"),
        ):
            raise KeyboardInterrupt
        assert list(tmp_path.iterdir()) == []

    def test_one_by_one_nobody_is_with_another(self, tmp_path: Path) -> None:
        """Each one makes the folder and its lock, and removes both."""
        inside: list[int] = []

        def work() -> None:
            for _ in range(50):
                try:
                    with locked(tmp_path / "out", "a test"):
                        inside.append(1)
                        assert len(inside) == 1
                        inside.pop()
                except HeldError:
                    pass

        in_threads([work] * 4)

    def test_beside_a_path_it_can_be_waited_for(self, tmp_path: Path) -> None:
        order: list[str] = []

        def second() -> None:
            with locked_beside(tmp_path / "splits.csv", "a test", wait=True):
                order.append("second")

        with locked_beside(tmp_path / "splits.csv", "a test"):
            with pytest.raises(HeldError, match=r"splits\.csv is being written by a test"):
                locked_beside(tmp_path / "splits.csv", "a test").__enter__()
            thread = threading.Thread(target=second)
            thread.start()
            order.append("first")
        thread.join()
        assert order == ["first", "second"]
        assert list(tmp_path.iterdir()) == []

    def test_another_thread_may_get_the_number_of_a_file_that_is_closed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        close = os.close
        with ExitStack() as other:

            def close_and_let_go_on(descriptor: int) -> None:
                close(descriptor)
                monkeypatch.setattr(os, "close", close)
                other.enter_context(locked(tmp_path, "another"))

            with locked(tmp_path, "a test"):
                monkeypatch.setattr(os, "close", close_and_let_go_on)
            with pytest.raises(HeldError, match="another"):
                enter(tmp_path)
        assert list(tmp_path.iterdir()) == []


class TestStrangers:
    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        precious = tmp_path / "precious"
        precious.write_text("text")
        (tmp_path / "out").mkdir()
        for make in (os.symlink, os.link):
            make(precious, tmp_path / "out" / LOCK_FILE)
            with pytest.raises(UserError, match=rf"{LOCK_FILE} is a link .*\(remove it\)"):
                enter(tmp_path / "out")
            (tmp_path / "out" / LOCK_FILE).unlink()
        assert precious.read_text() == "text"

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / LOCK_FILE)
        with pytest.raises(UserError, match="not a regular file"):
            enter(tmp_path)

    @pytest.mark.parametrize("text", [b"", b"\nx\x1b[2J", b"\n\xff", b"\na\nb"])
    def test_what_stands_in_it_is_shown_only_if_it_is_a_line(
        self, tmp_path: Path, text: bytes
    ) -> None:
        (tmp_path / LOCK_FILE).write_bytes(text)
        with (tmp_path / LOCK_FILE).open("rb") as file:
            assert filelock.lock_descriptor(file.fileno(), blocking=False)
            with pytest.raises(HeldError, match="written by another process "):
                enter(tmp_path)


class TestPlaces:
    @pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
    def test_that_cannot_be_written_are_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(UserError, match=f"Cannot write .*out: {os.strerror(number)} .*output="):
            enter(tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    def test_below_a_file_or_a_file_are_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="file is a file"):
            enter(tmp_path / "file")
        with pytest.raises(UserError, match=r"Cannot write .*file/out: Not a directory"):
            enter(tmp_path / "file" / "out")


class TestWithoutLocks:
    """As on Lustre without its option flock, or on NFS without its lock service."""

    @pytest.fixture(autouse=True)
    def _no_locks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr(filelock, "lock_descriptor", refuse)

    def test_work_goes_on_with_a_warning(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        torn = tmp_path / ".a.0123456f.png"
        torn.touch()
        with locked(tmp_path, "a test") as alone:
            assert not alone
        assert "on a file system without locks" in caplog.text
        assert torn.exists()  # another process may be writing it

    def test_folders_are_claimed_all_the_same(self, tmp_path: Path) -> None:
        with (
            claimed_folder(tmp_path / "a", "a test") as one,
            claimed_folder(tmp_path / "a", "a test") as other,
        ):
            assert (one.name, other.name) == ("a", "a-2")


class TestClaimed:
    def test_the_first_that_is_neither_used_nor_held(self, tmp_path: Path) -> None:
        write_text(tmp_path / "a/file", "")
        with locked(tmp_path / "a-2", "a test"), claimed_folder(tmp_path / "a", "a test") as folder:
            assert folder == tmp_path / "a-3"
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_an_empty_one_is_taken_and_kept(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        with claimed_folder(tmp_path / "a", "a test") as folder:
            assert folder == tmp_path / "a"
        assert (tmp_path / "a").is_dir()

    def test_threads_at_one_instant_get_different_ones(self, tmp_path: Path) -> None:
        claimed: list[Path] = []
        begin, end = threading.Barrier(8), threading.Barrier(8)

        def claim() -> None:
            begin.wait()
            with claimed_folder(tmp_path / "a", "a test") as folder:
                claimed.append(folder)
                end.wait()
                write_text(folder / "file", "")

        in_threads([claim] * 8)
        names = ["a", *(f"a-{number}" for number in range(2, 9))]
        assert sorted(folder.name for folder in claimed) == names

    def test_processes_at_one_instant_get_different_ones(self, tmp_path: Path) -> None:
        code = """
import sys
from pathlib import Path
from medt.io.locks import claimed_folder
print("ready", flush=True)
sys.stdin.readline()
with claimed_folder(Path(sys.argv[1]), "a test") as folder:
    print(folder.name, flush=True)
    sys.stdin.readline()
"""
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(tmp_path / "a")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
            )
            for _ in range(3)
        ]

        def say(process: subprocess.Popen[str]) -> None:
            assert process.stdin is not None
            process.stdin.write("\n")

        def answer(process: subprocess.Popen[str]) -> str:
            assert process.stdout is not None
            return process.stdout.readline().strip()

        assert [answer(process) for process in processes] == ["ready"] * 3
        for process in processes:
            say(process)
        assert sorted(answer(process) for process in processes) == ["a", "a-2", "a-3"]
        for process in processes:
            say(process)
            assert process.wait() == 0


class TestTidied:
    def test_what_killed_writers_left_at_any_depth(self, tmp_path: Path) -> None:
        torn = [".a.0123456f.png", "deep/er/.b c.89abcdef.tif", "overlays/.x.aaaaaaaa"]
        kept = [
            *(".a.20240131.png", ".a.0123456f0.png", "a.0123456f.png", ".hidden/.a.0123456f.png"),
            *("other/.a.0123456f.png", f"other/{LOCK_FILE}", ".a.0123456e.png/file"),
        ]
        for name in (*torn, *kept):
            write_text(tmp_path / name, "")
        (tmp_path / ".link.0123456f.png").symlink_to(tmp_path / "a.0123456f.png")
        enter(tmp_path)
        left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
        assert left == {*kept, ".link.0123456f.png"}

    def test_a_writer_that_is_killed_leaves_what_is_removed(self, tmp_path: Path) -> None:
        code = """
import os, signal, sys
from medt.io.files import atomic_write
with atomic_write(sys.argv[1]) as temporary:
    temporary.touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
        path = tmp_path / "out" / "i0.tif"
        killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
        assert killed.returncode == -signal.SIGKILL
        assert len(list((tmp_path / "out").iterdir())) == 1
        enter(tmp_path / "out")
        assert list((tmp_path / "out").iterdir()) == []


def in_threads(actions: list[Callable[[], None]]) -> None:
    """Run all at once; an error of one is raised."""
    errors: list[BaseException] = []

    def caught(action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=caught, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
