"""The same batches whatever the workers; a worker that fails, dies or hangs names its case."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import recipe
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_cases import CROP, RESIZE, dataset_of, noise_cases
from torch.utils.data import _utils

from medt.data.crops import Crops
from medt.data.layout import Case
from medt.data.loader import EpochBatches, make_loader
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError
from medt.io.files import write_png


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    return noise_cases(tmp_path)


Batches = list[tuple[list[str], torch.Tensor, torch.Tensor]]


def load(cases: list[Case], workers: int, epochs: range, preprocessing: Preprocessing) -> Batches:
    """All batches of these epochs."""
    crops = Crops(0.5, per_case=2) if preprocessing is CROP else None
    augmentation = recipe("strong" if preprocessing is CROP else "histology")
    dataset = dataset_of(cases, preprocessing, augmentation=augmentation, crops=crops)
    batches = EpochBatches(len(dataset), 2, seed=1)
    found = []
    with make_loader(dataset, batches, workers) as loader:
        for epoch in epochs:
            batches.set_epoch(epoch)
            found += [(batch["case"], batch["image"], batch["mask"]) for batch in loader]
    return found


@pytest.mark.seconds
@pytest.mark.parametrize("preprocessing", [RESIZE, CROP], ids=["resize", "crop"])
def test_workers_and_resuming_change_nothing(
    cases: list[Case], preprocessing: Preprocessing
) -> None:
    alone = load(cases, 0, range(3), preprocessing)
    assert len(alone) == (15 if preprocessing is CROP else 9)
    for other in (
        load(cases, 1, range(3), preprocessing),
        load(cases, 3, range(3), preprocessing),
        load(cases, 0, range(1), preprocessing) + load(cases, 3, range(1, 3), preprocessing),
    ):
        assert [names for names, *_ in other] == [names for names, *_ in alone]
        for (_, image, mask), (_, image_alone, mask_alone) in zip(other, alone, strict=True):
            assert torch.equal(image, image_alone)
            assert torch.equal(mask, mask_alone)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 5), st.booleans())
def test_an_epoch_visits_every_case_once(size: int, batch: int, epoch: int, shuffle: bool) -> None:
    batches = EpochBatches(size, batch, seed=2, shuffle=shuffle).batches(epoch)
    keys = [key for keys in batches for key in keys]
    assert sorted(keys) == [(epoch, index) for index in range(size)]
    assert all(len(keys) == batch for keys in batches[:-1])
    assert batches == EpochBatches(size, batch, seed=2, shuffle=shuffle).batches(epoch)
    if not shuffle:
        assert keys == sorted(keys)


def test_order_varies_by_epoch_and_seed() -> None:
    one = EpochBatches(20, 4, seed=0)
    assert one.batches(0) != [[(0, i) for _, i in keys] for keys in one.batches(1)]
    assert one.batches(0) != EpochBatches(20, 4, seed=1).batches(0)


def test_the_last_batch_may_be_smaller_but_there_must_be_one() -> None:
    assert [len(keys) for keys in EpochBatches(10, 4)] == [4, 4, 2]
    with pytest.raises(UserError, match="0 cases make no batch of 4"):
        EpochBatches(0, 4)


@pytest.mark.parametrize("workers", [0, 2])
class TestFailures:
    def test_a_fault_names_its_case_on_one_line(self, cases: list[Case], workers: int) -> None:
        cases[3].image.write_bytes(b"broken")
        loader = make_loader(dataset_of(cases), EpochBatches(5, 2), workers)
        with (
            pytest.raises(UserError, match=r"^Case d: .*d\.png cannot be decoded") as caught,
            loader,
        ):
            list(loader)
        assert "\n" not in str(caught.value)

    def test_an_unexpected_failure_names_its_case_and_keeps_the_traceback(
        self, cases: list[Case], workers: int
    ) -> None:
        def fail(*_: object) -> None:
            raise ZeroDivisionError("by design,\nin two lines")

        dataset = dataset_of(cases, augmentation=fail)
        loader = make_loader(dataset, EpochBatches(5, 1, shuffle=False), workers)
        with pytest.raises(RuntimeError) as caught, loader:
            list(loader)
        assert str(caught.value).startswith(
            "Case a failed in epoch 0: ZeroDivisionError('by design"
        )
        assert "\n" not in str(caught.value)
        cause = caught.value.__cause__
        if workers:
            assert "Original Traceback" in str(cause)
            assert "in fail" in str(cause)
        else:
            assert isinstance(cause, ZeroDivisionError)
        assert not multiprocessing.active_children(), "no worker outlives a failure"

    def test_an_error_of_the_training_ends_the_workers_and_stays_itself(
        self, cases: list[Case], workers: int
    ) -> None:
        loader = make_loader(dataset_of(cases), EpochBatches(5, 1), workers)
        with pytest.raises(ZeroDivisionError, match="by zero"), loader:
            sum(1 // 0 for _ in loader)
        assert not multiprocessing.active_children()


class At:
    """An augmentation that does something to the case that is all of one value."""

    def __init__(self, action: Any) -> None:
        self.action = action

    def __call__(self, image: Any, mask: Any, seed: int) -> tuple[Any, Any]:
        if image.min() == image.max():
            self.action()
        return image, mask


@pytest.fixture
def marked(tmp_path: Path) -> list[Case]:
    """Twelve cases of which "h" is all of one value."""
    cases = noise_cases(tmp_path, names="abcdefghijkl")
    write_png(cases[7].image, np.full((24, 20, 3), 9, np.uint8))
    return cases


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch waits half a second, not five, for a worker to end."""
    monkeypatch.setattr(_utils, "MP_STATUS_CHECK_INTERVAL", 0.5)


