"""A prepared dataset opens whole, or every fault is named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medt.data.layout import (
    Case,
    DatasetCard,
    changed_files,
    default_classes,
    listed,
    open_prepared,
    read_card,
    write_card,
)
from medt.data.splits import SplitRow, write_splits
from medt.errors import UserError
from medt.files import write_png, write_text

CARD = DatasetCard(
    name="toy",
    classes=default_classes(("background", "gland")),
    channels=3,
    licence="none",
    source="here",
    citation="Nobody 2026",
    prepared={"seed": 1},
    absent=("d",),
)
ROWS = [
    SplitRow("a", "p1", "train"),
    SplitRow("b", "p1", "train"),
    SplitRow("c", "p2", "val"),
    SplitRow("d", "", "test"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "toy"
    for name in "abc":
        write_png(root / "images" / f"{name}.png", np.zeros((4, 4, 3), np.uint8))
        write_png(root / "masks" / f"{name}.png", np.zeros((4, 4), np.uint8))
    write_png(root / "instances" / "a.png", np.zeros((4, 4), np.uint16))
    write_card(root, CARD)
    write_splits(tmp_path / "toy.csv", ROWS)
    return root


def test_opens_what_is_there(root: Path) -> None:
    index = open_prepared(root, root.parent / "toy.csv")
    assert index.name == "toy"
    assert index.channels == 3
    assert [c.name for c in index.classes] == ["background", "gland"]
    assert index.counts() == {"train": 2, "val": 1}
    assert index.cases[0] == Case(
        "a",
        root / "images" / "a.png",
        root / "masks" / "a.png",
        root / "instances" / "a.png",
        "p1",
        "train",
    )
    assert index.cases[1].instances is None
    assert [case.name for case in index.split("train")] == ["a", "b"]


def test_a_split_without_cases_names_those_that_have_some(root: Path) -> None:
    index = open_prepared(root, root.parent / "toy.csv")
    with pytest.raises(UserError, match=r"no cases in split 'test' .*train \(2\), val \(1\)"):
        index.split("test")


def test_an_unprepared_dataset_gets_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prepare_data\.py dataset=glas source="):
        open_prepared(tmp_path / "glas", tmp_path / "glas.csv")


def test_all_unpaired_files_are_named(root: Path) -> None:
    (root / "masks" / "a.png").unlink()
    (root / "masks" / "b.png").unlink()
    (root / "images" / "c.png").unlink()
    with pytest.raises(UserError) as caught:
        open_prepared(root, root.parent / "toy.csv")
    for fault in ("image without mask: a", "image without mask: b", "mask without image: c"):
        assert fault in caught.value.message


def test_only_official_cases_may_be_absent(root: Path) -> None:
    splits = root.parent / "toy.csv"
    write_splits(splits, [*ROWS, SplitRow("e", "", "test")])
    with pytest.raises(UserError, match="no image of case e"):
        open_prepared(root, splits)


def test_every_image_needs_a_row(root: Path) -> None:
    splits = root.parent / "toy.csv"
    write_splits(splits, ROWS[1:])
    with pytest.raises(UserError, match="no row for image a"):
        open_prepared(root, splits)


def test_a_patient_in_two_splits_is_refused(root: Path) -> None:
    splits = root.parent / "toy.csv"
    write_splits(splits, [replace(ROWS[0], split="val"), *ROWS[1:]])
    with pytest.raises(UserError, match=r"several splits: p1 \(train, val\)"):
        open_prepared(root, splits)


def test_the_card_reads_back_and_pins_every_file(root: Path) -> None:
    card = read_card(root)
    assert replace(card, checksums={}) == CARD
    assert len(card.checksums) == 7
    assert changed_files(root, card) == []
    write_png(root / "masks" / "b.png", np.ones((4, 4), np.uint8))
    (root / "images" / "c.png").unlink()
    assert changed_files(root, card) == ["images/c.png", "masks/b.png"]


@pytest.mark.parametrize("text", ["", "name: toy", "{", "!!python/object:os.system {}", "- 1"])
def test_a_broken_card_is_refused_on_one_line(root: Path, text: str) -> None:
    write_text(root / "dataset.yaml", text)
    with pytest.raises(UserError, match=r"dataset\.yaml is not a valid") as caught:
        read_card(root)
    assert "\n" not in str(caught.value)


def test_long_lists_show_ten_and_the_count() -> None:
    assert listed(["b", "a10", "a2"]) == "a2; a10; b"
    assert listed(map(str, range(11))).endswith("9; ... 11 in all")
    assert listed(map(str, range(11)), limit=None).endswith("9; 10")
