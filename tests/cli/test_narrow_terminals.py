"""On a narrow terminal lines break, but every number and name of the wide output is there."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import check_data
import compare
import evaluate
import pytest
import train
from conftest import tiny, tiny_dataset

WIDE = 300


@pytest.fixture
def command(request: pytest.FixtureRequest, tiny_run: Path, tmp_path: Path) -> Callable[[], int]:
    """One of the scripts that print tables or lines of numbers, ready to be run several times."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    shutil.copytree(tiny_run, tmp_path / "another")
    checkpoint = f"checkpoint={run}"
    dataset = tiny_dataset()[1]
    out = f"output={tmp_path}/out"
    commands: dict[str, Callable[[], int]] = {
        "evaluate": lambda: evaluate.main([checkpoint, "postprocess=components"]),
        "details": lambda: evaluate.main([checkpoint, "details=true"]),
        "glas_challenge": lambda: evaluate.main([checkpoint, "protocol=glas_challenge"]),
        "compare": lambda: compare.main([str(run), str(tmp_path / "another"), out]),
        "check_data": lambda: check_data.main([*dataset, out]),
        "dry_run": lambda: train.main(tiny(tmp_path, "dry_run=true", "check=false")),
    }
    return commands[request.param]


def words(text: str) -> Counter[str]:
    """What is printed, without a table's rules and what differs from run to run."""
    kept = [line for line in text.splitlines() if not re.match(r"written to|time |memory ", line)]
    return Counter(w for line in kept for w in line.split() if not re.fullmatch(r"[|=+-]+", w))


@pytest.mark.many_parameters
@pytest.mark.parametrize(
    "command",
    ["evaluate", "details", "glas_challenge", "compare", "check_data", "dry_run"],
    indirect=True,
)
def test_all_words_of_the_wide_output_are_there(
    command: Callable[[], int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = {}
    for columns in (WIDE, 20, 40, 60, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        capsys.readouterr()
        assert command() == 0
        printed[columns] = capsys.readouterr().out
    for columns, text in printed.items():
        assert "…" not in text, columns
        assert words(text) == words(printed[WIDE]), columns


def test_the_lines_of_a_training_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    overrides = tiny(tmp_path, "check=false", f"run_dir={tmp_path}/run", "trainer.epochs=1")
    assert train.main(overrides) == 0
    printed = capsys.readouterr().out
    line = (
        r"epoch 1/1  loss \S+  dice \S+  val loss \S+  val dice \S+  \S+ images/s  done  \(best\)\n"
    )
    assert re.search(line, printed)
    assert "…" not in printed
