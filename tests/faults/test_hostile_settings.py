"""Whatever settings hold, on the command line or in YAML: an answer or one line that names it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import benchmark
import check_data
import compare
import evaluate
import export
import import_official
import predict
import prepare_data
import pytest
import torch
import train
import yaml
from conftest import TINY, TINY_IMAGES, tiny
from hostile import (
    HOSTILE,
    Command,
    changed,
    damaged,
    tried,
    unfinished_run,
    unfolding,
    without_training,
)
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from medt.cli.arguments import CONFIGS, quoted
from medt.config import register_schema
from medt.config.groups import GROUPS
from medt.data.layout import DatasetCard, default_classes, write_card
from medt.errors import UserError
from medt.io.text import for_terminal

MANY = os.environ.get("MEDT_FAULTS") == "all"
BOUNDED = settings(
    max_examples=int(os.environ.get("MEDT_EXAMPLES", 150 if MANY else 2)),
    deadline=60_000,  # milliseconds: a hang
    suppress_health_check=[*HealthCheck],
)
SCRIPTS: dict[str, Command] = {
    "train": train.main,
    "evaluate": evaluate.main,
    "predict": predict.main,
    "prepare_data": prepare_data.main,
    "check_data": check_data.main,
    "benchmark": benchmark.main,
    "import_official": import_official.main,
    "export": export.main,
    "compare": compare.main,
}
WORK = "one/two/three/four/work"  # a path out of it stays below the folder that is watched
# Of the override grammar: what it refuses, reads otherwise, or makes of it.
WORDS = [
    *("", " ", "'", '"', "'x", '"x', "[", "]", "[1", "{", "{a", "{a:1", "{a:", "(", ")", ",", ":"),
    *(
        "=",
        "\\",
        "\\'",
        "a'b",
        "$",
        "${",
        "${}",
        "${loss",
        "${nope}",
        "${nope:1}",
        "${oc.env:NOPE}",
    ),
    *("${now:%Y}", "${required:seed}", "${count:3}", "${.x}", "${..x}", "???", "null", "nan"),
    *("inf", "-inf", "1e999", "1_0", "0x10", "true", "yes", "on", "None", "a,b", "1,2", "[1,2]"),
    *("choice(1,2)", "range(1,3)", "glob(*)", "interval(1,2)", "shuffle(1,2)", "sort(2,1)"),
    *("int(x)", "str(1)", "nope(1)", "float(nan)", "json_str(1)", "extend_list(1)", "[[1],[2]]"),
    *("{a:1}", "{a:1,a:2}", "{name:x}", "{_target_:os.getcwd}", "[{_target_:os.getcwd}]", "{1:2}"),
    *("{[1]:2}", "@", "@x", "a@b", "../../../../planted", "/", ".", "..", "~", "~nobody/x", "%s%n"),
    *("1" * 5000, "x" * 5000, "[" * 200, "{a:" * 200, "\0", "\x1b[2J", "a\nb", "\r", "\ud800", "ä"),
    *(
        "\u0661",
        "\uff11",
        "-0",
        "0.0",
        "-1",
        "1e-400",
        "9" * 30,
        "9" * 400,
        "<b>",
        "[red]",
        "# x",
        "!!x",
    ),
    *("/dev/null", "/dev/zero", "/dev/null/x", "/proc/self/nope", "nowhere/at/all", "x" * 300),
    *("pipe", "folder", "dangling", "loop", "text.txt", "broken.pt", "folder/", "text.txt/below"),
]
# What else may stand around a key, and Hydra's own keys.
BEFORE = ["", "", "+", "++", "~", "/", ".", "-", "--", " "]
BEHIND = ["", "", "@", "@x", "@:x", "@a:b", "@_global_", "/", "/x", ".", ".x", ".0", "[0]"]
EQUALS = ["=", "=", "=", "==", "", " = "]
OTHER_KEYS = ["experiment", "hydra", "hydra.run.dir", "hydra.sweep.dir", "hydra.searchpath"]
OTHER_KEYS += [
    "hydra/job_logging",
    "hydra/launcher",
    "hydra.verbose",
    "hydra.job.chdir",
    "defaults",
]


@pytest.fixture(scope="module")
def whole(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, its images as three kinds of dataset, and weights of the official code."""
    folder = unfinished_run(tiny_run, tmp_path_factory.mktemp("settings"))
    shutil.copytree(TINY.parent, folder / "drawn/synthetic")
    prepared = folder / "drawn/glas"
    for kind in ("images", "masks"):
        shutil.copytree(TINY / kind, prepared / kind)
    names = sorted(path.stem for path in (prepared / "images").iterdir())
    write_card(
        prepared, DatasetCard("glas", default_classes(("background", "gland")), 3, "", "", "")
    )
    rows = [f"{name},{name},{name.partition('_')[0]}" for name in names]
    (folder / "archive").mkdir()
    for number, name in enumerate(names[:4], start=1):
        shutil.copy(prepared / f"images/{name}.png", folder / f"archive/train_{number}.bmp")
        shutil.copy(prepared / f"masks/{name}.png", folder / f"archive/train_{number}_anno.bmp")
    rows_there = [f"train_{number},,train" for number in range(1, 5)]
    (folder / "archive.csv").write_text("\n".join(["case,group,split", *rows_there]) + "\n")
    (folder / "drawn/splits").mkdir()
    text = "\n".join(["case,group,split", *rows]) + "\n"
    (folder / "drawn/splits/glas.csv").write_text(text)
    return folder


