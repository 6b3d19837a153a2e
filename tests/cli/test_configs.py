"""Every file of configs/: all keys, their values, a comment beside each; --help tells them."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import train
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from medt.cli.arguments import CONFIGS
from medt.cli.config_files import comments_of
from medt.config import register_schema
from medt.config.groups import GROUPS as CLOSED
from medt.config.scripts import SCRIPTS
from medt.shipped import FOLDERS, shipped
from medt.targets import GIVEN, GROUPS, NOT_ARGUMENTS, TARGET, check_group, target_of
from medt.training.settings import TrainerSettings

FILES = sorted(
    path for path in CONFIGS.rglob("*.yaml") if path.parent.name not in ("experiment", "hydra")
)
OPEN = [path for path in FILES if path.parent.name in GROUPS]
NOT_SHOWN = {"ignore_index"}  # of the losses: the value that the loader writes


def name_of(path: Path) -> str:
    return path.relative_to(CONFIGS).with_suffix("").as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_key_has_a_comment(path: Path) -> None:
    own = {
        key: comment
        for key, comment in comments_of(path).items()
        if key.rpartition(".")[2] not in ("_target_", "model")
    }
    assert [key for key, comment in own.items() if not comment] == []
    text = path.read_text()
    assert max(map(len, text.splitlines())) <= 104


@pytest.mark.parametrize("path", OPEN, ids=name_of)
def test_an_open_group_lists_all_that_its_class_takes(path: Path) -> None:
    group = path.parent.name
    values = yaml.safe_load(path.read_text())
    target = target_of(values, group)
    if group == "optimizer" or "Baseline" in values[TARGET]:  # of torch; for several networks
        return
    taken = set(inspect.signature(target).parameters) - set(GIVEN.get(group, ()))
    assert taken - NOT_SHOWN == set(values) - {TARGET, *NOT_ARGUMENTS.get(group, {})}


@pytest.mark.parametrize("path", OPEN, ids=name_of)
def test_the_values_are_what_the_class_takes(path: Path) -> None:
    values = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(values, dict)
    later = [key for key, value in values.items() if "${" in str(value)]
    known: dict[str, Any] = {str(k): v for k, v in values.items() if k not in later}
    check_group(known, path.parent.name, (), later)


def test_a_closed_group_has_the_keys_of_its_type() -> None:
    register_schema()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        for group in CLOSED:
            script = {"protocol": "evaluate", "postprocess": "evaluate", "table": "reproduce"}
            for path in sorted((CONFIGS / group).glob("[!_]*.yaml")):
                chosen = compose(script.get(group, "train"), [f"{group}={path.stem}"])[group]
                (schema,) = re.findall(r"- schema_(\w+)", path.read_text())
                names = {field.name for field in dataclasses.fields(CLOSED[group][schema])}
                told = {key.partition(".")[0] for key in comments_of(path)}
                assert set(chosen) == names == told, path


def test_the_trainer_has_the_defaults_that_its_file_shows() -> None:
    shown = yaml.safe_load((CONFIGS / "trainer" / "default.yaml").read_text())
    del shown["defaults"]
    assert dataclasses.asdict(TrainerSettings()) == shown


@pytest.mark.parametrize("command", SCRIPTS)
def test_a_command_shows_every_key_of_its_own(command: str) -> None:
    groups = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    names = {field.name for field in dataclasses.fields(SCRIPTS[command])}
    shown = {key.partition(".")[0] for key in comments_of(CONFIGS / f"{command}.yaml")}
    assert names - groups == shown - groups


def test_help_says_what_every_key_means(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert train.main(["loss=focal", "--help"]) == 0
    said = capsys.readouterr().out
    for line in (
        "seed: 0                                     # of weights, order and augmentation",
        "trainer: # default",
        "  epochs: 120                               # passes over the training cases",
        "loss: # focal",
        "  gamma: 2.0                                # at least 0, which is cross-entropy",
        "loss: cross_entropy, dice, dice_ce, focal, tversky",
    ):
        assert line in said
    assert "schema_" not in said
    assert "_common" not in said
    unsaid = [
        line
        for line in said.partition("The config:")[2].splitlines()
        if ": " in line and "#" not in line and "_target_" not in line
    ]
    assert [line for line in unsaid if "--config-dir=FOLDER" not in line] == []


def test_help_fits_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert train.main(["--help"]) == 0
    config = capsys.readouterr().out.partition("The config:")[2]
    wide = [line for line in config.splitlines() if len(line) > 80 and "${now" not in line]
    assert [line for line in wide if len(line.partition("#")[0]) <= 44] == []


def test_what_is_shipped_is_there() -> None:
    for name in FOLDERS:
        assert any(shipped(name).iterdir())
