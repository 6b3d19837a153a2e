"""Links in folders that may come from anybody: nothing elsewhere is read or written by them."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path

from medt.errors import UserError

UNLINK = "put the file itself there or, if you made the link, set MEDT_ALLOW_LINKS=1"


def check_link(path: Path, folder: Path) -> None:
    """Refuse a link that leads out of a folder, which may come from anybody.

    Raises:
        UserError: it does, and MEDT_ALLOW_LINKS=1 is not in the environment.
    """
    if _links_are_allowed() or not path.is_symlink():
        return
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path} is a link out of the folder", UNLINK)


def check_unlinked(folder: Path, *names: str) -> None:
    """Refuse links at or below entries of a folder that are written, which may come from anybody.

    Raises:
        UserError: there is one, and MEDT_ALLOW_LINKS=1 is not in the environment.
    """
    if _links_are_allowed():
        return
    for path in (folder / name for name in names):
        below = (
            Path(root, name) for root, folders, files in os.walk(path) for name in folders + files
        )
        for one in itertools.chain([path], below):
            if one.is_symlink():
                raise UserError(f"{one} is a link, and what it leads to would be written", UNLINK)


def open_own(path: str, flags: int) -> int:
    """An opener, see `open`, of a file that grows in a folder which may come from anybody.

    Raises:
        UserError: it is a link, has a second name elsewhere or is not a regular file, and
            MEDT_ALLOW_LINKS=1 is not in the environment.
    """
    if _links_are_allowed():
        return os.open(path, flags, 0o666)
    check_unlinked(Path(path).parent, Path(path).name)
    # A link that is made meanwhile is not followed; a pipe that nobody reads is not waited for.
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags | careful, 0o666)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    raise UserError(f"{path} is a hard link or not a regular file", UNLINK)


def _links_are_allowed() -> bool:
    return os.environ.get("MEDT_ALLOW_LINKS") == "1"
