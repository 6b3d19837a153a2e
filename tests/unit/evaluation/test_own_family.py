"""A metric of one's own: one object given to the evaluation is in every output."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest
from rich.console import Console
from sample_evaluation import evaluation_of

from medt.data.layout import default_classes
from medt.evaluation.tables import render, write_evaluation
from medt.metrics.families import FAMILIES
from medt.metrics.family import Chart, Column, Family, Measured, Table, number
from medt.metrics.pixel import SCORES
from medt.report.page import Origin, render_report

NAMES = ("background", "gland")
TRUTH = np.array([[0, 1, 1, 1, 0]])
CASES = [("a", "", TRUTH), ("b", "", np.array([[0, 1, 0, 0, 0]]))]


class RowCount(Family):
    """How many pixels of a row are found, as a share, and the largest row."""

    name = "rows"
    part = "mine"
    means = ("share",)
    rules = "Share: of a row."

    def measure(self, masks):
        shares = {
            name: {"share": float((predicted & true).sum() / true.sum())}
            for name, predicted, true in masks.foreground()
        }
        return Measured(int(masks.prediction.sum()), {"found": 1.5}, classes=shares)

    def summarize(self, split):
        return {"mine": {"largest": max(split.sums), **split.means(self.means)}}

    def columns(self, summary):
        yield Column("share", "My share")
        yield Column("found", "My length", 1, "millimetres")

    def tables(self, summary):
        part = summary["mine"]
        row = [number(part["share"]["foreground"]), str(part["largest"])]
        yield Table("my table", ["share", "largest"], [["all", *row]], "my note")

    def charts(self, summary):
        yield Chart("My chart", "x", "y", {"line": ([0, 1], [0, 1])})


def outputs(evaluation, folder):
    """The metrics, the cases, and what the terminal and the report show."""
    text = io.StringIO()
    Console(file=text, width=80).print(render(evaluation, details=True))
    page = render_report(evaluation, default_classes(list(NAMES)), [], Origin("t", {}, "", None))
    write_evaluation(evaluation, folder, page)
    rows = list(csv.DictReader((folder / "per_case.csv").open()))
    shown = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    return json.loads((folder / "metrics.json").read_text()), rows, text.getvalue(), shown


def test_an_own_family_is_in_every_output(tmp_path):
    evaluation = evaluation_of(CASES, TRUTH, NAMES, ("pixel", "mine"), (*FAMILIES, RowCount()))
    metrics, rows, screen, page = outputs(evaluation, tmp_path)
    assert metrics["scores"] == ["pixel", "mine"]
    assert metrics["mine"]["largest"] == 3
    assert metrics["mine"]["share"]["foreground"] == pytest.approx((1 + 1 / 3) / 2)
    low, high = metrics["intervals"]["mean_over_cases"]["share"]["classes"]["gland"]
    assert (low, high) == pytest.approx((1 / 3, 1))
    assert "Share: of a row." in metrics["rules"]
    assert [row["share"] for row in rows] == ["1.000000", "0.333333"]
    assert [row["share_gland"] for row in rows] == ["1.000000", "0.333333"]
    assert rows[0]["found_mm"] == "1.500000"
    assert "my table |  share | largest" in screen
    assert "all      | 0.6667 |       3\nmy note" in screen.replace(" \n", "\n")
    for words in ("My table", "my note", "all 0.6667 3", "My share My length (mm)", "My chart"):
        assert words in page
    assert "Share: of a row." in page


def test_an_own_pixel_score_is_in_every_output(tmp_path, monkeypatch):
    monkeypatch.setitem(SCORES, "false_discovery", lambda counts, empty: counts.fp / 4)
    evaluation = evaluation_of(CASES, TRUTH, NAMES, ("pixel",))
    metrics, rows, screen, page = outputs(evaluation, tmp_path)
    of_background = (0 + 2 / 4) / 2
    means = metrics["mean_over_cases"]["false_discovery"]
    assert means["classes"] == {"background": pytest.approx(of_background), "gland": 0}
    assert metrics["pooled"]["false_discovery"]["classes"]["background"] == 2 / 4
    assert "false_discovery" in metrics["intervals"]["pooled"]
    assert rows[1]["false_discovery_background"] == "0.500000"
    assert rows[1]["false_discovery"] == "0.000000"
    assert "False discovery" in screen
    assert page.count("False discovery") == 3  # both tables, and that of cases
