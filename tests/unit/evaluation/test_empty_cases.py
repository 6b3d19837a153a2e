"""Where many images show nothing to find: screen, files and page, against values by hand."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from medt.data.dataset import SegmentationDataset
from medt.data.layout import Case, default_classes
from medt.data.preprocessing import Preprocessing
from medt.evaluation.evaluate import evaluate
from medt.evaluation.headline import headline
from medt.evaluation.tables import render, write_evaluation
from medt.inference.instances import NO_RULE
from medt.inference.predictor import Predictor
from medt.io.files import write_png
from medt.report.page import Origin, render_report
from medt.report.panels import choose_cases, draw_panel

SIDE = 16
STEPS = Preprocessing((SIDE, SIDE), 3, (0.0,) * 3, (1.0,) * 3)


class Channels(nn.Module):
    """Certain of the class that the colour of the image says."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 99 * x[:, : self.classes]


def predictor(*names):
    return Predictor(Channels(len(names)), STEPS, default_classes(list(names)))


def square(row, column, side=4, class_id=1):
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[row : row + side, column : column + side] = class_id
    return mask


NOTHING = square(0, 0, 0)
LEFT, RIGHT = square(2, 2), square(2, 10)
# Predicted, true: two lesions of which one is found; one missed; silence twice; two false alarms.
PAIRS = [
    (LEFT, LEFT + RIGHT),  # Dice 2 * 16 / 48 = 2/3
    (NOTHING, LEFT),  # 0
    (NOTHING, NOTHING),
    (NOTHING, NOTHING),
    (square(9, 9, 2), NOTHING),
    (square(9, 9, 3) + square(1, 1, 1), NOTHING),
]


@pytest.fixture
def make_dataset(tmp_path):
    def make(pairs):
        cases = []
        for i, (predicted, true) in enumerate(pairs):
            paths = tmp_path / f"{i}.png", tmp_path / f"{i}_mask.png"
            write_png(paths[0], (255 * np.eye(3)[predicted]).astype(np.uint8))
            write_png(paths[1], true)
            cases.append(Case(f"case_{i}", *paths, None, "", "test"))
        return SegmentationDataset(cases, STEPS)

    return make


@pytest.fixture
def score(make_dataset):
    def run(empty="skip", detail=True):
        two = predictor("background", "lesion")
        return evaluate(two, make_dataset(PAIRS), detail=detail, empty=empty)

    return run


@pytest.mark.parametrize(
    ("empty", "dice", "left_out"),
    [("skip", (2 / 3 + 0) / 2, 4), ("alarms", 2 / 3 / 4, 2), ("one", (2 / 3 + 2) / 6, 0)],
)
def test_the_mean_is_over_the_cases_that_the_rule_names(score, empty, dice, left_out):
    summary = score(empty).summary
    part = summary["mean_over_cases"]["dice"]
    assert part["foreground"] == part["classes"]["lesion"] == pytest.approx(dice)
    assert part["left_out"]["foreground"] == left_out
    low, high = summary["intervals"]["mean_over_cases"]["dice"]["foreground"]
    assert low < dice < high
    pooled = summary["pooled"]["dice"]["foreground"]  # over all cases: tp 16, fp 14, fn 32
    assert pooled == pytest.approx(32 / 78)


@pytest.mark.parametrize(
    ("empty", "hd95", "nsd"),
    [
        # Half of the boundary within 2 pixels is 24 of 36; the diagonal where a mask is empty.
        ("skip", ["x", "d", "", "", "", ""], [12 * 2 / 36, 0, "", "", "", ""]),
        ("alarms", ["x", "d", "", "", "d", "d"], [12 * 2 / 36, 0, "", "", 0, 0]),
        ("one", ["x", "d", 0, 0, "d", "d"], [12 * 2 / 36, 0, 1, 1, 0, 0]),
    ],
)
def test_boundaries_follow_the_same_rule(score, empty, hd95, nsd):
    evaluation = score(empty)
    rows = [row["classes"]["lesion"] for row in evaluation.rows]
    diagonal = SIDE * math.sqrt(2)
    known = {"": math.nan, "d": diagonal, "x": rows[0]["hd95"]}
    np.testing.assert_allclose([row["hd95"] for row in rows], [known.get(x, x) for x in hd95])
    np.testing.assert_allclose([row["nsd"] for row in rows], [known.get(x, x) for x in nsd])
    assert evaluation.summary["boundary"]["one_empty"]["lesion"] == hd95.count("d")


def test_the_first_lines_say_what_was_found_missed_and_made_up(score):
    evaluation = score()
    lines = [
        "foreground Dice 0.3333, mean over 2 cases with foreground (empty=skip)",
        # 4 + (9 + 1) pixels in four images
        "4 cases without foreground: false alarms in 2 (0.50 an image), 3.5 pixels an image",
        "objects of lesion: 1 found, 2 missed, 3 false at IoU 0.1; "
        "1 found, 2 missed, 3 false at IoU 0.5",
    ]
    assert list(headline(evaluation.summary)) == lines
    text = io.StringIO()
    Console(file=text, width=200).print(render(evaluation, details=True))
    assert " ".join(lines) in " ".join(text.getvalue().split())
    assert "empty=skip: a class absent from the truth of a case is left out" in text.getvalue()


