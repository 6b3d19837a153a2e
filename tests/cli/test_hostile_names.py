"""Names that are formulas, markup or controls do no harm where scripts show or write them."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import check_data
import compare
import evaluate
import export
import numpy as np
import predict
import pytest
import torch
import train
import yaml
from compare_runs import add_cases, make_run
from conftest import tiny_dataset

from medt.cli.arguments import quoted
from medt.compare.past_run import read_run
from medt.data.splits import SplitRow, read_splits, write_splits
from medt.drawing import strip
from medt.io.console import safe_console
from medt.io.files import write_png
from medt.training.progress import logging_to
from medt.training.run_folder import RunFolder
from medt.training.tensorboard import hyperparameters

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="such names do not exist there")

CLEAR = "\x1b[2J\x1b]0;pwned\x07"
CLASS = '=H("x")[/]<script>alert(1)</script>$\\frac$'
CASES = ["=1+1", "@x", "<script>b", "$\\frac$", "a;=2", "[red]z\u200b"]
GROUPS = ["[/]", "-2+3", "=4", "<i>", "", "腺"]
SPLITS = ["train", "train", "train", "train", "val", "val"]
SETTINGS = ["dataset=folder", "dataset.image_size=32", "model=gated_axial_unet"]
SETTINGS += ["model.depths=[1,1]", "trainer.epochs=1", "trainer.device=cpu", "augmentation=none"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, masks and a split file with such names."""
    folder = tmp_path_factory.mktemp("hostile [red]")
    rng = np.random.default_rng(0)
    for name in CASES:
        mask = np.zeros((32, 32), np.uint8)
        mask[8:24, 8:20] = 1
        write_png(folder / f"images/{name}.png", rng.integers(0, 256, (32, 32, 3), np.uint8))
        write_png(folder / f"masks/{name}.png", mask)
    rows = zip(CASES, GROUPS, SPLITS, strict=True)
    write_splits(folder / "splits.csv", [SplitRow(*row) for row in rows])
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path) -> list[str]:
    given = [f"dataset.images={folder}/images", f"dataset.masks={folder}/masks"]
    given.append(f"dataset.splits_file={folder}/splits.csv")
    return [*SETTINGS[:2], *given, f"dataset.classes=[background,{quoted(CLASS)}]"]


@pytest.fixture(scope="module")
def run(folder: Path, dataset: list[str]) -> Path:
    assert train.main([*dataset, *SETTINGS[2:], f"run_dir={folder}/run"]) == 0
    return folder / "run"


@pytest.fixture
def shows(capfd: pytest.CaptureFixture[str]) -> Callable[[], tuple[str, str]]:
    """What a script printed, which holds nothing but text and line breaks."""

    def read() -> tuple[str, str]:
        printed = capfd.readouterr()
        for stream in printed:
            assert stream.replace("\n", "").isprintable()
        return printed

    return read


