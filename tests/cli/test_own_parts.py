"""A user's own network, loss, optimizer and schedule, from a folder of YAML files of theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import evaluate
import export
import predict
import pytest
import torch
import train
from conftest import TINY, tiny, tiny_dataset

import medt

PACKAGE = """
import torch
from torch import nn


class MyNet(nn.Module):
    def __init__(self, channels: int, classes: int, width: int = 8, deep: bool = False):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, classes, 1)
        )

    def forward(self, x):
        return self.layers(x)

class MyLoss(nn.Module):
    def __init__(self, power: float = 1.0):
        super().__init__()
        self.power = power

    def forward(self, logits, target):
        return nn.functional.cross_entropy(logits, target, ignore_index=255) ** self.power

def my_loss(logits, target, power: float = 1.0):
    return nn.functional.cross_entropy(logits, target, ignore_index=255) ** power

def my_schedule(step, steps, floor: float = 0.1):
    return max(floor, 1 - step / steps)

class MyOptimizer(torch.optim.SGD):
    pass
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a package and configs of its own."""
    import sys

    tiny_dataset()
    (tmp_path / "mypackage.py").write_text(PACKAGE)
    files = {
        "model/mynet": "_target_: mypackage.MyNet\nwidth: 4 # channels\n",
        "model/misspelt": "_target_: mypackage.MyNet\nwidht: 4\n",
        "model/mistyped": "_target_: mypackage.MyNet\nwidth: wide\n",
        "loss/mine": "_target_: mypackage.MyLoss\npower: 1.5\n",
        "loss/function": "_target_: mypackage.my_loss\npower: 1.5\n",
        "optimizer/mine": "_target_: mypackage.MyOptimizer\nlr: 0.1\n",
        "scheduler/mine": "_target_: mypackage.my_schedule\nfloor: 0.2\n",
        "experiment/misspelt": "# @package _global_\nloss:\n  includ_background: true\n",
        "experiment/chosen": "# @package _global_\nmodel: mynet\n",
        "experiment/unpacked": "defaults:\n  - override /dataset: folder\n",
        "experiment/mistyped": "# @package _global_\ntrainer:\n  epoch: 3\n",
    }
    for name, text in files.items():
        file = tmp_path / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("mypackage", None)


def own(folder: Path, *more: str) -> list[str]:
    kept = [text for text in tiny(folder) if not text.startswith("model")]
    return ["--config-dir=conf", *kept, f"run_dir={folder}/run", *more]


PARTS = ("model=mynet", "loss=mine", "optimizer=mine", "scheduler=mine")


def test_they_train_resume_score_predict_and_export(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(own(mine, *PARTS)) == 0
    said = capsys.readouterr().out
    run = mine / "run"
    assert "MyNet (" in said
    assert f"checkpoint={shown(run)} allow=mypackage.MyNet split=val" in said
    more = [f"resume={run}", "trainer.epochs=3", "resume_force=true", "allow=mypackage"]
    assert train.main([*more, f"paths.data={mine}"]) == 0
    given = [f"checkpoint={run}", "allow=mypackage.MyNet"]
    assert evaluate.main(given) == 0
    assert predict.main([*given, f"input={TINY}/images/val_1.png", f"output={mine}/out"]) == 0
    assert export.main([*given, "format=safetensors"]) == 0
    assert (mine / "out" / "val_1.png").is_file()
    network = medt.load(run, allow="mypackage").model
    assert type(network).__name__ == "MyNet"
    assert next(network.parameters()).shape[0] == 4


def shown(run: Path) -> Path:
    return run.relative_to(Path.cwd())


@pytest.mark.parametrize("allow", [(), ("allow=mypack",), ("allow=[]",), ("allow=mypackage.My",)])
def test_what_a_run_names_is_not_imported_unasked(
    mine: Path, refused: Any, allow: tuple[str, ...]
) -> None:
    assert train.main(own(mine, *PARTS, "trainer.epochs=1")) == 0
    refused(evaluate.main, [f"checkpoint={mine}/run", *allow], "allow=mypackage.MyNet")
    if allow and allow != ("allow=[]",):
        refused(evaluate.main, [f"checkpoint={mine}/run", *allow], f"{allow[0]} does not cover it")


def test_a_stopped_run_says_all_that_it_needs(
    mine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    from medt.training.trainer import Trainer

    step = Trainer.step

    def interrupted(self: Trainer, cases: list[str]) -> float:
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, cases)

    monkeypatch.setattr(Trainer, "step", interrupted)
    assert train.main(own(mine, *PARTS)) == 130
    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("to go on")]
    assert "allow=[" in line
    monkeypatch.undo()
    monkeypatch.chdir(mine)
    names = line.partition("allow=")[2].rstrip("'")
    assert train.main([f"resume={mine}/run", f"allow={names}"]) == 0


def test_a_function_is_a_loss_and_a_schedule(mine: Path) -> None:
    assert train.main(own(mine, "loss=function", "model=mynet", "scheduler=mine")) == 0


@pytest.mark.parametrize(
    ("override", "culprit", "hint"),
    [
        ("model=misspelt", "conf/model/misspelt.yaml: MyNet takes no model.widht", "width"),
        ("model=mistyped", "conf/model/mistyped.yaml: model.width is 'wide'", "a whole number"),
        ("experiment=misspelt", "misspelt.yaml: DiceCrossEntropyLoss takes no", "include_back"),
        ("experiment=mistyped", "mistyped.yaml: there is no key trainer.epoch", "trainer.epochs"),
        ("experiment=chosen", "model is a group", "under defaults: - override /model: NAME"),
        ("experiment=unpacked", "its choices are not those of", "# @package _global_"),
        ("loss.powr=3", "there is no key loss.powr", "loss.power"),
        ("model._target_=mypackage.Other", "there is no model mypackage.Other", "full name"),
        ("model._target_=mypackage", "there is no model", "full name"),
        ("model._target_=mypackage.MyNte", "there is no model", "did you mean mypackage.MyNet?"),
        ("model._target_=mypack.Net", "No module named 'mypack'", "in the folder that has mypack"),
    ],
)
def test_what_they_do_not_take_is_named_with_its_file(
    mine: Path, refused: Any, override: str, culprit: str, hint: str
) -> None:
    chosen = ["loss=mine"] if override.startswith("loss") else []
    refused(train.main, own(mine, *chosen, override), culprit, hint)


def test_a_package_that_is_broken_is_named(mine: Path, refused: Any) -> None:
    (mine / "mypackage.py").write_text("def broken(:\n")
    refused(train.main, own(mine, "model=mynet"), "mypackage cannot be imported: SyntaxError")


def test_own_options_are_offered_by_help(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--config-dir=conf", "model=mynet", "--help"]) == 0
    said = capsys.readouterr().out
    assert "misspelt, mistyped, mynet" in said
    (line,) = [one for one in said.splitlines() if one.strip().startswith("width: 4")]
    assert line.endswith("# channels")


def test_the_weights_of_an_own_network_start_another(mine: Path) -> None:
    assert train.main(own(mine, *PARTS, "trainer.epochs=1")) == 0
    again = own(mine, *PARTS, "trainer.epochs=1", f"run_dir={mine}/again")
    again += [f"model.weights={mine}/run", "optimizer.lr=0"]
    assert train.main(again) == 0
    first, second = (
        torch.load(mine / name / "checkpoints/best.pt", weights_only=True)["weights"]
        for name in ("run", "again")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert isinstance(first["layers.0.weight"], torch.Tensor)


def test_a_sweep_knows_them(mine: Path) -> None:
    given = own(mine, *PARTS, "trainer.epochs=1", "check=false", "seed=0,1")
    given = [text for text in given if not text.startswith("run_dir")]
    assert train.main(["-m", *given, f"hydra.sweep.dir={mine}/sweep"]) == 0
    assert len(list((mine / "sweep").glob("seed=*/checkpoints/best.pt"))) == 2


def test_a_broken_file_beside_is_no_fault_of_a_misspelt_key(mine: Path, refused: Any) -> None:
    (mine / "conf/model/broken.yaml").write_text("_target_: [\n")
    refused(train.main, own(mine, "model=mynet", "model.foo=1"), "there is no key model.foo")


def test_an_argument_that_the_file_leaves_out_is_named(mine: Path, refused: Any) -> None:
    given = own(mine, "model=mynet", "model.deep=true")
    refused(train.main, given, "mynet.yaml does not list it: add deep there")


@pytest.mark.parametrize(
    ("code", "part", "said"),
    [
        ("return self.layers(x)[..., ::2]", "model=mynet", "32 x 16 logits for masks of"),
        (
            "\n        return self.layer(x)",
            "model=mynet",
            "error: mypackage.py, line 15: AttributeError: 'MyNet' object has no attribute 'layer' "
            "(correct it; MEDT_DEBUG=1 shows the traceback)\n",
        ),
        (
            "return self.layers(x).sigmoid()[:, 1:]",
            "model=mynet",
            "gives 2 x 1 x 32 x 32 logits, but there are 2 classes with the background (return one "
            "channel per class: logits without softmax or sigmoid)",
        ),
        ("return self.layers(x)", "loss=many", "x 32 x 32 numbers (it must"),
    ],
)
def test_what_gives_no_logits_or_no_loss_is_told(
    mine: Path, capsys: pytest.CaptureFixture[str], code: str, part: str, said: str
) -> None:
    text = PACKAGE.replace("return self.layers(x)", code)
    text += "\ndef many(logits, target):\n    return nn.functional.cross_entropy(\n"
    text += '        logits, target, ignore_index=255, reduction="none")\n'
    (mine / "mypackage.py").write_text(text)
    (mine / "conf/loss/many.yaml").write_text("_target_: mypackage.many\n")
    given = own(mine, "model=mynet", part, "trainer.batch_size=4")
    assert train.main(given) == 1
    assert said in capsys.readouterr().err
