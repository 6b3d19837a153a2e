"""Where datasets come from: one file per source, chosen by ``name``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medt.data import published as package
from medt.data.changes import FileFacts
from medt.data.folder.dataset import open_folder
from medt.data.folds import with_fold
from medt.data.grouping import with_groups
from medt.data.layout import DatasetIndex, Prepared, open_prepared, read_card
from medt.data.published.committed import committed_rows
from medt.data.published.dataset import Progress, Published, check_official_test, prepare
from medt.data.published.monuseg import drawn_by
from medt.data.published.recognition import check_raster
from medt.data.scan import Plan, Scan, nothing_planned
from medt.data.settings import check_settings, path_of, told
from medt.data.splits import read_splits
from medt.data.synthetic.dataset import SyntheticSet, draw_synthetic, open_synthetic
from medt.errors import UserError
from medt.metrics.pixel_size import PixelSize
from medt.shipped import typed


def _published() -> dict[str, Published]:
    """The datasets of `medt.data.published`, by name: each file there that defines one."""
    modules = [
        importlib.import_module(f"{package.__name__}.{found.name}")
        for found in pkgutil.iter_modules(package.__path__)
    ]
    values = [value for module in modules for value in vars(module).values()]
    return {value.name: value for value in values if isinstance(value, Published)}


PUBLISHED = _published()
FOLDER_SETTINGS = ("classes", "seed", "channels", "ignore", "mask", "mask_suffix", "page", "group")
NAMES = (*PUBLISHED, "synthetic", "folder")


def open_dataset(
    settings: Mapping[str, Any],
    draws: bool = False,
    splits: bool = True,
    plan: Plan = nothing_planned,
    only: str | None = None,
) -> DatasetIndex:
    """Index the dataset that the settings name.

    Args:
        settings: plain values; ``name`` is a key of ``PUBLISHED`` (it needs ``root`` and
            ``splits_file``), "synthetic" (needs ``root``; ``seed``, ``train``, ``val``, ``test``,
            ``size``) or "folder" (needs ``images``, ``masks``; ``classes``, ``seed``,
            ``splits_file`` and what ``FOLDER_SETTINGS`` names). ``folds`` and ``fold`` deal the
            cases of train and val anew. Other keys are left alone.
        draws: whether what is absent is drawn: the images of "synthetic", the split of "folder".
            Only for settings that are the user's own words; without it nothing is ever written.
        splits: whether a folder has splits; without them all of its cases are of the test.
        plan: what its files will be looked at for.
        only: the split that is read later, or "all": of a folder no more is read now than tells the
            classes. None reads all now, to find faults.

    Raises:
        UserError: an unknown name, a key without a value or of the wrong kind, or whatever is wrong
            with the data.
    """
    check_settings(settings)
    index = replace(_open(settings, draws, splits, plan, only), page=settings.get("page"))
    if settings["name"] != "folder":
        index = replace(index, scan=Scan(*plan(settings.get("channels") or index.channels)))
    if settings.get("group") is not None:
        index = with_groups(index, settings["group"])
    index = replace(index, facts=FileFacts.of(index.training_files()))
    index = replace(index, pixel_size=pixel_size_of(settings))
    if settings.get("folds") is None:
        if settings.get("fold") is not None:
            raise UserError("dataset.fold has no meaning without dataset.folds", "e.g. 5")
        return index
    return with_fold(index, settings["folds"], settings.get("fold") or 0)


def _open(
    settings: Mapping[str, Any], draws: bool, splits: bool, plan: Plan, only: str | None
) -> DatasetIndex:
    name = name_of(settings)
    if name == "synthetic":
        root, drawn = path_of(settings, "root"), SyntheticSet.of(settings)
        if draws:
            draw_synthetic(root, drawn)
        return open_synthetic(root, drawn)
    if name == "folder":
        splits_file = settings.get("splits_file")
        return open_folder(
            path_of(settings, "images"),
            path_of(settings, "masks"),
            splits_file=Path(splits_file) if splits_file else None,
            draws=draws,
            splits=splits,
            planned=plan,
            only=only,
            **_given(settings, FOLDER_SETTINGS),
        )
    raster = settings.get("raster")
    given = f" dataset.raster={raster}" if raster else ""
    command = f"{typed('prepare_data')} dataset={name}{given} source=<archive or folder>"
    hint = f"get the archive from {PUBLISHED[name].page} and run: {command}"
    splits_file = path_of(settings, "splits_file")
    root = path_of(settings, "root")
    index = open_prepared(root, splits_file, hint)
    if raster and PUBLISHED[name].raster:
        check_raster(read_card(root), raster, root, command)
    check_official_test(PUBLISHED[name], read_splits(splits_file), splits_file)
    official = ("test",) if PUBLISHED[name].official_test else ()
    grouped_by = PUBLISHED[name].grouped_by or index.grouped_by
    return replace(index, official=official, grouped_by=grouped_by)


def prepare_dataset(
    settings: Mapping[str, Any],
    source: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> Prepared:
    """Bring a dataset into the layout on disk; the result's ``summary()`` is for the terminal.

    Args:
        settings: as for ``open_dataset``.
        source: the published archive or folder; "synthetic" and "folder" need none.
        progress: called with (steps done, steps in all).

    Raises:
        UserError: no source where one is needed, or whatever is wrong with it.
    """
    name = name_of(settings)
    if name in PUBLISHED:
        published = PUBLISHED[name]
        if published.raster and settings.get("raster"):
            published = drawn_by(settings["raster"])
        if source is None:
            raise UserError(
                f"Dataset {name} needs its archive", f"give source=..., from {published.page}"
            )
        root, splits_file = path_of(settings, "root"), path_of(settings, "splits_file")
        committed = committed_rows(name, splits_file)
        return prepare(published, source, root, splits_file, progress, committed)
    index = open_dataset(settings, draws=True)
    if name == "synthetic":
        root = SyntheticSet.of(settings).folder(path_of(settings, "root"))
    else:
        root = path_of(settings, "images")
    return Prepared(index.name, root, index.counts())


def pixel_size_of(settings: Mapping[str, Any]) -> PixelSize:
    """The pixel size that the settings of a dataset give, else the published one, if there is any.

    Raises:
        UserError: the setting is no pixel size.
    """
    given = settings.get("pixel_size")
    published = PUBLISHED.get(str(settings.get("name")))
    if given is None and published is not None:
        return PixelSize.of(published.pixel_size)
    return PixelSize.of(given, "dataset.pixel_size")


def name_of(settings: Mapping[str, Any]) -> str:
    """The name of the dataset.

    Raises:
        UserError: there is no dataset of this name.
    """
    name = settings.get("name")
    if name not in NAMES:
        raise UserError(f"No dataset {told(name)}", f"choose dataset= one of {', '.join(NAMES)}")
    return str(name)


def _given(settings: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: settings[key] for key in keys if settings.get(key) is not None}
