"""Cases as tensors. What is random about them depends on seed, epoch and case, on nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from medt.data.crops import Crops, Pair, cut
from medt.data.labels import IDS, Labels
from medt.data.layout import Case
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError

if TYPE_CHECKING:
    from medt.data.augmentation import Pipeline

Key = tuple[int, int]  # (epoch, index)


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

    Raises:
        UserError: a case has no mask, or there are crops but the preprocessing resizes.
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
    ) -> None:
        unlabelled = [case.name for case in cases if case.mask is None]
        if unlabelled:
            raise UserError(
                f"Cases without a mask: {', '.join(unlabelled[:10])} ({len(unlabelled)} in all)",
                "training and evaluation need one mask per image",
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
        self._cache: dict[int, Pair] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.cases) * (1 if self.crops is None else self.crops.per_case)

    def __getitem__(self, key: int | Key) -> dict[str, Any]:
        """One item.

        Args:
            key: (epoch, index), or index, which means epoch 0.

        Returns:
            ``image`` float32 (C, H, W), ``mask`` int64 (H, W) class ids with 255 = ignored,
            ``case`` its name, ``index`` its place among the cases.

        Raises:
            UserError: a file is at fault; the message names the case.
            MemoryError: the case takes more memory than there is.
            RuntimeError: anything else went wrong with this case; the cause is attached.
        """
        epoch, index = (0, key) if isinstance(key, int) else key
        case = self.cases[index % len(self.cases)]
        try:
            with naming(case):
                image, mask = self._augmented(epoch, index)
        except UserError:
            raise
        except MemoryError as error:
            raise MemoryError(f"Case {case.name}: not enough memory") from error
        except Exception as error:
            said = " ".join(repr(error).split())
            raise RuntimeError(f"Case {case.name} failed in epoch {epoch}: {said}") from error
        return {
            "image": self.preprocessing.tensor(image),
            "mask": torch.from_numpy(mask.astype(np.int64)),
            "case": case.name,
            "index": index % len(self.cases),
        }

    def sample(self, epoch: int, index: int, margin: tuple[int, int] = (0, 0)) -> Pair:
        """Image (H, W, C), uint8 or float32, and class ids (H, W) of an item, not augmented.

        Args:
            epoch, index: as in ``__getitem__``.
            margin: what a crop has around it, see `medt.data.crops.cut`; whole images have none.
        """
        place = index % len(self.cases)
        image, mask = self.pair(place)
        if self.crops is None:
            return image, mask
        size = self.preprocessing.image_size
        rng = np.random.default_rng((self._sample_seed(epoch, index), 1))
        return cut(image, mask, self.crops.place(mask, size, rng), size, margin)

    def pair(self, index: int) -> Pair:
        """Image (H, W, C), uint8 or float32, and class ids (H, W) of a case, as preprocessing fits
        them.

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
        pair = self.preprocessing.fit(original), self.preprocessing.fit_mask(ids)
        size = pair[0].nbytes + pair[1].nbytes
        worker = get_worker_info()
        if self._cached_bytes + size <= self.cache_bytes / (worker.num_workers if worker else 1):
            self._cache[index] = pair
            self._cached_bytes += size
        return pair

    def _augmented(self, epoch: int, index: int) -> Pair:
        if self.augmentation is None:
            return self.sample(epoch, index)
        seed = self._sample_seed(epoch, index)
        if self.crops is None:
            return self.augmentation(*self.sample(epoch, index), seed)
        size = self.preprocessing.image_size
        margin = self.augmentation.margin(*size)
        return self.augmentation(*self.sample(epoch, index, margin), seed, size)

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