@pytest.mark.parametrize(
    ("empty", "line"),
    [
        ("alarms", "0.1667, mean over 4 cases with foreground or false alarms (empty=alarms)"),
        (
            "one",
            "0.4444, mean over 6 cases, an empty mask predicted empty counting 1 (empty=one)",
        ),
    ],
)
def test_another_rule_is_named_in_the_first_line(score, empty, line):
    evaluation = score(empty)
    assert next(headline(evaluation.summary)) == f"foreground Dice {line}"
    assert f"empty={empty}: a class absent" in " ".join(evaluation.summary["rules"])


def test_without_lesions_there_is_no_dice(make_dataset):
    dataset = make_dataset(PAIRS[2:])
    summary = evaluate(predictor("background", "lesion"), dataset, "paper").summary
    assert list(headline(summary)) == [
        "no Dice: none of the 4 cases has foreground in the truth",
        "4 cases without foreground: false alarms in 2 (0.50 an image), 3.5 pixels an image",
    ]


def test_files_hold_the_same(score, tmp_path):
    evaluation = score()
    folder = tmp_path / "result"
    folder.mkdir()
    write_evaluation(evaluation, folder, "")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["empty"] == "skip"
    part = {"with": 2, "without": 4, "alarms": 2, "pixels": 14}
    assert metrics["false_alarms"] == {"foreground": part, "classes": {"lesion": part}}
    counts = {"found": 1, "missed": 2, "false": 3}
    assert metrics["lesions"] == {"lesion": {"0.1": counts, "0.5": counts}}
    rows = list(csv.DictReader((folder / "per_case.csv").open()))
    columns = "true_foreground", "predicted_foreground"
    pixels = [tuple(int(row[key]) for key in columns) for row in rows]
    assert pixels == [(32, 16), (16, 0), (0, 0), (0, 0), (0, 4), (0, 10)]
    assert [row["dice"] for row in rows] == ["0.666667", "0.000000", "", "", "", ""]
    kinds = [f"{kind}_iou10_lesion" for kind in ("found", "missed", "false")]
    found = [tuple(int(row[key]) for key in kinds) for row in rows]
    assert found == [(1, 1, 0), (0, 1, 0), (0, 0, 0), (0, 0, 0), (0, 0, 1), (0, 0, 2)]


def test_the_page_shows_the_first_lines_the_areas_and_the_largest_false_alarms(score, make_dataset):
    evaluation = score()
    two = predictor("background", "lesion")
    dataset = make_dataset(PAIRS)
    chosen = choose_cases(evaluation.rows, 1)
    assert chosen == [(1, "worst"), (0, "best"), (5, "false alarm")]
    dice = [evaluation.rows[i]["foreground"]["dice"] for i, _ in chosen]
    panels = [
        draw_panel(two, dataset, i, rank, value, NO_RULE)
        for (i, rank), value in zip(chosen, dice, strict=True)
    ]
    origin = Origin("lesions test", {}, "", None)
    page = render_report(evaluation, two.classes, panels, origin)
    for line in headline(evaluation.summary):
        assert f"<p>{line}</p>" in page
    assert "<h3>false alarm: case_5</h3>" in page
    assert "nan" not in page.partition('id="cases"')[0].partition("<body>")[2]
    assert '<td data-value="0">0</td><td data-value="10">10</td>' in page


def test_of_several_classes_each_counts_where_the_truth_has_it(make_dataset):
    """A benign lesion with a malignant false alarm beside it: the case's Dice is the benign's."""
    both = LEFT + square(9, 9, 3, class_id=2)
    dataset = make_dataset([(both, LEFT), (square(9, 9, 3, 2), square(9, 9, 3, 2))])
    three = predictor("background", "benign", "malignant")
    evaluation = evaluate(three, dataset, detail=True)
    part = evaluation.summary["mean_over_cases"]["dice"]
    assert part["foreground"] == 1
    assert part["classes"]["malignant"] == 1
    assert list(headline(evaluation.summary))[1:] == [
        "no case without foreground",
        "1 case without benign: false alarms in 0 (0.00 an image), 0.0 pixels an image",
        "1 case without malignant: false alarms in 1 (1.00 an image), 9.0 pixels an image",
        "objects of benign: 1 found, 0 missed, 0 false at IoU 0.1; "
        "1 found, 0 missed, 0 false at IoU 0.5",
        "objects of malignant: 1 found, 0 missed, 1 false at IoU 0.1; "
        "1 found, 0 missed, 1 false at IoU 0.5",
    ]
    strict = evaluate(three, dataset, empty="alarms").summary["mean_over_cases"]["dice"]
    assert strict["foreground"] == pytest.approx((1 / 2 + 1) / 2)