class Page(HTMLParser):
    """The tags of a page and its text outside scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_split_file_gives_its_names_back(folder: Path) -> None:
    found = {row.case: row.group for row in read_splits(folder / "splits.csv")}
    assert found == dict(zip(CASES, GROUPS, strict=True))
    cells = [cell for row in csv.reader((folder / "splits.csv").open()) for cell in row]
    assert [cell for cell in cells if cell[:1] in tuple("=+-@")] == []


def test_a_training_logs_text(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest would hand the log, as it is, to a process that reads text only.
    monkeypatch.setattr(logging.getLogger("medt"), "propagate", False)

    def fail() -> None:
        with logging_to(safe_console(), tmp_path / "train.log"):
            logging.getLogger("medt").info(f"{CLEAR}\n\udcff[/]")
            raise ValueError(CLEAR)

    with pytest.raises(ValueError, match="pwned"):
        fail()
    for log in (run / "train.log", tmp_path / "train.log"):
        assert log.read_text().replace("\n", "").isprintable()
    assert log.read_text().partition("INFO ")[2].startswith(r"\x1b[2J\x1b]0;pwned\x07")


def test_tensorboard_lists_values_of_a_config_as_text() -> None:
    config = {"dataset": {"name": f"{CLEAR}\udcff"}, "loss": {"_target_": f"a.{CLEAR}"}}
    values = hyperparameters(config)
    assert values["dataset.name"] == r"\x1b[2J\x1b]0;pwned\x07\udcff"
    assert values["loss"] == r"\x1b[2J\x1b]0;pwned\x07"


def test_tensorboard_names_a_network_of_ones_own_by_its_class() -> None:
    model = {"_target_": "mine.Net", "width": 3, "weights": None, "classes": 2}
    assert hyperparameters({"model": model}) == {"model.name": "Net", "model.width": 3}


def test_captions_are_drawn_whatever_is_in_them() -> None:
    tile = np.zeros((8, 400, 3), np.uint8)
    shown = strip([(f"{CLEAR}\n\udcff腺", tile)])
    np.testing.assert_array_equal(shown, strip([(r"\x1b[2J\x1b]0;pwned\x07\n\udcff?", tile)]))


@pytest.mark.parametrize("name", [CLEAR, "a\nb", "\udcff", "", "a" * 10_000])
def test_a_checkpoint_with_such_a_class_is_refused_in_one_line(
    tiny_run: Path, shows: Callable[[], tuple[str, str]], tmp_path: Path, name: str
) -> None:
    content = torch.load(tiny_run / "checkpoints/best.pt", weights_only=True)
    content["classes"][1]["name"] = name
    torch.save(content, tmp_path / "best.pt")
    given = [f"checkpoint={tmp_path}/best.pt"]
    for main, more in {
        evaluate.main: [],
        export.main: ["format=onnx"],
        predict.main: [f"input={tmp_path}", f"output={tmp_path}/out"],
    }.items():
        shows()
        assert main([*given, *more]) == 1
        _, err = shows()
        assert err.count("\n") == 1
        assert "of a class" in err
        assert len(err) < 1000


@pytest.mark.parametrize("given", [f"model={CLEAR}", f"{CLEAR}=1", CLEAR, f"run_dir={CLEAR}\n"])
def test_what_is_typed_is_shown_as_it_is(
    shows: Callable[[], tuple[str, str]], given: str, tmp_path: Path
) -> None:
    assert train.main([given, f"dataset.root={tmp_path}/{CLEAR}", "dataset=glas"]) == 1
    _, err = shows()
    assert err.count("\n") == 1


def test_an_evaluation_shows_and_writes_names_as_they_are(
    run: Path, shows: Callable[[], tuple[str, str]], tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    assert evaluate.main([f"checkpoint={tmp_path}/run", "split=val", "details=true"]) == 0
    out, err = shows()
    assert err == ""
    assert "".join(out.split()).count(CLASS[:10]) > 1
    (result,) = (tmp_path / "run/evaluation").iterdir()
    page = Page((result / "report.html").read_text())
    assert page.tags.count("script") == 1
    assert CLASS in page.text
    assert "a;=2" in page.text
    assert r"[red]z\u200b" in page.text
    rows = list(csv.DictReader((result / "per_case.csv").open()))
    assert [row["case"] for row in rows] == ["[red]z\u200b", "a;'=2"]
    found = next(iter(read_run(RunFolder(tmp_path / "run")).evaluations.values()))
    assert set(found.by_case) == {"a;=2", "[red]z\u200b"}
    assert found.groups["[red]z\u200b"] == "腺"
    assert (
        CLASS
        in json.loads((result / "metrics.json").read_text())["mean_over_cases"]["dice"]["classes"]
    )

    assert export.main([f"checkpoint={tmp_path}/run", "format=safetensors"]) == 0
    shows()
    card = (tmp_path / "run/export/last.safetensors.md").read_text()
    assert "<" not in card
    assert [line for line in card.split("\n") if line.startswith("#")] == [
        r'# gated_axial_unet: \=H\("x"\)\[/\]&lt;script&gt;alert\(1\)&lt;/script&gt;\$\\frac\$',
        *("## Input and output", "## Training data", "## Scores", "## Limits"),
    ]


def test_a_prediction_lists_images_in_cells_that_are_no_formulas(
    run: Path, folder: Path, shows: Callable[[], tuple[str, str]], tmp_path: Path
) -> None:
    given = [
        f"checkpoint={run}",
        f"input={folder}/images",
        f"output={tmp_path}/out",
        "geojson=true",
    ]
    assert predict.main(given) == 0
    first = (tmp_path / "out/summary.csv").read_text()
    for cells in csv.reader(first.splitlines()):
        assert not [c for cell in cells[:2] for c in cell.split(";") if c[:1] in tuple("=+-@")]
    (tmp_path / "out/=1+1.png").unlink()
    assert predict.main(given) == 0
    assert (tmp_path / "out/summary.csv").read_text() == first
    shows()


def test_a_check_of_a_dataset_shows_names_as_they_are(
    dataset: list[str], shows: Callable[[], tuple[str, str]], tmp_path: Path
) -> None:
    assert check_data.main([*dataset, f"output={tmp_path}"]) in (0, 1)
    out, _ = shows()
    assert CLASS[:10] in out
    text = (tmp_path / "check.json").read_text()
    assert text.replace("\n", "").isprintable()
    assert {case["case"] for case in json.loads(text)["cases"]} == set(CASES)


def test_a_dry_run_shows_names_as_they_are(
    dataset: list[str], shows: Callable[[], tuple[str, str]], tmp_path: Path
) -> None:
    assert train.main([*dataset, *SETTINGS[2:], f"paths.runs={tmp_path}", "dry_run=true"]) == 0
    shows()


@pytest.mark.parametrize("name", [CLEAR, "a\nerror: b", "\udcff", "a\u202egnp", "\x9b2J"])
def test_an_image_whose_name_holds_controls_is_one_line(
    tiny_run: Path, shows: Callable[[], tuple[str, str]], tmp_path: Path, name: str
) -> None:
    (tmp_path / "in").mkdir()
    write_png(tmp_path / "in/good.png", np.zeros((32, 32, 3), np.uint8))
    os.link(tmp_path / "in/good.png", tmp_path / f"in/{name}.png")
    shows()
    assert predict.main(
        [f"checkpoint={tiny_run}", f"input={tmp_path}/in", f"output={tmp_path}/out"]
    )
    out, err = shows()
    assert err.count("\n") == 1
    assert "holds control characters" in err
    assert "1 of 2 masks" in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"good.png", "summary.csv"}


def test_runs_from_strangers_are_compared_without_harm(
    tmp_path: Path, shows: Callable[[], tuple[str, str]]
) -> None:
    evil = {"dataset.name": f"{CLEAR}[/]", "model.name": "$\\frac$\n=1+1"}
    one = make_run(tmp_path / f"a{CLEAR}", 0.8, **evil)
    two = make_run(
        tmp_path / "b[red]", 0.7, **{**evil, "model.name": "=1+1", "loss.batch": [CLEAR, "\x9b2J"]}
    )
    for run in (one, two):
        add_cases(run, f"=x{CLEAR}\n[red]-test-native", {"=1+1": 0.5, "b": 0.6}, {"b": "=g"})
        with (run / "history.csv").open("a") as file:
            file.write("4,1,1,0.8,0.1\n")
        text = (run / "history.csv").read_text()
        (run / "history.csv").write_text(text.replace("gate.a", "gate.$\\frac$"))
    assert compare.main([str(one), str(two), f"output={tmp_path}/out"]) == 0
    out, err = shows()
    assert err == ""
    assert r"\x1b[2J" in "".join(out.split())
    for name in ("comparison.csv", "comparison.json"):
        assert (tmp_path / "out" / name).read_text().replace("\n", "").isprintable()
    for cells in csv.reader((tmp_path / "out/comparison.csv").open()):
        assert not cells[0].startswith(("=", "+", "-", "@"))
    assert compare.main([str(one), f"output={tmp_path}/out"]) == 0
    assert r"[/] $\frac$\n=1+1" in "".join(shows()[0].split("\n"))


def test_a_prepared_dataset_cannot_name_a_folder_elsewhere(
    refused: Callable[..., None], tmp_path: Path
) -> None:
    root, _ = tiny_dataset()
    shutil.copytree(root, tmp_path / "glas")
    content = yaml.safe_load((root / "dataset.yaml").read_text())
    content["name"] = f"../../{CLEAR}"
    (tmp_path / "glas/dataset.yaml").write_text(yaml.safe_dump(content))
    given = ["dataset=glas", f"dataset.root={tmp_path}/glas"]
    refused(check_data.main, given, "dataset.yaml", r"'../../\x1b[2J", "cannot be a folder's")


def test_names_of_a_split_file_without_end_are_refused(
    refused: Callable[..., None], dataset: list[str], tmp_path: Path
) -> None:
    given = [one for one in dataset if "splits_file" not in one]
    given.append(f"dataset.splits_file={tmp_path}/splits.csv")
    for name in ("1" * 100_000, f"a{CLEAR}"):
        (tmp_path / "splits.csv").write_text(f"case,group,split\n{name},,train\n")
        refused(check_data.main, given, "splits.csv line 2", "cannot be a name")
