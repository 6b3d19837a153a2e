"""report.html as text: complete, self-contained, and safe whatever names it shows."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from sample_evaluation import NAMES, sample_evaluation

from medt.data.layout import SegmentationClass
from medt.drawing import ERROR_COLORS, error_map
from medt.evaluation.headline import first_lines
from medt.report.page import Origin, render_report
from medt.report.panels import Panel, choose_cases

PIXEL = "data:image/png;base64,iVBORw0KGgo="
CURVES = {
    "train_loss": {1: 1.2, 2: 0.9},
    "val_loss": {2: 1.0},
    "val_dice": {2: 0.6},
    "gate.block.qr": {1: 0.1, 2: 0.2},
    "gate.block.sv": {1: 1.0, 2: 0.9},
}
COLORS = [(0, 0, 0), (0, 158, 115), (213, 94, 0)]


class Links(HTMLParser):
    """Collects what a page would load or lead to, and its ids."""

    def __init__(self, page):
        super().__init__()
        self.addresses, self.ids, self.tags = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "data", "action", "srcset"):
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)


def page(evaluation=None, panels=(), curves=CURVES, facts=None, names=NAMES):
    classes = [SegmentationClass(*one) for one in zip(range(3), names, COLORS, strict=True)]
    origin = Origin("glas val", facts or {"command": "python"}, "seed: 0\n", curves)
    return render_report(evaluation or sample_evaluation(names), classes, panels, origin)


def text(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


class TestContent:
    def test_the_headline_has_scores_with_intervals(self):
        cards = re.findall(r'class="card">(.*?)</div>', page())
        assert [re.split("<b>|</b>", card)[:2] for card in cards] == [
            ["Dice", "0.9000"],
            ["IoU", "0.8333"],
            ["HD95 (px)", "0.45"],  # 95th percentile of 0, 0, 1; and 0
            ["object F1", "1.0000"],
            ["count error", "0.00"],
        ]
        assert all("no interval" in card for card in cards)  # both cases are one patient's
        alone = page(sample_evaluation(groups=("p1", "p2")))
        assert "0.80-1.00" in alone

    @pytest.mark.parametrize(
        ("groups", "line"),
        [
            (("p1", "p2"), "below each score its 95% interval, over 2 cases"),
            (("p1", "p1"), "no intervals: all 2 cases are of one group, p1 (groups)"),
            (("p1",), "no intervals: there is one case"),
        ],
    )
    def test_says_like_the_terminal_what_the_intervals_are_over(self, groups, line):
        evaluation = sample_evaluation(cases=("a", "b")[: len(groups)], groups=groups)
        assert line in text(page(evaluation))
        assert line in first_lines(evaluation, every=False)

    def test_every_class_group_and_reduction_has_its_row(self):
        shown = text(page())
        for title in ("Pixels (mean)", "Pixels (pooled)", "Groups"):
            assert title in shown
        assert "patient, 1 2 0.9000" in shown  # the group, its cases and their mean Dice
        for name in NAMES:
            assert shown.count(name) > 2

    def test_charts_of_evaluation_and_training(self):
        titles = re.findall(r"<figcaption>(.*?)</figcaption>", page())
        assert titles[0] == "Dice of every case"
        assert titles[1].startswith("Calibration")
        assert titles[2:] == [
            "Training: loss",
            "Training: validation Dice",
            "Training: gates",
        ]

    def test_without_a_history_the_page_says_so(self):
        assert "no history.csv" in page(curves=None)

    def test_a_network_without_gates_has_no_chart_of_them(self):
        curves = {name: curve for name, curve in CURVES.items() if "gate" not in name}
        assert "Training: gates" not in page(curves=curves)

    def test_the_confusion_matrix_counts_pixels(self):
        shown = text(page()).partition("percent of the row. ")[2]
        assert shown.startswith("truth background gland tumour background 100.00 % 6 0.00 % 0")
        assert "gland 16.67 % 1 83.33 % 5 0.00 % 0" in shown

    def test_facts_config_and_rules_stand_at_the_end(self):
        shown = text(page(facts={"checkpoint": "best.pt (SHA-256 abc)"}))
        assert "checkpoint best.pt (SHA-256 abc)" in shown
        assert "seed: 0" in shown
        assert "Foreground: the mean over all classes but the first" in shown

    def test_a_pictured_case_is_linked_to_its_panel(self):
        panel = Panel("b", "best", 1.0, [("image", PIXEL), ("errors", PIXEL)])
        html = page(panels=[panel])
        assert '<a href="#panel-1">b</a>' in html
        assert 'id="panel-1"' in html
        assert "best: b, Dice 1.0000" in html
        assert "ä_1</a>" not in html


class TestSafety:
    def test_nothing_is_loaded_from_anywhere(self):
        found = Links(page(panels=[Panel("b", "best", 1.0, [("image", PIXEL)])]))
        assert all(address.startswith(("#", "data:")) for address in found.addresses)
        assert found.tags.count("script") == 1
        assert {a[1:] for a in found.addresses if a.startswith("#")} <= set(found.ids)

    def test_names_are_text_and_never_markup(self):
        hostile = '<script>alert("1")</script>'
        names = ("background", hostile, "{{ 7*7 }}")
        evaluation = sample_evaluation(names, cases=(hostile, '"><img src=x>'))
        panel = Panel(hostile, "worst", 0.8, [(hostile, PIXEL)])
        html = page(evaluation, [panel], facts={hostile: hostile}, names=names)
        found = Links(html)
        assert found.tags.count("script") == 1
        assert "x" not in found.addresses
        assert "{{ 7*7 }}" in html
        assert "&lt;script&gt;" in html

    def test_controls_are_seen_as_escapes(self):
        hostile = "\x1b[2J\x9b\u202e\udcff"
        evaluation = sample_evaluation(cases=(hostile, "b"), groups=(hostile, "g\r"))
        html = page(evaluation, facts={hostile: hostile})
        assert html.replace("\n", "").isprintable()
        assert r"\x1b[2J\x9b\u202e\udcff" in html

    def test_a_dollar_in_a_name_is_no_formula_and_a_missing_glyph_no_warning(self, recwarn):
        names = ("background", "$\\frac$", "腺\u0e3f")
        page(
            sample_evaluation(names), names=names, curves={**CURVES, "gate.$\\frac$\x1b": {1: 1.0}}
        )
        assert [str(warning.message) for warning in recwarn] == []


class TestChoice:
    def rows(self, *dice, areas=None):
        areas = areas or [5] * len(dice)
        return [
            {"foreground": {"dice": value}, "predicted_foreground": area}
            for value, area in zip(dice, areas, strict=True)
        ]

    def test_worst_median_and_best_in_order(self):
        rows = self.rows(0.9, 0.1, 0.5, 0.7, 0.3, 0.6, 0.8)
        chosen = choose_cases(rows, 1)
        assert [(rows[i]["foreground"]["dice"], rank) for i, rank in chosen] == [
            (0.1, "worst"),
            (0.6, "median"),
            (0.9, "best"),
        ]

    @pytest.mark.parametrize("count", range(1, 12))
    @pytest.mark.parametrize("each", range(5))
    def test_every_case_at_most_once_and_all_of_few(self, count, each):
        chosen = [i for i, _ in choose_cases(self.rows(*np.linspace(0, 1, count)), each)]
        assert chosen == sorted(set(chosen))
        assert len(chosen) == min(count, 3 * each)

    def test_cases_without_a_dice_are_the_largest_false_alarms(self):
        nan = float("nan")
        rows = self.rows(nan, 0.5, nan, nan, nan, areas=[3, 9, 0, 7, 5])
        expected = [(1, "worst"), (3, "false alarm"), (4, "false alarm")]
        assert choose_cases(rows, 2) == expected


def test_the_error_map_tells_what_is_missed_added_and_confused():
    truth = np.array([[0, 1, 1, 1, 0, 255]])
    prediction = np.array([[0, 1, 0, 2, 2, 1]])
    expected = [(255, 255, 255), *ERROR_COLORS.values(), (128, 128, 128)]
    order = [0, 1, 2, 4, 3, 5]  # the legend names added before confused
    assert [tuple(map(int, p)) for p in error_map(truth, prediction)[0]] == [
        expected[i] for i in order
    ]
