"""scripts/compare.py case by case: paired tests, and the folds of a cross-validation together."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import compare
import pytest
from compare_runs import add_cases, add_evaluation, compared, make_run

NAME = "glas-test-native"
CASES = [f"c{i}" for i in range(12)]


def with_dice(value: float, step: float = 0.0) -> dict[str, float]:
    return {case: value + step * i for i, case in enumerate(CASES)}


def two_models(tmp_path: Path, first: dict[str, float], second: dict[str, float]) -> list[Path]:
    runs = [make_run(tmp_path / "a", 0.9), make_run(tmp_path / "b", 0.8, **{"model.name": "unet"})]
    for run, dice in zip(runs, (first, second), strict=True):
        add_cases(run, NAME, dice, {})
    return runs


class TestPairs:
    def test_a_row_is_compared_with_the_first_on_the_common_cases(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        second = with_dice(0.5, 0.01)
        second["other"] = 1.0
        del second["c11"]
        runs = two_models(tmp_path, with_dice(0.6, 0.02), second)
        (pair,) = compared(tmp_path, *runs)["pairs"][NAME]
        assert pair["cases"] == 11
        # 0.1 + 0.01 i less, i = 0..10
        assert pair["difference"] == pytest.approx(-0.15)
        assert (pair["name"], pair["reference"]) == ("model=unet", "model=medt")
        assert pair["p"] == pair["p_holm"] == pytest.approx(2 / 2**11)  # all one way: exact
        low, high = pair["interval"]
        assert -0.2 < low < -0.15 < high < -0.1
        printed = capsys.readouterr().out
        assert "glas test native, against model=medt" in printed
        row = next(line for line in printed.splitlines() if line.startswith("model=unet  "))
        assert "-0.1500" in printed
        assert "flipped at random" in printed
        assert row

    def test_a_case_counts_with_its_mean_over_seeds(self, tmp_path: Path) -> None:
        runs = two_models(tmp_path, with_dice(0.6), with_dice(0.7))
        runs.append(make_run(tmp_path / "c", 0.8, seed=1, **{"model.name": "unet"}))
        add_cases(runs[2], NAME, with_dice(0.3), {})
        (pair,) = compared(tmp_path, *runs)["pairs"][NAME]
        assert pair["dice"] == pytest.approx(0.5)
        assert pair["difference"] == pytest.approx(-0.1)

    def test_patients_count_as_one(self, tmp_path: Path) -> None:
        runs = [make_run(tmp_path / "a", 0.9), make_run(tmp_path / "b", 0.8, **{"loss.batch": 0})]
        patients = {case: f"p{i // 4}" for i, case in enumerate(CASES)}
        for run, dice in zip(runs, (0.6, 0.5), strict=True):
            add_cases(run, NAME, with_dice(dice), patients)
        (pair,) = compared(tmp_path, *runs)["pairs"][NAME]
        assert pair["p"] == pytest.approx(2 / 2**3)

    def test_of_a_single_patient_nothing_is_claimed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        runs = [make_run(tmp_path / "a", 0.9), make_run(tmp_path / "b", 0.8, **{"loss.batch": 0})]
        for run, dice in zip(runs, (0.6, 0.5), strict=True):
            add_cases(run, NAME, with_dice(dice), dict.fromkeys(CASES, "p"))
        (pair,) = compared(tmp_path, *runs)["pairs"][NAME]
        assert (pair["interval"], pair["p"], pair["p_holm"]) == (None, None, None)
        assert "-0.1000" in capsys.readouterr().out

    def test_p_values_are_corrected_for_their_number(self, tmp_path: Path) -> None:
        runs = two_models(tmp_path, with_dice(0.6), with_dice(0.5, 0.01))
        runs.append(make_run(tmp_path / "c", 0.7, **{"model.name": "fcn"}))
        add_cases(runs[2], NAME, with_dice(0.1), {})
        pairs = compared(tmp_path, *runs)["pairs"][NAME]
        assert [pair["name"] for pair in pairs] == ["model=unet", "model=fcn"]
        least = min(pair["p"] for pair in pairs)
        assert least == pytest.approx(2 / 2**12)
        assert min(pair["p_holm"] for pair in pairs) == pytest.approx(2 * least)

    def test_without_cases_in_common_there_is_no_table(self, tmp_path: Path) -> None:
        runs = two_models(tmp_path, {"x": 0.5}, {"y": 0.5})
        assert compared(tmp_path, *runs)["pairs"] == {}

    def test_results_without_a_table_of_cases_are_still_compared(self, tmp_path: Path) -> None:
        runs = [make_run(tmp_path / "a", 0.9), make_run(tmp_path / "b", 0.8, **{"loss.batch": 0})]
        for run in runs:
            add_evaluation(run, NAME, 0.5)
        report = compared(tmp_path, *runs)
        assert (report["evaluations"], report["pairs"]) == ([NAME], {})

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ("", "has no column case"),
            ("case,group\nc0,c0\n", "has no column dice"),
            ("case,group,dice\nc0,c0,high\n", "is missing or damaged"),
            ("case,dice\nc0,1\n", "has no column group"),
        ],
    )
    def test_a_damaged_table_is_named(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, what: str
    ) -> None:
        runs = two_models(tmp_path, with_dice(0.6), with_dice(0.5))
        table = runs[1] / "evaluation" / NAME / "per_case.csv"
        table.write_text(text)
        assert compare.main([*map(str, runs), f"output={tmp_path}/out"]) == 1
        assert capsys.readouterr().err.startswith(f"error: {table} {what}")


class TestFolds:
    def folds(self, tmp_path: Path, numbers: list[int], **changes: Any) -> list[Path]:
        """Runs of a cross-validation of three folds, four cases each; Dice 0.5 + fold / 10."""
        runs = []
        for fold in numbers:
            root = tmp_path / "runs" / f"{fold}-{len(changes)}"
            settings = {"dataset.folds": 3, "dataset.fold": fold, **changes}
            runs.append(make_run(root, 0.6 + fold / 10, **settings))
            dice = dict.fromkeys(CASES[4 * fold : 4 * fold + 4], 0.5 + fold / 10)
            add_cases(runs[-1], "glas-val-native", dice, {})
        return runs

    def test_are_one_row_and_their_cases_are_pooled(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        runs = self.folds(tmp_path, [0, 1, 2])
        (group,) = compared(tmp_path, *runs)["groups"]
        assert group["name"] == "glas medt"
        assert group["val_dice"] == pytest.approx({"mean": 0.7, "deviation": 0.1})
        assert [run["fold"] for run in group["runs"]] == [0, 1, 2]
        assert group["folds"]["of"] == 3
        pooled = group["folds"]["evaluations"]["glas-val-native"]
        assert pooled == pytest.approx({"cases": 12, "dice": 0.6})
        printed = capsys.readouterr().out
        assert "glas-val-native over the 12 cases of its folds: Dice 0.6000" in printed
        assert "warning" not in printed

    def test_a_missing_fold_is_a_warning(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        compared(tmp_path, *self.folds(tmp_path, [0, 2]))
        assert "warning: glas medt lacks fold 1 of 3 (seed 0)" in capsys.readouterr().out

    def test_the_same_fold_twice_is_a_warning(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        runs = self.folds(tmp_path, [0, 1, 2])
        twice = {"dataset.folds": 3, "dataset.fold": 2}
        compared(tmp_path, *runs, make_run(tmp_path / "again", 0.6, **twice))
        assert "runs of glas medt share a seed and fold" in capsys.readouterr().out

    def test_two_models_are_compared_over_all_folds(self, tmp_path: Path) -> None:
        runs = self.folds(tmp_path, [0, 1, 2])
        others = self.folds(tmp_path, [0, 1, 2], **{"model.name": "unet"})
        for run in others:
            table = run / "evaluation/glas-val-native/per_case.csv"
            rows = list(csv.reader(table.open()))
            lower = [",".join([*row[:3], str(float(row[3]) - 0.1)]) for row in rows[1:]]
            table.write_text("\n".join([",".join(rows[0]), *lower]) + "\n")
            metrics = run / "metrics.json"
            metrics.write_text(metrics.read_text().replace('"val_dice": 0.', '"val_dice": 0.0'))
        (pair,) = compared(tmp_path, *runs, *others)["pairs"]["glas-val-native"]
        assert (pair["name"], pair["cases"]) == ("model=unet", 12)
        assert pair["difference"] == pytest.approx(-0.1)
        assert pair["p"] == pytest.approx(2 / 2**12)

    def test_a_run_without_folds_is_another_row(self, tmp_path: Path) -> None:
        runs = self.folds(tmp_path, [0, 1, 2])
        plain = make_run(tmp_path / "plain", **{"dataset.folds": None, "dataset.fold": None})
        assert len(compared(tmp_path, *runs, plain)["groups"]) == 2
