"""The synthetic dataset makes itself, once, and is the same everywhere."""

from pathlib import Path

import numpy as np
import pytest

from medt.data.layout import changed_files, read_card
from medt.data.sources import open_dataset, prepare_dataset
from medt.data.sources.synthetic import open_synthetic
from medt.errors import UserError
from medt.images import read_image, read_mask

NUMBERS = {"seed": 5, "train": 2, "val": 1, "test": 1, "size": 32}


def test_it_has_the_layout_of_a_prepared_dataset(tmp_path: Path) -> None:
    index = open_synthetic(tmp_path / "synthetic", **NUMBERS)
    assert index.counts() == {"train": 2, "val": 1, "test": 1}
    assert [c.name for c in index.classes] == ["background", "gland"]
    for case in index.cases:
        assert case.mask is not None
        assert case.instances is not None
        assert case.group == case.name
        assert read_image(case.image).shape == (32, 32, 3)
        instances = read_mask(case.instances)
        np.testing.assert_array_equal(read_mask(case.mask), instances > 0)
    assert [path.name for path in tmp_path.iterdir()] == ["synthetic"]


def test_the_same_numbers_give_the_same_files_and_are_made_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = open_synthetic(tmp_path / "one", **NUMBERS)
    open_synthetic(tmp_path / "two", **NUMBERS)
    assert capsys.readouterr().err.count("Making 4 synthetic images") == 2
    first = read_card(tmp_path / "one").checksums
    assert first == read_card(tmp_path / "two").checksums
    assert open_synthetic(tmp_path / "one", **NUMBERS) == one
    assert capsys.readouterr().err == ""
    assert changed_files(tmp_path / "one", read_card(tmp_path / "one")) == []


def test_other_numbers_replace_it(tmp_path: Path) -> None:
    root = tmp_path / "synthetic"
    open_synthetic(root, **NUMBERS)
    before = read_card(root).checksums["images/train_1.png"]
    index = open_synthetic(root, **{**NUMBERS, "seed": 6, "train": 1})
    assert index.counts() == {"train": 1, "val": 1, "test": 1}
    assert read_card(root).checksums["images/train_1.png"] != before
    assert not (root / "images" / "train_2.png").exists()


def test_nothing_else_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match="is no prepared dataset"):
        open_synthetic(tmp_path, **NUMBERS)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize("fault", [{"seed": -1}, {"train": 0}, {"val": -1}, {"size": 8}])
def test_impossible_numbers_are_refused(tmp_path: Path, fault: dict[str, int]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(fault))}={next(iter(fault.values()))}"):
        open_synthetic(tmp_path / "synthetic", **{**NUMBERS, **fault})


def test_settings_reach_it(tmp_path: Path) -> None:
    settings = {
        "name": "synthetic",
        "root": str(tmp_path / "s"),
        **NUMBERS,
        "image_size": [128, 128],
    }
    assert "train 2, val 1, test 1" in prepare_dataset(settings).summary()
    assert open_dataset(settings).name == "synthetic"
