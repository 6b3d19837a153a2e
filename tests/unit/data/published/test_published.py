"""What all published datasets share: safe preparation, splits without leakage, folds."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from medt.data.layout import open_prepared
from medt.data.open import open_dataset
from medt.data.published import dataset as published
from medt.data.published.dataset import ArchivedCase, draw_all_splits, prepare
from medt.data.published.dsb2018 import DSB2018
from medt.data.published.kvasir_seg import KVASIR_SEG
from medt.data.splits import SplitRow, read_splits, write_splits
from medt.errors import UserError
from medt.io.locks import locked_beside


def picture(name: str) -> np.ndarray:
    """A smooth pattern of its own for every name."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(noise, (64, 48), interpolation=cv2.INTER_CUBIC)


def write_case(folder: Path, name: str, image: np.ndarray | None = None) -> None:
    """As Kvasir-SEG has it: a JPEG and a JPEG mask."""
    mask = np.zeros((48, 64, 3), np.uint8)
    mask[10:30, 20:50] = 255
    for kind, pixels in (("images", picture(name) if image is None else image), ("masks", mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / kind / f"{name}.jpg"), pixels)


@pytest.fixture
def polyps(tmp_path: Path) -> Path:
    for index in range(12):
        write_case(tmp_path / "polyps", f"case{index}")
    return tmp_path / "polyps"


def split_of(path: Path) -> dict[str, str]:
    return {row.case: row.split for row in read_splits(path)}


