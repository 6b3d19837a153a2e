"""Datasets that a file names, be it a checkpoint or a run's config: what it names is only read."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medt.data.folder.dataset import splits_beside
from medt.data.layout import CARD
from medt.data.open import name_of
from medt.data.published.aperio import FORMER_RASTER
from medt.data.settings import check_settings, path_of
from medt.data.synthetic.dataset import Bound, SyntheticSet, draw_synthetic
from medt.errors import UserError
from medt.io.text import for_terminal

# What held before a dataset had the key.
FORMER: dict[str, dict[str, str]] = {"monuseg": {"raster": FORMER_RASTER}}
DRAWN = Bound(images=2_000, pixels=2**26)  # five times the pixels of the default set


class AbsentDatasetError(UserError):
    """What a file names is not there; ``keys`` are the settings whose paths are absent."""

    def __init__(self, message: str, hint: str, keys: tuple[str, ...]) -> None:
        super().__init__(message, hint)
        self.keys = keys


def locate(settings: Mapping[str, Any], data: Path, draws: bool = False) -> dict[str, Any]:
    """Find the data that a file's settings name, where it says or below the user's data folder.

    A prepared or synthetic dataset of which anything is absent is looked for whole below ``data``,
    where prepare_data.py puts it. Which one is taken is told if it is not where the file says.

    Args:
        settings: of the dataset, from the file.
        data: the user's own data folder.
        draws: whether synthetic images that are in neither place are drawn below ``data``.

    Returns:
        The settings with the paths of what is there, for ``open_dataset``.

    Raises:
        AbsentDatasetError: it is in neither place.
        UserError: a setting is impossible.
    """
    check_settings(settings)
    name = name_of(settings)
    settings = {**FORMER.get(name, {}), **settings}
    absent = absent_paths(settings)
    if not absent:
        return dict(settings)
    key, path = next(iter(absent.items()))
    found = {**settings, **_below(name, data.absolute())}
    if not absent_paths(found):
        line = for_terminal(f"{path} is not there: {found['root']} is read")
        print(line, file=sys.stderr, flush=True)
        return found
    message = f"there is no {path}"
    if name == "synthetic" and draws:
        drawn = SyntheticSet.of(settings)
        if drawn.within(DRAWN):
            draw_synthetic(path_of(found, "root"), drawn, DRAWN)
            return found
        message += f", and {drawn} are more than is drawn for a file ({DRAWN})"
    hint = f"give dataset.{key}=..., or paths.data=FOLDER with the dataset in it"
    raise AbsentDatasetError(message, hint, tuple(absent))


def absent_paths(settings: Mapping[str, Any]) -> dict[str, Path]:
    """What the settings name, or go without saying, and is not there: path by key."""
    name = name_of(settings)
    if name == "synthetic":
        needed = {"root": SyntheticSet.of(settings).folder(path_of(settings, "root"))}
    elif name == "folder":
        images = path_of(settings, "images")
        splits_file = settings.get("splits_file") or splits_beside(images)
        needed = {"images": images, "masks": path_of(settings, "masks")}
        needed["splits_file"] = Path(splits_file)
    else:
        needed = {"root": path_of(settings, "root") / CARD}
        needed["splits_file"] = path_of(settings, "splits_file")
    return {key: path for key, path in needed.items() if not _is_there(path)}


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except OSError:  # a name that is too long for any file, too
        return False
    return True


def _below(name: str, data: Path) -> dict[str, str]:
    """The paths of a dataset below a data folder, as configs/dataset has them."""
    if name == "folder":
        return {}
    splits = {} if name == "synthetic" else {"splits_file": str(data / "splits" / f"{name}.csv")}
    return {"root": str(data / name), **splits}
