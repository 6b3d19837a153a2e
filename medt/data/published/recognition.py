"""Whether a folder holds a prepared dataset already, and whether it may be made anew."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from medt.data.layout import CARD, DatasetCard, changed_files, checksum_of, existing_card, listed
from medt.data.published.aperio import FORMER_RASTER
from medt.errors import UserError


def complete_card(root: Path, name: str, cases: Set[str], raster: str) -> DatasetCard | None:
    """The card in ``root`` if that holds exactly these cases; None if it is to be written.

    Args:
        root: the folder of the dataset.
        name: of the dataset.
        cases: those of the archive.
        raster: how its masks are to be drawn; empty where there is one way.

    Raises:
        UserError: that would replace other cases, or somebody's own work.
    """
    card = existing_card(root, name)
    if card is None:
        return None
    written = {Path(file).stem for file in card.checksums if file.startswith("images/")}
    told = {"counts", "near_duplicates"} <= card.prepared.keys()
    redrawn = bool(raster) and raster_of(card) != raster
    if not told or redrawn or not cases <= written or changed_files(root, card):
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


def check_raster(card: DatasetCard, raster: str, root: Path, command: str) -> None:
    """Refuse a set whose masks were drawn by another rule than is asked for.

    Args:
        card: of the set in ``root``.
        raster: the ``dataset.raster`` asked for.
        command: prepares it again.

    Raises:
        UserError: they were.
    """
    if raster_of(card) != raster:
        raise UserError(
            f"{root} was prepared with dataset.raster={raster_of(card)}, {raster} is asked for",
            f"give dataset.raster={raster_of(card)}, or prepare it again: {command}",
        )


def raster_of(card: DatasetCard) -> str:
    """The rule that the masks of a set were drawn by, where its source has several."""
    return str(card.prepared.get("raster", FORMER_RASTER))


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
