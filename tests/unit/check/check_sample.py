"""A small dataset without a fault, and what tests do to spoil it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

from medt.check import Check, Finding, Settings, check_dataset
from medt.data.labels import Labels
from medt.data.layout import Case, DatasetIndex, default_classes
from medt.data.synthetic.images import synthetic_case

SIZE = 64
SPLITS = ["train"] * 10 + ["val"] * 5 + ["test"] * 5
DRAWN = [synthetic_case(seed=1, index=i, size=SIZE) for i in range(len(SPLITS))]
SETTINGS = Settings(image_size=(SIZE, SIZE), normalize="dataset", crops=False, channels=3)
EVERY = [f"case_{i}" for i in range(len(SPLITS))]
TRAIN = EVERY[:10]

Spoil = Callable[["Sample"], None]


class Sample:
    """Twenty cases without a fault, 10 of them to train on; a test spoils some."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.classes = ["background", "gland"]
        self.labels = Labels({0: 0, 1: 1})
        self.official: tuple[str, ...] = ()
        self.cases: dict[str, Case] = {}
        for kind in ("images", "masks"):
            (folder / kind).mkdir()
        for i, (name, split) in enumerate(zip(EVERY, SPLITS, strict=True)):
            paths = (folder / kind / f"{name}.png" for kind in ("images", "masks"))
            self.cases[name] = Case(name, *paths, None, f"patient_{i}", split)
            self.write(name, self.image(name), self.mask(name))

    def image(self, name: str) -> np.ndarray:
        return DRAWN[EVERY.index(name)].image

    def mask(self, name: str) -> np.ndarray:
        return (DRAWN[EVERY.index(name)].instances > 0).astype(np.uint8)

    def write(self, name: str, image: Any = None, mask: Any = None) -> None:
        """New files for a case; floating point images become TIFFs."""
        case = self.cases[name]
        if image is not None and image.dtype.kind == "f":
            self.change(name, image=case.image.with_suffix(".tif"))
            tifffile.imwrite(self.cases[name].image, image, photometric="rgb")
        elif image is not None:
            cv2.imwrite(str(case.image), image if image.ndim == 2 else image[..., ::-1])
        if mask is not None:
            cv2.imwrite(str(case.mask), mask)

    def write_all(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Every image changed."""
        for name in self.cases:
            self.write(name, change(self.image(name)))

    def change(self, name: str, **values: Any) -> None:
        self.cases[name] = replace(self.cases[name], **values)

    def add_class(self) -> None:
        """A third class, lumen, stored as 2."""
        self.classes, self.labels = ["background", "gland", "lumen"], Labels({0: 0, 1: 1, 2: 2})

    def index(self) -> DatasetIndex:
        classes, cases = default_classes(self.classes), tuple(self.cases.values())
        return DatasetIndex("sample", classes, 3, cases, self.labels, self.official)

    def check(self, **settings: Any) -> Check:
        return check_dataset(self.index(), replace(SETTINGS, **settings))

    def found(self, code: str, **settings: Any) -> Finding:
        """The finding of this code, which must be the only one."""
        findings = self.check(**settings).findings
        assert [finding.code for finding in findings] == [code], findings
        return findings[0]


def truncated(sample: Sample) -> None:
    path = sample.cases["case_3"].image
    path.write_bytes(path.read_bytes()[:500])


def mask_missing(sample: Sample) -> None:
    sample.cases["case_3"].mask.unlink()


def no_mask(sample: Sample) -> None:
    sample.change("case_3", mask=None)


def bad_instances(sample: Sample) -> None:
    path = sample.folder / "instances.tif"
    tifffile.imwrite(path, np.full((SIZE, SIZE), 70_000, np.int32))
    sample.change("case_3", instances=path)


def other_size(sample: Sample) -> None:
    sample.write("case_3", mask=sample.mask("case_3")[:40])


def strange_value(sample: Sample) -> None:
    sample.write("case_3", mask=sample.mask("case_3") * 7)


def five_channels(sample: Sample) -> None:
    sample.change("case_3", image=sample.folder / "five.tif")
    image = sample.image("case_3")[..., [0, 1, 2, 1, 0]]
    planes, separate = np.moveaxis(image, -1, 0), {"planarconfig": "separate"}
    tifffile.imwrite(sample.cases["case_3"].image, planes, photometric="minisblack", **separate)


def not_a_number(sample: Sample) -> None:
    sample.write_all(lambda image: image.astype(np.float32) / 255)
    image = sample.image("case_3").astype(np.float32) / 255
    image[3, 4] = np.nan
    sample.write("case_3", image)


def beyond_one(sample: Sample) -> None:
    sample.write_all(lambda image: image.astype(np.float32) / 255)
    image = sample.image("case_3").astype(np.float32)  # other values with another OpenCV
    image = (image - image.min()) / (image.max() - image.min())
    sample.write("case_3", image * 1400 - 360)


def grey_among_colours(sample: Sample) -> None:
    sample.write("case_3", cv2.cvtColor(sample.image("case_3"), cv2.COLOR_RGB2GRAY))


def deep_among_flat(sample: Sample) -> None:
    sample.write("case_3", sample.image("case_3").astype(np.uint16) * 257)


def twelve_bits(sample: Sample) -> None:
    sample.write_all(lambda image: image.astype(np.uint16) * 16)


def one_value(sample: Sample) -> None:
    sample.write("case_3", np.zeros((SIZE, SIZE, 3), np.uint8))
    sample.write("case_4", np.full((SIZE, SIZE, 3), 200, np.uint8))


def tiny(sample: Sample) -> None:
    sample.write("case_3", sample.image("case_3")[:30, :30], sample.mask("case_3")[:30, :30])


def huge(sample: Sample) -> None:
    pair = sample.image("case_3"), sample.mask("case_3")
    large = (cv2.resize(a, (4200, 2200), interpolation=cv2.INTER_NEAREST) for a in pair)
    sample.write("case_3", *large)


def long(sample: Sample) -> None:
    image, mask = sample.image("case_3"), sample.mask("case_3")
    sample.write("case_3", np.tile(image, (1, 3, 1)), np.tile(mask, 3))


def no_foreground(sample: Sample) -> None:
    sample.write("case_3", mask=np.zeros((SIZE, SIZE), np.uint8))


def all_ignored(sample: Sample) -> None:
    sample.labels = Labels({0: 0, 1: 1}, ignore=99)
    sample.write("case_3", mask=np.full((SIZE, SIZE), 99, np.uint8))


def lumen_nowhere(sample: Sample) -> None:
    sample.add_class()


def lumen_not_in_train(sample: Sample) -> None:
    sample.add_class()
    for name in ("case_11", "case_16"):
        sample.write(name, mask=sample.mask(name) * 2)


def lumen_not_in_val(sample: Sample) -> None:
    sample.add_class()
    sample.write("case_3", mask=sample.mask("case_3") * 2)


def little_lumen(sample: Sample) -> None:
    sample.add_class()
    for name in ("case_3", "case_11"):
        mask = sample.mask(name)
        mask[5:15, 5:15] = 2
        sample.write(name, mask=mask)


def mostly_foreground(sample: Sample) -> None:
    mask = np.ones((SIZE, SIZE), np.uint8)
    mask[:5] = 0
    sample.write("case_3", mask=mask)


def one_to_train_on(sample: Sample) -> None:
    sample.cases = {name: case for name, case in sample.cases.items() if name not in TRAIN[1:]}


def none_to_validate_on(sample: Sample) -> None:
    for name in EVERY[10:15]:
        sample.change(name, split="train")


def one_patient(first: str, second: str) -> Spoil:
    def spoil(sample: Sample) -> None:
        for name in (first, second):
            sample.change(name, group="Anna")

    return spoil


def same_image(first: str, second: str) -> Spoil:
    def spoil(sample: Sample) -> None:
        sample.write(second, sample.image(first), sample.mask(first))

    return spoil


def similar_image(first: str, second: str) -> Spoil:
    def spoil(sample: Sample) -> None:
        encoded = cv2.imencode(".jpg", sample.image(first), [cv2.IMWRITE_JPEG_QUALITY, 70])[1]
        sample.write(second, cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED), sample.mask(first))

    return spoil


def other_masks(sample: Sample) -> None:
    sample.write("case_4", sample.image("case_3"))


def brighter(sample: Sample) -> None:
    for name in EVERY[10:15]:
        sample.write(name, 255 - (255 - sample.image(name)) // 4)
