"""Where scripts write: `output=`, and places that cannot be written, which are told at once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import check_data
import compare
import evaluate
import export
import predict
import pytest
from conftest import TINY, files_below, tiny_dataset


def test_output_says_where_results_go(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_below(tiny_run)
    arguments = [f"checkpoint={tiny_run}", f"output={tmp_path}/my results", "panels=0"]
    for name in ("my results", "my results-2"):
        assert evaluate.main(arguments) == 0
        assert f"written to {tmp_path}/{name}, see" in capsys.readouterr().out
        found = {path.name for path in (tmp_path / name).iterdir()}
        assert found == {"metrics.json", "per_case.csv", "report.html"}
    assert files_below(tiny_run) == before


def test_what_writes_nothing_takes_no_output(
    tiny_run: Path, tmp_path: Path, refused: Callable[..., None]
) -> None:
    given = [f"checkpoint={tiny_run}", "tune=true", f"output={tmp_path}/out"]
    refused(evaluate.main, given, "tune=true writes no results")


@pytest.fixture
def _nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def computed(*_: object, **__: object) -> None:
        raise AssertionError("something was computed")

    for function in (
        *("medt.evaluation.evaluate.evaluate", "medt.inference.folder._predict"),
        *("medt.export.formats.export_network", "medt.cli.check_data.check_of"),
        "medt.compare.past_run.find_runs",
    ):
        monkeypatch.setattr(function, computed)


def scripts(run: Path, output: Path) -> dict[str, tuple[Any, list[str]]]:
    checkpoint = f"checkpoint={run}"
    place = f"output={output}"
    images = f"input={TINY}/images"
    _, dataset = tiny_dataset()
    return {
        "evaluate": (evaluate.main, [checkpoint, place]),
        "predict": (predict.main, [checkpoint, images, place]),
        "export": (export.main, [checkpoint, "format=safetensors", place]),
        "compare": (compare.main, [str(run), place]),
        "check_data": (check_data.main, [*dataset, place]),
    }


@pytest.mark.usefixtures("_nothing_is_computed")
@pytest.mark.parametrize("script", ["evaluate", "predict", "export", "compare", "check_data"])
def test_a_read_only_place_is_told_before_the_work(
    tiny_run: Path,
    tmp_path: Path,
    refused: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    script: str,
) -> None:
    main, arguments = scripts(tiny_run, tmp_path / "ro")[script]
    (tmp_path / "ro").mkdir()
    real = os.open

    def refuse(path: Any, *rest: Any, **named: Any) -> int:
        if str(path).startswith(f"{tmp_path}/ro"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    refused(main, arguments, f"Cannot write {tmp_path}/ro: Read-only", "another output=...")


@pytest.mark.usefixtures("_nothing_is_computed")
@pytest.mark.parametrize("script", ["evaluate", "predict", "export", "compare", "check_data"])
def test_a_place_below_a_file_too(
    tiny_run: Path, tmp_path: Path, refused: Callable[..., None], script: str
) -> None:
    main, arguments = scripts(tiny_run, tmp_path / "file/out")[script]
    (tmp_path / "file").touch()
    refused(main, arguments, f"{tmp_path}/file/out", "another output=...")
