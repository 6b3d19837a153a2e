"""Run folders and checkpoints from anybody: data, never a program."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import compare
import evaluate
import export
import predict
import pytest
import torch
import train
import yaml
from conftest import tiny_dataset
from torch import nn

import medt
from medt.errors import UserError

Refused = Callable[..., None]
Content = dict[str, Any]
Change = Callable[[Content], object]

F64 = torch.float64


class OwnLoss(nn.Module):
    """A class that the user may name."""

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return logits.square().mean()


@pytest.fixture
def unfinished(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a run that resume takes: its state says that it has not ended."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    last = run / "checkpoints/last.pt"
    content = torch.load(last, weights_only=True)
    content["training"]["finished"] = False
    content["training"]["epoch"] = 1
    del content["training"]["history"][1:]
    torch.save(content, last)
    return run


def edit_config(run: Path, change: Change) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    change(config)
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def edit_checkpoint(path: Path, change: Change) -> Path:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


class TestTheConfigOfARun:
    """train.py resume=FOLDER."""

    PLACES = (
        ("loss", "class_weights"),
        ("loss", "dice_weight"),
        ("optimizer", "weight_decay"),
        ("optimizer", "betas"),
        ("scheduler", "warmup"),
        ("augmentation", "geometry"),
        ("augmentation", "more"),
        ("model", "heads"),
        ("model", "depths"),
        ("trainer", "clip_norm"),
        ("dataset", "image_size"),
        ("dataset", "size"),
    )

    @pytest.mark.many_parameters
    @pytest.mark.parametrize(("group", "key"), PLACES)
    @pytest.mark.parametrize("wrap", [lambda c: c, lambda c: [c], lambda c: {"a": [{"b": c}]}])
    def test_runs_nothing_however_deep(
        self,
        refused: Refused,
        unfinished: Path,
        tmp_path: Path,
        group: str,
        key: str,
        wrap: Callable[[Any], Any],
    ) -> None:
        mark = tmp_path / "MARK"
        command = {"_target_": "torch.utils.collect_env.run", "command": f"touch {mark}"}
        edit_config(unfinished, lambda config: config[group].update({key: wrap(command)}))
        refused(
            train.main, [f"resume={unfinished}", "check=false"], "config.yaml", f"{group}.{key}"
        )
        assert not mark.exists()

    @pytest.mark.parametrize(
        "group", ["loss", "optimizer", "scheduler", "augmentation", "model", "dataset", "trainer"]
    )
    def test_nor_where_a_group_is_something_else(
        self, refused: Refused, unfinished: Path, tmp_path: Path, group: str
    ) -> None:
        command = {"_target_": "torch.utils.collect_env.run", "command": f"touch {tmp_path}/MARK"}
        for value in (command, "os.system", []):
            edit_config(unfinished, lambda config, value=value: config.update({group: value}))
            refused(train.main, [f"resume={unfinished}", "check=false"], "config.yaml", group)
        assert not (tmp_path / "MARK").exists()

    def test_names_what_it_builds(self, refused: Refused, unfinished: Path) -> None:
        edit_config(unfinished, lambda config: config["augmentation"].pop("_target_"))
        refused(train.main, [f"resume={unfinished}", "check=false"], "augmentation")

    @pytest.mark.parametrize("key", ["_args_", "_partial_", "_convert_", "_recursive_"])
    def test_knows_no_words_of_hydra(self, refused: Refused, unfinished: Path, key: str) -> None:
        edit_config(unfinished, lambda config: config["loss"].update({key: ["x"]}))
        refused(train.main, [f"resume={unfinished}", "check=false"], f"loss.{key}")

    @pytest.mark.many_parameters
    @pytest.mark.parametrize(
        ("group", "key"),
        [*PLACES, ("dataset", "channels"), ("dataset", "num_classes"), ("trainer", "device")],
    )
    def test_tells_nothing_of_the_environment(
        self,
        unfinished: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        group: str,
        key: str,
    ) -> None:
        monkeypatch.setenv("SECRET", "very-secret")
        edit_config(unfinished, lambda config: config[group].update({key: "${oc.env:SECRET}"}))
        assert train.main([f"resume={unfinished}", "check=false"]) == 1
        said = capsys.readouterr()
        assert "very-secret" not in said.out + said.err
        assert said.err.count("\n") == 1
        written = [path.read_bytes() for path in unfinished.rglob("*") if path.is_file()]
        assert not any(b"very-secret" in content for content in written)

    def test_with_references_to_itself_is_refused(self, refused: Refused, unfinished: Path) -> None:
        laughs = "a0: &a0 [x]\n"
        laughs += "".join(f"a{i + 1}: &a{i + 1} [{f'*a{i},' * 9}]\n" for i in range(12))
        with (unfinished / "config.yaml").open("a") as file:
            file.write(laughs)
        refused(train.main, [f"resume={unfinished}"], "config.yaml", "another part of itself")
        refused(compare.main, [str(unfinished)], "config.yaml", "another part of itself")

    def test_that_is_right_goes_on(self, unfinished: Path) -> None:
        assert train.main([f"resume={unfinished}", "check=false"]) == 0

    def test_may_name_what_the_user_names(
        self, unfinished: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
    ) -> None:
        name = f"{__name__}.OwnLoss"
        edit_config(unfinished, lambda config: config.update({"loss": {"_target_": name}}))
        refused(train.main, [f"resume={unfinished}", "check=false"], f"allow={name}")
        assert train.main([f"resume={unfinished}", "check=false", f"allow={name}"]) == 0


CLASSES = [{"id": i, "name": name, "color": [i, i, i]} for i, name in enumerate("ab")]
HOSTILE: dict[str, Change] = {
    "ids swapped": lambda c: c["classes"].reverse(),
    "negative id": lambda c: c["classes"][1].update(id=-1),
    "id 77": lambda c: c["classes"][1].update(id=77),
    "id true": lambda c: c["classes"][1].update(id=True),
    "colour 300": lambda c: c["classes"][1].update(color=[300, 0, 0]),
    "colour of two": lambda c: c["classes"][1].update(color=[1, 2]),
    "colour text": lambda c: c["classes"][1].update(color="red"),
    "no name": lambda c: c["classes"][1].update(name=""),
    "one name": lambda c: c["classes"][1].update(name="background"),
    "long name": lambda c: c["classes"][1].update(name="x" * 10_000),
    "name with an escape": lambda c: c["classes"][1].update(name="\x1b[2J"),
    "name with a line break": lambda c: c["classes"][1].update(name="a\nb"),
    "class with more": lambda c: c["classes"][1].update(more=1),
    "classes of text": lambda c: c.update(classes=["a", "b"]),
    "300 classes": lambda c: c.update(
        classes=[{"id": i, "name": str(i), "color": [0, 0, 0]} for i in range(300)]
    ),
    "no training cases": lambda c: c.update(training_cases=None),
    "training cases of numbers": lambda c: c.update(training_cases=[1]),
    "scores of text": lambda c: c.update(scores={"val_dice": "high"}),
    "score NaN": lambda c: c.update(scores={"val_dice": float("nan")}),
    "scores a list": lambda c: c.update(scores=[0.5]),
    "epoch of text": lambda c: c.update(epoch="x" * 200_000),
    "epoch negative": lambda c: c.update(epoch=-1),
    "epoch true": lambda c: c.update(epoch=True),
    "mean NaN": lambda c: c["preprocessing"].update(mean=[float("nan")] * 3),
    "std NaN": lambda c: c["preprocessing"].update(std=[float("nan")] * 3),
    "std infinite": lambda c: c["preprocessing"].update(std=[float("inf")] * 3),
    "std zero": lambda c: c["preprocessing"].update(std=[0.0] * 3),
    "mean of text": lambda c: c["preprocessing"].update(mean=["0.5"] * 3),
    "order": lambda c: c["preprocessing"].update(order=3),
    "another image size": lambda c: c["preprocessing"].update(image_size=[64, 64]),
    "huge image size": lambda c: c["preprocessing"].update(image_size=[100_000, 100_000]),
    "image size of fractions": lambda c: c["preprocessing"].update(image_size=[32.5, 32]),
    "other channels": lambda c: c["preprocessing"].update(channels=1, mean=[0.5], std=[0.5]),
    "model a list": lambda c: c.update(model=[1]),
    "model without class": lambda c: c["model"].pop("_target_"),
    "endless depths": lambda c: c["model"].update(depths=[10**7, 1]),
    "endless stages": lambda c: c["model"].update(depths=[1] * 100_000),
    "depths of text": lambda c: c["model"].update(depths="12"),
    "huge width": lambda c: c["model"].update(width_factor=1e300),
    "heads true": lambda c: c["model"].update(heads=True),
    "unknown argument": lambda c: c["model"].update(nope=1),
    "model that builds": lambda c: c["model"].update(heads={"_target_": "os.getcwd"}),
    "config a list": lambda c: c.update(config=[1, 2]),
    "config with a tensor": lambda c: c["config"].update(more=torch.ones(1)),
    "dataset with a tensor": lambda c: c["dataset"].update(more=torch.ones(1)),
    "config deep": lambda c: c.update(config=nested(400)),
    "config that unfolds": lambda c: c.update(config={"a": unfolding()}),
    "dataset without name": lambda c: c["dataset"].pop("name"),
    "dataset name a list": lambda c: c["dataset"].update(name=["synthetic"]),
    "dataset that unfolds": lambda c: c.update(dataset={"name": unfolding()}),
    "sparse": lambda c: weight(c, lambda w: w.to_sparse()),
    "quantised": lambda c: weight(c, lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8)),
    "meta": lambda c: weight(c, lambda w: w.to("meta")),
    "expanded": lambda c: weight(c, lambda w: torch.zeros(1).expand(2**40)),
    "weight NaN": lambda c: weight(c, lambda w: w * float("nan")),
    "weight beyond 32 bits": lambda c: weight(c, lambda w: torch.full_like(w, 1e300, dtype=F64)),
    "weight complex": lambda c: weight(c, lambda w: w.to(torch.complex64)),
    "std that divides to infinity": lambda c: c["preprocessing"].update(std=[1e-320] * 3),
    "mean beyond all images": lambda c: c["preprocessing"].update(mean=[1e308] * 3),
    "an input of gigabytes": lambda c: (
        c["preprocessing"].update(image_size=[4096, 4096]),
        c["model"].update(image_size=4096),
    ),
    "weight infinite": lambda c: weight(c, lambda w: w + float("inf")),
    "weights of numbers": lambda c: c.update(weights={"a": 1}),
    "weights a list": lambda c: c.update(weights=[torch.ones(1)]),
    "variance negative": lambda c: variance(c, -1.0),
    "variance NaN": lambda c: variance(c, float("nan")),
    "an empty weight": lambda c: c["weights"].update(empty=torch.zeros(0)),
    "weights without end": lambda c: c.update(
        weights=dict.fromkeys(map(str, range(20_001)), torch.zeros(1)),
        model={**c["model"], "depths": [100_000] * 2},
    ),
    "a number for a key": lambda c: c.update({1: 1}),
    "a tuple for a key": lambda c: c.update({(1, 2): 1}),
    "one key more": lambda c: c.update(more=1),
    "one key less": lambda c: c.pop("classes"),
    "a key of the class": lambda c: c.update(allow=["os.system"]),
}


# All commands read a checkpoint by one function; these show it.
EVERYWHERE = ("weight NaN", "mean NaN", "id 77", "config that unfolds", "endless depths", "sparse")


def nested(depth: int) -> Content:
    inner: Content = {}
    for _ in range(depth):
        inner = {"a": inner}
    return inner


def unfolding() -> list[Any]:
    laughs: list[Any] = ["ha"]
    for _ in range(30):
        laughs = [laughs] * 10
    return laughs


def weight(content: Content, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    name = next(n for n, w in reversed(content["weights"].items()) if w.is_floating_point())
    content["weights"][name] = change(content["weights"][name])


def variance(content: Content, value: float) -> None:
    name = next(n for n in content["weights"] if n.endswith("running_var"))
    content["weights"][name][0] = value


@pytest.mark.many_parameters
@pytest.mark.parametrize("name", HOSTILE)
def test_a_checkpoint_that_is_not_one_of_ours_is_refused_by_all_that_take_one(
    refused: Refused, tiny_run: Path, tmp_path: Path, name: str
) -> None:
    images, _ = tiny_dataset()
    (tmp_path / "x").mkdir()
    path = tmp_path / "x/best.pt"
    shutil.copy(tiny_run / "checkpoints/best.pt", path)
    edit_checkpoint(path, HOSTILE[name])
    with pytest.raises(UserError, match=r"best\.pt"):
        medt.load(path)
    predicting = [f"input={next(images.rglob('*.png'))}", f"output={tmp_path}/o"]
    refused(predict.main, [f"checkpoint={path}", *predicting], str(path))
    if name not in EVERYWHERE:
        return
    refused(evaluate.main, [f"checkpoint={path}"], str(path))
    refused(evaluate.main, [f"checkpoint={path}", "tune=true"], str(path))
    refused(export.main, [f"checkpoint={path}", "format=safetensors"], str(path))
    whole = tiny_run / "checkpoints/best.pt"
    refused(predict.main, [f"checkpoint=[{whole},{path}]", *predicting], str(path))


@pytest.mark.parametrize(
    "name",
    ["weight NaN", "mean NaN", "id 77", "config that unfolds", "sparse", "scores of text"],
)
def test_nor_does_a_training_go_on_from_one(refused: Refused, unfinished: Path, name: str) -> None:
    edit_checkpoint(unfinished / "checkpoints/last.pt", HOSTILE[name])
    refused(train.main, [f"resume={unfinished}", "check=false"], "last.pt")


@pytest.mark.many_parameters
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epoch", "x"),
        ("epoch", -1),
        ("step", None),
        ("history", [1]),
        ("history", [{"epoch": "x"}]),
        ("sums", [1]),
        ("sums", {"counts": 3}),
        ("best_score", "high"),
        ("best_epoch", 99),
        ("model", {}),
        ("model", [1]),
        ("optimizer", {}),
        ("optimizer", {"state": {}, "param_groups": []}),
        ("optimizer", {"state": {0: "x"}, "param_groups": [{"params": [0]}]}),
        ("precision", 3),
        ("torch_random", 3),
        ("torch_random", torch.zeros(5)),
        ("cuda_random", 7),
        ("average", "x"),
        ("more", 1),
    ],
)
def test_nor_from_a_state_that_is_not_one(
    capsys: pytest.CaptureFixture[str], unfinished: Path, key: str, value: Any
) -> None:
    last = unfinished / "checkpoints/last.pt"
    edit_checkpoint(last, lambda content: content["training"].update({key: value}))
    before = last.read_bytes()
    assert train.main([f"resume={unfinished}", "check=false"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert "last.pt" in error
    assert "not foreseen" not in error
    assert last.read_bytes() == before


@pytest.mark.parametrize("key", ["optimizer", "trainer", "model"])
def test_nor_where_the_checkpoint_lacks_the_config_of_its_run(
    refused: Refused, unfinished: Path, key: str
) -> None:
    edit_checkpoint(
        unfinished / "checkpoints/last.pt", lambda content: content["config"].pop(key, None)
    )
    refused(train.main, [f"resume={unfinished}", "check=false"], "last.pt")


def test_the_whole_file_is_taken(tiny_run: Path, tmp_path: Path) -> None:
    """What the tests above change is refused for the change."""
    shutil.copy(tiny_run / "checkpoints/best.pt", tmp_path / "best.pt")
    edit_checkpoint(tmp_path / "best.pt", lambda content: None)
    assert medt.load(tmp_path / "best.pt").classes[1].name == "gland"
