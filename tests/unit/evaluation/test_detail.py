"""A detailed evaluation: boundaries, objects, calibration, intervals and their tables."""

from __future__ import annotations

import base64
import csv
import io
import math

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console
from test_own_family import RowCount
from torch import nn

from medt.data.dataset import SegmentationDataset
from medt.data.labels import Labels
from medt.data.layout import Case, default_classes
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError
from medt.evaluation.evaluate import evaluate
from medt.evaluation.tables import render, write_evaluation
from medt.inference.instances import NO_RULE, InstanceRule
from medt.inference.predictor import Predictor
from medt.io.files import write_png
from medt.metrics.families import FAMILIES
from medt.metrics.pixel_size import PixelSize
from medt.report.panels import draw_panel

SIZE = 16
STEPS = Preprocessing((SIZE, SIZE), 3, (0.0,) * 3, (1.0,) * 3)


class Bright(nn.Module):
    """Certain foreground where the image is white."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([0.5 - x[:, 0], x[:, 0] - 0.5], dim=1) * 40


PREDICTOR = Predictor(Bright(), STEPS, default_classes(["background", "gland"]))


def squares(*corners, side=4):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for row, column in corners:
        mask[row : row + side, column : column + side] = 1
    return mask


@pytest.fixture
def make_dataset(tmp_path):
    """A dataset of (name, group, predicted mask, truth, object numbers or None)."""

    def make(*cases):
        made = []
        for name, group, predicted, truth, instances in cases:
            files = [tmp_path / f"{name}_{kind}.png" for kind in ("image", "mask", "instances")]
            write_png(files[0], np.repeat(predicted[..., None] * 255, 3, axis=2))
            write_png(files[1], truth)
            if instances is not None:
                write_png(files[2], instances)
            numbered = files[2] if instances is not None else None
            made.append(Case(name, files[0], files[1], numbered, group, "test"))
        return SegmentationDataset(made, STEPS, Labels({0: 0, 1: 1}, ignore=255))

    return make


LEFT, RIGHT = squares((2, 2)), squares((2, 10))
BOTH = squares((2, 2), (2, 10))


def test_objects_are_components_where_the_dataset_has_no_numbers(make_dataset):
    evaluation = evaluate(PREDICTOR, make_dataset(("a", "", LEFT, BOTH, None)), detail=True)
    gland = evaluation.rows[0]["classes"]["gland"]
    assert (gland["objects_true"], gland["objects_predicted"]) == (2, 1)
    assert gland["object_f1_iou50"] == gland["object_f1_glas"] == pytest.approx(2 / 3)
    assert gland["aji"] == 0.5
    assert gland["pq"] == pytest.approx(2 / 3)


def test_objects_are_the_datasets_numbers_where_it_has_them(make_dataset):
    touching = squares((2, 2), (2, 6))
    numbers = touching.copy()
    numbers[:, 6:] *= 7
    dataset = make_dataset(("a", "", touching, touching, numbers))
    gland = evaluate(PREDICTOR, dataset, detail=True).rows[0]["classes"]["gland"]
    assert (gland["objects_true"], gland["objects_predicted"]) == (2, 1)


def test_boundaries_are_in_pixels_or_micrometres(make_dataset):
    dataset = make_dataset(("a", "", squares((2, 3)), squares((2, 2)), None))
    pixels = evaluate(PREDICTOR, dataset, detail=True, tolerance=0.5)
    assert pixels.rows[0]["classes"]["gland"]["hd95"] == pixels.rows[0]["foreground"]["hd95"] == 1
    assert pixels.summary["boundary"]["unit"] == "pixels"
    fine = evaluate(PREDICTOR, dataset, detail=True, tolerance=0.5, pixel_size=0.25)
    assert fine.rows[0]["foreground"]["hd95"] == 0.25
    assert fine.rows[0]["foreground"]["nsd"] == 1 > pixels.rows[0]["foreground"]["nsd"]
    assert fine.summary["boundary"]["unit"] == "micrometres"
    assert fine.summary["boundary"]["pixel_size"] == 0.25


def test_distances_are_those_of_pixels_that_are_taller_than_wide(make_dataset):
    numbers = squares((2, 2))
    dataset = make_dataset(("a", "", squares((5, 2)), numbers, numbers))
    size = PixelSize.of(["0.2mm", "0.1mm"])
    native = evaluate(PREDICTOR, dataset, detail=True, tolerance=0.6, pixel_size=size)
    gland = native.rows[0]["classes"]["gland"]
    assert gland["hd95"] == pytest.approx(3 * 0.2)
    assert gland["object_hausdorff"] == pytest.approx(3 * 0.2)
    assert gland["nsd"] == 1
    assert native.summary["boundary"]["unit"] == "millimetres"
    assert native.summary["boundary"]["pixel_size"] == [0.2, 0.1]
    assert native.summary["objects"]["gland"]["unit"] == "millimetres"


def test_the_challenges_distances_stay_in_pixels(make_dataset):
    numbers = squares((2, 2))
    dataset = make_dataset(("a", "", squares((5, 2)), numbers, numbers))
    evaluation = evaluate(PREDICTOR, dataset, "glas_challenge", pixel_size=0.5)
    gland = evaluation.rows[0]["classes"]["gland"]
    assert (gland["object_hausdorff"], gland["hd95"]) == (3, 1.5)
    assert evaluation.summary["objects"]["gland"]["unit"] == "pixels"


def test_tables_and_columns_name_the_unit(make_dataset, tmp_path):
    dataset = make_dataset(("a", "", squares((5, 2)), LEFT, None))
    size = PixelSize.of("0.1mm")
    evaluation = evaluate(PREDICTOR, dataset, detail=True, tolerance=0.5, pixel_size=size)
    text = io.StringIO()
    Console(file=text, width=80).print(render(evaluation, details=True))
    for words in ("HD95 (mm)", "NSD at 0.5 mm", "Hausdorff (mm)"):
        assert words in text.getvalue()
    write_evaluation(evaluation, tmp_path, "")
    row = next(csv.DictReader((tmp_path / "per_case.csv").open()))
    assert float(row["hd95_mm"]) == float(row["hd95_mm_gland"]) == pytest.approx(0.3)
    assert float(row["object_hausdorff_mm_gland"]) == pytest.approx(0.3)
    assert "hd95" not in row
    plain = evaluate(PREDICTOR, dataset, detail=True)
    write_evaluation(plain, tmp_path / "plain", "")
    row = next(csv.DictReader((tmp_path / "plain" / "per_case.csv").open()))
    assert float(row["hd95"]) == float(row["object_hausdorff_gland"]) == 3


def test_a_case_with_one_mask_empty_is_the_diagonal_and_counted(make_dataset):
    evaluation = evaluate(PREDICTOR, make_dataset(("a", "", 0 * LEFT, LEFT, None)), detail=True)
    assert evaluation.rows[0]["foreground"]["hd95"] == pytest.approx(SIZE * math.sqrt(2))
    assert evaluation.summary["boundary"]["one_empty"] == {"gland": 1}
    assert evaluation.summary["objects"]["gland"]["glas"]["test"]["undefined"] == 1


def test_ignored_pixels_are_in_no_object_and_no_boundary(make_dataset):
    truth = LEFT.copy()
    truth[:, 9:] = 255
    evaluation = evaluate(PREDICTOR, make_dataset(("a", "", BOTH, truth, None)), detail=True)
    gland = evaluation.rows[0]["classes"]["gland"]
    assert gland["dice"] == gland["nsd"] == gland["pq"] == 1
    assert gland["hd95"] == 0


def test_what_is_ignored_is_grey_in_every_picture_of_a_report(make_dataset):
    truth = LEFT.copy()
    truth[:, 9:] = 255
    dataset = make_dataset(("a", "", BOTH, truth, None))
    panel = draw_panel(PREDICTOR, dataset, 0, "worst", 1.0, NO_RULE)
    pictures = {
        name: cv2.imdecode(np.frombuffer(base64.b64decode(tile.partition(",")[2]), np.uint8), 1)
        for name, tile in panel.tiles
    }
    at = [int((i + 0.5) * pictures["truth"].shape[0] / SIZE) for i in range(SIZE)]
    for name in ("truth", "prediction", "errors"):
        small = pictures[name][at][:, at]
        assert np.all(small[:, 9:] == 128), name
        assert not np.any(small[:, :9] == 128), name
    photo = pictures["image, truth outlined"][at][:, at]
    for column, grey in ((15, 64), (11, 191)):  # black and white of the image, half grey
        assert photo[3, column] == pytest.approx([grey] * 3, abs=6)


def test_the_calibration_of_certain_probabilities_is_their_share_of_errors(make_dataset):
    evaluation = evaluate(PREDICTOR, make_dataset(("a", "", LEFT, BOTH, None)), detail=True)
    wrong = LEFT.sum() / LEFT.size
    assert evaluation.rows[0]["ece"] == pytest.approx(wrong, abs=1e-6)
    assert evaluation.summary["calibration"]["brier"] == pytest.approx(wrong, abs=1e-6)
    assert evaluation.summary["confusion"] == [[224, 0], [16, 16]]


def test_postprocessing_changes_the_mask_that_every_score_sees(make_dataset):
    speck = BOTH.copy()
    speck[14, 14] = 1
    dataset = make_dataset(("a", "", speck, BOTH, None))
    plain = evaluate(PREDICTOR, dataset, detail=True)
    clean = evaluate(PREDICTOR, dataset, detail=True, rule=InstanceRule("components", 2))
    assert plain.rows[0]["foreground"]["dice"] < clean.rows[0]["foreground"]["dice"] == 1
    assert clean.rows[0]["classes"]["gland"]["objects_predicted"] == 2
    assert clean.summary["postprocess"] == {
        "method": "components",
        "smallest": 2,
        "largest_hole": 0,
    }


class TestChallenge:
    def test_parts_of_the_official_test_stay_apart(self, make_dataset):
        numbers = np.where(BOTH > 0, 1 + (np.arange(SIZE) > 8), 0).astype(np.uint8)
        dataset = make_dataset(
            ("testA_1", "", BOTH, BOTH, numbers), ("testB_1", "", LEFT, BOTH, numbers)
        )
        evaluation = evaluate(PREDICTOR, dataset, "glas_challenge")
        parts = evaluation.summary["objects"]["gland"]["glas"]
        assert list(parts) == ["testA", "testB"]
        assert (parts["testA"]["f1"], parts["testA"]["object_hausdorff"]) == (1, 0)
        assert parts["testB"]["f1"] == pytest.approx(2 / 3)

    def test_needs_annotated_objects(self, make_dataset):
        with pytest.raises(UserError, match="annotated objects: case a has none"):
            evaluate(PREDICTOR, make_dataset(("a", "", LEFT, LEFT, None)), "glas_challenge")


class TestIntervals:
    def cases(self, groups):
        pairs = [(LEFT, LEFT), (LEFT, BOTH), (0 * LEFT, RIGHT), (BOTH, BOTH)] * 3
        return [
            (f"c{i}", group, *pair, None)
            for i, (group, pair) in enumerate(zip(groups, pairs, strict=True))
        ]

    def test_surround_the_score_and_are_over_cases(self, make_dataset):
        dataset = make_dataset(*self.cases([""] * 12))
        summary = evaluate(PREDICTOR, dataset, detail=True).summary
        assert summary["intervals"]["over"] == "cases"
        assert summary["intervals"]["groups"] == 12
        for reduction in ("mean_over_cases", "pooled"):
            for score in ("dice", "iou", "recall"):
                low, high = summary["intervals"][reduction][score]["foreground"]
                assert low < summary[reduction][score]["foreground"] < high

    def test_are_over_patients_where_they_are_known(self, make_dataset):
        dataset = make_dataset(*self.cases([f"p{i % 4}" for i in range(12)]))
        by = "patients, by Grade.csv"
        summary = evaluate(PREDICTOR, dataset, detail=True, grouped_by=by).summary
        assert (summary["intervals"]["over"], summary["intervals"]["groups"]) == (by, 4)

    def test_are_over_cases_where_every_case_is_a_patient_of_its_own(self, make_dataset):
        dataset = make_dataset(*self.cases([f"p{i}" for i in range(12)]))
        intervals = evaluate(PREDICTOR, dataset, detail=True).summary["intervals"]
        assert (intervals["over"], intervals["groups"]) == ("cases", 12)

    def test_are_the_same_each_time(self, make_dataset):
        dataset = make_dataset(*self.cases([""] * 12))
        first, second = (evaluate(PREDICTOR, dataset, detail=True).summary for _ in range(2))
        assert first["intervals"] == second["intervals"]


def test_an_own_family_is_measured_where_it_is_asked_for(make_dataset):
    dataset = make_dataset(("a", "", LEFT, BOTH, None))
    how = {"detail": True, "families": (*FAMILIES, RowCount())}
    with_it = evaluate(PREDICTOR, dataset, parts=("pixel", "mine"), **how)
    assert with_it.rows[0]["foreground"]["share"] == 1 / 2
    assert with_it.summary["mine"]["share"]["classes"]["gland"] == 1 / 2
    assert "share" not in evaluate(PREDICTOR, dataset, **how).rows[0]["foreground"]


def test_rules_of_everything_measured_stand_with_it(make_dataset):
    dataset = make_dataset(("a", "", LEFT, BOTH, None))
    rules = " ".join(evaluate(PREDICTOR, dataset, detail=True).summary["rules"])
    for words in ("HD95", "NSD", "AJI", "Object F1", "Brier", "bootstrap", "Pooled"):
        assert words in rules
    plain = evaluate(PREDICTOR, dataset).summary
    assert "objects" not in plain
    assert "HD95" not in " ".join(plain["rules"])


def test_the_papers_protocols_measure_pixels_only(make_dataset):
    dataset = make_dataset(("a", "", LEFT, BOTH, None))
    evaluation = evaluate(PREDICTOR, dataset, "paper", detail=True)
    assert "objects" not in evaluation.summary
    assert "hd95" not in evaluation.rows[0]["foreground"]


def test_a_network_that_gives_no_numbers_is_refused(make_dataset):
    class Diverged(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Bright()(x) * float("nan")

    broken = Predictor(Diverged(), STEPS, PREDICTOR.classes)
    with pytest.raises(UserError, match="Case a: the output of the network holds NaN"):
        evaluate(broken, make_dataset(("a", "", LEFT, LEFT, None)), detail=True)


def test_with_three_classes_an_absent_class_has_no_boundary(make_dataset):
    class Three(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            both = Bright()(x)
            return torch.cat([both, torch.full_like(both[:, :1], -99)], dim=1)

    three = Predictor(Three(), STEPS, default_classes(["background", "gland", "nerve"]))
    dataset = make_dataset(("a", "", LEFT, LEFT, None))
    row = evaluate(three, dataset, detail=True).rows[0]
    assert math.isnan(row["classes"]["nerve"]["hd95"])
    assert row["foreground"]["hd95"] == 0
