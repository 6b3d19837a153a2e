"""Scores from anybody: what is none reaches no model card and no comparison."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import compare
import export
import pytest
from compare_runs import add_cases, add_evaluation, make_run
from test_hostile_runs import Refused, edit_checkpoint

from medt.errors import UserError
from medt.evaluation.recorded import read_recorded

Metrics = dict[str, Any]
NAME = "glas-test-native"
INTERVALS = {"mean_over_cases": {"dice": {"foreground": [0.7, 0.9]}}}


def a_result(**changes: Any) -> Metrics:
    scores = {"dice": {"foreground": 0.8}, "iou": {"foreground": 0.7}}
    return {"cases": 80, "protocol": "native", "mean_over_cases": scores, **changes}


def scored(key: str, value: Any) -> Metrics:
    result = a_result()
    result["mean_over_cases"][key]["foreground"] = value
    return result


def within(interval: Any) -> Metrics:
    return a_result(intervals={"mean_over_cases": {"dice": {"foreground": interval}}})


NOT_NUMBERS = [float("nan"), float("inf"), float("-inf")]
HOSTILE: list[Any] = [
    *(
        scored(key, value)
        for key in ("dice", "iou")
        for value in (*NOT_NUMBERS, -7, 7.5, "1", True)
    ),
    *(a_result(cases=value) for value in (*NOT_NUMBERS, -4, 0, 3.5, "80", None, True)),
    *(a_result(protocol=value) for value in ("x" * 90_000, "a\nb", 3, ["native"], {})),
    *(within(value) for value in ([0.9, 0.7], [-1, 0.9], [0.5, 1.5], [0.5], "ab", [None, 0.5])),
    *(a_result(mean_over_cases=value) for value in ([], None, 3, {"dice": 0.8})),
    *([], 3, "metrics", {}, a_result(intervals=[1])),
]


@pytest.mark.parametrize("metrics", HOSTILE, ids=lambda value: str(value)[:60])
def test_an_evaluation_is_held_to_what_one_writes(tmp_path: Path, metrics: Any) -> None:
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(metrics))
    with pytest.raises(UserError, match=r"metrics\.json is damaged"):
        read_recorded(file)


def test_a_number_that_is_too_large_for_one_is_no_json(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(scored("dice", 123.5)).replace("123.5", "1e999"))
    with pytest.raises(UserError, match="1e999 is not a finite number"):
        read_recorded(file)


def test_a_right_one_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(a_result(intervals=INTERVALS)))
    found = read_recorded(file)
    assert (found.cases, found.protocol) == (80, "native")
    assert found.scores == {"dice": 0.8, "iou": 0.7}
    assert found.intervals == {"dice": (0.7, 0.9)}


@pytest.mark.parametrize("dice", [float("nan"), -7, 7.5])
def test_none_reaches_a_model_card(
    refused: Refused, tiny_run: Path, tmp_path: Path, dice: float
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    add_evaluation(run, NAME, dice)
    refused(export.main, [f"checkpoint={run}", "format=safetensors"], "metrics.json is damaged")
    shutil.rmtree(run / "evaluation")
    edit_checkpoint(run / "checkpoints/last.pt", lambda c: c["scores"].update(val_dice=dice))
    refused(export.main, [f"checkpoint={run}", "format=safetensors"], "last.pt", "score")


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        (lambda content: content["scores"].update(val_iou=-3.0), "score"),
        (lambda content: content["scores"].update(val_dice_gland=1.5), "score"),
        (lambda content: content["scores"].update(val_loss=float("inf")), "score"),
        (lambda content: content["config"]["model"].update(name="x" * 90_000), "name"),
        (lambda content: content["config"]["model"].update(name="a\nb"), "name"),
        (lambda content: content["config"].update(model=[]), "name"),
        (lambda content: content["config"].update(seed="x" * 90_000), "seed"),
        (lambda content: content["dataset"].update(name="x" * 90_000), "name"),
    ],
)
def test_nor_what_else_a_checkpoint_claims(
    refused: Refused, tiny_run: Path, tmp_path: Path, change: Callable[[Any], Any], culprit: str
) -> None:
    path = tmp_path / "best.pt"
    shutil.copy(tiny_run / "checkpoints/best.pt", path)
    edit_checkpoint(path, change)
    refused(export.main, [f"checkpoint={path}", "format=safetensors"], "best.pt", culprit)


def altered(run: Path, changes: Metrics) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    best = changes.pop("best", {})
    metrics |= changes
    metrics["best"] |= best
    (run / "metrics.json").write_text(json.dumps(metrics))


@pytest.mark.many_parameters
@pytest.mark.parametrize(
    "changes",
    [
        *({"best": {"val_dice": value}} for value in (*NOT_NUMBERS, -7, 7.5, "0.5")),
        *({"best": {"val_iou": value}} for value in (-3, 1.5, None)),
        *({"seconds": value} for value in (1e308, -1e308, -1, "5", None)),
        *({"epoch": value} for value in (-5, 0, 3.5, float("inf"), True)),
    ],
    ids=str,
)
def test_none_of_a_run_is_compared(refused: Refused, tmp_path: Path, changes: Metrics) -> None:
    run = make_run(tmp_path / "run")
    altered(run, changes)
    refused(compare.main, [str(run), f"output={tmp_path}/out"], "metrics.json")


@pytest.mark.parametrize(
    "line", ["3,1e308,,,", "3,0.1,,7.5,", "3,0.1,,-7,", "3,nan,,,", "-5,1,,,", "10000000000,1,,,"]
)
def test_nor_of_its_history(refused: Refused, tmp_path: Path, line: str) -> None:
    run = make_run(tmp_path / "run")
    with (run / "history.csv").open("a") as file:
        file.write(f"{line}\n")
    refused(compare.main, [str(run), f"output={tmp_path}/out"], "history.csv")


@pytest.mark.parametrize("dice", [float("nan"), -7.0, 7.5])
def test_nor_of_its_evaluations_and_their_cases(
    refused: Refused, tmp_path: Path, dice: float
) -> None:
    run = make_run(tmp_path / "run")
    add_evaluation(run, NAME, dice)
    refused(compare.main, [str(run), f"output={tmp_path}/out"], "metrics.json")
    shutil.rmtree(run / "evaluation")
    add_cases(run, NAME, {"a": 0.5, "b": 0.5}, {})
    cases = run / "evaluation" / NAME / "per_case.csv"
    cases.write_text(cases.read_text().replace("0.5", str(dice)))
    refused(compare.main, [str(run), f"output={tmp_path}/out"], "per_case.csv")
