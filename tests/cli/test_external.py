"""An external set is scored whole, without a split, in the network's classes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import evaluate
import export
import numpy as np
import pytest
from conftest import tiny_dataset

from medt.io.files import write_png
from medt.io.images import read_image, read_mask


@pytest.fixture
def folder(tmp_path: Path) -> list[str]:
    """Three of the images that the network was tried on, elsewhere, gland as value 0."""
    images = sorted((tiny_dataset()[0]).rglob("images/test_*.png"))
    for path in images:
        mask = read_mask(path.parents[1] / "masks" / path.name)
        write_png(tmp_path / "set/images" / path.name, read_image(path))
        write_png(tmp_path / "set/masks" / path.name, (1 - mask).astype(np.uint8))
    return [
        "dataset=folder",
        f"dataset.images={tmp_path}/set/images",
        f"dataset.masks={tmp_path}/set/masks",
        "dataset.classes=[gland,background]",
    ]


def scored(run: Path, output: Path, *more: str) -> dict:
    given = [f"checkpoint={run}", f"output={output}", "panels=0", *more]
    assert evaluate.main(given) == 0
    return json.loads((output / "metrics.json").read_text())


def test_all_cases_count_no_split_is_drawn_and_classes_are_found_by_name(
    tiny_run: Path, folder: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = scored(tiny_run, tmp_path / "own", "split=test")
    capsys.readouterr()
    external = scored(tiny_run, tmp_path / "external", "split=all", *folder)
    assert "external: the network was trained on synthetic" in capsys.readouterr().out
    assert external["cases"] == own["cases"] == 2
    assert external["mean_over_cases"] == own["mean_over_cases"]
    assert external["external"] == "synthetic"
    assert own["external"] is None
    assert {path.name for path in (tmp_path / "set").iterdir()} == {"images", "masks"}
    assert (
        "external: the network was trained on synthetic"
        in (tmp_path / "external/report.html").read_text()
    )


def test_all_cases_of_the_own_dataset_are_not_external(tiny_run: Path, tmp_path: Path) -> None:
    result = scored(tiny_run, tmp_path / "all", "split=all")
    assert (result["cases"], result["external"]) == (10, None)


def test_the_card_says_which_result_is_external(
    tiny_run: Path, folder: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    assert evaluate.main([f"checkpoint={run}", "split=all", "panels=0", *folder]) == 0
    assert [path.name for path in (run / "evaluation").iterdir()] == ["set-all-native"]
    assert export.main([f"checkpoint={run}", "format=safetensors"]) == 0
    card = (run / "export/last.safetensors.md").read_text()
    assert "- set-all-native \\(external\\), 2 cases" in card


def test_object_numbers_have_the_background_first(
    tiny_run: Path, folder: list[str], refused: Callable[..., None], tmp_path: Path
) -> None:
    given = [*folder, "dataset.mask=instances", "split=all", f"output={tmp_path}/o"]
    refused(
        evaluate.main,
        [f"checkpoint={tiny_run}", *given],
        "dataset.mask=instances has the background first, set names it gland",
        "'dataset.classes=[background,gland]'",
    )


def test_other_classes_are_refused(
    tiny_run: Path, folder: list[str], refused: Callable[..., None], tmp_path: Path
) -> None:
    given = [*folder[:-1], "dataset.classes=[lumen,background]", "split=all"]
    refused(
        evaluate.main,
        [f"checkpoint={tiny_run}", f"output={tmp_path}/o", *given],
        "was trained on the classes background, gland, but dataset set has lumen, background",
    )
