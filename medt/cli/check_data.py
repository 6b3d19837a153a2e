"""Look for faults in a dataset: python scripts/check_data.py dataset=glas"""

from __future__ import annotations

import os
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from medt.build import new_preprocessing, plan_of, training_set
from medt.check import Check
from medt.check.recipe import Machine, choose, recipe_text
from medt.check.report import lines, report, tables
from medt.check.sheet import draw_sheet, tiles_of
from medt.cli.arguments import CONFIGS
from medt.cli.screen import print_table
from medt.cli.settings import plain
from medt.cli.training_data import FOLDER_KEYS, check_of, own_settings
from medt.data.grouping import TABLE
from medt.data.open import open_dataset
from medt.data.preview import draw_preview, spread
from medt.drawing import Picture
from medt.errors import UserError
from medt.evaluation.tables import strict
from medt.io.console import safe_console
from medt.io.files import write_png, write_text
from medt.io.locks import locked
from medt.io.text import for_terminal, json_text, shown
from medt.shipped import typed
from medt.targets import targets_in
from medt.training.memory import available_bytes

REPORT, SHEET, PREVIEW = "check.json", "cases.png", "preview.png"


def check_data(cfg: DictConfig) -> int:
    output = Path(cfg.output)
    if cfg.write is not None:
        check_place(Path(cfg.write))
    with locked(output, "check_data.py"):
        settings = plain(cfg.dataset)
        index = open_dataset(settings, draws=True, plan=plan_of(settings, checks=True))
        found = check_of(settings, index)
        given = HydraConfig.get().overrides.task
        if cfg.dataset.name == "synthetic" and not any(one.startswith("dataset=") for one in given):
            print("no dataset=NAME was given, so these are synthetic images")
        print_check(found, suggests=cfg.write is None)
        write_text(output / REPORT, json_text(strict(report(found))))
        written = [REPORT]
        pictures = {SHEET: draw_sheet(found, cfg.cases)}
        if cfg.preview:
            pictures[PREVIEW] = preview(cfg, found)
        for name, picture in pictures.items():
            if picture is None:
                print(f"{name} is not drawn: it needs cases without errors")
            else:
                write_png(output / name, picture)
                written.append(name)
    print(f"{', '.join(written)} written to {shown(output)}")
    if cfg.write is not None and found.errors:
        print(f"{shown(Path(cfg.write))} is not written: mend the errors first")
    elif cfg.write is not None:
        write_recipe(Path(cfg.write), found, settings)
    return 1 if found.errors else 0


def check_place(file: Path) -> None:
    """Raises UserError unless a recipe can be written there, and train.py then finds it."""
    if file.suffix != ".yaml" or file.parent.name != "experiment":
        raise UserError(
            f"write={file} is no place where train.py looks for experiments",
            f"give a .yaml file in a folder experiment: write=conf/experiment/{file.stem}.yaml",
        )
    if not re.fullmatch(r"\w[\w-]*", file.stem, re.ASCII):
        raise UserError(f"{file.name} is no name for an experiment", "use letters, digits, - and _")
    if (CONFIGS / "experiment" / file.name).exists():
        raise UserError(f"experiment={file.stem} is one of medt's own", "give another name")
    if file.exists():
        raise UserError(f"{file} is there already", "remove it, or give another name")
    file.parent.mkdir(parents=True, exist_ok=True)


def write_recipe(file: Path, found: Check, settings: dict[str, Any]) -> None:
    """Write what suits the dataset as an experiment, and say how to train with it."""
    given = given_settings(settings)
    folder = shlex.quote(str(file.parent.parent))
    command = f"{typed('train')} --config-dir={folder} experiment={file.stem}"
    name = for_terminal(found.index.name)
    about = f"Recipe for {name}, from its training cases. Change what you like, then train with it:"
    encoders = find_spec("segmentation_models_pytorch") is not None
    machine = Machine(core_count(), available_bytes(torch.device("cpu")), encoders)
    chosen = choose(found, machine, given)
    write_text(file, recipe_text(chosen, given, settings["name"], about, command))
    print(f"{shown(file)} holds a recipe with the reason of each value. Train with it:")
    print(f"  {command}")


def given_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """What the user says of the dataset, and of its augmentation; paths from the root on."""
    given = own_settings(settings)
    for override in HydraConfig.get().overrides.task:
        key, _, value = override.partition("=")
        if key.startswith("dataset."):
            name = key.split(".")[1]
            given[name] = settings[name]
        elif key == "augmentation":
            given[key] = value
    given |= {key: str(Path(given[key]).resolve()) for key in FOLDER_KEYS if given.get(key)}
    if table := TABLE.fullmatch(given.get("group") or ""):
        given["group"] = f"{Path(table[1]).resolve()}:{table[2]}"
    return given


def core_count() -> int:
    """The cores that this process may use."""
    known = getattr(os, "sched_getaffinity", None)
    return len(known(0)) if known else os.cpu_count() or 1


def preview(cfg: DictConfig, found: Check) -> Picture | None:
    """Training cases as the network would get them; None if none is without errors."""
    config = plain(cfg)
    config["dataset"]["channels"] = found.settings.channels
    whole = {facts.case.name for facts in found.cases if not facts.faults}
    cases = [case for case in found.index.cases if case.split == "train" and case.name in whole]
    cases = spread(cases, cfg.preview_cases)
    if not cases:
        return None
    preprocessing = new_preprocessing(config["dataset"], cases, found.index.scan)
    allow = list(targets_in(config["augmentation"]))
    dataset = training_set(config, found.index, cases, preprocessing, allow)
    colors = [c.color for c in found.index.classes]
    return draw_preview(dataset, cfg.versions, colors, tiles_of(found))


def print_check(found: Check, suggests: bool) -> None:
    """Print what was found and, unless a recipe says it, what is suggested."""
    counts = ", ".join(f"{split} {count}" for split, count in found.index.counts().items())
    print(f"{found.index.name}: {counts}\n")
    for table in tables(found):
        print_table(table)
        print()
    for text in lines(found, min(max(safe_console().width, 80), 100), suggests):
        print_table(text)
    print(f"{_number(len(found.errors), 'error')}, {_number(len(found.warnings), 'warning')}\n")


def _number(count: int, name: str) -> str:
    return f"{count or 'no'} {name}{'s' * (count != 1)}"
