"""The walks of docs/extend.md as they stand there: files are written, commands run."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from pages import ROOT, Block, blocks_of, draw_images, lines_of, quick, start

import medt
from medt.data import open as opening
from medt.data.dataset import SegmentationDataset
from medt.evaluation.evaluate import evaluate as score
from medt.metrics import pixel
from medt.metrics.families import FAMILIES

BLOCKS = blocks_of(ROOT / "docs/extend.md")
MODULES = ("mypackage", "mylosses", "myschedules")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder of a user, with images and masks."""
    draw_images(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["medt"])
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in MODULES:
        sys.modules.pop(name, None)


def walk(section: str) -> list[Block]:
    """The blocks of a section; its files are written."""
    blocks = [block for block in BLOCKS if block.section == section]
    for block in blocks:
        if block.title and not block.title.startswith("medt/"):
            file = Path(block.title)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
    return blocks


def commands(blocks: list[Block], *more: str) -> None:
    for block in blocks:
        for words in lines_of(block) if block.language == "bash" else ():
            reads_no_dataset = words[1] == "evaluate"
            start(words if reads_no_dataset else [*words, *more])


def test_a_network(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    blocks = walk("A network")
    commands(blocks)
    assert len(list((here / "predicted").glob("*.png"))) == 12
    (notebook,) = (b for b in blocks if b.language == "python" and not b.title)
    monkeypatch.setattr(medt, "train", quick(medt.train), raising=False)
    exec(compile(notebook.text, str(notebook), "exec"), {"__name__": "example"})
    assert (here / "runs/notebook/checkpoints/best.pt").is_file()


def test_an_experiment(here: Path, capsys: Any) -> None:
    commands(walk("An experiment"))
    config = yaml.safe_load((here / "runs/experiment/config.yaml").read_text())
    assert config["loss"]["_target_"] == "medt.losses.DiceLoss"


def test_a_loss_a_schedule_and_an_augmentation_list(here: Path, capsys: Any) -> None:
    commands(walk("A loss"))
    for name in ("smooth", "stairs", "augmented"):
        assert (here / f"runs/{name}/checkpoints/best.pt").is_file()


def test_a_metric(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    blocks = walk("A metric")
    (code,) = (b for b in blocks if b.title == "medt/metrics/pixel.py")
    names = dict(vars(pixel))
    exec(compile(code.text, code.title, "exec"), names)
    monkeypatch.setitem(pixel.SCORES, "f2", names["f2"])
    counts = pixel.PixelCounts(*(np.array([n]) for n in (8, 2, 4, 0)))
    assert names["f2"](counts) == pytest.approx(5 * 8 / (5 * 8 + 4 * 4 + 2))
    commands(blocks)
    (written,) = (here / "runs/scored/evaluation").glob("*/metrics.json")
    assert "f2" in json.dumps(json.loads(written.read_text()))
    (code,) = (b for b in blocks if b.title == "medt/metrics/area.py")
    names = {"__name__": "area"}
    exec(compile(code.text, code.title, "exec"), names)
    predictor = medt.load("runs/scored")
    index = medt.open_folder("images", "masks").index
    cases = SegmentationDataset(index.split("val"), predictor.preprocessing, index.labels)
    families = (*FAMILIES, names["AREA"])
    found = score(predictor, cases, detail=True, parts=("pixel", "area"), families=families)
    errors = [row["classes"]["foreground"]["area_error"] for row in found.rows]
    assert found.summary["area"]["area_error"]["foreground"] == pytest.approx(np.mean(errors))


def test_a_dataset(here: Path, capsys: Any) -> None:
    photos = here / "photos"
    photos.mkdir()
    for number in range(1, 13):
        name = f"{'abcdef'[(number - 1) // 2]}_{number}"
        image = cv2.imread(f"images/test_{number}.png")
        mask = cv2.imread(f"masks/test_{number}.png", cv2.IMREAD_GRAYSCALE)
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        shapes = [{"label": "gland", "points": o[:, 0].tolist()} for o in outlines]
        said = {"shapes": shapes, "imageHeight": 64, "imageWidth": 64}
        cv2.imwrite(str(photos / f"{name}.png"), image)
        (photos / f"{name}.json").write_text(json.dumps(said))
    commands(walk("A dataset"))
    rows = (here / "mine/images_splits.csv").read_text().splitlines()[1:]
    splits = {tuple(row.split(",")[1:]) for row in rows}
    assert len({group for group, _ in splits}) == len(splits) == 6


def test_a_published_dataset(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    blocks = walk("A published dataset")
    (code,) = (b for b in blocks if b.language == "python")
    names: dict[str, Any] = {"__name__": "discs"}
    exec(compile(code.text, code.title, "exec"), names)
    monkeypatch.setattr(opening, "PUBLISHED", {**opening.PUBLISHED, "discs": names["DISCS"]})
    monkeypatch.setattr(opening, "NAMES", (*opening.NAMES, "discs"))
    with zipfile.ZipFile("discs.zip", "w") as archive:
        for folder in ("images", "masks"):
            for number in range(1, 13):
                patient = "abcdef"[(number - 1) // 2]
                archive.write(f"{folder}/test_{number}.png", f"{folder}/{patient}_{number}.png")
    commands(blocks, "--config-dir=configs")
    rows = (here / "data/splits/discs.csv").read_text().splitlines()[1:]
    splits = {tuple(row.split(",")[1:3]) for row in rows}
    assert len(rows) == 12
    assert len({group for group, _ in splits}) == len(splits) == 6


def test_the_attention_layer(capsys: Any) -> None:
    (block,) = (b for b in BLOCKS if b.section == "The attention layer in your own network")
    exec(compile(block.text, str(block), "exec"), {"__name__": "example"})
