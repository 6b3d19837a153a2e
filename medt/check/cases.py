"""What the files of each case hold: one pass over a dataset, a few images in memory at a time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from medt.data.duplicates import Thumbnail, thumbnail
from medt.data.intensity import Intensity
from medt.data.labels import Labels
from medt.data.layout import Case, DatasetIndex
from medt.data.normalization import intensity_of
from medt.data.preprocessing import Preprocessing
from medt.data.scan import WORKERS, Scan
from medt.errors import UserError
from medt.io.files import read_bytes
from medt.io.images import Samples, count_pages, read_mask
from medt.metrics.overlaps import areas
from medt.metrics.pixel import IGNORE_INDEX

PERCENTILES = (1, 50, 99)
SMALLER_OBJECTS = 10  # the percentile of a case's objects that stands for its smaller ones
MOST_SAMPLES = 1_000_000  # pixels of a plane that are sorted where they cannot be counted
KINDS = {(1, 0): "grey", (1, 1): "grey + alpha", (3, 0): "RGB", (3, 1): "RGBA"}  # and alpha

Result = TypeVar("Result")


@dataclass(frozen=True)
class Settings:
    """What a training makes of the dataset.

    Attributes:
        image_size: (H, W) of the network's input in pixels.
        normalize: as ``dataset.normalize``.
        crops: whether the network sees crops at native resolution, not the whole image resized.
        channels: of the network's input.
        window, eight_bit: as in ``dataset``.
        distinct: pairs of cases that look alike, of which the user knows that they are not.
    """

    image_size: tuple[int, int]
    normalize: str
    crops: bool
    channels: int
    distinct: Collection[frozenset[str]] = ()
    window: Sequence[float] | None = None
    eight_bit: bool = False

    @property
    def takes_own_range(self) -> bool:
        """Whether 0..1 is the range of the images, or of each of them, whatever their type."""
        return not (self.normalize in ("unit", "imagenet") or self.eight_bit or self.window)

    def look(self, page: int | None) -> ImageLook:
        """What the check looks at images for."""
        window = None if self.window is None else tuple(self.window)
        return ImageLook(replace(self, window=window, distinct=()), page)


@dataclass(frozen=True)
class Fault:
    """Why a case cannot be used.

    Attributes:
        code: "unreadable", "sizes", "labels" or "unsuitable".
        message: one line that names the file.
        hint: what to do about it.
    """

    code: str
    message: str
    hint: str


@dataclass(frozen=True)
class ImageFacts:
    """An image as its file stores it.

    Attributes:
        dtype: of the stored numbers.
        channels: of all kinds, alpha among them.
        alpha: how many of them the file calls alpha.
        low, high: the least and the greatest finite number stored.
        mean, deviation: per colour channel, as shares of the largest number that an integer type
            holds; floating point as it is.
        percentiles: per colour channel the 1st, 50th and 99th, on that scale.
        thumbnail: of all its channels.
        digest: of all numbers; two images have the same one if all their pixels are equal.
        pages: of the stack that it is one of, where the dataset names a page; else 1.
        unsuited: why the preprocessing refuses it, if it does.
    """

    height: int
    width: int
    channels: int
    alpha: int
    dtype: str
    low: float
    high: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    percentiles: tuple[tuple[float, ...], ...]
    thumbnail: Thumbnail
    digest: bytes
    pages: int = 1
    unsuited: Fault | None = None

    @property
    def span(self) -> float:
        """From the 1st to the 99th percentile of the channel where that is most."""
        return max(percentiles[-1] - percentiles[0] for percentiles in self.percentiles)

    @property
    def kind(self) -> str:
        """Such as "RGB uint8" or "grey + alpha uint16"."""
        known = KINDS.get((self.channels - self.alpha, self.alpha))
        return f"{known or f'{self.channels} channels'} {self.dtype}"


@dataclass(frozen=True)
class MaskFacts:
    """A mask as class ids.

    Attributes:
        pixels: class id -> its pixels, where there are any.
        ignored: pixels that are neither trained on nor scored.
        objects: instances where the dataset has them, else connected regions of the classes beside
            the background.
        small, typical: the 10th percentile and the median of the objects' diameters in pixels (of
            the disk of equal area); None without objects.
        touching: instances within a twentieth of the typical diameter of another one, or a pixel.
        thinnest: of the classes that are there, the background included, the mean thickness of the
            thinnest in pixels: of a band its width, of a disk half of its diameter.
        digest: two masks have the same one if they are equal.
    """

    height: int
    width: int
    pixels: dict[int, int]
    ignored: int
    objects: int
    small: float | None
    typical: float | None
    touching: int
    thinnest: float
    digest: bytes

    @property
    def labelled(self) -> int:
        """Pixels with a class."""
        return sum(self.pixels.values())

    @property
    def foreground(self) -> float:
        """The share of the labelled pixels that are not background; 0 where none is labelled."""
        labelled = self.labelled
        return 1 - self.pixels.get(0, 0) / labelled if labelled else 0.0


@dataclass(frozen=True)
class CaseFacts:
    """A case; ``image`` and ``mask`` are None where they could not be read."""

    case: Case
    image: ImageFacts | None
    mask: MaskFacts | None
    faults: tuple[Fault, ...] = ()


def examine(
    index: DatasetIndex, settings: Settings, advance: Callable[[int, int], None] | None = None
) -> list[CaseFacts]:
    """Look at every case, several at a time; what is wrong with one is among its facts.

    Args:
        settings: what a training would make of the dataset.
        advance: called with the number of cases done and of all.
    """

    def look(case: Case) -> CaseFacts:
        return examine_case(case, index.labels, settings, index.page, index.scan)

    facts = []
    pool = ThreadPoolExecutor(WORKERS)
    try:
        for fact in pool.map(look, index.cases):
            facts.append(fact)
            if advance is not None:
                advance(len(facts), len(index.cases))
    finally:  # an interruption does not wait for the rest
        pool.shutdown(cancel_futures=True)
    return facts


def examine_case(
    case: Case,
    labels: Labels,
    settings: Settings,
    page: int | None = None,
    scan: Scan | None = None,
) -> CaseFacts:
    """Look at one case; nothing that is wrong with its files is raised.

    Args:
        scan: knows what was found in files that were read already.
    """
    scan = scan or Scan()
    faults: list[Fault] = []

    def tried(code: str, action: Callable[[], Result]) -> Result | None:
        try:
            return action()
        except UserError as error:
            faults.append(Fault(code, error.message, error.hint))
            return None

    image = tried("unreadable", lambda: scan.image(case.image, page, settings.look(page)))
    shapes = {} if image is None else {"image": (image.height, image.width)}
    mask: MaskFacts | None = scan.mask(case.mask, page, labels) if case.mask is not None else None
    if mask is None:
        ids = tried("unreadable", lambda: _read_values(case, labels, page))
        if ids is not None:
            values = ids
            ids = tried("labels", lambda: labels.class_ids(values, str(case.mask)))
        objects = tried("unreadable", lambda: _read_instances(case, page))
        sized = (("mask", ids), ("instances", objects))
        shapes |= {name: array.shape[:2] for name, array in sized if array is not None}
        mask = None if ids is None else mask_facts(ids, objects)
    else:
        shapes["mask"] = (mask.height, mask.width)
    if image is not None and image.unsuited is not None:
        faults.append(image.unsuited)
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name} {w} x {h}" for name, (h, w) in shapes.items())
        faults.append(
            Fault("sizes", f"{case.name}: {found} pixels", "repair or remove the pair: both files")
        )
    return CaseFacts(case, image, mask, tuple(faults))


@dataclass(frozen=True)
class ImageLook:
    """What the check wants to know of an image, for a training with these settings."""

    settings: Settings
    page: int | None

    def __call__(self, samples: Samples, name: str) -> ImageFacts:
        unsuited = None
        try:
            _check_suitable(samples, name, self.settings)
        except UserError as error:
            unsuited = Fault("unsuitable", error.message, error.hint)
        pages = 1 if self.page is None else count_pages(read_bytes(name), name)
        return _image_facts(samples, self.settings.channels, pages, unsuited)


def _read_values(case: Case, labels: Labels, page: int | None) -> NDArray[Any]:
    if case.mask is None:
        raise UserError(f"{case.image} has no mask", "training and evaluation need one per image")
    return labels.read_values(case.mask, page)


def _read_instances(case: Case, page: int | None) -> NDArray[Any] | None:
    if case.instances is None:
        return None
    instances = read_mask(case.instances, page)
    if not _are_numbers(instances):
        raise UserError(
            f"{case.instances} holds {instances.min()} to {instances.max()}",
            "object numbers are 1 to 65535, and 0 where there is none",
        )
    return instances


def _are_numbers(instances: NDArray[Any]) -> bool:
    return bool(instances.min() >= 0 and instances.max() <= 0xFFFF)


def _check_suitable(samples: Samples, name: str, settings: Settings) -> None:
    """Raises UserError for what the preprocessing refuses: a type, channels, a range of floats."""
    rule = intensity_of(settings.normalize, settings.window, settings.eight_bit)
    if settings.takes_own_range and rule.by_type:  # which the training images tell
        rule = Intensity(window=(0.0, 1.0), clip=False)
    decoder = Preprocessing.decoder(settings.channels, None, rule)
    pixels = samples.pixels
    decisive = pixels if pixels.dtype.kind == "f" else np.zeros_like(pixels[:1, :1])
    decoder.original(Samples(decisive, samples.alpha), name)


def _image_facts(samples: Samples, channels: int, pages: int, unsuited: Fault | None) -> ImageFacts:
    pixels = samples.pixels
    found = pixels.shape[2] if pixels.ndim == 3 else 1
    planes = pixels if found == channels else samples.opaque()
    planes = planes[..., None] if planes.ndim == 2 else planes
    height, width = pixels.shape[:2]
    low, high, mean, deviation, percentiles = zip(
        *(_statistics(np.ascontiguousarray(plane)) for plane in np.moveaxis(planes, -1, 0)),
        strict=True,
    )
    return ImageFacts(
        height=height,
        width=width,
        channels=found,
        alpha=len(samples.alpha),
        dtype=str(pixels.dtype),
        low=min(low),
        high=max(high),
        mean=mean,
        deviation=deviation,
        percentiles=percentiles,
        thumbnail=thumbnail(samples.opaque()),
        digest=_digest(pixels),
        pages=pages,
        unsuited=unsuited,
    )


def _statistics(plane: NDArray[Any]) -> tuple[float, float, float, float, tuple[float, ...]]:
    """Least, greatest, mean, deviation, percentiles of (H, W), any type; see `ImageFacts`."""
    scale = full_scale(plane.dtype)
    if plane.dtype in (np.uint8, np.uint16):
        levels = int(scale) + 1
        counts = cv2.calcHist([plane], [0], None, [levels], [0, levels]).ravel().astype(np.float64)
        values = np.flatnonzero(counts).astype(np.float64)
        weights = counts[counts > 0] / plane.size
        mean = float(values @ weights)
        deviation = float(np.sqrt((values - mean) ** 2 @ weights))
        places = np.searchsorted(np.cumsum(weights), np.array(PERCENTILES) / 100 - 1e-9)
        percentiles = values[np.minimum(places, len(values) - 1)]
    else:
        flat = plane.ravel().astype(np.float64)
        values = flat[np.isfinite(flat)]
        values = values if len(values) else np.zeros(1)
        mean, deviation = float(values.mean()), float(values.std())
        percentiles = np.percentile(values[:: -(-len(values) // MOST_SAMPLES)], PERCENTILES)
    scaled = tuple((percentiles / scale).tolist())
    return float(values.min()), float(values.max()), mean / scale, deviation / scale, scaled


def mask_look(ids: NDArray[np.uint8], instances: NDArray[Any] | None) -> MaskFacts | None:
    """What the check wants to know of a mask; None if its object numbers are none."""
    whole = instances is None or _are_numbers(instances)
    return mask_facts(ids, instances) if whole else None


def mask_facts(ids: NDArray[np.uint8], instances: NDArray[Any] | None) -> MaskFacts:
    """Of class ids and, where there are any, object numbers, both (H, W)."""
    counts = areas(ids, IGNORE_INDEX + 1)
    pixels = {i: int(counts[i]) for i in np.flatnonzero(counts[:IGNORE_INDEX]).tolist()}
    sizes = _region_areas(ids, pixels) if instances is None else areas(instances)[1:]
    diameters = 2 * np.sqrt(sizes[sizes > 0] / np.pi)
    objects = len(diameters)
    small, typical = (
        np.percentile(diameters, (SMALLER_OBJECTS, 50)).tolist() if objects else (None, None)
    )
    height, width = ids.shape
    ignored = int(counts[IGNORE_INDEX])
    touching = 0 if instances is None or typical is None else _touching(instances, typical)
    thinnest = min((_thickness(ids == number) for number in pixels), default=math.inf)
    return MaskFacts(
        *(height, width, pixels, ignored, objects, small, typical),
        *(touching, thinnest, _digest(ids)),
    )


def _region_areas(ids: NDArray[np.uint8], present: dict[int, int]) -> NDArray[np.int64]:
    """Pixels of each connected region of each class beside the background."""
    sizes = [np.zeros(0, np.int64)]
    for number in present:
        if number != 0:
            region = (ids == number).astype(np.uint8)
            stats = cv2.connectedComponentsWithStats(region, connectivity=8)[2]
            sizes.append(stats[1:, cv2.CC_STAT_AREA].astype(np.int64))
    return np.concatenate(sizes)


def _touching(instances: NDArray[Any], typical: float) -> int:
    """Objects that another one is near to, at a scale where a typical one is 20 pixels across."""
    scale = min(1.0, 20 / typical)
    size = [max(1, round(side * scale)) for side in reversed(instances.shape)]
    small = cv2.resize(instances.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    around = cv2.dilate(small, np.ones((5, 5), np.uint8))
    within = cv2.erode(np.where(small > 0, small, np.float32(2**25)), np.ones((5, 5), np.uint8))
    meeting = (small > 0) & ((around > small) | (within < small))
    return len(np.unique(small[meeting]))


def _thickness(region: NDArray[np.bool_]) -> float:
    """Twice the area by the length of the edge, which the image's own edge is no part of."""
    crossings = np.count_nonzero(region[1:] != region[:-1])
    crossings += np.count_nonzero(region[:, 1:] != region[:, :-1])
    # A slanted edge crosses more pixels than it is long: 4 / pi times, over all directions.
    return float(2 * np.count_nonzero(region) / max(crossings * math.pi / 4, 1))


def full_scale(dtype: np.dtype[Any]) -> float:
    """What statistics are shares of: the largest number of an integer type, else 1."""
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0


def _digest(array: NDArray[Any]) -> bytes:
    digest = hashlib.sha256(f"{array.shape} {array.dtype.str} ".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.digest()
