"""What several test files share: a tiny run trained once, and where the shared material lies."""

from __future__ import annotations

import atexit
import csv
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import prepare_data
import pytest
import torch
import train
from hypothesis import settings

from medt.io.plain import read_yaml
from medt.ops import library, set_backend
from medt.shipped import shipped
from medt.targets import build

# As many tests run at once as there are cores; the second is for the processes that they start.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
ALL = "all" in (os.environ.get("MEDT_TESTS"), os.environ.get("MEDT_FAULTS"))
# The same examples every time; make test-faults looks for others.
settings.register_profile("tests", derandomize=os.environ.get("MEDT_FAULTS") != "all")
settings.load_profile("tests")

QUICK = "loss=cross_entropy"  # of a process of its own: MONAI's losses take seconds to import
TINY_IMAGES = ("paths.data", "dataset.train", "dataset.val", "dataset.test", "dataset.size")
DATA = Path(tempfile.mkdtemp(prefix="medt-tests-"))
TINY = DATA / "synthetic" / "seed0-6-2-2-64px-g1"  # where the images of `tiny` lie
atexit.register(shutil.rmtree, DATA, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by what they need; make test takes no slow ones, and each third of many."""
    for item in items:
        if "faults" in item.path.parts:
            item.add_marker("faults")
        if "browser" in item.path.name:
            item.add_marker("browser")
        if {"shared", "real_dataset"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("shared")
    if ALL or any("::" in argument for argument in config.args):
        return
    seen: Counter[str] = Counter()
    taken, left = [], []
    for item in items:
        many = item.get_closest_marker("many_parameters") is not None
        test = item.nodeid.partition("[")[0]
        slow = item.get_closest_marker("slow") is not None
        (left if slow or (many and seen[test] % 3) else taken).append(item)
        seen[test] += 1
    items[:] = taken
    config.hook.pytest_deselected(items=left)


def tiny(folder: Path, *more: str) -> list[str]:
    """Overrides for a training of seconds, whose runs lie in `folder`; the images are made once."""
    return [
        f"paths.data={DATA}",
        f"paths.runs={folder}/runs",
        "dataset.train=6",
        "dataset.val=2",
        "dataset.test=2",
        "dataset.size=64",
        "dataset.image_size=32",
        "model=gated_axial_unet",
        "model.depths=[1,1]",
        "augmentation=flip",
        "trainer.epochs=2",
        "trainer.device=cpu",
        *more,
    ]


def tiny_dataset() -> tuple[Path, list[str]]:
    """The folder of the images of `tiny`, made if absent, and the overrides that name it."""
    overrides = ["dataset=synthetic", *(o for o in tiny(DATA) if o.startswith(TINY_IMAGES))]
    assert prepare_data.main(overrides) == 0
    return TINY, overrides


def recipe(name: str, **changes: Any) -> Any:
    """The augmentation of configs/augmentation/; of the changes each names a key, a__b for a.b."""
    spec = read_yaml(shipped("configs") / "augmentation" / f"{name}.yaml")
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = spec
        for parent in parents:
            node = node[parent]
        node[last] = value
    del spec["name"]
    return build(spec, "augmentation")


def tiny_training(folder: Path, override: str) -> list[str]:
    """A tiny training into `folder`/run with one setting replaced."""
    key = override.partition("=")[0]
    kept = [given for given in tiny(folder) if given.partition("=")[0] != key]
    tiny_dataset()
    return [*kept, f"run_dir={folder}/run", override]


def timeless(run: Path) -> list[dict[str, str]]:
    """The rows of a run's history without what the clock says."""
    clock = ("images", "loader", "norm")
    with (run / "history.csv").open() as file:
        return [
            {k: v for k, v in row.items() if k.split("_")[0] not in clock}
            for row in csv.DictReader(file)
        ]


@pytest.fixture(autouse=True)
def a_hangup_is_noticed() -> Iterator[None]:
    """Under nohup the tests, and what they start, would ignore it."""
    if not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a finished tiny training; tests only read it."""
    folder = tmp_path_factory.mktemp("tiny")
    assert train.main(tiny(folder, f"run_dir={folder}/runs/tiny")) == 0
    return folder / "runs" / "tiny"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and golden values, named by MEDT_SHARED."""
    if "MEDT_SHARED" not in os.environ:
        pytest.skip("MEDT_SHARED is not set: it names the folder of real images")
    return Path(os.environ["MEDT_SHARED"])


ARCHIVES = {
    "glas": "warwick_qu_dataset_train_part.zip",
    "monuseg": "monuseg_2018_train_part.zip",
    "dsb2018": "dsb2018_stage1_train_part.zip",
    "isbi2012": "isbi2012_membrane_gray.zip",
    "kvasir_seg": "kvasir_seg_part_jpeg_masks.zip",
}


@pytest.fixture(scope="session")
def real_dataset(
    shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[str]]:
    """The overrides that name a real dataset, which is prepared by the script on first use."""
    folder = tmp_path_factory.mktemp("prepared")

    def prepared(name: str) -> list[str]:
        overrides = [f"dataset={name}", f"dataset.root={folder / name}"]
        if not (folder / name).exists():
            source = shared / "data" / ARCHIVES[name]
            assert prepare_data.main([*overrides, f"source={source}"]) == 0
        return overrides

    return prepared


@pytest.fixture(params=["torch", "fused"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a test with each backend of the axial attention."""
    if request.param == "fused" and not library.available():
        pytest.skip("the fused kernel is not installed: it needs a C++ compiler")
    set_backend(request.param)
    yield request.param
    set_backend("auto")


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """A script has to refuse: asserts exit code, line, hint, and that nothing is left."""

    def check(
        main: Callable[[Sequence[str]], int], arguments: Sequence[str], *culprits: str
    ) -> None:
        before = files_below(tmp_path)
        capsys.readouterr()
        assert main(list(arguments)) not in (0, None)
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert error.startswith("error: ")
        assert error.endswith(")\n"), f"no hint: {error}"
        for culprit in culprits:
            assert culprit in error
        assert files_below(tmp_path) == before

    return check


def files_below(folder: Path) -> dict[Path, bytes | None]:
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}
