"""What a notebook does: the examples of the docstrings, and what they promise."""

from __future__ import annotations

import doctest
import shutil
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest
import torch
import train
from conftest import TINY, tiny_dataset
from torch import nn

import medt
import medt.face
from medt.errors import UserError

pytestmark = pytest.mark.seconds

SMALL = {"train": 6, "val": 2, "test": 2, "size": 64, "image_size": 32}
QUICK = {"epochs": 1, "device": "cpu", "batch_size": 3, "checkpoint_every": "10 min"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a few images and masks."""
    tiny_dataset()
    monkeypatch.chdir(tmp_path)
    for name in ("images", "masks"):
        shutil.copytree(TINY / name, tmp_path / name)
    for mask in (tmp_path / "masks").iterdir():  # of 0 and 1
        assert mask.suffix == ".png"
    return tmp_path


def small() -> medt.Data:
    return medt.open_dataset("synthetic", **SMALL)


def network() -> nn.Module:
    return medt.AxialUNet(image_size=32, depths=[1, 1])


def test_the_examples_of_the_docstrings_hold(here: Path) -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner()
    examples = {
        name: test
        for module in (medt.face, medt)
        for test in finder.find(module, module.__name__)
        if test.examples
        for name in [test.name.rpartition(".")[2]]
    }
    order = ("option", "open_dataset", "open_folder", "train", "evaluate", "load")
    assert set(order) == set(examples)
    for name in order:
        assert runner.run(examples[name]).failed == 0, name


def test_importing_it_costs_no_torch() -> None:
    code = "import sys, medt; print('torch' in sys.modules, 'MedT' in dir(medt))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False True"
    with pytest.raises(AttributeError, match="no attribute 'Medt'"):
        _ = medt.Medt


def test_a_run_goes_on_by_the_commands(here: Path) -> None:
    run = medt.train(network(), small(), run_dir="run", **QUICK)
    assert evaluate.main(["checkpoint=run", "split=test", "output=scores"]) == 0
    again = ["resume=run", "trainer.epochs=2", "resume_force=true"]
    assert train.main(again) == 0
    found = medt.evaluate(run, small(), split="test")
    assert 0 <= found.iou <= found.dice <= 1
    assert len(found.rows) == 2


def test_the_network_given_is_the_one_that_is_trained(here: Path) -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    medt.train(model, small(), run_dir="run", **QUICK)
    assert any(not torch.equal(before[name], v) for name, v in model.state_dict().items())


def test_parts_are_named_or_given_by_value(here: Path) -> None:
    spec = medt.option("model", "gated_axial_unet", depths=[1, 1])
    run = medt.train(
        spec,
        small(),
        run_dir="run",
        loss="dice",
        optimizer=medt.option("optimizer", "sgd", lr=0.5),
        augmentation="none",
        seed=3,
        **QUICK,
    )
    config = run.read_config()
    assert config["optimizer"]["lr"] == 0.5
    assert config["loss"]["_target_"] == "medt.losses.DiceLoss"
    assert config["model"]["classes"] == 2
    assert config["seed"] == 3
    assert config["trainer"]["epochs"] == 1


def test_a_folder_without_a_name_gets_one_by_the_time(here: Path) -> None:
    first, second = (medt.train(network(), small(), **QUICK) for _ in range(2))
    assert first.root != second.root
    assert first.root.parent == Path("runs/synthetic/axialunet")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: medt.open_dataset("gals"), "there is no dataset gals"),
        (lambda: medt.open_folder("i", "m", clases=["a"]), "takes no dataset.clases"),
        (lambda: medt.open_folder("i", "m", sampling="crops"), "dataset.sampling=crops"),
        (lambda: medt.open_folder("nowhere", "masks").index, "nowhere"),
        (lambda: medt.option("loss", "dice", gama=1), r"loss dice has no gama \(it has"),
        (lambda: medt.train("medt", small(), epoch=1), r"has no epoch \(did you mean epochs"),
        (lambda: medt.train(network(), small(), epochs=0), "trainer.epochs=0"),
        (lambda: medt.train("nope", small()), r"there is no model nope \(choose one of"),
        (lambda: medt.train("UNett", small()), r"there is no model UNett \(did you mean unet"),
        (lambda: medt.train(nn.Conv2d(3, 2, 1), small()), "does not say what it was built from"),
        (
            lambda: medt.train(medt.AxialUNet(classes=3, image_size=32), small()),
            "the network has classes=3, the data 2",
        ),
        (
            lambda: medt.train(medt.AxialUNet(1, image_size=32), small()),
            "the network has channels=1, the data 3",
        ),
        (
            lambda: medt.train(medt.AxialUNet(depths=[1, 1]), small()),
            "the network has image_size=128, the data 32",
        ),
        (lambda: medt.train(network(), small(), epochs="x"), "trainer.epochs is 'x'"),
        (lambda: medt.train(network(), small(), loss=max), "loss is a builtin_function"),
        (lambda: medt.train({"_target_": "os.Nothing"}, small()), "there is no model os.Nothing"),
        (lambda: medt.evaluate("nowhere", small()), "nowhere"),
        (lambda: medt.train(network(), small(), run_dir="images", **QUICK), "images is not empty"),
    ],
)
def test_what_is_wrong_is_said(here: Path, call, said: str) -> None:
    with pytest.raises(UserError, match=said):
        call()
