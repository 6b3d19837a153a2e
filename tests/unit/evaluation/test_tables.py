"""Results on disk and in the terminal: strict, complete, never overwritten."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from sample_evaluation import sample_evaluation

from medt.evaluation.evaluate import Evaluation
from medt.evaluation.tables import claimed_result, render, write_evaluation
from medt.metrics.empty import EMPTY_RULES
from medt.metrics.pixel import RULES as PIXEL_RULES

RULES = f"{EMPTY_RULES['skip']}\n{PIXEL_RULES}"

REPORT = "<!DOCTYPE html>"


@pytest.fixture
def evaluation():
    return sample_evaluation()


def write(evaluation, folder):
    """Write into the first free folder; returns it."""
    with claimed_result(Path(folder)) as free:
        write_evaluation(evaluation, free, REPORT)
    return free


def no_constants(name):
    raise AssertionError(f"{name} is no JSON")


class TestFiles:
    def test_are_three(self, evaluation, tmp_path):
        folder = write(evaluation, tmp_path / "test")
        assert folder == tmp_path / "test"
        assert sorted(p.name for p in folder.iterdir()) == [
            "metrics.json",
            "per_case.csv",
            "report.html",
        ]
        assert (folder / "report.html").read_text() == REPORT

    def test_json_is_strict_and_holds_the_summary(self, evaluation, tmp_path):
        folder = write(evaluation, tmp_path / "test")
        text = (folder / "metrics.json").read_text(encoding="utf-8")
        stored = json.loads(text, parse_constant=no_constants)
        assert stored["cases"] == 2
        dice = stored["mean_over_cases"]["dice"]
        assert dice["classes"]["gland"] == pytest.approx((4 / 5 + 1) / 2)
        assert dice["classes"]["tumour"] is None
        assert dice["left_out"]["classes"]["tumour"] == 2
        assert "\n".join(stored["rules"]).startswith(RULES)

    def test_csv_has_a_line_per_case(self, evaluation, tmp_path):
        folder = write(evaluation, tmp_path / "test")
        text = (folder / "per_case.csv").read_text(encoding="utf-8")
        first, second = csv.DictReader(io.StringIO(text))
        assert (first["case"], first["group"]) == ("ä_1", "patient, 1")
        assert (first["height"], first["width"]) == ("2", "3")
        assert float(first["dice_gland"]) == float(first["dice"]) == 0.8
        assert (first["tp_gland"], first["fp_gland"], first["fn_gland"]) == ("2", "0", "1")
        assert first["tn_gland"] == "3"
        assert float(first["accuracy_gland"]) == pytest.approx(5 / 6, abs=1e-6)
        assert float(first["ece"]) == pytest.approx(1 / 6, abs=1e-6)
        assert first["dice_tumour"] == ""
        assert second["iou_gland"] == "1.000000"

    def test_are_never_overwritten(self, evaluation, tmp_path):
        folders = [write(evaluation, tmp_path / "test") for _ in range(3)]
        assert [f.name for f in folders] == ["test", "test-2", "test-3"]

    def test_are_not_overwritten_in_the_current_folder_either(
        self, evaluation, tmp_path, monkeypatch
    ):
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        assert write(evaluation, ".").resolve() == tmp_path / "here"
        assert write(evaluation, ".").resolve() == tmp_path / "here-2"

    def test_go_into_a_folder_that_holds_no_result(self, evaluation, tmp_path):
        (tmp_path / "test").mkdir()
        (tmp_path / "test" / "notes.txt").touch()
        assert write(evaluation, tmp_path / "test") == tmp_path / "test"


class TestTable:
    def lines(self, evaluation, width=80):
        text = io.StringIO()
        Console(file=text, width=width).print(render(evaluation, details=True))
        return text.getvalue().splitlines()

    def cell(self, evaluation, table, name, column):
        """Of a table, which may be shown in several parts."""
        titles = []
        for line in self.lines(evaluation):
            first, *cells = (cell.strip() for cell in line.split("|"))
            if first == table:
                titles = cells
            elif first == name and column in titles:
                return cells[titles.index(column)]
        raise AssertionError(f"{table} has no {column} of {name}")

    def test_fits_80_columns_without_cutting_a_number(self, evaluation):
        lines = self.lines(evaluation)
        assert max(map(len, lines)) <= 80
        assert not any("…" in line for line in lines)

    def test_shows_both_reductions_of_every_class(self, evaluation):
        mean = self.cell(evaluation, "pixels (mean)", "gland", "Dice")
        assert float(mean) == pytest.approx((4 / 5 + 1) / 2)
        pooled = self.cell(evaluation, "pixels (pooled)", "gland", "Dice")
        assert float(pooled) == pytest.approx(10 / 11, abs=1e-4)

    def test_shows_the_scores_with_true_negatives_and_the_calibration(self, evaluation):
        table = "pixels (mean)"
        assert self.cell(evaluation, table, "gland", "Accuracy") == "0.9167"  # of 5/6 and 1
        row = "calibration", "pooled over the split"
        assert self.cell(evaluation, *row, "expected error") == "0.0833"
        assert self.cell(evaluation, *row, "Brier score") == "0.0833"

    def test_shows_boundaries_objects_and_intervals(self):
        text = "\n".join(self.lines(sample_evaluation(groups=("p1", "p2"))))
        assert "| HD95 (px) | NSD at 2 px | one mask empty" in text
        assert "objects of gland" in text
        assert "GlaS scores of gland" in text
        assert "below each score its 95% interval, over 2 cases" in text
        assert "0.80-1.00" in text

    def test_shows_a_notebook_the_means(self, evaluation):
        assert repr(evaluation).splitlines() == [
            "Evaluation: protocol native, cases 2",
            "foreground, mean over cases: dice 0.9000, iou 0.8333",
            ".rows has the scores of each case, .summary all others",
        ]

    def test_shows_what_was_left_out(self, evaluation):
        row = "pixels (mean)", "tumour"
        assert self.cell(evaluation, *row, "Dice") == "-"
        assert self.cell(evaluation, *row, "left out") == "2"

    def test_says_what_was_measured_and_by_which_rules(self, evaluation):
        text = " ".join(self.lines(evaluation))
        assert "2 cases (test), protocol native" in text
        assert "network size 128 x 128" in text
        assert "protocol native: each case at its own size" in text
        assert " ".join(RULES.split()) in " ".join(text.split())

    def test_reads_the_same_in_a_file_of_plain_ascii(self, evaluation):
        assert all(line.isascii() for line in self.lines(evaluation))

    def test_takes_long_names_and_brackets_as_they_are(self, evaluation):
        names = ("background", "[red]" + "x" * 40, "tumour")
        summary = json.loads(json.dumps(evaluation.summary).replace('"gland"', f'"{names[1]}"'))
        rows = json.loads(json.dumps(evaluation.rows).replace('"gland"', f'"{names[1]}"'))
        lines = self.lines(Evaluation("native", names, rows, summary))
        assert max(map(len, lines)) <= 80
        assert any("[red]" in line for line in lines)
