"""The package as others install it: configs, splits and commands in it, used in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import medt

ROOT = Path(__file__).parents[2]
SMALL = [
    *("experiment=quickstart", "dataset.train=6", "dataset.val=2", "dataset.test=2"),
    *("dataset.size=64", "dataset.image_size=32", "model=gated_axial_unet", "model.depths=[1,1]"),
    *("trainer.epochs=1", "trainer.device=cpu", "run_dir=run"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an sdist and the wheel that is built from it."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


@pytest.mark.slow
def test_the_wheel_holds_configs_splits_and_the_command(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert f"-{medt.__version__}-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry,) = [name for name in names if name.endswith("entry_points.txt")]
        assert b"medt = medt.cli.__main__:main" in archive.read(entry)
    for path in (ROOT / "configs").rglob("*.yaml"):
        assert f"medt/configs/{path.relative_to(ROOT / 'configs').as_posix()}" in names
    for path in (ROOT / "data" / "splits").glob("*.csv"):
        assert f"medt/splits/{path.name}" in names
    assert not [name for name in names if name.startswith(("tests/", "scripts/"))]
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("kernel/layer.cpp") for name in archive.getnames())


@pytest.mark.slow
def test_it_trains_scores_and_predicts_in_an_empty_folder(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    site, here = tmp_path / "site", tmp_path / "empty"
    here.mkdir()
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, *install], check=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def command(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, str(site / "bin" / "medt"), *arguments],
            cwd=here,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = command("train", *SMALL)
    assert "medt evaluate checkpoint=run split=val" in said
    assert sorted(path.name for path in here.iterdir()) == ["data", "run"]
    command("evaluate", "checkpoint=run", "split=test")
    images = next((here / "data" / "synthetic").glob("*/images"))
    command("predict", "checkpoint=run", f"input={images}", "output=masks")
    assert len(list((here / "masks").glob("*.png"))) == 10
    where = "import medt; print(medt.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith(str(site))
