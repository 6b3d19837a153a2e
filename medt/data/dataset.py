"""Cases as tensors. What is random about them depends on seed, epoch and case, on nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, get_worker_info

from medt.data.crops import Crops, Sample, cut
from medt.data.labels import IDS, Labels
from medt.data.layout import Case
from medt.data.objects import ObjectTarget
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError
from medt.io.images import read_mask
from medt.metrics.pixel import IGNORE_INDEX

if TYPE_CHECKING:
    from medt.data.augmentation import Pipeline

Key = tuple[int, int]  # (epoch, index)
MOST_OBJECTS = 65_535  # of one image, in 16 bits


class SegmentationDataset(Dataset[dict[str, Any]]):
    """Images and masks as the network takes them.

    Its length is the number of cases or, with crops, `crops.per_case` times that: the crops of case
    i are the items i, i + cases, i + 2 cases, ...

    Args:
        cases: each with a mask.
        preprocessing: from file to tensor.
        labels: what the values of the masks mean.
        augmentation: applied to the image, uint8 or float32 in 0..1, and the mask, or None.
        seed: of the crops and the augmentation.
        cache_megabytes: decoded images and masks, resized or not as the preprocessing says, are
            kept up to this size (10^6 bytes; shared among the loader's workers); beyond it they are
            decoded every time.
        crops: how crops of the network's size are taken; None gives whole images.
        objects: what is made of the objects' numbers; None leaves them alone.

    Raises:
        UserError: a case has no mask, or no objects where they are asked for, or there are crops
            but the preprocessing resizes.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        preprocessing: Preprocessing,
        labels: Labels = IDS,
        augmentation: Pipeline | None = None,
        seed: int = 0,
        cache_megabytes: float = 1024.0,
        crops: Crops | None = None,
        objects: ObjectTarget | None = None,
    ) -> None:
        unlabelled = [case.name for case in cases if case.mask is None]
        if unlabelled:
            raise UserError(
                f"Cases without a mask: {', '.join(unlabelled[:10])} ({len(unlabelled)} in all)",
                "training and evaluation need one mask per image",
            )
        bare = [case.name for case in cases if case.instances is None]
        if objects is not None and bare:
            raise UserError(
                f"dataset.objects={objects.kind} needs numbered objects, case {bare[0]} has none",
                "give dataset.objects=none; in a folder of masks dataset.mask=instances takes "
                "their values for object numbers",
            )
        if crops is not None and preprocessing.sampling != "crop":
            raise UserError(
                f"crops are asked for, but sampling is {preprocessing.sampling}",
                "use a preprocessing with sampling=crop",
            )
        self.cases = tuple(cases)
        self.preprocessing = preprocessing
        self.labels = labels
        self.augmentation = augmentation
        self.seed = seed
        self.cache_bytes = cache_megabytes * 1e6
        self.crops = crops
        self.objects = objects
        self._cache: dict[int, Sample] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.cases) * (1 if self.crops is None else self.crops.per_case)

    def __getitem__(self, key: int | Key) -> dict[str, Any]:
        """One item.

        Args:
            key: (epoch, index), or index, which means epoch 0.

        Returns:
            ``image`` float32 (C, H, W), ``mask`` int64 (H, W) class ids with 255 = ignored,
            ``case`` its name, ``index`` its place among the cases; where objects are asked for
            ``objects`` uint8 (H, W), what `ObjectTarget.of` makes of them.

        Raises:
            UserError: a file is at fault; the message names the case.
            MemoryError: the case takes more memory than there is.
            RuntimeError: anything else went wrong with this case; the cause is attached.
        """
        epoch, index = (0, key) if isinstance(key, int) else key
        case = self.cases[index % len(self.cases)]
        try:
            with naming(case):
                image, mask, instances = self._augmented(epoch, index)
        except UserError:
            raise
        except MemoryError as error:
            raise MemoryError(f"Case {case.name}: not enough memory") from error
        except Exception as error:
            said = " ".join(repr(error).split())
            raise RuntimeError(f"Case {case.name} failed in epoch {epoch}: {said}") from error
        item = {} if self.objects is None else {"objects": self._target(instances, mask)}
        return item | {
            "image": self.preprocessing.tensor(image),
            "mask": torch.from_numpy(mask.astype(np.int64)),
            "case": case.name,
            "index": index % len(self.cases),
        }

    def sample(self, epoch: int, index: int, margin: tuple[int, int] = (0, 0)) -> Sample:
        """An item, not augmented.

        Args:
            epoch, index: as in ``__getitem__``.
            margin: what a crop has around it, see `medt.data.crops.cut`; whole images have none.
        """
        place = index % len(self.cases)
        whole = self.pair(place)
        if self.crops is None:
            return whole
        size = self.preprocessing.image_size
        rng = np.random.default_rng((self._sample_seed(epoch, index), 1))
        return cut(whole, self.crops.place(whole.mask, size, rng), size, margin)

    def pair(self, index: int) -> Sample:
        """Image and class ids of a case, as preprocessing fits them, and its objects if asked for.

        They are the cached arrays: not to be written to.

        Raises:
            UserError: a file is at fault; the message names the case.
        """
        if index in self._cache:
            return self._cache[index]
        case = self.cases[index]
        assert case.mask is not None
        with naming(case):
            original = self.preprocessing.original(case.image)
            ids = self.labels.read(case.mask, self.preprocessing.page)
            if original.shape[:2] != ids.shape:
                (h, w), (mask_h, mask_w) = original.shape[:2], ids.shape
                raise UserError(
                    f"{case.image.name} is {w} x {h}, its mask {mask_w} x {mask_h} pixels",
                    "repair, replace or remove them in pairs",
                )
            numbers = None if self.objects is None else self._instances(case, ids)
        pair = Sample(
            self.preprocessing.fit(original),
            self.preprocessing.fit_mask(ids),
            None if numbers is None else self.preprocessing.fit_instances(numbers),
        )
        size = sum(array.nbytes for array in pair if array is not None)
        worker = get_worker_info()
        if self._cached_bytes + size <= self.cache_bytes / (worker.num_workers if worker else 1):
            self._cache[index] = pair
            self._cached_bytes += size
        return pair

    def _instances(self, case: Case, ids: NDArray[np.uint8]) -> NDArray[np.uint16]:
        """The object numbers of a case, 0 where it is background or ignored."""
        assert case.instances is not None
        numbers = read_mask(case.instances, self.preprocessing.page)
        if numbers.shape != ids.shape:
            raise UserError(
                f"{case.instances} has not the size of the mask", "prepare the dataset again"
            )
        numbers = np.where(ids % IGNORE_INDEX, numbers, 0)
        values = np.union1d(0, numbers)  # an image may show nothing but objects
        if len(values) > MOST_OBJECTS + 1:
            raise UserError(f"{case.instances} has more than {MOST_OBJECTS:,} objects", "crop it")
        return np.searchsorted(values, numbers).astype(np.uint16)

    def _target(self, instances: NDArray[Any] | None, mask: NDArray[np.uint8]) -> torch.Tensor:
        assert self.objects is not None
        assert instances is not None
        return torch.from_numpy(self.objects.of(instances, mask))

    def _augmented(self, epoch: int, index: int) -> Sample:
        if self.augmentation is None:
            return self.sample(epoch, index)
        seed = self._sample_seed(epoch, index)
        if self.crops is None:
            return self._changed(self.sample(epoch, index), seed)
        size = self.preprocessing.image_size
        margin = self.augmentation.margin(*size)
        return self._changed(self.sample(epoch, index, margin), seed, size)

    def _changed(self, sample: Sample, seed: int, *size: tuple[int, int]) -> Sample:
        assert self.augmentation is not None
        if sample.instances is not None:
            return self.augmentation.with_objects(sample, seed, *size)
        return Sample(*self.augmentation(sample.image, sample.mask, seed, *size))

    def _sample_seed(self, epoch: int, index: int) -> int:
        crop, place = divmod(index, len(self.cases))
        return sample_seed(self.seed, epoch, self.cases[place].name, crop)


@contextmanager
def naming(case: Case) -> Iterator[None]:
    """Let errors of the block, which reads files of a case, name the case; once, if blocks nest."""
    said = f"Case {case.name}: "
    try:
        yield
    except UserError as error:
        if error.message.startswith(said):
            raise
        raise UserError(f"{said}{error.message}", error.hint) from error


def sample_seed(seed: int, epoch: int, case: str, crop: int = 0) -> int:
    """A 32 bit number for the random draws of one case (one of its crops) in one epoch.

    It is the same in every process.
    """
    entropy = (seed, epoch, zlib.crc32(case.encode()), crop)
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
