"""A prepared dataset opens whole, or every fault is named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from medt.data.layout import (
    Case,
    DatasetCard,
    SegmentationClass,
    changed_files,
    check_classes,
    default_classes,
    listed,
    open_prepared,
    read_card,
    write_card,
)
from medt.data.splits import SplitRow, write_splits
from medt.errors import UserError
from medt.io.files import write_png, write_text

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
    with pytest.raises(
        UserError, match=r"dataset\.yaml is (not a valid|damaged or not YAML)"
    ) as caught:
        read_card(root)
    assert "\n" not in str(caught.value)


GLAND = {"id": 1, "name": "gland", "color": [0, 158, 115]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        *[
            ({"name": name}, "is not printable")
            for name in ("", " ", "a\nb", "a\x1b[2J", "a\u202eb")
        ],
        *[
            ({"name": name}, "is not printable")
            for name in ("a\ud800", "a\u2028", "a\u200b", 3, None)
        ],
        ({"name": "a" * 101}, "has 101 characters"),
        *[
            ({"id": number}, r"id of class gland .* 0\.\.254")
            for number in (-1, 255, True, "1", 1.0)
        ],
        *[({"id": number}, "id of class gland") for number in (10**5000, None)],
        *[({"color": color}, "colour of class gland") for color in ([300, 0, 0], [0, 0], "red")],
        *[({"color": color}, "colour of class gland") for color in ([True, 0, 0], None, {"r": 1})],
    ],
)
def test_a_class_that_cannot_be_is_refused_on_one_line(
    changed: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        SegmentationClass.from_dict({**GLAND, **changed})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize("values", [None, [], "gland", {}, {"id": 1, "name": "gland"}])
def test_what_describes_no_class_is_refused(values: object) -> None:
    with pytest.raises(UserError, match="id, name and color"):
        SegmentationClass.from_dict(values)  # type: ignore[arg-type]


def test_a_class_is_what_it_was_written_as() -> None:
    for one in default_classes(["background", "Drüse 腺", "=1+1", "<b>", "$x$"]):
        assert SegmentationClass.from_dict(one.to_dict()) == one


def test_classes_are_numbered_in_order_and_named_once() -> None:
    three = default_classes(["a", "b", "c"])
    check_classes(three)
    check_classes(default_classes([str(i) for i in range(255)]))
    for wrong in (three[::-1], (three[0], three[2]), (three[0], *three)):
        with pytest.raises(UserError, match="not in order"):
            check_classes(wrong)
    with pytest.raises(UserError, match="several classes have the name b"):
        check_classes(default_classes(["a", "b", "b"]))
    for count in (0, 1, 256):
        with pytest.raises(UserError, match=f"there are {count} classes|0\\.\\.254"):
            check_classes(default_classes([str(i) for i in range(count)]))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name", "gl\x1b[2Jand", r"name 'gl\\x1b\[2Jand' .* not printable"),
        ("name", "background", "several classes have the name background"),
        ("id", 77, "not in order"),
        ("color", [300, 0, 0], "colour of class gland"),
    ],
)
def test_a_card_with_impossible_classes_is_refused_with_its_file(
    root: Path, key: str, value: object, message: str
) -> None:
    content = yaml.safe_load((root / "dataset.yaml").read_text())
    content["classes"][1][key] = value
    write_text(root / "dataset.yaml", yaml.safe_dump(content))
    with pytest.raises(UserError, match=rf"toy/dataset\.yaml is not a valid .*{message}"):
        read_card(root)


def test_long_lists_show_ten_and_the_count() -> None:
    assert listed(["b", "a10", "a2"]) == "a2; a10; b"
    assert listed(map(str, range(11))).endswith("9; ... 11 in all")
    assert listed(map(str, range(11)), limit=None).endswith("9; 10")


@pytest.mark.parametrize("name", ["images", "masks", "instances", "dataset.yaml"])
def test_a_part_that_is_a_link_out_of_the_dataset_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What it points to would stand in a report."""
    outside = root.parent / "outside"
    outside.mkdir()
    (root / name).rename(outside / name)
    (root / name).symlink_to(outside / name)
    with pytest.raises(UserError, match=rf"toy/{name} is a link out of the folder"):
        open_prepared(root, root.parent / "toy.csv")
    monkeypatch.setenv("MEDT_ALLOW_LINKS", "1")
    assert len(open_prepared(root, root.parent / "toy.csv").cases) == 3


def test_a_dataset_that_the_user_links_to_is_opened(root: Path) -> None:
    (root / "images").rename(root / "pictures")
    (root / "images").symlink_to("pictures")
    (root.parent / "link").symlink_to(root)
    assert len(open_prepared(root.parent / "link", root.parent / "toy.csv").cases) == 3
