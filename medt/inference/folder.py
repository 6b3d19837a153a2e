"""Predicting many images into a folder: one mask per image, and what else was asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medt.drawing import IGNORED
from medt.errors import UserError
from medt.inference.areas import Summary, class_rows
from medt.inference.averaging import NotFiniteError
from medt.inference.inputs import Input, Regions
from medt.inference.instances import NO_RULE, InstanceRule, find_objects
from medt.inference.objects import ObjectTable, object_rows
from medt.inference.outputs import LARGEST_VALUE, Outputs, Prediction, entropy, write_prediction
from medt.inference.predictor import Predictor, most_probable
from medt.io.images import read_image, read_mask, read_samples
from medt.io.locks import locked
from medt.io.text import CONTROLS
from medt.metrics.pixel_size import PIXELS, PixelSize

TWELVE_BITS = 4095
Ids = NDArray[np.uint8]


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


def predict_folder(
    predictor: Predictor,
    inputs: Sequence[Input],
    output: Path,
    outputs: Outputs | None = None,
    rule: InstanceRule = NO_RULE,
    overwrite: bool = False,
    progress: Callable[[float, int], None] = lambda done, total: None,
    regions: Regions | None = None,
    pixel_size: PixelSize = PIXELS,
) -> Outcome:
    """Predict every image and write ``<output>/<name>.png``, a mask at the image's own size.

    Files appear whole or not at all. Files that exist are kept, and what is missing is added, so
    that an interrupted prediction goes on. An image that cannot be read is reported and does not
    keep the others from being predicted. ``<output>/summary.csv`` says how much of each class was
    found in each image, ``<output>/objects.csv`` of each object, if asked for, where and what it
    is; rows that are missing of a mask that is kept are counted in its file.

    The folder is locked meanwhile, and what a killed prediction left of half-written files removed.

    Args:
        predictor: what predicts.
        inputs: what `find_inputs` found.
        output: folder to write into, made if absent; it mirrors the folder of images.
        outputs: what is written beside the masks, and how.
        rule: what is done to each predicted mask before anything is written or drawn.
        overwrite: whether files that exist are replaced.
        progress: called with (images done, images in all) after each image or part of one.
        regions: of interest; outside of them masks hold the background, and nothing is counted.
        pixel_size: of the images, for the tables.

    Raises:
        UserError: before anything is written, if two inputs would be written to the same file, if
            the output is where the images lie, if the values do not fit the classes, or if
            another process writes into ``output``; later, if that cannot be written.
    """
    outputs = outputs or Outputs()
    table = outputs.table(len(predictor.classes))
    rois = [] if regions is None else [file for files in regions.files.values() for file in files]
    _check_paths(inputs, output, outputs, rois)
    with locked(output, "predict.py"):
        summary = Summary(output, pixel_size)
        objects = ObjectTable(output, pixel_size) if outputs.objects else None
        job = _Job(predictor, output, outputs, table, rule, regions, pixel_size, summary, objects)
        try:
            for done, one in enumerate(inputs):

                def of_image(share: float, done: int = done) -> None:
                    progress(done + share, len(inputs))

                job.do(one, overwrite, of_image)
                progress(done + 1, len(inputs))
        finally:
            for tables in (summary, objects):
                if tables is not None:
                    tables.close()
    return job.outcome


@dataclass
class _Job:
    """A folder that is being predicted; the first attributes are those of `predict_folder`."""

    predictor: Predictor
    output: Path
    outputs: Outputs
    table: NDArray[Any]
    rule: InstanceRule
    regions: Regions | None
    pixel_size: PixelSize
    summary: Summary
    objects: ObjectTable | None
    outcome: Outcome = field(default_factory=Outcome)

    def do(self, one: Input, overwrite: bool, progress: Callable[[float], None]) -> None:
        """Write what is due of one image, and note what became of it."""
        wanted = self.outputs.files(self.output, one.name)
        due = {kind: file for kind, file in wanted.items() if overwrite or not file.exists()}
        if "mask" not in due:
            self.outcome.kept += 1
            lacks = self._lacks_rows(one.name.as_posix())
            if lacks or self.regions is not None:
                self._look_at_kept(one, wanted["mask"], lacks)
        if due:
            problem = self._predict_one(one, due, progress)
            if problem is not None:
                self.outcome.failures.append(problem)
            elif "mask" in due:
                self.outcome.written += 1

    def _predict_one(
        self, one: Input, due: Mapping[str, Path], progress: Callable[[float], None]
    ) -> str | None:
        """Write the files of one image that are due; returns what is wrong with it, if so."""
        steps = self.predictor.preprocessing
        name = one.name.as_posix()
        if CONTROLS.search(name):
            return f"{one.path}: its name is no UTF-8 or holds control characters (rename it)"
        try:
            samples = read_samples(one.path, steps.page)
            image = steps.original(samples, str(one.path))
            inside = self._inside(one, image.shape[:2])
        except UserError as error:
            return str(error)
        if steps.intensity.by_type and _is_dark(samples.pixels, steps.mean):
            self.outcome.warnings.append(
                f"{one.path}: 16 bit, but no value above {TWELVE_BITS}, so nearly black to the "
                "network (multiply 12 bit images by 16, or train with dataset.normalize=dataset)"
            )
        del samples
        needed = {*due, *(["probabilities"] if self.objects is not None and "mask" in due else [])}
        if self.rule.method == "seeds":
            needed.add("depths")
        try:
            ids, maps = _predict(self.predictor, image, needed, progress)
        except NotFiniteError as error:
            return f"{one.path}: {error}"
        ids, objects = self._found(ids, inside, maps.get("depths"))
        if "instances" in due and objects.max() > LARGEST_VALUE:
            return (
                f"{one.path}: {objects.max()} objects do not fit a mask of 16 bit "
                "(postprocess=components postprocess.smallest=N removes small ones)"
            )
        if "mask" in due:  # before the mask, so that a mask without rows is none of ours
            self._add_rows(name, ids, objects, maps.get("probabilities"))
        prediction = Prediction(
            image, ids, objects, maps.get("probabilities"), maps.get("uncertainty")
        )
        try:
            write_prediction(
                *(prediction, due, self.table, self.predictor.classes),
                numbered=self.rule.method != "none",
            )
        except UserError:
            if "mask" in due:
                self._drop_rows(name)
            raise
        return None

    def _inside(self, one: Input, size: tuple[int, ...]) -> NDArray[np.bool_] | None:
        """The region of interest of an image; None where there are none."""
        page = self.predictor.preprocessing.page
        return None if self.regions is None else self.regions.inside(one, size, page)

    def _found(
        self, ids: Ids, inside: NDArray[np.bool_] | None, depths: NDArray[np.float32] | None
    ) -> tuple[Ids, NDArray[np.int32]]:
        """The ids as the rule cleans them, IGNORED outside the region, and the objects' numbers."""
        if inside is None:
            return find_objects(ids, self.rule, depths)
        shown = np.where(inside, ids, np.uint8(IGNORED))
        cleaned, objects = find_objects(shown, self.rule, depths)
        cleaned[~inside] = IGNORED
        return cleaned, objects

    def _lacks_rows(self, name: str) -> bool:
        """Whether rows of an image whose mask is kept are missing; areas follow the pixel size."""
        classes = self.predictor.classes
        if self.summary.lacks(name, classes):
            return True
        self.summary.measure(name)
        if self.objects is None or not self.summary.is_of(name, classes):
            return False
        return self.objects.lacks(name, *self.summary.found(name))

    def _look_at_kept(self, one: Input, mask: Path, lacks: bool) -> None:
        """Count what a mask holds that an earlier prediction wrote, if the tables lack that.

        Its objects are found by our rule. What it holds outside the region of interest is told.
        """
        maps = None
        try:
            ids = _ids_of(read_mask(mask), self.table, mask)
            image = read_image(one.path, self.predictor.preprocessing.page)
            if ids.shape != image.shape[:2]:
                raise UserError(
                    f"{mask} has not the size of {one.path}", "overwrite=true replaces it"
                )
            inside = self._inside(one, ids.shape)
            if lacks and (self.objects is not None or self.rule.method == "seeds"):
                maps = self.predictor.maps(one.path)
        except UserError as error:
            what = f"not in {self._tables()}" if lacks else "not looked at"
            self.outcome.warnings.append(f"{what}: {error}")
            return
        if inside is not None:
            if ids[~inside].any():
                self.outcome.warnings.append(
                    f"{mask} is kept and reaches beyond the roi (overwrite=true replaces it)"
                )
            ids = np.where(inside, ids, np.uint8(IGNORED))
        if lacks:
            objects = find_objects(ids, self.rule, maps and maps.depths)[1]
            self._add_rows(one.name.as_posix(), ids, objects, maps and maps.probabilities)

    def _add_rows(
        self,
        name: str,
        ids: Ids,
        objects: NDArray[np.int32],
        probabilities: NDArray[np.float32] | None,
    ) -> None:
        classes, size = self.predictor.classes, self.pixel_size
        self.summary.add(name, class_rows(name, ids, objects, classes, size))
        if self.objects is not None:
            assert probabilities is not None  # asked for where there is a table of objects
            rows = object_rows(name, ids, objects, probabilities, classes, size)
            self.objects.add(name, rows)

    def _drop_rows(self, name: str) -> None:
        self.summary.drop(name)
        if self.objects is not None:
            self.objects.drop(name)

    def _tables(self) -> str:
        return " and ".join(t.path.name for t in (self.summary, self.objects) if t is not None)


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


