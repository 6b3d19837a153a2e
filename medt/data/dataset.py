"""Cases as tensors. What is random about them depends on seed, epoch and case, on nothing else."""

from __future__ import annotations

import signal
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from medt.data.labels import IDS, Labels
from medt.data.layout import Case
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError
from medt.images import read_image

if TYPE_CHECKING:
    from medt.data.augmentation import Augmentation

Key = tuple[int, int]  # (epoch, index)
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


class SegmentationDataset(Dataset[dict[str, Any]]):
    """Images and masks at the network's size.

    Args:
        cases: each with a mask.
        preprocessing: from file to tensor.
        labels: what the values of the masks mean.
        augmentation: applied to the uint8 image and mask, or None.
        seed: of the augmentation.
        cache_megabytes: decoded and resized images and masks are kept up to this size (10^6 bytes;
            shared among the loader's workers); beyond it they are decoded every time.

    Raises:
        UserError: a case has no mask.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        preprocessing: Preprocessing,
        labels: Labels = IDS,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        cache_megabytes: float = 1024.0,
    ) -> None:
        unlabelled = [case.name for case in cases if case.mask is None]
        if unlabelled:
            raise UserError(
                f"Cases without a mask: {', '.join(unlabelled[:10])} ({len(unlabelled)} in all)",
                "training and evaluation need one mask per image",
            )
        self.cases = tuple(cases)
        self.preprocessing = preprocessing
        self.labels = labels
        self.augmentation = augmentation
        self.seed = seed
        self.cache_bytes = cache_megabytes * 1e6
        self._cache: dict[int, Pair] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, key: int | Key) -> dict[str, Any]:
        """One case.

        Args:
            key: (epoch, index), or index, which means epoch 0.

        Returns:
            ``image`` float32 (C, H, W), ``mask`` int64 (H, W) class ids with 255 = ignored,
            ``case`` its name, ``index``.

        Raises:
            UserError: a file is at fault; the message names the case.
            RuntimeError: anything else went wrong with this case; the cause is attached.
        """
        epoch, index = (0, key) if isinstance(key, int) else key
        case = self.cases[index]
        try:
            image, mask = self.pair(index)
            if self.augmentation is not None:
                image, mask = self.augmentation(
                    image, mask, sample_seed(self.seed, epoch, case.name)
                )
        except UserError as error:
            raise UserError(f"Case {case.name}: {error.message}", error.hint) from error
        except Exception as error:
            raise RuntimeError(f"Case {case.name} failed in epoch {epoch}: {error!r}") from error
        return {
            "image": self.preprocessing.tensor(image),
            "mask": torch.from_numpy(mask.astype(np.int64)),
            "case": case.name,
            "index": index,
        }

    def pair(self, index: int) -> Pair:
        """Image (H, W, C) and class ids (H, W), uint8, at the network's size, not augmented."""
        if index in self._cache:
            return self._cache[index]
        case = self.cases[index]
        assert case.mask is not None
        pixels = read_image(case.image, self.preprocessing.page)
        ids = self.labels.read(case.mask, self.preprocessing.page)
        if pixels.shape[:2] != ids.shape:
            raise UserError(
                f"image {case.image} is {pixels.shape[:2]}, mask {case.mask} is {ids.shape}",
                "image and mask must have the same height and width",
            )
        pair = (
            self.preprocessing.image(pixels),
            self.preprocessing.fit_mask(ids),
        )
        size = pair[0].nbytes + pair[1].nbytes
        worker = get_worker_info()
        if self._cached_bytes + size <= self.cache_bytes / (worker.num_workers if worker else 1):
            self._cache[index] = pair
            self._cached_bytes += size
        return pair


class EpochBatches(Sampler[list[Key]]):
    """Batches of (epoch, index) keys; ``epoch`` says which ones iterating gives.

    Args:
        size: number of cases.
        batch_size: cases per batch.
        seed: of the order.
        shuffle: a new order every epoch; else 0, 1, 2, ...

    Raises:
        UserError: there would not be a single batch.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        if batch_size < 1 or size < 1:
            raise UserError(
                f"{size} cases make no batch of {batch_size}",
                "use a smaller batch size or more cases",
            )
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.shuffle = shuffle
        self.epoch = self.skip = 0

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """Choose the epoch of the next iteration, and how many of its batches are left out."""
        self.epoch, self.skip = epoch, skip

    def batches(self, epoch: int) -> list[list[Key]]:
        """All batches of an epoch, a pure function of (seed, epoch)."""
        order = np.arange(self.size)
        if self.shuffle:
            np.random.default_rng((self.seed, epoch)).shuffle(order)
        keys = [(epoch, index) for index in order.tolist()]
        return [keys[i * self.batch_size : (i + 1) * self.batch_size] for i in range(len(self))]

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches(self.epoch)[self.skip :])

    def __len__(self) -> int:
        whole, rest = divmod(self.size, self.batch_size)
        return whole + (rest > 0)


class CaseLoader(DataLoader[dict[str, Any]]):
    """A DataLoader whose workers' user errors arrive as the one line they were.

    A failure ends the workers at once; left to the garbage collector each would be awaited for 5
    seconds.
    """

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except Exception as error:
            if self._iterator is not None:
                self._iterator._shutdown_workers()  # type: ignore[attr-defined]
                self._iterator = None
            *before, line = str(error).strip().rsplit("medt.errors.UserError: ", 1)
            if isinstance(error, UserError) and before:
                raise UserError(line) from None
            raise


def make_loader(
    dataset: SegmentationDataset, batches: EpochBatches, workers: int = 0
) -> CaseLoader:
    """Load the batches in ``workers`` processes that live as long as the loader, or in this one.

    Images and masks come stacked, ``case`` as a list of names, ``index`` as an int64 tensor. Set
    ``batches.set_epoch(epoch)`` before each iteration.
    """
    return CaseLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
    )


def sample_seed(seed: int, epoch: int, case: str) -> int:
    """A 32 bit number for the random draws of one case in one epoch, the same in every process."""
    entropy = (seed, epoch, zlib.crc32(case.encode()))
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # workers are the parallelism
    for number in (signal.SIGINT, signal.SIGTERM):  # the training process decides when to stop
        signal.signal(number, signal.SIG_IGN)
