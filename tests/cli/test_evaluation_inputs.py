"""Bad input of evaluate.py and predict.py: one clear line, nothing half-written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import evaluate
import numpy as np
import predict
import pytest
from conftest import TINY

from medt.io import files
from medt.io.files import write_png
from medt.io.images import read_mask

Refused = Callable[..., None]


@pytest.fixture
def data(tiny_run: Path, tmp_path: Path) -> Path:
    """A folder of images/ and masks/, to be damaged; all of its cases are the split train."""
    for kind in ("images", "masks"):
        shutil.copytree(TINY / kind, tmp_path / "data" / kind)
    names = sorted(path.stem for path in (tmp_path / "data/images").iterdir())
    rows = [f"{name},{name},train" for name in names]
    (tmp_path / "splits.csv").write_text("\n".join(["case,group,split", *rows]) + "\n")
    return tmp_path / "data"


def evaluation(run: Path, data: Path, *more: str) -> list[str]:
    return [
        f"checkpoint={run}/checkpoints/best.pt",
        "dataset=folder",
        f"dataset.images={data}/images",
        f"dataset.masks={data}/masks",
        "dataset.classes=[background,gland]",
        f"dataset.splits_file={data.parent}/splits.csv",
        "split=train",
        *more,
    ]


def prediction(run: Path, source: Path, output: Path, *more: str) -> list[str]:
    return [f"checkpoint={run}/checkpoints/best.pt", f"input={source}", f"output={output}", *more]


class TestEvaluate:
    def test_a_split_without_cases(self, refused: Refused, tiny_run: Path, data: Path) -> None:
        given = evaluation(tiny_run, data, "split=test")
        refused(evaluate.main, given, "has no cases in split 'test'", "there is: train (10)")

    def test_no_masks(self, refused: Refused, tiny_run: Path, data: Path) -> None:
        for mask in (data / "masks").iterdir():
            mask.unlink()
        refused(evaluate.main, evaluation(tiny_run, data), "masks")

    def test_other_classes(self, refused: Refused, tiny_run: Path, data: Path) -> None:
        given = evaluation(tiny_run, data, "dataset.classes=[background,gland,lumen]")
        refused(evaluate.main, given, "was trained on the classes background, gland")

    @pytest.mark.parametrize("kind", ["images", "masks"])
    def test_an_unreadable_file(
        self, refused: Refused, tiny_run: Path, data: Path, kind: str
    ) -> None:
        file = data / kind / "test_1.png"
        file.write_bytes(file.read_bytes()[:200])
        refused(evaluate.main, evaluation(tiny_run, data), f"{kind}/test_1.png cannot be decoded")

    def test_a_mask_of_another_size(self, refused: Refused, tiny_run: Path, data: Path) -> None:
        write_png(data / "masks/test_1.png", np.zeros((64, 65), np.uint8))
        refused(
            evaluate.main, evaluation(tiny_run, data), "test_1.png is 64 x 64, its mask 65 x 64"
        )

    def test_images_of_mixed_sizes_are_scored(
        self, tiny_run: Path, data: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_png(data / "images/test_1.png", np.zeros((40, 90, 3), np.uint8))
        write_png(data / "masks/test_1.png", np.eye(40, 90, dtype=np.uint8))
        run = shutil.copytree(tiny_run, data.parent / "run")
        assert evaluate.main(evaluation(run, data)) == 0
        assert "10 cases (train)" in capsys.readouterr().out

    @pytest.mark.parametrize("written", range(3))
    def test_a_disk_that_fills_up_leaves_all_files_or_none(
        self, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
    ) -> None:
        run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
        fill_up(monkeypatch, after=written)
        assert evaluate.main([f"checkpoint={run}"]) == 1
        assert not (run / "evaluation").exists()

    @pytest.mark.parametrize(
        ("other", "culprit"),
        [("nowhere.pt", "nowhere.pt"), ("{}/config.yaml", "config.yaml is damaged or not")],
    )
    def test_an_ensemble_with_a_wrong_member(
        self, refused: Refused, tiny_run: Path, other: str, culprit: str
    ) -> None:
        best = f"{tiny_run}/checkpoints/best.pt"
        both = f"checkpoint=[{best},{other.replace('{}', str(tiny_run))}]"
        refused(evaluate.main, [both], culprit)


class TestPredict:
    def test_an_empty_folder(self, refused: Refused, tiny_run: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        given = prediction(tiny_run, tmp_path / "empty", tmp_path / "out")
        refused(predict.main, given, f"there are no images in {tmp_path}/empty")

    def test_only_unreadable_files(
        self, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in/a.png").write_text("no image")
        assert predict.main(prediction(tiny_run, tmp_path / "in", tmp_path / "out")) == 1
        said = capsys.readouterr()
        assert said.err.startswith(f"error: {tmp_path}/in/a.png cannot be decoded")
        assert said.err.count("\n") == 1
        assert not (tmp_path / "out").exists()

    def test_images_of_mixed_sizes_and_kinds(self, tiny_run: Path, tmp_path: Path) -> None:
        sizes = {"wide": (30, 200, 3), "grey": (64, 64), "tiny": (1, 1, 3)}
        for name, size in sizes.items():
            write_png(tmp_path / f"in/{name}.png", np.full(size, 90, np.uint8))
        given = prediction(tiny_run, tmp_path / "in", tmp_path / "out", "overlays=true")
        assert predict.main(given) == 0
        for name, size in sizes.items():
            assert read_mask(tmp_path / f"out/{name}.png").shape == size[:2]

    @pytest.mark.parametrize(
        "kind", ["overlays", "probabilities", "uncertainty", "instances", "geojson"]
    )
    def test_a_full_disk(
        self,
        refused: Refused,
        tiny_run: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        kind: str,
    ) -> None:
        fill_up(monkeypatch, after=0)
        (tmp_path / "out" / kind).mkdir(parents=True)
        image = TINY / "images/test_1.png"
        given = prediction(tiny_run, image, tmp_path / "out", f"{kind}=true")
        refused(predict.main, given, f"out/{kind}/test_1", "No space left on device")


def fill_up(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let the disk be full when this many files have been written."""
    left = iter(range(after))

    def fsync(descriptor: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", fsync)