@pytest.fixture
def place(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that stands for all that a command could reach."""

    def untimed(*_: Any) -> None:
        raise UserError("benchmark: nothing is timed")

    monkeypatch.setattr("medt.cli.benchmark.measure", untimed)
    monkeypatch.setattr("medt.cli.import_official.load_official", lambda *_: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    with without_training(tmp_path, monkeypatch):
        yield tmp_path


def furnished(place: Path, whole: Path) -> Path:
    """The working folder in `place`, anew, with a copy of the data and things that are no files."""
    os.chdir(place)
    for old in place.iterdir():
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    work = place / WORK
    shutil.copytree(whole / "drawn", work / "data")
    shutil.copytree(whole / "run", work / "run")
    shutil.copytree(whole / "archive", work / "archive")
    shutil.copy(whole / "archive.csv", work)
    (work / "folder").mkdir()
    (work / "dangling").symlink_to("nowhere")
    (work / "loop").symlink_to("loop")
    (work / "text.txt").write_text("text")
    (work / "broken.pt").write_bytes(b"PK\3\4broken")
    torch.save({"a": torch.zeros(1)}, work / "official.pt")
    shutil.copy(TINY / "images/test_1.png", work / "image.png")
    os.mkfifo(work / "pipe")
    os.chdir(work)
    return work


OF_RUN = ["checkpoint=run/checkpoints/best.pt", "device=cpu", "output=o"]
SYNTHETIC = [text for text in tiny(Path()) if text.startswith(TINY_IMAGES[1:])]
SYNTHETIC += ["paths.data=data"]
GLAS = ["dataset=glas", "paths.data=data"]
FOLDER = ["dataset=folder", "dataset.images=data/glas/images", "dataset.masks=data/glas/masks"]
FOLDER += ["dataset.classes=[background,gland]"]
SMALL = [text for text in tiny(Path()) if not text.startswith(TINY_IMAGES)]
SMALL += ["paths.runs=o", "run_dir=o/run"]
# Arguments with which a script does its work in no time.
USUAL: dict[str, list[list[str]]] = {
    "train": [
        [*SMALL, *SYNTHETIC],
        [*SMALL, *FOLDER, "check=false"],
        [*SMALL, *GLAS, "dry_run=true", "check=false"],
        ["resume=run", "check=false", "trainer.device=cpu"],
        [*SMALL, *SYNTHETIC, "resume=auto", "check=false"],
        [*SMALL[:-1], *SYNTHETIC, "-m", "seed=0,1", "check=false", "hydra.sweep.dir=o/sweep"],
    ],
    "evaluate": [
        [*OF_RUN, "split=test", "panels=0", "paths.data=data"],
        [*OF_RUN, "split=test", "panels=0", *FOLDER],
    ],
    "predict": [[*OF_RUN, "input=image.png"], [*OF_RUN, "input=image.png", "instances=true"]],
    "prepare_data": [
        SYNTHETIC,
        FOLDER,
        [*GLAS, "source=archive", "dataset.root=o/a", "dataset.splits_file=archive.csv"],
    ],
    "check_data": [
        [*SYNTHETIC, "output=o"],
        [*FOLDER, "output=o", "preview=true"],
        [*GLAS, "output=o"],
    ],
    "benchmark": [["networks=[unet]", "sizes=[64]", "batches=[1]", "output=o"]],
    "import_official": [["weights=official.pt", "output=o/a.pt", "model=gated_axial_unet"]],
    "export": [[OF_RUN[0], "format=safetensors", "output=o"]],
    "compare": [["run", "output=o"]],
}


def keys_of(script: str, arguments: Sequence[str]) -> list[str]:
    """Every key of a script's config at every depth, its groups, and Hydra's own."""
    register_schema()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose(script, [text for text in arguments if "=" in text and ",1" not in text])
    found: list[str] = [*GROUPS, *OTHER_KEYS]
    waiting: list[tuple[str, Any]] = [("", OmegaConf.to_container(cfg, resolve=False))]
    while waiting:
        at, node = waiting.pop()
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            found.append(f"{at}{name}")
            if isinstance(value, dict | list):
                waiting.append((f"{at}{name}.", value))
    return sorted(set(found))


KEYS = {
    script: sorted({key for one in every for key in keys_of(script, one)})
    for script, every in USUAL.items()
}


def in_words(value: Any) -> str:
    """A value as the override grammar has it; what is no text is written as it is."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return f"[{','.join(map(in_words, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{in_words(part)}" for key, part in value.items()) + "}"
    return "null" if value is None else str(value).lower()


def values() -> st.SearchStrategy[Any]:
    return st.one_of(st.sampled_from(HOSTILE), st.sampled_from(WORDS), st.text(max_size=8))


@st.composite
def overrides(draw: st.DrawFn, keys: Sequence[str]) -> str:
    """A key that there is, or nearly, and an odd value."""
    key = draw(st.sampled_from(keys))
    options = [path.stem for path in (CONFIGS / key).glob("*.yaml")]
    value = draw(st.one_of(st.sampled_from([*WORDS, *options]), values().map(in_words)))
    if draw(st.integers(0, 3)):
        return f"{key}={value}"
    before, after, equals = (draw(st.sampled_from(one)) for one in (BEFORE, BEHIND, EQUALS))
    return f"{before}{key}{after}{equals}{value}"


def names_one_of(line: str, arguments: Sequence[str]) -> bool:
    """Whether an error speaks of one of these: of its key, a part of that, or its value."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        shown = [
            argument[:30],
            repr(value),
            value.strip("'\"")[:30],
            *re.split(r"[/.@+~\- ]+", key),
        ]
        shown += re.split(r"\W+", value)
        if any(part and (part in line or for_terminal(part) in line) for part in shown):
            return True
    return False


@pytest.mark.parametrize("script", USUAL)
@BOUNDED
@given(data=st.data())
def test_overrides(script: str, whole: Path, place: Path, data: st.DataObject) -> None:
    usual = data.draw(st.sampled_from(USUAL[script]))
    odd = data.draw(st.lists(overrides(KEYS[script]), min_size=1, max_size=2))
    furnished(place, whole)
    line = tried(SCRIPTS[script], [*usual, *odd], place, "")
    assert names_one_of(line, [*odd, "benchmark"]) or not line, line


@st.composite
def contents(draw: st.DrawFn, group: str, whole: Path) -> bytes:
    """A config file: one of ours with odd values, with odd lines before it, or damaged."""
    options = sorted((CONFIGS / group).glob("*.yaml"))
    text = draw(st.sampled_from(options)).read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    if content.get("name") == "synthetic":
        content |= {"train": 6, "val": 2, "test": 2, "size": 64}
    if group == "experiment":
        config = yaml.safe_load((whole / "run/config.yaml").read_text())
        kept = draw(st.sets(st.sampled_from(sorted(config)), max_size=3))
        content |= {key: config[key] for key in kept}
    if draw(st.integers(0, 3)) == 0:
        return draw(damaged(yaml.safe_dump(content)))
    odd = draw(changed(content, WORDS))
    package = draw(st.sampled_from(["_global_", "_global_", "_group_", "x", "", "a.b", "hydra"]))
    head = f"# @package {package}\n" if group == "experiment" else ""
    return (head + yaml.safe_dump(odd, sort_keys=False)).encode()


@pytest.mark.parametrize(
    ("script", "group"),
    [
        *(("train", group) for group in ("experiment", "dataset", "model", "loss", "hydra")),
        *(("train", group) for group in ("optimizer", "scheduler", "augmentation", "trainer")),
        *(("evaluate", group) for group in ("dataset", "protocol", "postprocess")),
        *(("check_data", "dataset"), ("prepare_data", "dataset"), ("predict", "postprocess")),
        ("import_official", "model"),
    ][:: 1 if MANY else 8],
)
@BOUNDED
@given(data=st.data())
def test_own_configs(
    script: str, group: str, whole: Path, place: Path, data: st.DataObject
) -> None:
    work = furnished(place, whole)
    name = data.draw(st.sampled_from(["own", "own", "own", "../own", "none", "."]))
    (work / f"configs/{group}").mkdir(parents=True)
    (work / f"configs/{group}/own.yaml").write_bytes(data.draw(contents(group, whole)))
    usual = [text for text in USUAL[script][0] if not text.startswith(f"{group}")]
    line = tried(SCRIPTS[script], [*usual, "--config-dir=configs", f"{group}={name}"], place, "")
    assert names_one_of(line, [f"{group}={name}", "configs", *usual]) or not line, line


@pytest.mark.parametrize(
    "script", ["check_data", *(["train", "evaluate", "prepare_data"] if MANY else [])]
)
@BOUNDED
@given(data=st.data())
def test_cards_of_datasets(script: str, whole: Path, place: Path, data: st.DataObject) -> None:
    work = furnished(place, whole)
    card = work / "data/glas/dataset.yaml"
    text = card.read_text()
    if data.draw(st.booleans()):
        card.write_text(yaml.safe_dump(data.draw(changed(yaml.safe_load(text), [unfolding()]))))
    else:
        card.write_bytes(data.draw(damaged(text)))
    more = {
        "train": SMALL,
        "evaluate": [*OF_RUN, "split=test", "panels=0"],
        "check_data": ["output=o"],
        "prepare_data": ["source=archive"],
    }[script]
    line = tried(SCRIPTS[script], [*more, *GLAS], place, "")
    assert names_one_of(line, ["glas"]) or not line, line
