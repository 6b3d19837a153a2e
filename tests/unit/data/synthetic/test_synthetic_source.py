"""The synthetic dataset draws itself, once, and is the same everywhere; nothing replaces it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from medt.data.layout import changed_files, read_card
from medt.data.open import open_dataset, prepare_dataset
from medt.data.synthetic import dataset as synthetic
from medt.data.synthetic.dataset import SyntheticSet, draw_synthetic
from medt.errors import UserError
from medt.io.images import read_image, read_mask
from medt.io.locks import locked_beside

pytestmark = pytest.mark.seconds

NUMBERS = {"seed": 5, "train": 2, "val": 1, "test": 1, "size": 32}
FOLDER = "seed5-2-1-1-32px-g1"


def settings(root: Path, **numbers: int) -> dict[str, object]:
    return {"name": "synthetic", "root": str(root), **NUMBERS, **numbers}


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_has_the_layout_of_a_prepared_dataset(tmp_path: Path) -> None:
    index = open_dataset(settings(tmp_path / "synthetic"), draws=True)
    assert index.name == "synthetic"
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
    assert [path.name for path in (tmp_path / "synthetic").iterdir()] == [FOLDER]


def test_the_same_numbers_give_the_same_files_and_are_drawn_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = open_dataset(settings(tmp_path / "one"), draws=True)
    open_dataset(settings(tmp_path / "two"), draws=True)
    said = capsys.readouterr().err.splitlines()
    drawing = "Drawing 4 synthetic images of 32 x 32 pixels, about 1 MB, in"
    assert said == [f"{drawing} {tmp_path}/{each}/{FOLDER}" for each in ("one", "two")]
    folder = tmp_path / "one" / FOLDER
    first = read_card(folder)
    assert first.checksums == read_card(tmp_path / "two" / FOLDER).checksums
    assert open_dataset(settings(tmp_path / "one")) == one
    assert open_dataset(settings(tmp_path / "one"), draws=True) == one
    assert capsys.readouterr().err == ""
    assert changed_files(folder, first) == []


@pytest.mark.parametrize(
    "other", [{"seed": 6}, {"train": 1}, {"val": 2}, {"test": 0}, {"size": 64}]
)
def test_other_numbers_lie_beside_it(tmp_path: Path, other: dict[str, int]) -> None:
    open_dataset(settings(tmp_path), draws=True)
    before = content(tmp_path)
    open_dataset(settings(tmp_path, **other), draws=True)
    assert len(list(tmp_path.iterdir())) == 2
    assert before.items() <= content(tmp_path).items()


def test_another_generator_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_dataset(settings(tmp_path), draws=True)
    monkeypatch.setattr(synthetic, "GENERATOR", 2)
    open_dataset(settings(tmp_path), draws=True)
    assert {path.name for path in tmp_path.iterdir()} == {FOLDER, FOLDER.replace("g1", "g2")}


def test_what_lies_in_the_root_is_left_alone(tmp_path: Path) -> None:
    """Such as a set as earlier versions laid it out."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images/train_1.png").write_bytes(b"of an earlier version")
    (tmp_path / "dataset.yaml").write_text("name: synthetic\n")
    before = content(tmp_path)
    open_dataset(settings(tmp_path), draws=True)
    assert before.items() <= content(tmp_path).items()


def empty(folder: Path) -> None:
    for path in folder.rglob("*.*"):
        path.unlink()


def without_an_image(folder: Path) -> None:
    (folder / "images/val_1.png").unlink()


def without_split(folder: Path) -> None:
    (folder / "splits.csv").unlink()


def of_other_numbers(folder: Path) -> None:
    text = (folder / "dataset.yaml").read_text()
    (folder / "dataset.yaml").write_text(text.replace("seed: 5", "seed: 6"))


def of_another_dataset(folder: Path) -> None:
    text = (folder / "dataset.yaml").read_text()
    (folder / "dataset.yaml").write_text(text.replace("name: synthetic", "name: glas"))


