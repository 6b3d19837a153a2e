"""scripts/compare.py on run folders written by hand, whose numbers are known."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import compare
import pytest
from compare_runs import add_evaluation, compared, make_run
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from medt.cli.arguments import given_to, quoted
from medt.compare.curves import mean_curve
from medt.compare.past_run import find_runs, read_run
from medt.io.images import read_image


def names(report: dict[str, Any]) -> list[str]:
    return [group["name"] for group in report["groups"]]


def test_mean_and_sample_deviation_over_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "runs/0", 0.70)
    make_run(tmp_path / "runs/1", 0.80, seed=1, resume="auto", run_dir="elsewhere")
    circumstances = {"trainer.device": "cuda", "dataset.workers": 4, "paths.root": "there"}
    make_run(tmp_path / "runs/2", 0.84, seed=2, **circumstances)
    (group,) = compared(tmp_path, tmp_path / "runs")["groups"]
    # mean 2.34 / 3; squared deviations 0.0064 + 0.0004 + 0.0036 = 0.0104, by n - 1 = 2: 0.0052
    assert group["val_dice"] == pytest.approx({"mean": 0.78, "deviation": 0.0052**0.5})
    assert group["val_iou"] == pytest.approx({"mean": 0.68, "deviation": 0.0052**0.5})
    assert group["name"] == "glas medt"
    assert [run["seed"] for run in group["runs"]] == [0, 1, 2]
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("glas medt"))
    cells = [cell.strip() for cell in row.split("|")]
    assert cells == ["glas medt", "3", "3", "0.7800 ± 0.0721", "0.6800 ± 0.0721", "5 min 0 s"]
    assert "which flatters" in printed
    assert "sample standard deviation" in printed
    assert "warning" not in printed
    assert f"written to {tmp_path}/out" in printed


def test_the_csv_holds_what_the_table_shows(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 0.7, seed=0)
    make_run(tmp_path / "b", 0.8, seed=1)
    make_run(tmp_path / "c", 0.9, **{"optimizer.lr": 0.01})
    compared(tmp_path, *(tmp_path / name for name in "abc"))
    rows = list(csv.DictReader((tmp_path / "out/comparison.csv").open()))
    assert [row["group"] for row in rows] == ["optimizer.lr=0.01", "optimizer.lr=0.001"]
    assert rows[0]["val_dice_mean"] == "0.900000"
    assert rows[0]["val_dice_deviation"] == ""
    assert rows[1]["val_dice_mean"] == "0.750000"
    assert rows[1]["val_dice_deviation"] == "0.070711"  # 0.1 / sqrt(2)
    assert (rows[1]["runs"], rows[1]["unfinished"], rows[1]["epochs_most"]) == ("2", "0", "3")


def test_one_run_has_no_deviation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (group,) = compared(tmp_path, make_run(tmp_path / "run"))["groups"]
    assert group["val_dice"] == {"mean": 0.8, "deviation": None}
    table, notes = capsys.readouterr().out.split("val Dice, val IoU:")
    assert "±" not in table
    assert "no deviation" in notes


@pytest.mark.many_parameters
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"optimizer.lr": 0.01}, {"optimizer.lr=0.001", "optimizer.lr=0.01"}),
        (
            {"optimizer.betas": [0.5, 0.9]},
            {"optimizer.betas=[0.9,0.999]", "optimizer.betas=[0.5,0.9]"},
        ),
        (
            {"model.name": "unet", "model._target_": "medt.models.Baseline"},
            {"model=medt", "model=unet"},
        ),
        (
            {"optimizer._target_": "torch.optim.SGD", "optimizer.lr": 0.1, "trainer.epochs": 9},
            {"optimizer=AdamW trainer.epochs=3", "optimizer=SGD trainer.epochs=9"},
        ),
        ({"augmentation._target_": None}, {"augmentation=flip", "augmentation=none"}),
        ({"dataset.name": "folder"}, {"dataset=glas", "dataset=folder"}),
        # The model's size follows the dataset's.
        (
            {"dataset.image_size": 256, "model.image_size": 256},
            {"dataset.image_size=128", "dataset.image_size=256"},
        ),
        ({"model.depths": [1, 1]}, {"model.depths=missing", "model.depths=[1,1]"}),
    ],
)
def test_names_list_the_keys_that_differ(
    tmp_path: Path, changes: dict[str, Any], expected: set[str]
) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", **changes)
    assert set(names(compared(tmp_path, tmp_path / "a", tmp_path / "b"))) == expected


def test_groups_of_one_model_are_told_apart_by_its_keys(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 0.9)
    make_run(tmp_path / "b", 0.8, **{"model.image_size": 64})
    make_run(tmp_path / "c", 0.7, **{"model.name": "unet", "model.features": [8]})
    report = compared(tmp_path, *(tmp_path / name for name in "abc"))
    assert names(report) == [
        "model=medt model.image_size=missing",
        "model=medt model.image_size=64",
        "model=unet",
    ]


def test_evaluations_that_all_runs_of_a_group_have_are_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run(tmp_path / f"{seed}", seed=seed) for seed in (0, 1)]
    runs += [
        make_run(tmp_path / f"1{seed}", 0.7, seed=seed, **{"optimizer.lr": 0.1}) for seed in (0, 1)
    ]
    for run, dice in zip(runs, (0.5, 0.6, 0.7), strict=False):
        add_evaluation(run, "glas-test-native", dice)
    add_evaluation(runs[1], "glas-test-native-2", 0.8)
    add_evaluation(runs[1], "glas-test-native-10", 0.9, cases=60)
    add_evaluation(runs[0], "glas-val-paper", 0.5)
    add_evaluation(runs[0], "glas-val-native", None)
    add_evaluation(runs[1], "glas-val-native", 0.5)
    (runs[0] / "evaluation" / "notes").mkdir()
    report = compared(tmp_path, *runs)
    assert report["evaluations"] == ["glas-test-native"]
    best, other = (group["evaluations"]["glas-test-native"] for group in report["groups"])
    assert best == pytest.approx({"mean": 0.7, "deviation": 0.08**0.5})  # 0.5 and 0.9
    assert other is None
    printed = capsys.readouterr().out
    assert "Of several results the newest." in printed
    assert "warning: glas-test-native was scored on 60 and 80 cases" in printed
    row = next(line for line in printed.splitlines() if line.startswith("optimizer.lr=0.1 "))
    assert row.rstrip().endswith("|  5 min 0 s |               -")


def test_unfinished_runs_are_marked_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", epochs=1, finished=False, seed=1)
    (group,) = compared(tmp_path, tmp_path / "a", tmp_path / "b")["groups"]
    assert (group["unfinished"], group["epochs"]) == (1, [1, 3])
    printed = capsys.readouterr().out
    assert " 1-3* " in printed
    assert f"* 1 of 2 runs not finished: {tmp_path}/b" in printed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset.name": "folder"}, "rows differ in dataset.name: scores on different cases"),
        ({"overfit": 4}, "were validated on their training cases"),
        ({"dataset.image_size": 256}, "compare by evaluations with protocol=native"),
        ({"seed": 0}, "runs of glas medt share a seed"),
    ],
)
def test_warns_of_what_does_not_compare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], words: str
) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", **changes)
    compared(tmp_path, tmp_path / "a", tmp_path / "b")
    assert words in capsys.readouterr().out


def test_paths_with_any_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = tmp_path / 'l\'été, [x] \\ "${y}" a=b'
    make_run(sweep / "seed=0,optimizer.lr=0.001", 0.7)
    make_run(sweep / "seed=1,optimizer.lr=0.001", 0.8, seed=1)
    (group,) = compared(tmp_path, sweep)["groups"]
    assert len(group["runs"]) == 2
    paths = [run["path"] for run in group["runs"]]
    (group,) = compared(tmp_path, *map(Path, paths))["groups"]
    assert [run["path"] for run in group["runs"]] == paths
    monkeypatch.chdir(tmp_path)
    make_run(Path("seed=0,optimizer.lr=0.001"), 0.6)
    (group,) = compared(tmp_path, Path("seed=0,optimizer.lr=0.001"))["groups"]
    assert group["val_dice"]["mean"] == 0.6


@pytest.mark.parametrize(
    "text", ["a", "a'", "\\", "\\'", "${a}", "\\${a}", "$", " a ", "{,]", "\\\\"]
)
def test_quoting_survives_the_override_grammar(text: str) -> None:
    override = OverridesParser.create().parse_override(f"runs=[{quoted(text)}]")
    config = OmegaConf.create({"runs": override.value()})
    assert OmegaConf.to_container(config, resolve=True) == {"runs": [text]}


def test_overrides_and_options_are_no_paths(tmp_path: Path) -> None:
    arguments = ["runs", "--cfg", "job", "output=x", "seed=3", "runs/seed=3", "--help"]
    others = ["--cfg", "job", "output=x", "seed=3", "--help"]
    assert given_to("compare", arguments) == [*others, "runs=['runs','runs/seed=3']"]


def test_existing_files_are_replaced(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    compared(tmp_path, run)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for path in (tmp_path / "out").iterdir():
        path.write_text("old")
    compared(tmp_path, run)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert set(before) == {"comparison.csv", "comparison.json", "curves.png"}


def test_the_mean_curve_has_the_epochs_that_all_runs_have(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 0.6)
    make_run(tmp_path / "b", 0.8, epochs=4, seed=1)
    runs = [read_run(folder) for folder in find_runs([tmp_path])]
    assert mean_curve(runs, "train_loss") == pytest.approx({1: 1.0, 2: 1 / 2, 3: 1 / 3})
    assert mean_curve(runs, "val_dice") == pytest.approx({1: 0.2, 3: 0.6})


@pytest.mark.parametrize("count", [1, 8])
def test_the_picture_grows_with_its_legend(tmp_path: Path, count: int) -> None:
    for index in range(count):
        make_run(tmp_path / f"runs/{index}", **{"model.note": f"$x_{index}$ " * 5})
    compared(tmp_path, tmp_path / "runs")
    picture = read_image(tmp_path / "out/curves.png")
    height, width = picture.shape[:2]
    assert 1600 <= width <= 1700
    assert 650 <= height <= 850
    edges = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
    assert all((edge[..., :3] == 255).all() for edge in edges)  # nothing is cut off


HEAD = "epoch,train_loss,val_loss,val_dice\n"


GONE = "is missing or damaged"


@pytest.mark.many_parameters
@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("config.yaml", "a: [", "is damaged or not YAML"),
        ("config.yaml", "seed: 0", GONE),
        ("config.yaml", "{seed: 0, dataset: 1, model: 2, trainer: 3}", GONE),
        ("metrics.json", "{", "is damaged or not JSON"),
        ("metrics.json", '{"epoch": 3}', GONE),
        ("metrics.json", "[]", GONE),
        ("history.csv", None, "(check the path)"),
        ("history.csv", "", "has no column epoch"),
        ("history.csv", HEAD + "1,1,1,1\n", GONE),
        ("history.csv", HEAD + "1,1,1,1\n2,1", "line 3 has 2 fields, the first line 4"),
        ("history.csv", HEAD + "1,1,1,1\n2,x,1,1\n3,1,1,1\n", GONE),
        ("evaluation/glas-test-native/metrics.json", "{}", "is damaged"),
    ],
)
def test_damage_names_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str | None, fault: str
) -> None:
    make_run(tmp_path / "whole")
    run = make_run(tmp_path / "broken", seed=1)
    add_evaluation(run, "glas-test-native", 0.5)
    (run / name).unlink()
    if text is not None:
        (run / name).write_text(text)
    words = f"{run / name} {fault}"
    assert_refused(tmp_path, [str(tmp_path / "whole"), str(run)], words, capsys)


def assert_refused(
    tmp_path: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with a hint, exit code 1, nothing written."""
    assert compare.main([*arguments, f"output={tmp_path}/out"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err
    assert printed.err.endswith(")\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no run is given"),
        (["{}/nowhere"], "there is no folder"),
        (["{}/nowhere/seed=0"], "nowhere/seed=0"),
        (["x" * 5000 + "=1"], "xxx=1 is too long for a name"),
        (["x" * 5000], "File name too long"),
        (["{}/empty"], "there is no run in"),
        (["{}/young"], "has no metrics.json: it never came to a validation"),
        (["{}/empty", "runs=[x]"], "runs=... and paths are both given"),
        (["outptu=x"], "did you mean output?"),
    ],
)
def test_what_cannot_be_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    (make_run(tmp_path / "young") / "metrics.json").unlink()
    given = [argument.replace("{}", str(tmp_path)) for argument in arguments]
    assert_refused(tmp_path, given, words, capsys)


def test_an_output_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    assert compare.main([str(run), f"output={tmp_path}/file/out"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: Cannot write {tmp_path}/file/out: Not a directory")
    assert (printed.err.count("\n"), printed.out) == (1, "")


def test_from_the_shell_a_run_named_twice_counts_once(tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(tmp_path / f"a sweep/seed={seed}", 0.7 + 0.1 * seed, seed=seed)
    command = [sys.executable, compare.__file__, "a sweep/seed=0", "a sweep"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| 0.7500 ± 0.0707 |" in done.stdout
    assert "written to comparison\n" in done.stdout
    assert (tmp_path / "comparison/curves.png").is_file()


def test_help_says_how_to_use_it_and_loads_neither_torch_nor_matplotlib() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(compare.__file__).parent)!r}); import compare; "
        "code = compare.main(['--help']); "
        "assert not {'torch', 'matplotlib'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "python scripts/compare.py RUN_OR_FOLDER" in done.stdout
    assert "output: comparison" in done.stdout