def _predict(
    predictor: Predictor,
    image: NDArray[Any],
    due: Collection[str],
    progress: Callable[[float], None],
) -> tuple[Ids, dict[str, NDArray[np.float32]]]:
    """Class ids, and of the maps "probabilities", "uncertainty" and "depths" those that are due."""
    size = image.shape[:2]
    ids = np.empty(size, np.uint8)
    maps: dict[str, NDArray[np.float32]] = {}
    if "probabilities" in due:
        maps["probabilities"] = np.empty((len(predictor.classes), *size), np.float32)
    if "uncertainty" in due:
        maps["uncertainty"] = np.empty(size, np.float32)
    if "depths" in due and predictor.objects is not None:
        maps["depths"] = np.empty(size, np.float32)
    for first, (band, depths) in predictor.bands(image):
        rows = slice(first, first + band.shape[1])
        ids[rows] = most_probable(band)
        if "probabilities" in maps:
            maps["probabilities"][:, rows] = band
        if "uncertainty" in maps:
            maps["uncertainty"][rows] = entropy(band)
        if "depths" in maps:
            maps["depths"][rows] = depths
        if rows.stop < size[0]:
            progress(rows.stop / size[0])
    return ids, maps


def _is_dark(pixels: NDArray[Any], mean: Sequence[float]) -> bool:
    """Whether 16 bit values use 12 of them, and the network was trained on brighter images."""
    if pixels.dtype != np.uint16 or 0 < min(mean) <= TWELVE_BITS / LARGEST_VALUE:
        return False
    return 0 < int(pixels.max()) <= TWELVE_BITS


def _check_paths(
    inputs: Sequence[Input], output: Path, outputs: Outputs, rois: Sequence[Path]
) -> None:
    folder = output.resolve()
    if output.exists() and not output.is_dir():
        raise UserError(f"the output {output} is a file", "give a folder")
    taken = {file.resolve(): "a roi" for file in rois}
    taken |= {one.path.resolve(): "an image" for one in inputs}
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
        if file in taken:
            raise UserError(
                f"the output {file} would replace {taken[file]}", "give another output folder"
            )
