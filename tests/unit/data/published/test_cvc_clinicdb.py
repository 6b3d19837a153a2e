"""CVC-ClinicDB: whole video sequences share a split."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from medt.data.layout import open_prepared
from medt.data.published.cvc_clinicdb import CVC_CLINICDB, FRAMES, STARTS, sequence_of
from medt.data.published.dataset import prepare
from medt.data.splits import read_splits
from medt.errors import UserError
from medt.io.images import read_mask

COMMITTED = Path(__file__).parents[4] / "data/splits/cvc_clinicdb.csv"


def write(folder: Path, frames: list[int], extension: str = "tif") -> Path:
    random = np.random.default_rng(0)
    for part in ("Original", "Ground Truth"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for frame in frames:
        image = random.integers(0, 256, (48, 64, 3), np.uint8)
        mask = np.zeros((48, 64), np.uint8)
        mask[10:20, 5 : 6 + frame % 50] = 255
        cv2.imwrite(str(folder / f"Original/{frame}.{extension}"), image)
        cv2.imwrite(str(folder / f"Ground Truth/{frame}.{extension}"), mask)
    return folder


def test_the_committed_split_deals_all_frames_by_whole_sequences() -> None:
    rows = read_splits(COMMITTED)
    assert [row.case for row in rows] == [f"{frame:03}" for frame in range(1, FRAMES + 1)]
    splits = defaultdict(set)
    for row in rows:
        assert row.group == sequence_of(int(row.case))
        splits[row.group].add(row.split)
    assert len(splits) == len(STARTS) == 29
    assert all(len(found) == 1 for found in splits.values())


@pytest.mark.parametrize("extension", ["tif", "png"])
def test_frames_and_masks_are_those_of_the_archive(tmp_path: Path, extension: str) -> None:
    frames = [1, 25, 26, 67, 300, 612]
    source = write(tmp_path / "cvc", frames, extension)
    prepared = prepare(CVC_CLINICDB, source, tmp_path / "root", tmp_path / "s.csv")
    assert "Missing in the archive: 606 of the 612 published cases." in prepared.summary()
    index = open_prepared(tmp_path / "root", tmp_path / "s.csv")
    assert [case.name for case in index.cases] == [f"{frame:03}" for frame in frames]
    for case, frame in zip(index.cases, frames, strict=True):
        assert case.group == sequence_of(frame)
        assert case.mask is not None
        assert read_mask(case.mask).sum() == 10 * (1 + frame % 50)


def test_of_both_formats_the_tiff_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "cvc/TIF", [1, 2])
    write(tmp_path / "cvc/PNG", [1, 2, 3], "png")
    prepare(CVC_CLINICDB, tmp_path / "cvc", tmp_path / "root", COMMITTED)
    assert len(open_prepared(tmp_path / "root", COMMITTED).cases) == 2


def test_what_is_no_such_archive_or_lacks_a_mask_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/a.txt").write_text("a")
    with pytest.raises(UserError, match="holds no frame of CVC-ClinicDB"):
        prepare(CVC_CLINICDB, tmp_path / "empty", tmp_path / "root", COMMITTED)
    source = write(tmp_path / "cvc", [1, 2])
    (source / "Ground Truth/2.tif").unlink()
    with pytest.raises(UserError, match="has image or mask only of 2"):
        prepare(CVC_CLINICDB, source, tmp_path / "root", COMMITTED)
