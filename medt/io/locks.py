"""Locks that keep two commands from writing to one place; the system frees those of a crash."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import platform
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import filelock

from medt.errors import UserError
from medt.io.files import remove_torn

log = logging.getLogger("medt")

LOCK_FILE = ".medt.lock"
# What file systems answer that lock nothing, such as Lustre without its option flock.
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
TRIES = 100  # of opening a file that others remove as they end
LONGEST_RECORD = 500  # bytes
_OPEN = os.O_RDWR | os.O_CREAT
for _name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # not every system has each
    _OPEN |= getattr(os, _name, 0)

_held: set[int] = set()  # descriptors of the locks of this process


class HeldError(UserError):
    """Another process holds the lock."""


def _forget_locks() -> None:
    """In a child of fork, which would keep them alive after a crash of its parent."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


@contextmanager
def locked(folder: Path, work: str, other: str = "output=...") -> Iterator[bool]:
    """Hold a folder that one process at a time writes into.

    It is made if absent, and removed again if nothing comes into it. What writers left in it that
    were killed is removed at the start.

    Args:
        folder: to be written into.
        work: what the loser is told of who holds it, such as "predict.py".
        other: the setting that names another place.

    Yields:
        Whether it is certain that no other process is there. False, with a warning, on a file
        system without locks, unless this process made the folder.

    Raises:
        HeldError: another process holds it.
        UserError: the folder cannot be written.
    """
    with ExitStack() as stack:
        made = stack.enter_context(_made(folder, other))
        alone = stack.enter_context(_lock(folder / LOCK_FILE, folder, work, other, wait=False))
        if alone:
            remove_torn(folder, in_use=LOCK_FILE)
        yield alone or folder in made


@contextmanager
def locked_beside(
    path: Path, work: str, other: str = "output=...", wait: bool = False
) -> Iterator[bool]:
    """Hold a path that is replaced as a whole, by a lock file that lies beside it.

    Args:
        path: of a file or folder; its parent is made if absent.
        work, other: as in `locked`.
        wait: whether to wait for another process instead of a HeldError.

    Yields:
        Whether it is certain that no other process is there; False on a file system without locks.

    Raises:
        HeldError, UserError: as in `locked`.
    """
    file = path.parent / f".{path.name}{LOCK_FILE}"
    with _made(path.parent, other), _lock(file, path, work, other, wait) as alone:
        yield alone


def _is_used(folder: Path) -> bool:
    return any(path.name != LOCK_FILE for path in folder.iterdir())


@contextmanager
def claimed_folder(
    path: Path, work: str, used: Callable[[Path], bool] = _is_used, other: str = "output=..."
) -> Iterator[Path]:
    """Hold the first of ``path``, ``<path>-2``, ``<path>-3``, ... that is neither held nor used.

    Two processes never get the same one, on file systems without locks neither.

    Args:
        path: of the folder.
        work, other: as in `locked`.
        used: what makes a folder none to write into; by default any file.

    Raises:
        UserError: the folder cannot be written.
    """
    base = path.resolve() if path.name in ("", "..") else path  # "." has no name
    for number in itertools.count(1):
        folder = path if number == 1 else base.with_name(f"{base.name}-{number}")
        with ExitStack() as stack:
            try:
                certain = stack.enter_context(locked(folder, work, other))
            except HeldError:
                continue
            except UserError:  # such as a result of somebody else, who lets nobody write there
                if folder.is_dir() and used(folder):
                    continue
                raise
            if certain and not used(folder):
                yield folder
                return


@contextmanager
def _made(folder: Path, other: str) -> Iterator[list[Path]]:
    """Make a folder and those above it; yields which did not exist, and removes the empty ones."""
    made: list[Path] = []
    try:
        try:
            if folder.is_file():
                raise UserError(f"{folder} is a file", f"give another {other}")
            above = (folder, *folder.parents)
            missing = list(itertools.takewhile(lambda path: not path.exists(), above))
            for path in reversed(missing):
                # Another process may make it meanwhile, or remove the one above it.
                with suppress(FileExistsError, FileNotFoundError):
                    path.mkdir()
                    made.append(path)
        except OSError as error:
            raise _unwritable(folder, error, other) from error
        yield made
    finally:
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir()


