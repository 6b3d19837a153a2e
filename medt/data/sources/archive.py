"""A published archive, zipped or already extracted, as names and bytes."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from medt.errors import UserError


def read_archive(source: Path, wanted: Callable[[str], bool]) -> Mapping[str, bytes]:
    """The files of an archive, by name without folder.

    Args:
        source: a zip file, or the folder it was extracted to, or a folder above that.
        wanted: says by a file's name whether to read it.

    Raises:
        UserError: no such source, a damaged zip, an entry that points outside the archive, or two
            files of one name.
    """
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.is_file())
        names = {str(path): path.name for path in paths}
        chosen = _unique(names, wanted, source)
        return {name: Path(path).read_bytes() for path, name in chosen.items()}
    if not source.is_file():
        raise UserError(f"No archive {source}", "give source=<zip file or extracted folder>")
    try:
        with zipfile.ZipFile(source) as archive:
            _refuse_escapes(archive.namelist(), source)
            names = {
                name: PurePosixPath(name).name for name in archive.namelist() if name[-1] != "/"
            }
            chosen = _unique(names, wanted, source)
            return {name: archive.read(entry) for entry, name in chosen.items()}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{source} is no readable zip file: {error}", "download it again"
        ) from error


def _refuse_escapes(entries: Iterable[str], source: Path) -> None:
    for entry in entries:
        path = PurePosixPath(entry.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in entry:
            raise UserError(
                f"{source} has an entry outside the archive: {entry}", "do not trust this file"
            )


def _unique(
    names: Mapping[str, str], wanted: Callable[[str], bool], source: Path
) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for entry, name in names.items():
        if name.startswith(".") or "__MACOSX" in entry or not wanted(name):
            continue
        if name in chosen.values():
            raise UserError(
                f"{source} holds several files {name}", "give the folder of one copy only"
            )
        chosen[entry] = name
    return chosen