@pytest.mark.parametrize("draws", [True, False])
@pytest.mark.parametrize(
    ("spoil", "culprit"),
    [
        (empty, "does not hold the synthetic set that its name says"),
        (of_other_numbers, "does not hold the synthetic set that its name says"),
        (of_another_dataset, "does not hold the synthetic set that its name says"),
        (without_an_image, "is not whole, it lacks images/val_1.png"),
        (without_split, "is not whole, it lacks splits.csv"),
    ],
)
def test_a_folder_of_its_name_that_is_not_it_is_refused_and_stays(
    tmp_path: Path, spoil, culprit: str, draws: bool
) -> None:
    open_dataset(settings(tmp_path), draws=True)
    spoil(tmp_path / FOLDER)
    before = content(tmp_path)
    with pytest.raises(UserError, match=f"{FOLDER} {culprit} .*delete that folder"):
        open_dataset(settings(tmp_path), draws=draws)
    assert content(tmp_path) == before


def test_without_leave_to_draw_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"there is no .*{FOLDER}"):
        open_dataset(settings(tmp_path / "synthetic"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", [{"seed": -1}, {"train": 0}, {"val": -1}, {"size": 8}])
def test_impossible_numbers_are_refused(tmp_path: Path, fault: dict[str, int]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(fault))}={next(iter(fault.values()))}"):
        open_dataset(settings(tmp_path / "synthetic", **fault), draws=True)


def test_more_than_the_bound_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"40,003 .* 256 x 256 .*at most 100,000 .*2,147,483,648"):
        open_dataset(settings(tmp_path, train=40_001, size=256), draws=True)
    assert list(tmp_path.iterdir()) == []


def test_preparing_says_where_it_lies(tmp_path: Path) -> None:
    prepared = prepare_dataset(settings(tmp_path))
    assert prepared.root == tmp_path / FOLDER
    assert "train 2, val 1, test 1" in prepared.summary()


def draw(root: Path, start) -> None:
    start.wait()
    draw_synthetic(root, SyntheticSet(**NUMBERS))


def test_of_two_that_want_it_at_once_one_draws_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    both = [context.Process(target=draw, args=(tmp_path, start)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert capfd.readouterr().err.count("Drawing ") == 1
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]
    assert open_dataset(settings(tmp_path)).counts() == {"train": 2, "val": 1, "test": 1}


def draw_saying_to(pipe: int, root: Path) -> None:
    with os.fdopen(pipe, "w") as said, contextlib.redirect_stderr(said):
        draw_synthetic(root, SyntheticSet(**NUMBERS))


def test_whoever_waits_says_for_whom(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    reading, writing = os.pipe()
    other = context.Process(target=draw_saying_to, args=(writing, tmp_path))
    with os.fdopen(reading) as lines:
        with locked_beside(tmp_path / FOLDER, "another command"):
            other.start()
            os.close(writing)
            said = lines.readline()
        other.join()
    expected = f"{tmp_path}/{FOLDER} is being written by another command (process {os.getpid()} on "
    assert said.startswith(expected)
    assert other.exitcode == 0
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]


def test_what_a_killed_one_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / f".{FOLDER}.0123abcd.new"
    other = tmp_path / f".{FOLDER.replace('seed5', 'seed6')}.0123abcd.new"
    for folder in (left, other):
        (folder / "images").mkdir(parents=True)
    open_dataset(settings(tmp_path), draws=True)
    assert {path.name for path in tmp_path.iterdir()} == {FOLDER, other.name}


def test_a_set_that_appears_while_it_is_drawn_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it can where the file system has no locks."""
    write = synthetic._write

    def late(folder: Path, drawn: SyntheticSet) -> None:
        write(tmp_path / FOLDER, drawn)
        (tmp_path / FOLDER / "note.txt").write_text("the first")
        write(folder, drawn)

    monkeypatch.setattr(synthetic, "_write", late)
    open_dataset(settings(tmp_path), draws=True)
    assert (tmp_path / FOLDER / "note.txt").read_text() == "the first"
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]


def test_its_split_file_is_no_link_out_of_it(tmp_path: Path) -> None:
    open_dataset(settings(tmp_path), draws=True)
    splits = tmp_path / FOLDER / synthetic.SPLITS_FILE
    splits.rename(tmp_path / "elsewhere.csv")
    splits.symlink_to(tmp_path / "elsewhere.csv")
    with pytest.raises(UserError, match="is a link out of the folder"):
        open_dataset(settings(tmp_path), draws=True)
