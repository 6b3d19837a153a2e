"""Scores follow the task: what is measured, shown and written of each part, and no more."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console
from sample_evaluation import evaluation_of as scored

from medt.data.layout import default_classes
from medt.errors import UserError
from medt.evaluation.parts import PARTS, USUAL, parts_of
from medt.evaluation.tables import render
from medt.report.page import Origin, render_report

NAMES = ("background", "vessel")


def evaluation_of(parts):
    truth = np.zeros((9, 20), int)
    truth[4, 2:18] = 1
    half = truth.copy()
    half[:, 10:] = 0
    return scored([("c0", "", truth), ("c1", "", half)], truth, NAMES, parts)


def shown(evaluation):
    text = io.StringIO()
    Console(file=text, width=80).print(render(evaluation, details=True))
    return text.getvalue()


WORDS = {
    "pixel": ("Specificity", "ROC AUC", "Brier score"),
    "boundary": ("HD95", "oundaries (mean)"),
    "objects": ("AJI", "GlaS", "found, 0 missed"),
    "topology": ("clDice", "entrelines (mean)"),
}


@pytest.mark.parametrize(
    "parts", [("pixel",), ("pixel", "topology"), ("pixel", "boundary"), USUAL, PARTS]
)
def test_each_part_is_shown_where_it_is_asked_for_and_nowhere_else(parts):
    evaluation = evaluation_of(parts)
    screen = shown(evaluation)
    page = render_report(evaluation, default_classes(list(NAMES)), [], Origin("t", {}, "", None))
    for part, words in WORDS.items():
        for word in words:
            for text in (screen, page):
                assert (word in text) == (part in parts), (part, word)
    assert evaluation.summary["scores"] == list(parts)


def test_the_topology_is_that_of_its_cases():
    topology = evaluation_of(("pixel", "topology")).summary["topology"]
    # whole: 1; half: precision 1, recall 1/2
    assert topology["cldice"]["foreground"] == pytest.approx((1 + 2 / 3) / 2)
    assert topology["centreline_recall"]["classes"]["vessel"] == pytest.approx((1 + 1 / 2) / 2)


def test_areas_under_curves_are_over_cases_and_pooled():
    ranking = evaluation_of(("pixel",)).summary["ranking"]
    # Certain: of 16 pixels 8 are ranked above, 8 equal to all of the background.
    assert ranking["mean_over_cases"]["roc_auc"] == pytest.approx((1 + 3 / 4) / 2)
    assert ranking["pooled"]["roc_auc"] == pytest.approx(7 / 8)
    half = 1 / 2 + 1 / 2 * 16 / 180  # at the threshold 0 all pixels are taken
    assert ranking["mean_over_cases"]["pr_auc"] == pytest.approx((1 + half) / 2)


class TestChoice:
    @pytest.mark.parametrize(
        ("asked", "dataset", "expected"),
        [
            (None, "drive", ("pixel", "topology")),
            (None, "glas", USUAL),
            (None, "folder", USUAL),
            (["topology"], "folder", ("pixel", "topology")),
            (["objects", "boundary", "pixel"], "drive", USUAL),
        ],
    )
    def test_is_the_datasets_or_the_users(self, asked, dataset, expected):
        assert parts_of(asked, dataset, "native") == expected

    def test_the_challenge_has_its_objects(self):
        assert parts_of(["pixel"], "glas", "glas_challenge") == ("pixel", "objects")

    def test_what_is_not_known_is_refused(self):
        with pytest.raises(UserError, match="skeleton is not known"):
            parts_of(["pixel", "skeleton"], "drive", "native")
