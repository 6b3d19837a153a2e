"""Which split file counts: the one of the dataset's name; what differs from it is told."""

from __future__ import annotations

import json
from pathlib import Path

import compare
import cv2
import evaluate
import numpy as np
import prepare_data
import pytest
import train
import yaml
from conftest import tiny

from medt.data.layout import open_prepared
from medt.data.splits import SplitRow, read_splits, write_splits

COMMITTED = Path(__file__).parents[2] / "data/splits/kvasir_seg.csv"
SIZE = 64


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder elsewhere, and beside it an archive of twelve published cases and a new one."""
    source, random = tmp_path / "kvasir", np.random.default_rng(0)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[10:40, 10:30] = 255
    names = [row.case for row in read_splits(COMMITTED)][:12]
    for name in [*names, "a_new_one"]:
        image = random.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        for kind, pixels in (("images", image), ("masks", mask)):
            (source / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(source / kind / f"{name}.jpg"), pixels)
    return tmp_path / "data"


def prepared(data: Path, *more: str) -> int:
    given = ["dataset=kvasir_seg", f"paths.data={data}", f"source={data.parent}/kvasir"]
    return prepare_data.main([*given, *more])


def trained(data: Path, name: str, *more: str) -> list[str]:
    model = [given for given in tiny(data) if given.partition("=")[0].startswith(("model", "aug"))]
    given = ["dataset=kvasir_seg", f"paths.data={data}", "dataset.image_size=32", *model]
    quick = ["trainer.epochs=1", "trainer.batch_size=4", "trainer.device=cpu", "check=false"]
    return [*given, *quick, f"run_dir={data.parent}/{name}", *more]


def test_splits_of_the_name_are_taken_wherever_the_data_lie(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepared(data) == 0
    told = capsys.readouterr().out
    assert f"Splits: those of kvasir_seg that come with medt, copied to {data}/splits" in told
    assert f"Added to {data}/splits/kvasir_seg.csv: 1 cases" in told
    found = {row.case: row for row in read_splits(data / "splits/kvasir_seg.csv")}
    committed = {row.case: row for row in read_splits(COMMITTED)}
    assert found.keys() - committed.keys() == {"a_new_one"}
    assert {name: found[name] for name in committed} == committed


def test_another_split_file_is_the_users_own(data: Path) -> None:
    own = data.parent / "mine.csv"
    assert prepared(data, f"dataset.splits_file={own}") == 0
    assert len(read_splits(own)) == 13
    assert not (data / "splits").exists()


def test_a_run_says_and_records_its_split_and_evaluate_tells_of_another(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepared(data) == 0
    assert train.main(trained(data, "run")) == 0
    run = data.parent / "run"
    config = yaml.safe_load((run / "config.yaml").read_text())
    digest = config["dataset"]["splits_digest"]
    assert f"kvasir_seg.csv ({digest})" in (run / "train.log").read_text()
    given = [f"checkpoint={run}", "split=val", "panels=0"]
    capsys.readouterr()
    assert evaluate.main(given) == 0
    assert "does not split" not in capsys.readouterr().out
    file = data / "splits/kvasir_seg.csv"
    rows = read_splits(file)
    moved = next(row for row in rows if row.split == "train" and row.case in _cases(data))
    others = [row for row in rows if row != moved]
    write_splits(file, [*others, SplitRow(moved.case, moved.group, "val")])
    assert evaluate.main(given) == 0
    told = capsys.readouterr().out
    assert "warning: " in told
    assert f"does not split as the network was trained ({digest})" in " ".join(told.split())
    digests = {
        json.loads(path.read_text())["splits_digest"]
        for path in (run / "evaluation").glob("*/metrics.json")
    }
    assert len(digests) == 2
    assert digest in digests


def test_compare_tells_of_runs_on_several_splits(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepared(data) == 0
    assert train.main(trained(data, "one")) == 0
    file = data / "splits/kvasir_seg.csv"
    rows = read_splits(file)
    moved = next(row for row in rows if row.split == "train" and row.case in _cases(data))
    others = [row for row in rows if row != moved]
    write_splits(file, [*others, SplitRow(moved.case, moved.group, "val")])
    assert train.main(trained(data, "two", "seed=1")) == 0
    given = [str(data.parent / name) for name in ("one", "two")]
    assert compare.main([*given, f"output={tmp_path}/out"]) == 0
    notes = json.loads((tmp_path / "out/comparison.json").read_text())["notes"]
    (note,) = [note for note in notes if "several splits" in note]
    assert note.startswith("warning: val Dice is of several splits (")


def test_the_order_and_the_format_of_a_split_file_are_no_other_split(data: Path) -> None:
    assert prepared(data) == 0
    file = data / "splits/kvasir_seg.csv"
    before = open_prepared(data / "kvasir_seg", file).splits_digest
    lines = file.read_text().splitlines()
    file.write_text("\r\n".join([lines[0], *reversed(lines[1:])]) + "\r\n")
    assert open_prepared(data / "kvasir_seg", file).splits_digest == before


def _cases(data: Path) -> set[str]:
    return {path.stem for path in (data / "kvasir_seg/images").iterdir()}
