"""reproduce.py trains and scores the networks of a table, once each, and writes the table."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import reproduce
import yaml
from conftest import DATA, tiny, tiny_dataset
from hydra import compose, initialize_config_dir

from medt.checkpoint import load_checkpoint
from medt.cli.arguments import CONFIGS
from medt.config import register_schema

TABLE = """\
defaults:
  - schema_table
  - _self_

name: mine
settings: [{settings}]
seeds: [0, 1]
split: test
rows:
  small: [model=gated_axial_unet, 'model.depths=[1,1]']
  impossible: [model=unet, optimizer.lr=-1]
  plain: [model=axial_unet, 'model.depths=[1,1]']
"""


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """What reproduce.py is given for a table of three rows, of which one cannot be trained."""
    tiny_dataset()
    of_model = ("paths", "model")
    settings = [text for text in tiny(tmp_path) if not text.startswith(of_model)]
    file = tmp_path / "conf/table/mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(TABLE.format(settings=", ".join(settings)))
    output = f"output={tmp_path}/table"
    return [f"--config-dir={tmp_path}/conf", "table=mine", f"paths.data={DATA}", output]


def rows(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "table/table.csv").open() as lines:
        return list(csv.DictReader(lines))


def test_trains_scores_and_compares_once(
    tmp_path: Path, given: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    given = [*given, "rows=[small,plain]", "trainer.clip_norm=2"]
    assert reproduce.main(given) == 0
    first = capfd.readouterr().out
    assert first.count(" train ") + first.count("train.py ") >= 4
    assert "run 4 of 4: plain, seed=1" in first
    small, plain = rows(tmp_path)
    assert (small["network"], small["runs"], small["difference"]) == ("small", "2", "")
    difference = float(plain["Dice"]) - float(small["Dice"])
    assert float(plain["difference"]) == pytest.approx(difference, abs=1e-6)
    text = (tmp_path / "table/table.md").read_text()
    assert text.startswith("| network | runs | Dice | difference to small | 95 % interval |")
    assert f"| plain | 2 | {float(plain['Dice']):.4f} ± " in text
    assert text in first

    assert reproduce.main([*given, "rows=[plain]"]) == 0  # the other row stays in the table
    again = capfd.readouterr().out
    assert again.count("finished already") == 2
    assert "epoch 1/2" not in again
    assert "protocol native" not in again
    assert (tmp_path / "table/table.md").read_text() == text
    config = load_checkpoint(tmp_path / "table/small/seed=1/checkpoints/last.pt").config
    assert config["trainer"]["clip_norm"] == 2


def test_a_row_that_fails_is_left_out_and_named(
    tmp_path: Path, given: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert reproduce.main([*given, "rows=[impossible,plain]"]) == 1
    said = capfd.readouterr().err
    assert "2 of 4 runs failed and are not in the table: impossible/seed=0" in said
    assert [row["network"] for row in rows(tmp_path)] == ["plain"]


def test_a_dry_run_says_how_long_it_takes(
    tmp_path: Path, given: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert reproduce.main([*given, "rows=[small,impossible]", "dry_run=true"]) == 1
    printed = capfd.readouterr()
    assert "these rows cannot be trained: impossible" in printed.err
    lines = printed.out.splitlines()
    assert any(line.startswith("  small ") and " 2 x " in line for line in lines)
    assert lines[-1].startswith("  in all ")
    assert not (tmp_path / "table/small").exists()


def test_the_shipped_table_gives_the_pretrained_network_its_own_recipe() -> None:
    table = yaml.safe_load((CONFIGS / "table/glas.yaml").read_text())
    recipe = yaml.safe_load((CONFIGS / "experiment/pretrained.yaml").read_text())
    settings = [*table["settings"], *table["rows"]["pretrained"]]
    register_schema()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train", settings)
    assert config.dataset.image_size == recipe["dataset"]["image_size"]
    assert config.trainer.epochs == recipe["trainer"]["epochs"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("table.seeds=[0,0]", "give a row, and each seed once"),
        ("rows=[]", "there is no row  in the table"),
        ("table.split=tets", "table.split=tets is not known (choose one of val, test)"),
    ],
)
def test_an_impossible_table_is_refused_first(
    tmp_path: Path, given: list[str], capfd: pytest.CaptureFixture[str], more: str, said: str
) -> None:
    assert reproduce.main([*given, more]) == 1
    printed = capfd.readouterr()
    assert said in printed.err
    assert printed.out == ""


def test_ctrl_c_stops_the_training_which_saves_and_goes_on_later(
    tmp_path: Path, given: list[str]
) -> None:
    script = Path(reproduce.__file__)
    long = [*given, "rows=[small]", "table.seeds=[0]", "trainer.epochs=2000"]
    command = [sys.executable, str(script), *long]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "epoch 2/" in line:
                break
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 130
    assert "stopped" in said
    state = load_checkpoint(tmp_path / "table/small/seed=0/checkpoints/last.pt").training
    assert state["epoch"] >= 2
    assert not (tmp_path / "table/table.md").exists()


def test_a_misspelt_row_is_guessed(given: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main([*given, "rows=[smal]"]) == 1
    expected = "error: there is no row smal in the table mine (did you mean small?)\n"
    assert capfd.readouterr().err == expected
