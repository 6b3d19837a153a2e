"""examples/: each runs as it is given out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, tiny_dataset

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.seconds
def test_the_scripts_run(tmp_path: Path) -> None:
    tiny_dataset()
    for name in ("images", "masks"):
        shutil.copytree(TINY / name, tmp_path / name)
    for arguments in (["your_folder.py", "images", "masks", "1"], ["own_network.py", "1"]):
        command = [sys.executable, str(EXAMPLES / arguments[0]), *arguments[1:]]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "Dice 0." in done.stdout
    assert list((tmp_path / "predicted").glob("*.png"))


@pytest.mark.slow
def test_networks_are_compared(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "compare_networks.py"), "1", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("over 2 seeds") == 2


def cells() -> list[str]:
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text())
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.seconds
def test_the_cells_of_the_notebook_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer images, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    first, *others = cells()
    assert first == "EPOCHS, CASES = 3, 32"
    names: dict[str, object] = {"EPOCHS": 1, "CASES": 6}
    for cell in others:
        exec(compile(cell, "quickstart.ipynb", "exec"), names)
    assert names["mask"].shape == (128, 128)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_notebook_runs_whole(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 2