def test_progress_tells_of_reading_and_writing_every_case(polyps: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    root, splits = tmp_path / "root", tmp_path / "s.csv"
    prepare(KVASIR_SEG, polyps, root, splits, lambda *step: steps.append(step))
    assert steps == [(i, 24) for i in range(1, 25)]
    steps.clear()
    assert prepare(KVASIR_SEG, polyps, root, splits, lambda *step: steps.append(step)).existed
    assert steps == [], "what is complete is left alone"


def test_near_duplicates_share_a_split_of_our_making(polyps: Path, tmp_path: Path) -> None:
    copies = [f"copy{i}" for i in range(6)]
    for i, name in enumerate(copies):
        brighter = np.clip(picture("case3") * 1.0 + 3 * i, 0, 255).astype(np.uint8)
        write_case(polyps, name, brighter)
    prepared = prepare(KVASIR_SEG, polyps, tmp_path / "root", tmp_path / "s.csv")
    assert len({split_of(tmp_path / "s.csv")[name] for name in ("case3", *copies)}) == 1
    assert "Warning" not in prepared.summary()
    groups = {row.case: row.group for row in read_splits(tmp_path / "s.csv")}
    assert len({groups[name] for name in ("case3", *copies)}) == 1, "an edit cannot part them"


def test_across_a_given_split_near_duplicates_are_a_warning(polyps: Path, tmp_path: Path) -> None:
    write_case(polyps, "copy", picture("case3"))
    rows = [SplitRow(f"case{i}", "", "val" if i == 3 else "train") for i in range(12)]
    write_splits(tmp_path / "s.csv", [*rows, SplitRow("copy", "", "test")])
    for _ in range(2):  # the second time from the card
        summary = prepare(KVASIR_SEG, polyps, tmp_path / "root", tmp_path / "s.csv").summary()
        assert "Warning: images that look alike lie in different splits: case3 and copy." in summary


def test_new_cases_are_added_to_the_split_file_and_old_ones_stay(
    polyps: Path, tmp_path: Path
) -> None:
    root, splits = tmp_path / "root", tmp_path / "s.csv"
    prepare(KVASIR_SEG, polyps, root, splits)
    before = split_of(splits)
    write_case(polyps, "copy", picture("case3"))
    for index in range(20, 26):
        write_case(polyps, f"case{index}")
    summary = prepare(KVASIR_SEG, polyps, root, splits).summary()
    after = split_of(splits)
    assert {case: after[case] for case in before} == before
    assert len(after) == 19
    assert after["copy"] == before["case3"], "a near-duplicate follows its partner"
    assert {after[f"case{i}"] for i in range(20, 26)} == {"train", "val", "test"}
    assert "7 cases, each drawn" in summary
    assert len(open_prepared(root, splits).cases) == 19


def test_cases_that_are_missing_are_noted_as_absent(polyps: Path, tmp_path: Path) -> None:
    root, splits = tmp_path / "root", tmp_path / "s.csv"
    prepare(KVASIR_SEG, polyps, root, splits)
    for kind in ("images", "masks"):
        (polyps / kind / "case5.jpg").unlink()
    with pytest.raises(UserError, match="root holds more cases than this archive: case5"):
        prepare(KVASIR_SEG, polyps, root, splits)
    assert len(open_prepared(root, splits).cases) == 12, "the fuller copy stays"
    elsewhere = tmp_path / "elsewhere"
    assert not prepare(KVASIR_SEG, polyps, elsewhere, splits).existed
    assert len(read_splits(splits)) == 12
    assert len(open_prepared(elsewhere, splits).cases) == 11


def test_what_a_killed_preparation_left_is_removed(polyps: Path, tmp_path: Path) -> None:
    left = [tmp_path / "data" / f".root.0123abcd.{kind}" for kind in ("new", "old")]
    others = [tmp_path / "data" / name for name in (".root2.0123abcd.new", ".root.mine", "other")]
    for folder in (*left, *others):
        (folder / "images").mkdir(parents=True)
    prepare(KVASIR_SEG, polyps, tmp_path / "data" / "root", tmp_path / "s.csv")
    assert sorted((tmp_path / "data").iterdir()) == sorted([*others, tmp_path / "data" / "root"])


def test_an_error_in_the_middle_leaves_nothing(
    polyps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    root, splits = tmp_path / "data" / "root", tmp_path / "s.csv"
    broken = replace(KVASIR_SEG, annotate=fail)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        prepare(broken, polyps, root, splits)
    assert list((tmp_path / "data").iterdir()) == []
    assert not splits.exists()
    assert not prepare(KVASIR_SEG, polyps, root, splits).existed


def test_two_preparations_at_once_are_refused(polyps: Path, tmp_path: Path) -> None:
    with (
        locked_beside(tmp_path / "root", "prepare_data.py"),
        pytest.raises(UserError, match=r"root is being written by prepare_data.py .*root="),
    ):
        prepare(KVASIR_SEG, polyps, tmp_path / "root", tmp_path / "s.csv")


def test_a_split_file_that_another_preparation_has_written_stays(
    polyps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both read that there is none; the other one has more cases, and is the first to write."""
    splits = tmp_path / "s.csv"
    others = [SplitRow(f"case{index}", "", "train") for index in range(13)]
    plan = published._plan

    def late(*arguments: Any) -> list[SplitRow]:
        rows = plan(*arguments)
        write_splits(splits, others)
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(published, "_plan", late)
        with pytest.raises(UserError, match=r"s\.csv was changed while .*run this again"):
            prepare(KVASIR_SEG, polyps, tmp_path / "root", splits)
    assert read_splits(splits) == others
    assert prepare(KVASIR_SEG, polyps, tmp_path / "root", splits).counts["train"] == 12


def test_a_root_that_cannot_be_made_is_named(polyps: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/root cannot be made: .*dataset\.root"):
        prepare(KVASIR_SEG, polyps, tmp_path / "file" / "root", tmp_path / "s.csv")


def test_a_full_disk_is_told_before_anything_is_written(
    polyps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = published.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(published.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"0\.0 GB free, the dataset may take .*another disk"):
        prepare(KVASIR_SEG, polyps, tmp_path / "data" / "root", tmp_path / "s.csv")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_damaged_image_is_named_before_anything_is_written(polyps: Path, tmp_path: Path) -> None:
    path = polyps / "images" / "case7.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"images/case7\.jpg cannot be decoded"):
        prepare(KVASIR_SEG, polyps, tmp_path / "data" / "root", tmp_path / "s.csv")
    assert list((tmp_path / "data").iterdir()) == []


def test_image_and_annotation_of_different_size_are_named(polyps: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(polyps / "masks" / "case7.jpg"), np.zeros((20, 20), np.uint8))
    with pytest.raises(UserError, match="case7: image and annotation differ in size"):
        prepare(KVASIR_SEG, polyps, tmp_path / "root", tmp_path / "s.csv")


@pytest.mark.parametrize("source", [KVASIR_SEG, DSB2018])
def test_another_archive_is_refused_with_the_page_of_the_right_one(source, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match=rf"other holds no image .*{source.page}"):
        prepare(source, tmp_path / "other", tmp_path / "root", tmp_path / "s.csv")


class TestFolds:
    @pytest.fixture
    def dataset(self, polyps: Path, tmp_path: Path) -> dict[str, object]:
        """12 cases: 9 of three patients to train and validate on, 3 to test."""
        rows = [
            SplitRow(f"case{i}", f"p{i % 4}", "test" if i % 4 == 3 else "train") for i in range(12)
        ]
        write_splits(tmp_path / "s.csv", rows)
        prepare(KVASIR_SEG, polyps, tmp_path / "root", tmp_path / "s.csv")
        files = {"root": str(tmp_path / "root"), "splits_file": str(tmp_path / "s.csv")}
        return {"name": "kvasir_seg", **files}

    def validated(self, dataset: dict[str, object], folds: int) -> Sequence[set[str]]:
        rounds = [open_dataset({**dataset, "folds": folds, "fold": k}) for k in range(folds)]
        assert all(
            {c.name for c in r.split("test")} == {"case3", "case7", "case11"} for r in rounds
        )
        return [{case.name for case in r.split("val")} for r in rounds]

    def test_each_case_validates_once_with_its_whole_group(self, dataset) -> None:
        parts = self.validated(dataset, 3)
        assert sorted(name for part in parts for name in part) == sorted(
            f"case{i}" for i in range(12) if i % 4 != 3
        )
        assert all(len({int(name[4:]) % 4 for name in part}) == 1 for part in parts)
        index = open_dataset({**dataset, "folds": 3, "fold": 1})
        assert not {c.group for c in index.split("train")} & {c.group for c in index.split("val")}

    def test_more_folds_than_groups_are_refused(self, dataset) -> None:
        with pytest.raises(UserError, match=r"dataset\.folds=4, but training .* have 3 groups"):
            open_dataset({**dataset, "folds": 4})

    @pytest.mark.parametrize(("folds", "fold"), [(1, 0), (3, 3), (3, -1)])
    def test_impossible_folds_are_refused(self, dataset, folds: int, fold: int) -> None:
        with pytest.raises(UserError, match=rf"folds={folds} dataset\.fold={fold} is impossible"):
            open_dataset({**dataset, "folds": folds, "fold": fold})

    def test_a_fold_without_folds_is_refused(self, dataset) -> None:
        with pytest.raises(UserError, match=r"no meaning without dataset\.folds"):
            open_dataset({**dataset, "fold": 1})

    def test_the_column_of_the_split_file_rules(self, dataset) -> None:
        path = Path(str(dataset["splits_file"]))
        rows = [replace(row, fold=int(row.group[1:])) for row in read_splits(path)]
        write_splits(path, rows)
        assert [len({int(n[4:]) % 4 for n in part}) for part in self.validated(dataset, 3)] == [
            1
        ] * 3
        assert self.validated(dataset, 3)[2] == {"case2", "case6", "case10"}
        with pytest.raises(UserError, match="the split file names the folds 0; 1; 2"):
            open_dataset({**dataset, "folds": 2})
        write_splits(path, [replace(row, fold=int(row.case[4:]) % 3) for row in rows])
        with pytest.raises(UserError, match="fold 0 of 3 puts a group into several splits: p0"):
            open_dataset({**dataset, "folds": 3})

    def test_a_column_that_is_partly_filled_is_refused(self, dataset) -> None:
        path = Path(str(dataset["splits_file"]))
        rows = read_splits(path)
        write_splits(path, [replace(rows[0], fold=0), *rows[1:]])
        with pytest.raises(UserError, match="names no fold for case1; case2"):
            open_dataset({**dataset, "folds": 3})


def test_all_splits_keep_groups_together() -> None:
    cases = [ArchivedCase(f"case_{n}", f"{n}.png", (), f"p{n % 5}") for n in range(20)]
    split_of = {row.case: row.split for row in draw_all_splits(cases, [])}
    for group in range(5):
        assert len({split_of[f"case_{n}"] for n in range(20) if n % 5 == group}) == 1
    assert set(split_of.values()) == {"train", "val", "test"}
