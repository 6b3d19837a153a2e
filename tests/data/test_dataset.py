"""The same cases, batches and random draws whatever the workers; faults name their case."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import medt.data.dataset as module
from medt.data.augmentation import Histology
from medt.data.dataset import EpochBatches, SegmentationDataset, make_loader, sample_seed
from medt.data.labels import Labels
from medt.data.layout import Case
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError
from medt.files import write_png

PREPROCESSING = Preprocessing((16, 16), 3, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    rng = np.random.default_rng(0)
    made = []
    for name in ("a", "b", "c", "d", "e"):
        image, mask = tmp_path / f"{name}.png", tmp_path / f"{name}_mask.png"
        write_png(image, rng.integers(0, 256, (24, 20, 3), dtype=np.uint8))
        write_png(mask, rng.choice([0, 200, 255], (24, 20)).astype(np.uint8))
        made.append(Case(name, image, mask, None, name, "train"))
    return made


def dataset_of(cases: list[Case], **settings: object) -> SegmentationDataset:
    return SegmentationDataset(
        cases, PREPROCESSING, Labels({0: 0, 255: 1}, 200), seed=3, **settings
    )


def test_an_item_is_what_preprocessing_makes_of_the_files(cases: list[Case]) -> None:
    item = dataset_of(cases)[1]
    expected = PREPROCESSING.tensor(PREPROCESSING.image(cases[1].image))
    assert torch.equal(item["image"], expected)
    assert item["mask"].dtype == torch.int64
    assert item["mask"].shape == (16, 16)
    assert set(item["mask"].unique().tolist()) == {0, 1, 255}
    assert item["case"] == "b"
    assert item["index"] == 1


def test_a_bare_index_means_epoch_0(cases: list[Case]) -> None:
    dataset = dataset_of(cases, augmentation=Histology())
    assert torch.equal(dataset[2]["image"], dataset[0, 2]["image"])
    assert not torch.equal(dataset[0, 2]["image"], dataset[1, 2]["image"])


def test_draws_follow_the_case_not_its_place(cases: list[Case]) -> None:
    forward = dataset_of(cases, augmentation=Histology())
    backward = dataset_of(cases[::-1], augmentation=Histology())
    assert torch.equal(forward[4, 0]["image"], backward[4, 4]["image"])


def test_the_seed_of_a_sample_is_fixed_for_all_time() -> None:
    assert sample_seed(0, 0, "train_1") == 2317957138
    seeds = {sample_seed(s, e, c) for s in range(5) for e in range(20) for c in ("a", "b", "ä")}
    assert len(seeds) == 300


@pytest.mark.parametrize("megabytes", [0.0, 0.0025, 1024.0])
def test_the_cache_changes_nothing_but_the_number_of_reads(
    cases: list[Case], megabytes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []

    def counted(path: Path, page: int | None) -> np.ndarray:
        reads.append(path)
        return read_image(path, page)

    read_image = module.read_image
    monkeypatch.setattr(module, "read_image", counted)
    dataset = dataset_of(cases, cache_megabytes=megabytes)
    first = [dataset[i]["image"] for i in range(5)]
    again = [dataset[i]["image"] for i in range(5)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    held = int(megabytes * 1e6) // (16 * 16 * 4)
    assert len(reads) == 10 - min(held, 5)


def test_augmentation_leaves_the_cache_alone(cases: list[Case]) -> None:
    dataset = dataset_of(cases, augmentation=Histology())
    before = dataset.pair(0)[0].copy()
    for epoch in range(3):
        dataset[epoch, 0]
    np.testing.assert_array_equal(dataset.pair(0)[0], before)


def test_a_case_without_mask_is_refused(cases: list[Case]) -> None:
    bare = Case("bare", cases[0].image, None, None, "", "train")
    with pytest.raises(UserError, match="without a mask: bare"):
        dataset_of([*cases, bare])


def test_a_mask_of_another_size_is_refused(cases: list[Case]) -> None:
    assert cases[0].mask is not None
    write_png(cases[0].mask, np.zeros((20, 24), np.uint8))
    with pytest.raises(UserError, match=r"Case a: image .*\(24, 20\), mask .*\(20, 24\)"):
        dataset_of(cases)[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fault_names_its_case_on_one_line(cases: list[Case], workers: int) -> None:
    cases[3].image.write_bytes(b"broken")
    loader = make_loader(dataset_of(cases), EpochBatches(5, 2), workers)
    with pytest.raises(UserError, match=r"^Case d: .*d\.png cannot be decoded") as caught:
        list(loader)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unexpected_failure_names_its_case_too(cases: list[Case], workers: int) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by design")

    loader = make_loader(
        dataset_of(cases, augmentation=fail), EpochBatches(5, 1, shuffle=False), workers
    )
    with pytest.raises(RuntimeError, match=r"Case a failed in epoch 0: ZeroDivisionError"):
        list(loader)
    assert not multiprocessing.active_children(), "no worker outlives a failure"


def test_workers_and_resuming_change_nothing(cases: list[Case]) -> None:
    def epochs(workers: int, numbers: range) -> list[tuple[list[str], torch.Tensor, torch.Tensor]]:
        batches = EpochBatches(5, 2, seed=1)
        loader = make_loader(dataset_of(cases, augmentation=Histology()), batches, workers)
        found = []
        for epoch in numbers:
            batches.set_epoch(epoch)
            found += [(batch["case"], batch["image"], batch["mask"]) for batch in loader]
        return found

    alone = epochs(0, range(3))
    for other in (epochs(2, range(3)), epochs(0, range(1)) + epochs(2, range(1, 3))):
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
