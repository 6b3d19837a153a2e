"""Predicting many images into a folder: one mask per image, and what else was asked for."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medt.errors import UserError
from medt.files import IMAGE_EXTENSIONS, natural_key
from medt.images import read_image, read_mask, read_samples
from medt.inference.areas import Summary, class_rows
from medt.inference.averaging import NotFiniteError
from medt.inference.instances import NO_RULE, InstanceRule, find_objects
from medt.inference.outputs import LARGEST_VALUE, Outputs, Prediction, entropy, write_prediction
from medt.inference.predictor import Predictor, most_probable
from medt.links import check_link
from medt.locks import locked
from medt.text import CONTROLS

TWELVE_BITS = 4095


@dataclass(frozen=True)
class Input:
    """An image file, and its name below the folder of images."""

    path: Path
    name: Path


@dataclass
class Outcome:
    """What became of the images.

    Attributes:
        written: how many masks were.
        kept: how many masks were there and stayed.
        failures: a line for each image that could not be predicted.
        warnings: a line for each image that may have been predicted wrongly.
    """

    written: int = 0
    kept: int = 0
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def find_inputs(path: str | Path, output: str | Path) -> list[Input]:
    """The image file itself, or all image files below a folder, in natural order.

    Hidden files and folders, linked folders, and the output folder are passed over.

    Raises:
        UserError: there is nothing at ``path``, no image, or a link that leads out of it.
    """
    path = Path(path)
    kinds = " ".join(IMAGE_EXTENSIONS)
    if path.is_file():
        if path.suffix.lower() not in IMAGE_EXTENSIONS:
            raise UserError(f"{path} is not an image file", f"the formats are {kinds}")
        return [Input(path, Path(path.name))]
    if not path.exists():
        raise UserError(f"there is no file or folder {path}", "check the path")
    names: list[Path] = []
    skipped = Path(output).resolve()
    for folder, below, files in os.walk(path):
        below[:] = [
            name
            for name in below
            if not name.startswith(".") and Path(folder, name).resolve() != skipped
        ]
        names += [Path(folder, name).relative_to(path) for name in files if _is_image(name)]
    if not names:
        raise UserError(f"there are no images in {path}", f"the formats are {kinds}")
    for name in names:
        check_link(path / name, path)
    return [Input(path / name, name) for name in sorted(names, key=_order)]


def predict_folder(
    predictor: Predictor,
    inputs: Sequence[Input],
    output: Path,
    outputs: Outputs | None = None,
    rule: InstanceRule = NO_RULE,
    overwrite: bool = False,
    progress: Callable[[float, int], None] = lambda done, total: None,
) -> Outcome:
    """Predict every image and write ``<output>/<name>.png``, a mask at the image's own size.

    Files appear whole or not at all. Files that exist are kept, and what is missing is added, so
    that an interrupted prediction goes on. An image that cannot be read is reported and does not
    keep the others from being predicted. ``<output>/summary.csv`` says how much of each class was
    found in each image; rows that are missing of a mask that is kept are counted in its file.

    The folder is locked meanwhile, and what a killed prediction left of half-written files removed.

    Args:
        predictor: what predicts.
        inputs: what `find_inputs` found.
        output: folder to write into, made if absent; it mirrors the folder of images.
        outputs: what is written beside the masks, and how.
        rule: what is done to each predicted mask before anything is written or drawn.
        overwrite: whether files that exist are replaced.
        progress: called with (images done, images in all) after each image or part of one.

    Raises:
        UserError: before anything is written, if two inputs would be written to the same file, if
            the output is where the images lie, if the values do not fit the classes, or if
            another process writes into ``output``; later, if that cannot be written.
    """
    outputs = outputs or Outputs()
    table = outputs.table(len(predictor.classes))
    _check_paths(inputs, output, outputs)
    with locked(output, "predict.py"):
        return _predict_all(predictor, inputs, output, outputs, table, rule, overwrite, progress)


def _predict_all(
    predictor: Predictor,
    inputs: Sequence[Input],
    output: Path,
    outputs: Outputs,
    table: NDArray[Any],
    rule: InstanceRule,
    overwrite: bool,
    progress: Callable[[float, int], None],
) -> Outcome:
    outcome, summary = Outcome(), Summary(output)
    try:
        for done, one in enumerate(inputs):
            wanted = outputs.files(output, one.name)
            due = {kind: file for kind, file in wanted.items() if overwrite or not file.exists()}
            if "mask" not in due:
                outcome.kept += 1
                if summary.lacks(one.name.as_posix(), predictor.classes):
                    _count_kept(predictor, one, wanted["mask"], table, rule, summary, outcome)
            if due:

                def of_image(share: float, done: int = done) -> None:
                    progress(done + share, len(inputs))

                problem = _predict(predictor, one, due, table, rule, summary, outcome, of_image)
                if problem is not None:
                    outcome.failures.append(problem)
                elif "mask" in due:
                    outcome.written += 1
            progress(done + 1, len(inputs))
    finally:
        summary.close()
    return outcome


def _predict(
    predictor: Predictor,
    one: Input,
    due: Mapping[str, Path],
    table: NDArray[Any],
    rule: InstanceRule,
    summary: Summary,
    outcome: Outcome,
    progress: Callable[[float], None],
) -> str | None:
    """Write the files of one image that are due; returns what is wrong with the image, if so."""
    steps = predictor.preprocessing
    name = one.name.as_posix()
    if CONTROLS.search(name):
        return f"{one.path}: its name is no UTF-8 or holds control characters (rename it)"
    try:
        samples = read_samples(one.path, steps.page)
        image = steps.original(samples, str(one.path))
    except UserError as error:
        return str(error)
    if steps.intensity.by_type and _is_dark(samples.pixels, steps.mean):
        outcome.warnings.append(
            f"{one.path}: 16 bit, but no value above {TWELVE_BITS}, so nearly black to the network "
            "(multiply 12 bit images by 16, or train with dataset.normalize=dataset)"
        )
    del samples
    try:
        ids, maps = _predict_maps(predictor, image, due, progress)
    except NotFiniteError as error:
        return f"{one.path}: {error}"
    ids, objects = find_objects(ids, rule)
    if "instances" in due and objects.max() > LARGEST_VALUE:
        return (
            f"{one.path}: {objects.max()} objects do not fit a mask of 16 bit "
            "(postprocess=components postprocess.smallest=N removes small ones)"
        )
    if "mask" in due:  # before the mask, so that a mask without rows is none of ours
        summary.add(name, class_rows(name, ids, objects, predictor.classes))
    prediction = Prediction(image, ids, objects, maps.get("probabilities"), maps.get("uncertainty"))
    try:
        write_prediction(prediction, due, table, predictor.classes)
    except UserError:
        if "mask" in due:
            summary.drop(name)
        raise
    return None


def _count_kept(
    predictor: Predictor,
    one: Input,
    mask: Path,
    table: NDArray[Any],
    rule: InstanceRule,
    summary: Summary,
    outcome: Outcome,
) -> None:
    """Count what a mask holds that an earlier prediction wrote; its objects by the rule in use."""
    name = one.name.as_posix()
    try:
        ids = _ids_of(read_mask(mask), table, mask)
        size = read_image(one.path, predictor.preprocessing.page).shape[:2]
        if ids.shape != size:
            raise UserError(f"{mask} has not the size of {one.path}", "overwrite=true replaces it")
    except UserError as error:
        outcome.warnings.append(f"not in summary.csv: {error}")
        return
    summary.add(name, class_rows(name, ids, find_objects(ids, rule)[1], predictor.classes))


def _ids_of(mask: NDArray[Any], table: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """The class ids of a mask that was written with this table.

    Raises:
        UserError: it was not.
    """
    ids, counted = np.zeros(mask.shape, np.uint8), 0
    for class_id, value in enumerate(table.tolist()):
        pixels = mask == value
        ids[pixels] = class_id
        counted += np.count_nonzero(pixels)
    if counted != mask.size or len(np.unique(table)) < len(table):
        raise UserError(
            f"{path} holds other values than {table.tolist()}, one for each class",
            "give the values= that it was written with, or overwrite=true",
        )
    return ids


def _predict_maps(
    predictor: Predictor,
    image: NDArray[Any],
    due: Mapping[str, Path],
    progress: Callable[[float], None],
) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.float32]]]:
    """Class ids, and of the maps "probabilities" and "uncertainty" those that are due."""
    size = image.shape[:2]
    ids = np.empty(size, np.uint8)
    maps: dict[str, NDArray[np.float32]] = {}
    if "probabilities" in due:
        maps["probabilities"] = np.empty((len(predictor.classes), *size), np.float32)
    if "uncertainty" in due:
        maps["uncertainty"] = np.empty(size, np.float32)
    for first, band in predictor.bands(image):
        rows = slice(first, first + band.shape[1])
        ids[rows] = most_probable(band)
        if "probabilities" in maps:
            maps["probabilities"][:, rows] = band
        if "uncertainty" in maps:
            maps["uncertainty"][rows] = entropy(band)
        if rows.stop < size[0]:
            progress(rows.stop / size[0])
    return ids, maps


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_EXTENSIONS and not name.startswith(".")


def _order(name: Path) -> list[tuple[tuple[int, str], ...]]:
    return [natural_key(part) for part in name.parts]


def _is_dark(pixels: NDArray[Any], mean: Sequence[float]) -> bool:
    """Whether 16 bit values use 12 of them, and the network was trained on brighter images."""
    if pixels.dtype != np.uint16 or 0 < min(mean) <= TWELVE_BITS / LARGEST_VALUE:
        return False
    return 0 < int(pixels.max()) <= TWELVE_BITS


def _check_paths(inputs: Sequence[Input], output: Path, outputs: Outputs) -> None:
    folder = output.resolve()
    if output.exists() and not output.is_dir():
        raise UserError(f"the output {output} is a file", "give a folder")
    images = {one.path.resolve() for one in inputs}
    sources: dict[Path, list[Path]] = defaultdict(list)
    for one in inputs:
        if one.path.parent.resolve() == folder:
            raise UserError(
                f"the output folder {output} is where the images lie",
                "give another folder, or the masks would replace images of the same name",
            )
        for file in outputs.files(folder, one.name).values():
            sources[file].append(one.path)
    for file, paths in sources.items():
        if len(paths) > 1:
            raise UserError(
                f"{' and '.join(map(str, paths))} would both be written to "
                f"{file.relative_to(folder)}",
                "rename one of them, or predict them into different folders",
            )
        if file in images:
            raise UserError(
                f"the output {file} would replace an image", "give another output folder"
            )
