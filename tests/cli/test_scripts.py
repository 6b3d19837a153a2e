"""Each script once as a user starts it, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, tiny

import medt
from medt.cli.__main__ import main as medt_main

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
COMMANDS = (
    "train",
    "evaluate",
    "predict",
    "prepare_data",
    "check_data",
    "import_official",
    "compare",
    "benchmark",
    "reproduce",
)


def start(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / f"{script}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.many_parameters
@pytest.mark.parametrize("script", COMMANDS)
def test_help_lists_the_config_without_loading_torch(script: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import {script}; "
        f"code = {script}.main(['--help']); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "The config:" in done.stdout
    assert "schema_" not in done.stdout


def test_the_version_is_that_of_medt(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--version"], ["train", "--version"]):
        assert medt_main(arguments) == 0
        assert capsys.readouterr().out == f"medt {medt.__version__}\n"


def test_a_misspelt_command_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert medt_main(["trian"]) == 1
    assert capsys.readouterr().err == "error: there is no command trian (did you mean train?)\n"
    assert medt_main(["x"]) == 1
    assert "(see medt --help)" in capsys.readouterr().err


def test_train_evaluate_and_predict_from_the_shell(tmp_path: Path) -> None:
    done = start("train", *tiny(tmp_path, f"run_dir={tmp_path}/run", "trainer.epochs=1"))
    assert done.returncode == 0, done.stderr
    assert "epoch 1/1" in done.stdout
    checkpoint = tmp_path / "run/checkpoints/best.pt"
    done = start("evaluate", f"checkpoint={checkpoint}")
    assert done.returncode == 0, done.stderr
    assert "mean over cases" in done.stdout
    image = TINY / "images/val_1.png"
    masks = tmp_path / "masks"
    done = start("predict", f"checkpoint={checkpoint}", f"input={image}", f"output={masks}")
    assert done.returncode == 0, done.stderr
    assert (masks / "val_1.png").is_file()


def test_prepare_data_tells_what_it_needs(tmp_path: Path) -> None:
    root = f"dataset.root={tmp_path}/glas"
    done = start("prepare_data", "dataset=glas", f"source={tmp_path}/nowhere.zip", root)
    assert done.returncode == 1
    assert "nowhere.zip" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "glas").exists()


def test_prepare_data_makes_the_synthetic_images(tmp_path: Path) -> None:
    numbers = ["dataset.train=2", "dataset.val=1", "dataset.test=1", "dataset.size=64"]
    done = start("prepare_data", f"dataset.root={tmp_path}/glands", *numbers)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "glands/seed0-2-1-1-64px-g1"
    assert f"synthetic prepared in {folder}: train 2, val 1, test 1" in done.stdout
    assert len(list((folder / "images").iterdir())) == 4


def test_check_data_looks_at_the_synthetic_images(tmp_path: Path) -> None:
    numbers = ["dataset.train=10", "dataset.val=5", "dataset.test=0", "dataset.size=128"]
    where = [f"dataset.root={tmp_path}/glands", f"output={tmp_path}/out"]
    done = start("check_data", *numbers, *where, "preview=true", "cases=4", "preview_cases=1")
    assert done.returncode == 0, done.stderr
    assert "no errors, no warnings" in done.stdout
    names = {"check.json", "cases.png", "preview.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_any_path_can_be_given_as_it_is(tiny_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Warwick QU (Released 2016_07_08) = données, l'été"
    folder.mkdir()
    image = folder / "a b.png"
    image.write_bytes((TINY / "images/val_1.png").read_bytes())
    checkpoint = tiny_run / "checkpoints/best.pt"
    masks = folder / "masks"
    done = start("predict", f"checkpoint={checkpoint}", f"input={folder}", f"output={masks}")
    assert done.returncode == 0, done.stderr
    assert (masks / "a b.png").is_file()
