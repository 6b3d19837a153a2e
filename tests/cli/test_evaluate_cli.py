"""scripts/evaluate.py: a checkpoint's scores on the terminal and in the run folder."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import predict
import pytest
from conftest import DATA, TINY
from test_hostile_runs import edit_checkpoint

import medt
from medt.checkpoint import load_checkpoint
from medt.io.images import read_mask


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run, to be written into."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.mark.parametrize("protocol", ["native", "paper", "paper_official"])
def test_scores_are_printed_and_written(
    run: Path, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    checkpoint = run / "checkpoints/best.pt"
    assert (
        evaluate.main(
            [f"checkpoint={checkpoint}", "split=test", f"protocol={protocol}", "details=true"]
        )
        == 0
    )
    printed = capsys.readouterr().out
    folder = run / "evaluation" / f"synthetic-test-{protocol}"
    assert {p.name for p in folder.iterdir()} == {"metrics.json", "per_case.csv", "report.html"}
    metrics = json.loads((folder / "metrics.json").read_text())
    foreground = metrics["mean_over_cases"]["dice"]["foreground"]
    assert f"{foreground:.4f}" in printed
    for words in ("mean over cases", "pixels (pooled)", "Recall", protocol, str(folder)):
        assert words in printed
    assert "left out" in printed  # the rules stand with the table
    rows = list(csv.DictReader((folder / "per_case.csv").open()))
    assert [row["case"] for row in rows] == ["test_1", "test_2"]
    assert float(rows[0]["height"]) == (64 if protocol == "native" else 32)


def test_the_first_screen_is_one_table_of_eighty_columns(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([f"checkpoint={run}", "split=train"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if "|" in line]
    titles = [cell.strip() for cell in table[0].split("|")]
    wanted = ["Dice", "IoU", "HD95 (px)", "object F1", "count error"]
    assert titles == ["mean over cases", *wanted]
    folder = run / "evaluation/synthetic-train-native"
    rows = list(csv.DictReader((folder / "per_case.csv").open()))
    means = [np.mean([float(row[key]) for row in rows]) for key in list(rows[0])[3:8]]
    assert [float(cell) for cell in table[1].split("|")[1:]] == pytest.approx(means, abs=0.006)
    assert max(len(line) for line in lines if str(run) not in line) <= 80
    assert len(lines) < 15
    assert "details=true" in lines[-1]


def test_what_one_sorts_by_are_the_first_columns(run: Path) -> None:
    assert evaluate.main([f"checkpoint={run}"]) == 0
    with (run / "evaluation/synthetic-val-native/per_case.csv").open() as file:
        columns = next(csv.reader(file))
    scores = ["dice", "iou", "hd95", "object_f1_iou50", "count_error"]
    areas = ["true_foreground", "predicted_foreground"]
    assert columns[:10] == ["case", "group", "split", *scores, *areas]
    assert {"height", "ece", "tn_background", "nsd_gland", "found_iou50_gland"} <= set(columns)


def test_boundaries_objects_and_intervals_are_printed_and_written(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["postprocess=components", "postprocess.smallest=5", "tolerance=3", "details=true"]
    assert evaluate.main([f"checkpoint={run}/checkpoints/best.pt", *overrides]) == 0
    printed = capsys.readouterr().out
    for words in ("NSD at 3 px", "AJI", "GlaS scores", "calibration", "its 95% interval"):
        assert words in printed
    assert "postprocess=components postprocess.smallest=5 postprocess.largest_hole=30" in printed
    folder = run / "evaluation/synthetic-val-native+components"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["postprocess"]["smallest"] == 5
    assert metrics["boundary"]["tolerance"] == 3
    assert set(metrics["objects"]["gland"]) >= {"mean", "pooled", "counts", "glas", "intervals"}
    columns = (folder / "per_case.csv").read_text().splitlines()[0].split(",")
    assert {"ece", "hd95", "nsd", "pq_gland", "object_dice_gland"} <= set(columns)


def test_scores_follow_the_task(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        evaluate.main(
            [f"checkpoint={run}/checkpoints/best.pt", "scores=[topology]", "details=true"]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "clDice" in printed
    assert "ROC AUC" in printed
    assert not [word for word in ("HD95", "AJI", "GlaS", "found") if word in printed]
    folder = run / "evaluation/synthetic-val-native"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["scores"] == ["pixel", "topology"]
    assert 0 <= metrics["topology"]["cldice"]["foreground"] <= 1
    rows = list(csv.DictReader((folder / "per_case.csv").open()))
    mean = np.mean([float(row["cldice"]) for row in rows])
    assert metrics["topology"]["cldice"]["foreground"] == pytest.approx(mean, abs=1e-6)
    assert {"roc_auc", "pr_auc", "centreline_recall_gland"} <= set(rows[0])
    assert not {"hd95", "aji_gland", "found_iou10_gland"} & set(rows[0])


def test_micrometres_are_those_of_the_dataset(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["dataset=synthetic", f"paths.data={DATA}", "dataset.pixel_size=0.5"]
    overrides += ["dataset.train=6", "dataset.val=2", "dataset.test=2", "dataset.size=64"]
    assert evaluate.main([f"checkpoint={run}/checkpoints/best.pt", *overrides]) == 0
    assert "HD95 (um)" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["0.1mm", "[0.1mm,0.2mm]"])
def test_millimetres_are_named_wherever_a_distance_stands(
    run: Path, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    overrides = ["dataset=synthetic", f"paths.data={DATA}", f"dataset.pixel_size={size}"]
    overrides += ["dataset.train=6", "dataset.val=2", "dataset.test=2", "dataset.size=64"]
    given = [f"checkpoint={run}/checkpoints/best.pt", *overrides, "tolerance=400µm", "details=true"]
    assert evaluate.main(given) == 0
    printed = capsys.readouterr().out
    for words in ("HD95 (mm)", "NSD at 0.4 mm", "Hausdorff (mm)"):
        assert words in printed
    folder = run / "evaluation/synthetic-val-native"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["boundary"]["unit"] == metrics["objects"]["gland"]["unit"] == "millimetres"
    assert metrics["boundary"]["pixel_size"] == ([0.1, 0.2] if "[" in size else 0.1)
    rows = list(csv.DictReader((folder / "per_case.csv").open()))
    mean = np.mean([float(row["hd95_mm_gland"]) for row in rows])
    assert metrics["boundary"]["mean_over_cases"]["hd95"]["classes"]["gland"] == pytest.approx(
        mean, abs=1e-5
    )
    assert "HD95 (mm)" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("stored", "unit"), [(0.5, "um"), ("0.1mm", "mm"), (["4nm", "5nm"], "nm"), (None, "px")]
)
def test_the_pixel_size_of_a_checkpoint_counts(
    run: Path, capsys: pytest.CaptureFixture[str], stored: Any, unit: str
) -> None:
    best = run / "checkpoints/best.pt"
    edit_checkpoint(best, lambda content: content["dataset"].update(pixel_size=stored))
    assert evaluate.main([f"checkpoint={best}"]) == 0
    assert f"HD95 ({unit})" in capsys.readouterr().out


def test_tuning_prints_a_rule_that_can_be_pasted(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = f"checkpoint={run}/checkpoints/best.pt"
    assert evaluate.main([checkpoint, "tune=true", "postprocess=components"]) == 0
    printed = capsys.readouterr().out
    assert (
        "2 cases (val), by the mean over cases that show objects of the objects' panoptic quality"
        in printed
    )
    rule = printed.rpartition("best, for evaluate.py and predict.py: ")[2].split()
    assert not (run / "evaluation").exists()
    assert evaluate.main([checkpoint, *rule, "details=true"]) == 0
    assert " ".join(rule) in capsys.readouterr().out


def test_tuning_on_the_test_is_refused(tiny_run: Path, refused: Callable[..., None]) -> None:
    arguments = [f"checkpoint={tiny_run}/checkpoints/best.pt", "tune=true", "split=test"]
    refused(evaluate.main, arguments, "split=test", "split=val")


@pytest.mark.parametrize(
    ("override", "culprit"),
    [
        ("postprocess=opening", "opening"),
        ("postprocess.smallest=5", "smallest"),  # of no use without a method
        ("tolerance=-1", "tolerance=-1"),
        ("tolerance=1mm", "the size of a pixel is not known"),
        ("protocol=challenge", "challenge"),
        ("scores=[pixel,skeleton]", "skeleton"),
        ("empty=two", "empty=two"),
    ],
)
def test_wrong_settings_are_refused(
    tiny_run: Path, refused: Callable[..., None], override: str, culprit: str
) -> None:
    refused(evaluate.main, [f"checkpoint={tiny_run}/checkpoints/best.pt", override], culprit)


def test_a_result_is_never_overwritten(run: Path) -> None:
    arguments = [f"checkpoint={run}/checkpoints/best.pt"]
    assert evaluate.main(arguments) == evaluate.main(arguments) == 0
    names = {p.name for p in (run / "evaluation").iterdir()}
    assert names == {"synthetic-val-native", "synthetic-val-native-2"}


def test_another_dataset_with_the_same_classes_can_be_named(run: Path) -> None:
    overrides = ["dataset=folder", f"dataset.images={TINY}/images"]
    overrides += [f"dataset.masks={TINY}/masks", "dataset.classes=[background,gland]"]
    overrides += [f"dataset.splits_file={run}/splits.csv", "split=train"]
    assert evaluate.main([f"checkpoint={run}/checkpoints/best.pt", *overrides]) == 0
    # A folder dataset is called by the folder that its images lie in.
    folder = run / "evaluation" / f"{TINY.name}-train-native"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["cases"] == 6


def test_other_classes_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["dataset=folder", f"dataset.images={TINY}/images"]
    overrides += [f"dataset.masks={TINY}/masks", "dataset.classes=[stroma,nerve]"]
    overrides += [f"dataset.splits_file={run}/splits.csv", "split=train"]
    assert evaluate.main([f"checkpoint={run}/checkpoints/best.pt", *overrides]) == 1
    assert "was trained on the classes background, gland" in capsys.readouterr().err


def test_scoring_cases_that_were_trained_on_is_a_warning(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = (TINY / "splits.csv").read_text()
    leaking = tmp_path / "data" / TINY.name
    shutil.copytree(TINY, leaking)
    swapped = splits.replace(",train\n", ",swap\n").replace(",test\n", ",train\n")
    (leaking / "splits.csv").write_text(swapped.replace(",swap\n", ",test\n"))
    arguments = [f"checkpoint={run}/checkpoints/best.pt", "split=test", "dataset=synthetic"]
    numbers = ["dataset.train=6", "dataset.val=2", "dataset.test=2", "dataset.size=64"]
    assert evaluate.main([*arguments, f"dataset.root={leaking.parent}", *numbers]) == 0
    assert "warning: 6 of these cases were trained on" in capsys.readouterr().out


class TestAverages:
    """Several checkpoints, flips and turns, and the other mode, through both scripts."""

    def metrics(self, run: Path, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((run / "evaluation" / name / "metrics.json").read_text())
        return found

    def test_an_ensemble_of_a_network_with_itself_scores_as_the_network(self, run: Path) -> None:
        best = f"{run}/checkpoints/best.pt"
        assert evaluate.main([f"checkpoint={best}"]) == 0
        assert evaluate.main([f"checkpoint=[{best}, {best}]"]) == 0
        alone = self.metrics(run, "synthetic-val-native")
        both = self.metrics(run, "synthetic-val-native+2_networks")
        assert both["confusion"] == alone["confusion"]
        assert both["prediction"]["checkpoints"] == [best, best]

    def test_flips_and_turns_and_the_mode_are_told_apart_from_the_plain_result(
        self, run: Path
    ) -> None:
        best = f"checkpoint={run}/checkpoints/best.pt"
        assert evaluate.main([best, "tta=true", "mode=sliding_window"]) == 0
        metrics = self.metrics(run, "synthetic-val-native+sliding_window+tta")
        assert metrics["prediction"] == {
            "checkpoints": [best.partition("=")[2]],
            "weights": [load_checkpoint(best.partition("=")[2]).digest],
            "mode": "sliding_window",
            "tta": True,
        }

    def test_the_official_protocol_takes_no_averages(
        self, tiny_run: Path, refused: Callable[..., None]
    ) -> None:
        arguments = [f"checkpoint={tiny_run}/checkpoints/best.pt", "protocol=paper_official"]
        refused(evaluate.main, [*arguments, "tta=true"], "raw logits")

    @pytest.mark.parametrize("value", ["[]", "[a.pt,]", "null", "7"])
    def test_no_checkpoint_is_refused(self, refused: Callable[..., None], value: str) -> None:
        refused(evaluate.main, [f"checkpoint={value}"], "checkpoint")

    def test_masks_are_those_of_python(self, tiny_run: Path, tmp_path: Path) -> None:
        best = f"{tiny_run}/checkpoints/best.pt"
        last = f"{tiny_run}/checkpoints/last.pt"
        image = TINY / "images/test_1.png"
        settings = [f"input={image}", f"output={tmp_path}", "values=[0,1]", "tta=true"]
        assert predict.main([f"checkpoint=[{best},{last}]", *settings]) == 0
        expected = medt.load([best, last], tta=True).predict(image)
        np.testing.assert_array_equal(read_mask(tmp_path / "test_1.png"), expected)
