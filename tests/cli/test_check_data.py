"""scripts/check_data.py, and its short form before a training."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import check_data
import numpy as np
import pytest
import train
import yaml
from conftest import TINY, tiny, tiny_dataset
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from medt.checkpoint import load_checkpoint
from medt.cli.training_data import in_grammar
from medt.data.splits import read_splits
from medt.drawing import LINE
from medt.io.files import write_png
from medt.io.images import read_image

FILES = {"check.json", "cases.png"}


@pytest.fixture
def folder(tmp_path: Path) -> list[str]:
    """Settings for dataset=folder on eleven images of noise, eight of them to train on."""
    noise = np.random.default_rng(0)
    mask = np.zeros((64, 64), np.uint8)
    mask[5:45, 5:35] = 1
    rows = ["case,group,split"]
    for number in range(11):
        image = noise.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        write_png(tmp_path / "my data/images" / f"{number}.png", image)
        write_png(tmp_path / "my data/masks" / f"{number}.png", mask)
        rows.append(f"{number},,{'train' if number < 8 else 'val'}")
    (tmp_path / "my data/splits.csv").write_text("\n".join(rows))
    names = {"images": "images", "masks": "masks", "splits_file": "splits.csv"}
    given = [f"dataset.{key}={tmp_path}/my data/{name}" for key, name in names.items()]
    return ["dataset=folder", *given]


def training(tmp_path: Path, folder: list[str], *more: str) -> list[str]:
    """A training on the folder in seconds, into `run`."""
    tiny_model = [o for o in tiny(tmp_path) if not o.startswith("dataset")]
    run = [f"run_dir={tmp_path}/run", "dataset.image_size=32", "trainer.epochs=1"]
    return [*folder, *tiny_model, *run, *more]


def leak(tmp_path: Path) -> None:
    """A training image and its mask are also among those to validate on."""
    for kind in ("images", "masks"):
        shutil.copy(tmp_path / f"my data/{kind}/2.png", tmp_path / f"my data/{kind}/9.png")


def test_without_a_dataset_it_says_that_the_images_are_synthetic(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [text for text in tiny_dataset()[1] if text != "dataset=synthetic"]
    capsys.readouterr()
    assert check_data.main([*given, f"output={tmp_path}/out"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("no dataset=NAME was given, so these are synthetic images\n")


def test_a_sound_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = tiny_dataset()[1]
    capsys.readouterr()
    assert check_data.main([*overrides, f"output={tmp_path}/out"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith("synthetic: train 6, val 2, test 2")
    assert "64 x 64 | RGB uint8" in printed.out
    assert "few_cases: Splits of few cases: train 6, val 2, test 2" in printed.out
    assert "no errors, 1 warning\n" in printed.out
    assert f"check.json, cases.png written to {tmp_path}/out\n" in printed.out
    assert max(map(len, printed.out.splitlines())) <= 100
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    values = json.loads((tmp_path / "out/check.json").read_text())
    assert values["errors"] == 0
    assert [found["code"] for found in values["findings"]] == ["few_cases"]
    assert len(values["cases"]) == 10
    assert values["settings"]["image_size"] == [128, 128]
    split_of = {row.case: row.split for row in read_splits(TINY / "splits.csv")}
    assert {case["case"]: case["split"] for case in values["cases"]} == split_of
    height, width, _ = read_image(tmp_path / "out/cases.png").shape
    assert (height > 1000, width > 1000) == (True, True)


def test_goes_to_the_runs_unless_told_otherwise(tmp_path: Path) -> None:
    assert check_data.main([*tiny_dataset()[1], f"paths.runs={tmp_path}/runs", "cases=1"]) == 0
    files = {path.name for path in (tmp_path / "runs/check/synthetic").iterdir()}
    assert files == FILES


@pytest.mark.parametrize("augmentation", ["none", "flip", "histology"])
def test_a_preview_shows_versions_of_training_cases(tmp_path: Path, augmentation: str) -> None:
    given = [*tiny_dataset()[1], f"output={tmp_path}", "dataset.image_size=32", "preview=true"]
    more = ["versions=2", "preview_cases=3", f"augmentation={augmentation}"]
    assert check_data.main([*given, *more]) == 0
    picture = read_image(tmp_path / "preview.png")
    assert picture.shape[1] == 3 * 256 + 2 * 6
    assert picture.shape[0] == 3 * (256 + 2 * LINE) + 2 * 12


def test_errors_are_told_and_written_and_the_exit_code_is_1(
    tmp_path: Path, folder: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    leak(tmp_path)
    assert check_data.main([*folder, f"output={tmp_path}/out", "preview=true"]) == 1
    printed = capsys.readouterr()
    assert "error    leak: The same image in several splits: 2 and 9 (train and val)" in printed.out
    assert "-> scores would be too good" in printed.out
    assert "1 error, 1 warning\n" in printed.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*FILES, "preview.png"}
    values = json.loads((tmp_path / "out/check.json").read_text())
    finding = values["findings"][0]
    assert (finding["severity"], finding["code"]) == ("error", "leak")
    assert finding["cases"] == ["2", "9"]
    assert [case["case"] for case in values["cases"] if "leak" in case["findings"]] == ["2", "9"]


def test_without_a_case_to_draw_there_is_no_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, given = tiny_dataset()
    shutil.copytree(root, tmp_path / "spoiled" / root.name)
    for path in (tmp_path / "spoiled" / root.name / "masks").iterdir():
        write_png(path, np.full((64, 64), 9, np.uint8))
    here = [f"dataset.root={tmp_path}/spoiled", f"output={tmp_path}/out", "preview=true"]
    kept = [override for override in given if not override.startswith("paths.data")]
    assert check_data.main([*kept, *here]) == 1
    assert "cases.png is not drawn: it needs cases without errors" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"check.json"}


def test_what_cannot_even_be_opened_is_one_line(refused, tmp_path: Path, folder: list[str]) -> None:
    (tmp_path / "my data/masks/4.png").unlink()
    given = [*folder, f"output={tmp_path}/out"]
    refused(check_data.main, given, "images without mask (1): 4.png", "same name up to")


class TestBeforeATraining:
    def test_an_error_stops_with_one_line_that_says_how_to_see_more(
        self, refused, tmp_path: Path, folder: list[str]
    ) -> None:
        leak(tmp_path)
        command = "python scripts/check_data.py dataset=folder 'dataset.images="
        for more in ([], ["dry_run=true"], ["resume=auto"]):
            given = training(tmp_path, folder, *more)
            refused(train.main, given, "2 and 9 (train and val)", "one split", command)

    def test_all_errors_are_in_that_line(self, refused, tmp_path: Path, folder: list[str]) -> None:
        leak(tmp_path)
        rows = (tmp_path / "my data/splits.csv").read_text().replace("val", "test")
        (tmp_path / "my data/splits.csv").write_text(rows)
        told = ("no cases in split val; The same image in", "2 and 9 (train and test)")
        refused(train.main, training(tmp_path, folder), *told, "what to do about each")

    def test_check_false_trains_all_the_same(self, tmp_path: Path, folder: list[str]) -> None:
        leak(tmp_path)
        assert train.main(training(tmp_path, folder, "check=false")) == 0

    def test_a_pair_that_only_looks_alike_is_waved_through_and_the_run_records_it(
        self, tmp_path: Path, folder: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        images = tmp_path / "my data/images"
        image = read_image(images / "2.png")
        write_png(images / "9.png", np.clip(image * 1.1, 0, 255).astype(np.uint8))
        assert train.main(training(tmp_path, folder)) == 1
        told = capsys.readouterr().err
        assert "look alike in several splits: 2 and 9 (train and val)" in told
        pasted = shlex.split(told[told.index("'dataset.distinct=") :].partition(";")[0])[0]
        assert train.main(training(tmp_path, folder, pasted)) == 0
        config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
        assert config["dataset"]["distinct"] == [["2", "9"]]

    def test_the_command_it_gives_shows_the_same(
        self, tmp_path: Path, folder: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        leak(tmp_path)
        named = "dataset.classes=[{name:back ground,value:0},{name:gland,value:1}]"
        assert train.main(training(tmp_path, folder, named)) == 1
        told = capsys.readouterr().err.rpartition("python scripts/check_data.py ")[2]
        arguments = shlex.split(told.removesuffix(")\n"))
        assert "dataset.image_size=32" in arguments
        assert check_data.main([*arguments, f"output={tmp_path}/out"]) == 1
        values = json.loads((tmp_path / "out/check.json").read_text())
        assert values["findings"][0]["code"] == "leak"
        assert [c["name"] for c in values["classes"]] == ["back ground", "gland"]
        assert values["settings"]["image_size"] == [32, 32]

    def test_warnings_are_logged_and_the_training_goes_on(
        self, tmp_path: Path, folder: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_png(tmp_path / "my data/masks/4.png", np.zeros((64, 64), np.uint8))
        assert train.main(training(tmp_path, folder)) == 0
        for text in (capsys.readouterr().out, (tmp_path / "run/train.log").read_text()):
            assert "warning: Masks without foreground (1): 4 (right if there is nothing" in text
            assert text.count("warning: ") == 2
            assert "more: python" not in text

    def test_beyond_a_handful_they_are_counted(
        self, tmp_path: Path, folder: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        blank = np.zeros((64, 64), np.uint8)
        write_png(tmp_path / "my data/masks/4.png", blank)
        write_png(tmp_path / "my data/masks/5.png", blank + 1)
        write_png(tmp_path / "my data/images/6.png", blank)
        shutil.copy(tmp_path / "my data/images/0.png", tmp_path / "my data/images/1.png")
        assert train.main(training(tmp_path, folder, "dry_run=true")) == 0
        warnings = capsys.readouterr().out.splitlines()[-6:]
        assert all(line.startswith("warning: ") for line in warnings[:5])
        assert warnings[5].startswith("and 1 more: python scripts/check_data.py dataset=folder")

    def test_a_resumed_run_is_checked_too(self, refused, tmp_path: Path, folder: list[str]) -> None:
        given = training(tmp_path, folder, "trainer.epochs=2")
        given.remove("trainer.epochs=1")
        assert train.main(given) == 0
        self.unfinish(tmp_path / "run")
        leak(tmp_path)
        resuming = [f"resume={tmp_path}/run"]
        refused(train.main, resuming, "2 and 9 (train and val)", "check_data.py dataset=folder")
        assert train.main([*resuming, "check=false"]) == 0

    def unfinish(self, run: Path) -> None:
        import torch

        path = run / "checkpoints/last.pt"
        content = torch.load(path, weights_only=True)
        content["training"] |= {"finished": False, "epoch": 1, "best_epoch": 1}
        del content["training"]["history"][1:]
        torch.save(content, path)
        assert load_checkpoint(path).training is not None


TEXT = st.text("aZ1_-'\\${}[],: \u00e9") | st.sampled_from(["null", "True", "nan", "inf", "1e3"])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(0, 1e6) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name", "value"]), inner),
    max_leaves=5,
)


@given(PLAIN)
def test_settings_survive_the_override_grammar(value: object) -> None:
    parsed = OverridesParser.create().parse_override(f"key={in_grammar(value)}")
    config = OmegaConf.create({"key": parsed.value()})
    assert OmegaConf.to_container(config, resolve=True) == {"key": value}


class TestRecipes:
    def test_a_recipe_is_written_once_and_trained_with(
        self, tmp_path: Path, folder: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "conf/experiment/mine.yaml"
        given = [*folder, f"output={tmp_path}/out", f"write={file}"]
        assert check_data.main(given) == 0
        command = capsys.readouterr().out.splitlines()[-1].strip()
        assert command == f"python scripts/train.py --config-dir={tmp_path}/conf experiment=mine"
        assert command in file.read_text()
        recipe = yaml.safe_load(file.read_text())
        assert recipe["dataset"]["images"] == f"{tmp_path}/my data/images"
        assert recipe["trainer"]["epochs"] == 300
        own = [text for text in training(tmp_path, []) if not text.startswith("model")]
        assert train.main([f"--config-dir={tmp_path}/conf", "experiment=mine", *own]) == 0
        config = load_checkpoint(tmp_path / "run/checkpoints/last.pt").config
        assert config["model"]["name"] == recipe["defaults"][1]["override /model"]
        assert config["dataset"]["normalize"] == recipe["dataset"]["normalize"]
        assert check_data.main(given) == 1
        assert "mine.yaml is there already (remove it" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("write", "said"),
        [
            ("mine.yaml", "write=conf/experiment/mine.yaml"),
            ("experiment/mine", "no place where train.py looks"),
            ("experiment/quickstart.yaml", "experiment=quickstart is one of medt's own"),
            ("experiment/a,b.yaml", "a,b.yaml is no name for an experiment"),
        ],
    )
    def test_it_goes_where_experiments_are_found(
        self, tmp_path: Path, folder: list[str], capsys, monkeypatch, write: str, said: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert check_data.main([*folder, f"output={tmp_path}/out", f"write={write}"]) == 1
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_what_is_given_is_in_it_even_if_it_is_the_default(
        self, tmp_path: Path, folder: list[str]
    ) -> None:
        file = tmp_path / "conf/experiment/mine.yaml"
        given = ["dataset.image_size=128", "dataset.objects=none", "augmentation=flip"]
        assert check_data.main([*folder, *given, f"output={tmp_path}/out", f"write={file}"]) == 0
        recipe = yaml.safe_load(file.read_text())
        assert recipe["dataset"]["image_size"] == 128
        assert recipe["dataset"]["objects"] == "none"
        assert {"override /augmentation": "flip"} in recipe["defaults"]

    def test_none_is_written_for_a_dataset_with_errors(
        self, tmp_path: Path, folder: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        leak(tmp_path)
        file = tmp_path / "conf/experiment/mine.yaml"
        assert check_data.main([*folder, f"output={tmp_path}/out", f"write={file}"]) == 1
        assert not file.exists()
        assert capsys.readouterr().out.endswith("mine.yaml is not written: mend the errors first\n")
