"""Predicting many images into a folder: one mask per image, and what else was asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medt.drawing import overlay
from medt.errors import UserError
from medt.files import IMAGE_EXTENSIONS, atomic_write, list_images, write_png
from medt.inference.instances import NO_RULE, InstanceRule, find_objects
from medt.inference.predictor import Predictor, most_probable

LARGEST_VALUE = 65535  # of a 16 bit PNG


@dataclass(frozen=True)
class Failure:
    """An image that could not be predicted, and why."""

    path: Path
    message: str


def find_inputs(path: str | Path) -> list[Path]:
    """The image file itself, or the image files directly inside a folder, in natural order.

    Raises:
        UserError: there is nothing at ``path``, or no image.
    """
    path = Path(path)
    kinds = " ".join(IMAGE_EXTENSIONS)
    if path.is_file():
        if path.suffix.lower() not in IMAGE_EXTENSIONS:
            raise UserError(f"{path} is not an image file", f"the formats are {kinds}")
        return [path]
    if not path.exists():
        raise UserError(f"there is no file or folder {path}", "check the path")
    images = list_images(path)
    if not images:
        raise UserError(f"there are no images in {path}", f"the formats are {kinds}")
    return images


def predict_folder(
    predictor: Predictor,
    inputs: Sequence[Path],
    output: Path,
    values: Sequence[int] | None = None,
    overlays: bool = False,
    probabilities: bool = False,
    progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
    rule: InstanceRule = NO_RULE,
    instances: bool = False,
) -> list[Failure]:
    """Predict every image and write ``<output>/<stem>.png``, a mask at the image's own size.

    Files appear whole or not at all. Files that exist are kept, and what is missing is added, so
    that an interrupted prediction goes on. An image that cannot be read is reported and does not
    keep the others from being predicted.

    Args:
        predictor: what predicts.
        inputs: image files, their stems all different.
        output: folder to write into, made if absent.
        values: the pixel value written for each class, 0..65535 (above 255 the PNG has 16 bit). By
            default 0 and 255 for two classes, otherwise the class ids.
        overlays: also write ``<output>/overlays/<stem>.png``, the image with the prediction's
            outlines.
        probabilities: also write ``<output>/probabilities/<stem>.npz`` with ``probabilities``,
            float16 (classes, H, W) in 0..1, and ``classes``, their names.
        progress: called with (images done, images in all) after each image.
        overwrite: whether files that exist are replaced.
        rule: what is done to each predicted mask before it is written or drawn.
        instances: also write ``<output>/instances/<stem>.png``, 16 bit, the number of each pixel's
            object from 1, 0 = none.

    Returns:
        The images that failed, in the order of ``inputs``.

    Raises:
        UserError: before anything is written, if two inputs would be written to the same file, if
            an input lies in ``output``, or if ``values`` does not fit the classes; later, if
            ``output`` cannot be written.
    """
    inputs = [Path(path) for path in inputs]
    table = _value_table(values, len(predictor.classes))
    _check_paths(inputs, output)
    failures: list[Failure] = []
    for done, path in enumerate(inputs, start=1):
        wanted = {"mask": mask_file(output, path)}
        if overlays:
            wanted["overlay"] = output / "overlays" / f"{path.stem}.png"
        if probabilities:
            wanted["probabilities"] = output / "probabilities" / f"{path.stem}.npz"
        if instances:
            wanted["instances"] = output / "instances" / f"{path.stem}.png"
        due = {kind: file for kind, file in wanted.items() if overwrite or not file.exists()}
        problem = _predict(predictor, path, due, table, rule) if due else None
        if problem is not None:
            failures.append(Failure(path, problem))
        if progress is not None:
            progress(done, len(inputs))
    return failures


def mask_file(output: Path, image: Path) -> Path:
    """Where the mask of an image is written."""
    return output / f"{image.stem}.png"


def _predict(
    predictor: Predictor,
    path: Path,
    due: Mapping[str, Path],
    table: NDArray[Any],
    rule: InstanceRule,
) -> str | None:
    """Write the files of one image that are due; returns what is wrong with the image, if so."""
    try:
        image = predictor.preprocessing.original(path)
    except UserError as error:
        return str(error)
    predicted = predictor.probabilities_of(image)
    ids, objects = find_objects(most_probable(predicted), rule)
    if "instances" in due and objects.max() > LARGEST_VALUE:
        return (
            f"{path}: {objects.max()} objects do not fit a mask of 16 bit (postprocess.smallest=N "
            "removes small ones)"
        )
    if "mask" in due:
        write_png(due["mask"], table[ids])
    if "instances" in due:
        write_png(due["instances"], objects.astype(np.uint16))
    if "overlay" in due:
        write_png(due["overlay"], overlay(image, ids, [c.color for c in predictor.classes]))
    if "probabilities" in due:
        _write_probabilities(due["probabilities"], predicted, predictor)
    return None


def _value_table(values: Sequence[int] | None, classes: int) -> NDArray[Any]:
    if values is None:
        values = (0, 255) if classes == 2 else tuple(range(classes))
    if len(values) != classes:
        raise UserError(
            f"values={list(values)} has {len(values)} values, but there are {classes} classes",
            "give one pixel value per class, background first",
        )
    if any(not 0 <= value <= LARGEST_VALUE for value in values):
        raise UserError(
            f"values={list(values)} cannot be stored in a PNG",
            f"use whole numbers 0..{LARGEST_VALUE}",
        )
    return np.array(values, dtype=np.uint8 if max(values) <= 255 else np.uint16)


def _check_paths(inputs: Sequence[Path], output: Path) -> None:
    folder = output.resolve()
    if output.exists() and not output.is_dir():
        raise UserError(f"the output {output} is a file", "give a folder")
    if any(path.parent.resolve() == folder for path in inputs):
        raise UserError(
            f"the output folder {output} is where the images lie",
            "give another folder, or the masks would replace images of the same name",
        )
    sources: dict[str, list[Path]] = defaultdict(list)
    for path in inputs:
        sources[path.stem].append(path)
    for stem, paths in sources.items():
        if len(paths) > 1:
            raise UserError(
                f"{' and '.join(map(str, paths))} would both be written to {stem}.png",
                "rename one of them, or predict them into different folders",
            )


def _write_probabilities(path: Path, predicted: NDArray[np.float32], predictor: Predictor) -> None:
    names = np.array([c.name for c in predictor.classes])
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, probabilities=predicted.astype(np.float16), classes=names)
