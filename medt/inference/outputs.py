"""What a prediction is written as: masks, overlays, maps, objects and their outlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medt.data.layout import SegmentationClass
from medt.drawing import IGNORED, overlay
from medt.errors import UserError
from medt.inference.outlines import feature_collection
from medt.io.files import write_png, write_text, write_tiff
from medt.io.text import json_text

LARGEST_VALUE = 65535  # of 16 bits
FORMATS = {"png": ".png", "tiff": ".tif"}


@dataclass(frozen=True)
class Outputs:
    """What is written for each image beside its mask.

    Attributes:
        mask_format: of masks and instances, "png" or "tiff".
        values: the pixel value written for each class, 0..65535 (above 255 the mask has 16 bit). By
            default 0 and 255 for two classes, otherwise the class ids.
        overlays: the image with the prediction's outlines, PNG; with post-processing those of the
            objects, and their numbers.
        probabilities: float32 TIFF with a page for each class, 0..1.
        uncertainty: float32 TIFF, the entropy of the class probabilities divided by its largest
            value: 0 where the network is sure, 1 where all classes are equally probable to it.
        instances: 16 bit, the number of each pixel's object from 1, 0 = none.
        geojson: the objects' outlines, as QuPath opens them.
        objects: a table of the objects of all images, see `medt.inference.objects`.
    """

    mask_format: str = "png"
    values: Sequence[int] | None = None
    overlays: bool = False
    probabilities: bool = False
    uncertainty: bool = False
    instances: bool = False
    geojson: bool = False
    objects: bool = False

    def files(self, folder: Path, name: Path) -> dict[str, Path]:
        """Where each kind of file of an image is written; masks right into the folder.

        Args:
            folder: for all outputs.
            name: of the image, below the folder of images, with its extension.
        """
        extension = FORMATS[self.mask_format]
        extensions = {
            "overlays": ".png",
            "probabilities": ".tif",
            "uncertainty": ".tif",
            "instances": extension,
            "geojson": ".geojson",
        }
        wanted = {kind: ext for kind, ext in extensions.items() if getattr(self, kind)}
        stem = name.with_suffix("")
        files = {kind: folder / kind / f"{stem}{ext}" for kind, ext in wanted.items()}
        return {"mask": folder / f"{stem}{extension}", **files}

    def table(self, classes: int) -> NDArray[Any]:
        """The value of each class.

        Raises:
            UserError: the values do not fit the classes.
        """
        values = self.values
        if values is None:
            values = (0, 255) if classes == 2 else tuple(range(classes))
        if len(values) != classes:
            raise UserError(
                f"values={list(values)} has {len(values)} values, but there are {classes} classes",
                "give one pixel value per class, background first",
            )
        if any(not 0 <= value <= LARGEST_VALUE for value in values):
            raise UserError(
                f"values={list(values)} cannot be stored in a mask",
                f"use whole numbers 0..{LARGEST_VALUE}",
            )
        return np.array(values, dtype=np.uint8 if max(values) <= 255 else np.uint16)


@dataclass(frozen=True)
class Prediction:
    """Of one image.

    Attributes:
        image: (H, W, C) uint8, or float32 in 0..1.
        ids: (H, W) class ids; 255 = outside the region of interest.
        objects: (H, W) numbers of objects from 1, 0 = none.
        probabilities: (classes, H, W), 0..1, where they are needed.
        uncertainty: (H, W), 0..1, where it is to be written.
    """

    image: NDArray[Any]
    ids: NDArray[np.uint8]
    objects: NDArray[np.int32]
    probabilities: NDArray[np.float32] | None
    uncertainty: NDArray[np.float32] | None


def write_prediction(
    prediction: Prediction,
    due: Mapping[str, Path],
    table: NDArray[Any],
    classes: Sequence[SegmentationClass],
    numbered: bool,
) -> None:
    """Write the files that are due, each whole or not at all, the mask last.

    Outside the region of interest masks hold the background; overlays are grey there. They outline
    the objects, with their numbers, where these are `numbered`, else the classes.

    Raises:
        UserError: a file cannot be written.
    """
    if "instances" in due:
        _write_numbers(due["instances"], prediction.objects.astype(np.uint16))
    if "overlays" in due:
        colors = [c.color for c in classes]
        objects = prediction.objects if numbered else None
        write_png(
            due["overlays"], overlay(prediction.image, prediction.ids, colors, objects=objects)
        )
    if "probabilities" in due and prediction.probabilities is not None:
        names = [c.name for c in classes]
        write_tiff(due["probabilities"], prediction.probabilities, "CYX", {"classes": names})
    if prediction.uncertainty is not None:
        write_tiff(due["uncertainty"], prediction.uncertainty, "YX")
    if "geojson" in due:
        outlines = feature_collection(prediction.ids, prediction.objects, classes)
        write_text(due["geojson"], json_text(outlines, indent=None))
    if "mask" in due:
        values = np.full(IGNORED + 1, table[0])  # also of what is outside
        values[: len(table)] = table
        _write_numbers(due["mask"], values[prediction.ids])


def entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """(classes, H, W) -> (H, W): -sum p log p / log(classes), 0..1 (Shannon 1948)."""
    logarithms = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    total = -(probabilities * logarithms).sum(axis=0) / np.log(len(probabilities))
    return np.asarray(np.clip(total, 0, 1), np.float32)


def _write_numbers(path: Path, numbers: NDArray[Any]) -> None:
    if path.suffix == ".png":
        write_png(path, numbers)
    else:
        write_tiff(path, numbers, "YX")