@contextmanager
def _lock(file: Path, place: Path, work: str, other: str, wait: bool) -> Iterator[bool]:
    """Hold a lock file; yields False on a file system that has no locks."""
    try:
        descriptor, alone = _acquire(file, place, other, wait)
    except OSError as error:
        raise _unwritable(place, error, other) from error
    try:
        try:
            _record(descriptor, work)
        except OSError as error:
            raise _unwritable(place, error, other) from error
        yield alone
    finally:
        if descriptor in _held:  # not in a child that fork made meanwhile
            _release(file, descriptor)


def _acquire(file: Path, place: Path, other: str, wait: bool) -> tuple[int, bool]:
    """Open and lock the file; returns its descriptor, and whether the file system has locks."""
    failed: OSError = OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    for _ in range(TRIES):
        _refuse_planted(file)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, _OPEN, 0o666)
        except (FileExistsError, FileNotFoundError) as error:
            failed = error  # whoever made the folder has just removed it
            continue
        try:
            alone = _take(descriptor, place, other, wait)
            if not alone or _is_there(file, descriptor):
                _held.add(descriptor)
                return descriptor, alone
        finally:
            if descriptor not in _held:
                os.close(descriptor)
    raise failed


def _refuse_planted(file: Path) -> None:
    """What is locked is written: no link leads that to another file, and no pipe is waited for."""
    try:
        status = file.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise UserError(f"{file} is a link or not a regular file", "remove it")


def _take(descriptor: int, place: Path, other: str, wait: bool) -> bool:
    """Lock an open file; False where the file system has no locks."""
    try:
        if filelock.lock_descriptor(descriptor, blocking=wait):
            return True
    except OSError as error:
        if error.errno == errno.ESTALE:  # removed, as a network drive says it
            return True
        if error.errno not in WITHOUT_LOCKS:
            raise
        log.warning(
            f"{place} lies on a file system without locks ({error.strerror}): let no other "
            "command write there"
        )
        return False
    raise HeldError(
        f"{place} is being written by {_holder(descriptor)}",
        f"wait for its end, or give another {other}",
    )


def _is_there(file: Path, descriptor: int) -> bool:
    """Whether a locked file still has its name: its last holder may have removed it."""
    try:
        return os.path.samestat(file.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _release(file: Path, descriptor: int) -> None:
    """Remove the file while it is held; Windows removes only what nobody has open."""
    if os.name == "nt":
        _let_go(descriptor)
    with suppress(OSError):
        file.unlink()
    if os.name != "nt":
        _let_go(descriptor)


def _let_go(descriptor: int) -> None:
    """Unlocked, as a child that is forked now keeps it open; and forgotten before it is closed, as
    another thread's lock may have its number at once."""
    with suppress(OSError):
        filelock.unlock_descriptor(descriptor)
    _held.discard(descriptor)
    os.close(descriptor)


def _record(descriptor: int, work: str) -> None:
    """Say who holds the lock; the first byte, which Windows lets nobody else read, says nothing."""
    since = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
    holder = f"\n{work} (process {os.getpid()} on {platform.node()}, since {since})"
    os.ftruncate(descriptor, 0)
    os.write(descriptor, holder.encode()[:LONGEST_RECORD])


def _holder(descriptor: int) -> str:
    """Who holds the lock; the file may come from anybody, and its holder be about to write it."""
    try:
        os.lseek(descriptor, 1, os.SEEK_SET)
        text = os.read(descriptor, LONGEST_RECORD).decode()
    except (OSError, UnicodeDecodeError):
        text = ""
    return text if text and text.isprintable() else "another process"


def _unwritable(place: Path, error: OSError, other: str) -> UserError:
    return UserError(
        f"Cannot write {place}: {error.strerror or error}",
        f"check free space and permissions, or give another {other}",
    )
