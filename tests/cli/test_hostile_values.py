"""Configs from anybody: odd values cost nothing and are told in one line."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import compare
import predict
import pytest
import torch
import train
from compare_runs import compared, make_run
from conftest import tiny_dataset
from test_hostile_runs import Refused, edit_checkpoint, edit_config

import medt
from medt.errors import UserError
from medt.inference.device import choose_device
from medt.models import Baseline
from medt.targets import GROUPS, OPTIMIZERS, build, check_spec


class TestComparing:
    @pytest.mark.parametrize("count", [3_000, 50_000])
    def test_refuses_more_settings_than_there_are(
        self, refused: Refused, tmp_path: Path, count: int
    ) -> None:
        one = make_run(tmp_path / "one")
        two = make_run(tmp_path / "two", more={f"key{i}": i for i in range(count)})
        refused(compare.main, [str(one), str(two), f"output={tmp_path}/out"], "config.yaml")

    def test_names_a_few_of_many_settings(self, tmp_path: Path) -> None:
        runs = [
            make_run(tmp_path / str(n), more={f"key{i}": i + n for i in range(25)}) for n in (0, 1)
        ]
        names = [group["name"] for group in compared(tmp_path, *runs)["groups"]]
        assert all(name.count("=") == 10 and name.endswith(" and 15 more") for name in names)

    def test_abridges_long_values(self, tmp_path: Path) -> None:
        one = make_run(tmp_path / "one", **{"model.name": "x" * 90_000})
        two = make_run(tmp_path / "two", **{"model.note": ["y" * 50_000], "y" * 50_000: 1})
        for runs in ((one,), (one, two)):
            names = [group["name"] for group in compared(tmp_path, *runs)["groups"]]
            assert max(map(len, names)) < 1500

    @pytest.mark.parametrize("value", ["3.4e38", "-3.4e38", "1e-300"])
    def test_says_nothing_of_large_losses(
        self, tmp_path: Path, value: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = make_run(tmp_path / "run")
        history = run / "history.csv"
        history.write_text(history.read_text() + f"4,{value},{value},0.5,0.1\n")
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            compared(tmp_path, run)
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("folds", [10**15, 1, -5])
    def test_counts_no_folds_without_end(
        self, refused: Refused, tmp_path: Path, folds: int
    ) -> None:
        run = make_run(tmp_path / "run", **{"dataset.folds": folds, "dataset.fold": 0})
        refused(compare.main, [str(run), f"output={tmp_path}/out"], "config.yaml", "dataset.folds")


@pytest.fixture
def unfinished(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a run that resume takes: its state says that it has not ended."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)

    def reopen(content: dict[str, Any]) -> None:
        content["training"] |= {"finished": False, "epoch": 1}
        del content["training"]["history"][1:]

    edit_checkpoint(run / "checkpoints/last.pt", reopen)
    return run


@pytest.mark.parametrize("name", ["meta", "xla", "vulkan", "cpu:0", "cuda:-1", "", "cuda:9999999"])
def test_no_other_devices(name: str) -> None:
    with pytest.raises(UserError, match="no device"):
        choose_device(name)


def test_a_run_on_a_device_that_computes_nothing(refused: Refused, unfinished: Path) -> None:
    edit_config(unfinished, lambda config: config["trainer"].update(device="meta"))
    refused(train.main, [f"resume={unfinished}", "check=false"], "no device meta")
    given = [f"checkpoint={unfinished}", f"input={tiny_dataset()[0]}", "device=meta"]
    refused(predict.main, [*given, f"output={unfinished}/../out"], "no device meta")


def test_a_run_with_a_pixel_size_that_is_none(refused: Refused, unfinished: Path) -> None:
    for wrong in ("wide", [0.5], -1.0, {"height": 1}):
        edit_config(
            unfinished, lambda config, wrong=wrong: config["dataset"].update(pixel_size=wrong)
        )
        given = [f"resume={unfinished}", "check=false"]
        refused(train.main, given, "config.yaml: dataset.pixel_size=", "0.25um")


@pytest.mark.parametrize("size", [0.5, "0.1mm", ["0.1mm", "0.2mm"]])
def test_a_run_with_a_pixel_size_goes_on(unfinished: Path, size: Any) -> None:
    edit_config(unfinished, lambda config: config["dataset"].update(pixel_size=size))
    assert train.main([f"resume={unfinished}", "check=false"]) == 0


@pytest.mark.parametrize("name", ["LBFGS", "SparseAdam", "Optimizer", "Muon"])
def test_optimizers_that_train_no_network_of_ours(
    refused: Refused, unfinished: Path, name: str
) -> None:
    spec = {"_target_": f"torch.optim.{name}", "lr": 0.1, "defaults": {}}
    if name != "Optimizer":
        del spec["defaults"]
    edit_config(unfinished, lambda config: config.update(optimizer=spec))
    refused(train.main, [f"resume={unfinished}", "check=false"], "config.yaml", name)
    with pytest.raises(UserError, match=name):
        check_spec(spec, "optimizer", allow=[f"torch.optim.{name}"], given=("params",))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_those_that_do_step_as_the_trainer_asks(name: str) -> None:
    weight = torch.nn.Parameter(torch.ones(2, 3, 3, 3))
    weight.square().sum().backward()
    spec = {"_target_": f"{GROUPS['optimizer']}.{name}"}
    build(spec, "optimizer", params=[weight]).step()
    assert (weight != 1).any()


def test_a_timeout_that_no_clock_takes(refused: Refused, unfinished: Path) -> None:
    edit_config(unfinished, lambda config: config["dataset"].update(timeout=1e300, workers=1))
    refused(train.main, [f"resume={unfinished}", "check=false"], "dataset.timeout", "86400")


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("unet", {"features": [0] * 6}),
        ("unet", {"features": [-1] * 6}),
        ("unet", {"features": []}),
        ("unet", {"features": "123456"}),
        ("unet", {"features": [8.5] * 6}),
        ("unet", {"encoder": "resnet34"}),
        ("fcn", {"features": [8] * 6}),
        ("unet", {"other": 1}),
    ],
)
def test_options_that_a_baseline_does_not_have(
    tiny_run: Path, tmp_path: Path, architecture: str, options: dict[str, Any]
) -> None:
    path = tmp_path / "best.pt"
    shutil.copy(tiny_run / "checkpoints/best.pt", path)
    model = {"_target_": "medt.models.Baseline", "architecture": architecture, **options}
    edit_checkpoint(path, lambda content: content.update(model=model))
    with pytest.raises(UserError, match=rf"best\.pt.*{next(iter(options))}"):
        medt.load(path)


def test_a_baseline_takes_its_own(tmp_path: Path) -> None:
    assert (
        Baseline("unet", features=[4, 4, 4, 4, 4, 4], encoder=None)(torch.zeros(1, 3, 32, 32)).ndim
        == 4
    )
