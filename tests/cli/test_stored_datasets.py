"""What a checkpoint or a run's config names as its data is read, never written to."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import check_data
import compare
import evaluate
import export
import predict
import prepare_data
import pytest
import torch
import train
import yaml
from conftest import TINY, files_below, tiny, tiny_dataset

Content = dict[Path, bytes | None]


def rewrite(run: Path, **dataset: Any) -> None:
    """Let all files of a run name other data, and the run have one more epoch to go."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["dataset"].update(dataset)
    config["trainer"]["epochs"] += 1
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    for name in ("best", "last"):
        path = run / "checkpoints" / f"{name}.pt"
        content = torch.load(path, weights_only=True)
        content["dataset"].update(dataset)
        content["config"]["dataset"].update(dataset)
        content["config"]["trainer"]["epochs"] += 1
        if content["training"] is not None:
            content["training"]["finished"] = False
        torch.save(content, path)


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run, to be rewritten."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.fixture
def other(tiny_run: Path, tmp_path: Path) -> Path:
    """The data of somebody else: a root of synthetic sets, and folders."""
    shutil.copytree(TINY, tmp_path / "other" / TINY.name)
    return tmp_path / "other"


def attacks(other: Path) -> dict[str, dict[str, Any]]:
    set_of_other = other / TINY.name
    folders = {
        "name": "folder",
        "images": str(set_of_other / "images"),
        "masks": str(set_of_other / "masks"),
        "classes": ["background", "gland"],
    }
    return {
        "elsewhere": {"root": str(other.parent / "elsewhere")},
        "without end": {"root": str(other.parent / "elsewhere"), "test": 10**9},
        "too much": {"root": str(other.parent / "elsewhere"), "test": 3_000},
        "another seed": {"root": str(other), "seed": 5},
        "planted": {**folders, "splits_file": str(other.parent / "elsewhere/PLANTED.csv")},
        "beside the images": {**folders, "splits_file": None},
    }


ATTACKS = list(attacks(Path()))
DRAWN = ("elsewhere", "another seed")  # by evaluate, in the user's own folder


def written(before: Content, after: Content, *allowed: Path) -> list[Path]:
    """What came, went or changed outside the folders that the user's command names."""
    changed = [p for p in before.keys() | after.keys() if before.get(p, 0) != after.get(p, 0)]
    return [p for p in changed if not any(p.is_relative_to(folder) for folder in allowed)]


@pytest.mark.parametrize("attack", ATTACKS)
class TestNothingIsWrittenWhereTheFileSays:
    def test_by_evaluate(self, run: Path, other: Path, tmp_path: Path, capsys, attack: str) -> None:
        rewrite(run, **attacks(other)[attack])
        before = files_below(tmp_path)
        code = evaluate.main([f"checkpoint={run}", "split=test", f"paths.data={tmp_path}/mine"])
        error = capsys.readouterr().err
        assert written(before, files_below(tmp_path), tmp_path / "mine", run / "evaluation") == []
        if attack in DRAWN:
            assert code == 0
            assert error.count("\n") == 1
            assert "Drawing 10 synthetic images of 64 x 64 pixels, about 1 MB, in" in error
            assert f"{tmp_path}/mine/synthetic/seed" in error
        else:
            assert code == 1
            assert error.count("\n") == 1
            assert f"{run}/checkpoints/last.pt: " in error
            assert not (tmp_path / "mine").exists()

    def test_by_a_resumed_training(
        self, run: Path, other: Path, refused: Callable[..., None], attack: str
    ) -> None:
        rewrite(run, **attacks(other)[attack])
        given = [f"resume={run}", f"paths.data={other.parent}/mine", "check=false"]
        refused(train.main, given, f"{run}/config.yaml: ")

    def test_by_predict_export_and_compare(
        self, run: Path, other: Path, tmp_path: Path, attack: str
    ) -> None:
        rewrite(run, **attacks(other)[attack])
        before, out = files_below(tmp_path), f"output={tmp_path}/out"
        image = TINY / "images/test_1.png"
        assert predict.main([f"checkpoint={run}", f"input={image}", out]) == 0
        assert export.main([f"checkpoint={run}", "format=safetensors", out]) == 0
        assert compare.main([str(run), out]) == 0
        assert written(before, files_below(tmp_path), tmp_path / "out") == []