def loader_of(cases: list[Case], action: Any, timeout: float = 60.0) -> Any:
    dataset = dataset_of(cases, augmentation=At(action))
    return make_loader(dataset, EpochBatches(12, 2, shuffle=False), 2, timeout)


@pytest.mark.parametrize(
    ("action", "how", "hint"),
    [
        (lambda: os._exit(3), "ended with code 3", "dataset.workers=0"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL", "too much memory"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "was killed by SIGSEGV", "case's files"),
    ],
)
def test_a_worker_that_dies_names_its_case(
    marked: list[Case], impatient: None, action: Any, how: str, hint: str
) -> None:
    loader = loader_of(marked, action)
    with pytest.raises(UserError) as caught, loader:
        list(loader)
    assert str(caught.value).startswith(f"a worker of the loader {how}, at case h (")
    assert hint in caught.value.hint
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_while_the_process_trains_is_explained_too(
    marked: list[Case], impatient: None
) -> None:
    loader = loader_of(marked, lambda: os._exit(3))
    with pytest.raises(UserError, match="ended with code 3, at case h"), loader:
        [time.sleep(60) for _ in loader]  # a long step: the death interrupts it
    assert not multiprocessing.active_children()


@pytest.mark.seconds
def test_a_worker_that_leaves_without_an_error_is_noticed(
    marked: list[Case], impatient: None
) -> None:
    loader = loader_of(marked, lambda: os._exit(0), timeout=1.0)
    with pytest.raises(UserError, match="ended with code 0, at case h"), loader:
        list(loader)
    assert not multiprocessing.active_children()


@pytest.mark.seconds
def test_a_worker_that_hangs_names_its_case_and_is_killed(
    marked: list[Case], impatient: None
) -> None:
    loader = loader_of(marked, lambda: time.sleep(600), timeout=1.0)
    with pytest.raises(UserError) as caught, loader:
        list(loader)
    assert str(caught.value).startswith("no batch came for 1 s, at case h (")
    assert "dataset.timeout" in caught.value.hint
    assert not multiprocessing.active_children()
