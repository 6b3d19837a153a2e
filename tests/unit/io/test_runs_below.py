"""Which weights a run's folder stands for, by a metrics.json that may be anybody's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medt.io.runs_below import USES, told_of_folder, use_of, validation_score, weights_of

ROWS = {"monitor": "dice", "best": {"val_dice": 0.75}, "last": {"val_dice": 0.5}}


def run(folder: Path, text: str | None, *weights: str) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    if text is not None:
        (folder / "metrics.json").write_text(text)
    for name in weights:
        (folder / f"checkpoints/{name}.pt").touch()
    return folder


@pytest.mark.parametrize("use", USES)
def test_is_said_by_the_run(tmp_path: Path, use: str) -> None:
    folder = run(tmp_path / "run", json.dumps(ROWS | {"use": use}))
    assert weights_of(folder) == (folder / f"checkpoints/{use}.pt", USES[use])
    assert validation_score(folder) == ROWS[use]["val_dice"]  # type: ignore[index]


@pytest.mark.parametrize("use", [None, 1, True, [], ["last"], {}, {"last": 1}, "", "LAST", "../x"])
def test_is_the_best_where_it_says_something_else(tmp_path: Path, use: Any) -> None:
    folder = run(tmp_path / "run", json.dumps(ROWS | {"use": use}))
    assert use_of(ROWS | {"use": use}) == "best"
    assert weights_of(folder)[0] == folder / "checkpoints/best.pt"
    assert validation_score(folder) == 0.75


@pytest.mark.parametrize("text", [None, "", "no JSON", '{"use": "last"', "[]", '"last"', "7", "{}"])
def test_is_the_best_where_nothing_is_said(tmp_path: Path, text: str | None) -> None:
    folder = run(tmp_path / "run", text)
    assert weights_of(folder) == (folder / "checkpoints/best.pt", USES["best"])


def test_of_a_sweep_the_score_is_the_mean_of_what_the_runs_stand_for(tmp_path: Path) -> None:
    run(tmp_path / "fold=0", json.dumps(ROWS | {"use": "last"}))
    run(tmp_path / "fold=1", json.dumps(ROWS | {"use": "best"}))
    run(tmp_path / "fold=2", json.dumps(ROWS))  # of a former version
    assert validation_score(tmp_path) == pytest.approx((0.5 + 0.75 + 0.75) / 3)


@pytest.mark.parametrize(("use", "there"), [("last", "best"), ("best", "last")])
def test_that_are_gone_the_others_are_named_and_not_taken(
    tmp_path: Path, use: str, there: str
) -> None:
    folder = run(tmp_path / "run", json.dumps(ROWS | {"use": use}), there)
    problem, hint = told_of_folder(folder, "checkpoint")
    assert problem == f"{folder} is a folder without checkpoints/{use}.pt"
    assert hint == f"give checkpoint={folder}/checkpoints/{there}.pt"
