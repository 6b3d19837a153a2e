"""Whether a folder holds a prepared dataset already, and whether it may be made anew."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from medt.data.layout import CARD, DatasetCard, changed_files, checksum_of, existing_card, listed
from medt.errors import UserError


def complete_card(root: Path, name: str, cases: Set[str]) -> DatasetCard | None:
    """The card in ``root`` if that holds exactly these cases; None if it is to be written.

    Raises:
        UserError: that would replace other cases, or somebody's own work.
    """
    card = existing_card(root, name)
    if card is None:
        return None
    written = {Path(file).stem for file in card.checksums if file.startswith("images/")}
    told = {"counts", "near_duplicates"} <= card.prepared.keys()
    if not told or not cases <= written or changed_files(root, card):
        if own := _foreign_files(root, card):
            raise UserError(
                f"{root} holds files that are not as they were prepared: {listed(own)}",
                "it is left as it is; to prepare it anew move these files away first",
            )
        return None
    if written - cases:
        raise UserError(
            f"{root} holds more cases than this archive: {listed(written - cases)}",
            "it is left as it is; to make it anew from this archive delete it first",
        )
    return card


def _foreign_files(root: Path, card: DatasetCard) -> list[str]:
    """Files, relative to ``root``, that are not as they were when the card was written.

    What is missing is not among them, nor what is hidden.
    """
    files = {
        path.relative_to(root).as_posix(): path
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }
    return [
        name
        for name, path in files.items()
        if name != CARD and card.checksums.get(name) != checksum_of(path)
    ]