class TestOwnCommands:
    def test_checking_another_set_leaves_the_first_as_it_is(self, tmp_path: Path) -> None:
        overrides = tiny_dataset()[1]
        here = [o for o in overrides if not o.startswith("paths.data")]
        here += [f"paths.data={tmp_path}/data", f"output={tmp_path}/out"]
        assert check_data.main(here) == 0
        before = files_below(tmp_path / "data")
        assert check_data.main([*here, "dataset.seed=5"]) == 0
        assert before.items() <= files_below(tmp_path / "data").items()
        sets = {path.name for path in (tmp_path / "data/synthetic").iterdir()}
        assert sets == {TINY.name, TINY.name.replace("seed0", "seed5")}

    def test_a_refused_resume_leaves_the_data_as_they_are(
        self, run: Path, other: Path, refused: Callable[..., None]
    ) -> None:
        rewrite(run, root=str(other))
        given = [f"resume={run}", "check=false", f"paths.data={other.parent}/mine"]
        refused(train.main, [*given, "dataset.train=7", "resume_force=true"], "train 6 -> 7")
        splits = other / TINY.name / "splits.csv"
        splits.write_text(splits.read_text().replace("test_1,test_1,test", "test_1,test_1,train"))
        refused(train.main, given, "the training cases are no longer those of")

    def test_a_resume_draws_nothing_since_it_may_yet_be_refused(
        self, run: Path, tmp_path: Path, refused: Callable[..., None]
    ) -> None:
        rewrite(run, root=f"{tmp_path}/gone")
        given = [f"resume={run}", f"paths.data={tmp_path}/my data", "check=false"]
        command = f"python scripts/prepare_data.py 'paths.data={tmp_path}/my data' "
        refused(train.main, given, f"no {tmp_path}/gone/{TINY.name}", f"drawn: {command}dataset=")

    def test_the_command_that_it_gives_draws_the_set(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rewrite(run, root=f"{tmp_path}/gone")
        given = [f"resume={run}", f"paths.data={tmp_path}/my data", "check=false"]
        assert train.main(given) == 1
        assert prepare_data.main(pasted(capsys.readouterr().err, "prepare_data")) == 0
        assert train.main(given) == 0


def pasted(error: str, script: str) -> list[str]:
    """The arguments of the command that an error ends with."""
    assert error.count("\n") == 1
    command = error.rpartition(f"python scripts/{script}.py ")[2].rstrip(")\n")
    return shlex.split(command.partition(", or give")[0])


class TestDataThatMoved:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A run on folders that were then moved to `new`."""
        for kind in ("images", "masks"):
            shutil.copytree(TINY / kind, tmp_path / "old" / kind)
        shutil.copy(TINY / "splits.csv", tmp_path / "old/images_splits.csv")
        names = [f"dataset.{kind}={tmp_path}/old/{kind}" for kind in ("images", "masks")]
        given = [o for o in tiny(tmp_path) if not o.startswith("dataset.")]
        settings = ["dataset=folder", "dataset.classes=[background,'gl and']", *names]
        more = ["dataset.image_size=32", "dataset.pixel_size=0.5", f"run_dir={tmp_path}/run"]
        assert train.main([*settings, *given, *more]) == 0
        (tmp_path / "old").rename(tmp_path / "new")
        return tmp_path / "new"

    def test_are_asked_for_with_a_command_that_evaluates_on_them(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = folder.parent / "run"
        capsys.readouterr()
        assert evaluate.main([f"checkpoint={run}"]) == 1
        given = pasted(capsys.readouterr().err, "evaluate")
        assert "dataset.images=FOLDER" in given
        places = {
            "dataset.images=FOLDER": f"dataset.images={folder}/images",
            "dataset.masks=FOLDER": f"dataset.masks={folder}/masks",
            "dataset.splits_file=FILE": f"dataset.splits_file={folder}/images_splits.csv",
        }
        assert evaluate.main([places.get(one, one) for one in given]) == 0
        assert "HD95 (um)" in capsys.readouterr().out

    def test_are_asked_for_with_a_command_that_resumes_on_them(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = folder.parent / "run"
        rewrite(run)
        capsys.readouterr()
        assert train.main([f"resume={run}"]) == 1
        given = pasted(capsys.readouterr().err, "train")
        there = [one.replace("FOLDER", f"{folder}/images") for one in given if "images=" in one]
        there += [one.replace("FOLDER", f"{folder}/masks") for one in given if "masks=" in one]
        there += [f"dataset.splits_file={folder}/images_splits.csv"]
        kept = [one for one in given if not one.endswith(("=FOLDER", "=FILE"))]
        (folder / "images_splits.csv").write_text((TINY / "splits.csv").read_text())
        assert train.main([*kept, *there]) == 0
        capsys.readouterr()
        assert evaluate.main([f"checkpoint={run}/checkpoints/last.pt"]) == 0

    @pytest.mark.parametrize("script", ["evaluate", "train"])
    def test_are_found_below_the_own_data_folder(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], script: str
    ) -> None:
        """A prepared dataset, for which a set of the tiny run's classes stands in."""
        data, gone = tmp_path / "data", tmp_path / "gone"
        shutil.copytree(TINY, data / "kvasir_seg")
        (data / "splits").mkdir()
        shutil.copy(TINY / "splits.csv", data / "splits/kvasir_seg.csv")
        named = {"root": f"{gone}/kvasir_seg", "splits_file": f"{gone}/splits/kvasir_seg.csv"}
        rewrite(run, name="kvasir_seg", **named)
        main = {"evaluate": evaluate.main, "train": train.main}[script]
        given = [{"evaluate": f"checkpoint={run}", "train": f"resume={run}"}[script]]
        assert main([*given, f"paths.data={tmp_path}/empty"]) == 1
        error = capsys.readouterr().err
        assert f"there is no {gone}/kvasir_seg/dataset.yaml (say where it lies: python" in error
        assert "dataset=kvasir_seg" in error
        assert "dataset.root=FOLDER dataset.splits_file=FILE, or give paths.data=FOLDER" in error
        assert main([*given, f"paths.data={data}"]) == 0
        told = f"{gone}/kvasir_seg/dataset.yaml is not there: {data}/kvasir_seg is read\n"
        assert told in capsys.readouterr().err
        if script == "train":  # and is remembered
            assert evaluate.main([f"checkpoint={run}/checkpoints/last.pt"]) == 0
            assert "is not there" not in capsys.readouterr().err


@pytest.mark.parametrize("tune", ["true", "false"])
@pytest.mark.parametrize("kind", ["images", "masks", "instances"])
def test_a_file_that_cannot_be_read_is_named_with_its_case(
    run: Path, other: Path, refused: Callable[..., None], kind: str, tune: str
) -> None:
    rewrite(run, root=str(other))
    file = other / TINY.name / kind / "val_2.png"
    file.write_bytes(b"damaged")
    named = str(file) if kind == "images" else f"Mask {file}"
    refused(evaluate.main, [f"checkpoint={run}", f"tune={tune}"], f"Case val_2: {named}")
