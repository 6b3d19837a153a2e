"""Mask values become class ids, or are refused by name."""

from pathlib import Path

import numpy as np
import pytest

from medt.data.labels import IDS, Labels
from medt.errors import UserError
from medt.io.files import write_png
from medt.io.images import read_mask
from medt.metrics.pixel import IGNORE_INDEX


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_mask_values_are_translated(dtype: type) -> None:
    mask = np.array([[0, 127, 99]], dtype)
    ids = Labels({0: 0, 127: 1}, 99).class_ids(mask)
    assert ids.tolist() == [[0, 1, IGNORE_INDEX]]


def test_bool_and_negative_and_large_values() -> None:
    assert IDS.class_ids(np.array([[False, True]])).tolist() == [[0, 1]]
    large = np.array([[-1, 100_000]])
    assert Labels({100_000: 2}, -1).class_ids(large).tolist() == [[IGNORE_INDEX, 2]]


def test_unknown_values_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    write_png(path, np.array([[0, 1, 7, 9]], np.uint8))
    with pytest.raises(UserError, match=r"mask\.png holds values that are no class: 7, 9 .*0, 1;"):
        Labels({0: 0, 1: 1}).class_ids(read_mask(path), str(path))
    with pytest.raises(UserError, match="no class: 255"):
        IDS.class_ids(np.array([[255]]))


@pytest.mark.parametrize("mask", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.float32)])
def test_a_mask_is_a_plane_of_whole_numbers(mask: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"one plane \(H, W\)"):
        IDS.class_ids(mask)
