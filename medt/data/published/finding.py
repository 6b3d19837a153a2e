"""What the sources share in finding their cases among the names in an archive."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any, TypeVar

from numpy.typing import NDArray

from medt.data.layout import listed
from medt.errors import UserError
from medt.io.archive import Archive
from medt.io.images import decode_image

Key = TypeVar("Key", bound=Hashable)


def by_kind(
    archive: Archive, pattern: re.Pattern[str], kinds: tuple[str, str], key: Callable[[str], Key]
) -> tuple[dict[Key, str], dict[Key, str]]:
    """Two kinds of files, such as images and masks: path by ``key`` of the name.

    Args:
        pattern: of whole paths; its groups are the kind and the name.

    Raises:
        UserError: a kind has two files of one name.
    """
    found: dict[str, dict[Key, str]] = {kind: {} for kind in kinds}
    for path in archive.sizes:
        if match := pattern.fullmatch(path):
            kind, name = match.groups()
            if found[kind].setdefault(key(name), path) != path:
                raise UserError(f"{archive.source} holds {kind} {name} twice", "give one copy only")
    return found[kinds[0]], found[kinds[1]]


def check_found(archive: Archive, found: Collection[Any], expected: str, page: str) -> None:
    """Raises UserError for an archive in which nothing was found of what is ``expected``."""
    if not found:
        raise UserError(f"{archive.source} holds {expected}", f"get the archive from {page}")


def check_paired(
    archive: Archive,
    images: Mapping[Any, Any],
    masks: Mapping[Any, Any],
    lonely: str = "image or mask only of",
    hint: str = "get the whole archive again",
) -> None:
    """Raises UserError for images without masks and the other way round; ``lonely`` says which."""
    if bare := images.keys() ^ masks.keys():
        raise UserError(f"{archive.source} has {lonely} {listed(map(str, bare))}", hint)


def brightness(archive: Archive, file: str) -> NDArray[Any]:
    """(H, W), the mean of the channels of a mask that is stored as a picture, without alpha."""
    values = decode_image(archive.read(file), file)
    return values if values.ndim == 2 else values[..., :3].mean(axis=2)
