"""Whatever a stranger's files hold: an answer or one line, and nothing else happens."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import check_data
import compare
import evaluate
import export
import predict
import pytest
import torch
import train
import yaml
from hostile import changed, damaged, emptied, tried, unfinished_run, unfolding, without_training
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = 200 if os.environ.get("MEDT_FAULTS") == "all" else 3  # of seconds each
BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=120_000,  # milliseconds: a hang
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def whole(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unfinished_run(tiny_run, tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def place(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with without_training(tmp_path, monkeypatch):
        yield tmp_path


@BOUNDED
@given(st.data())
def test_configs_of_runs(whole: Path, place: Path, data: st.DataObject) -> None:
    run = emptied(place) / "run"
    shutil.copytree(whole / "run", run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    if data.draw(st.booleans()):
        text = yaml.safe_dump(data.draw(changed(config, [unfolding()])))
        (run / "config.yaml").write_text(text)
    else:
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_bytes(data.draw(damaged(text)))
    tried(train.main, [f"resume={run}", "check=false", "trainer.device=cpu"], place, "box/run")
    tried(compare.main, [str(run), f"output={run.parent}/o"], place, "box/o")


@BOUNDED
@given(st.data())
def test_checkpoints(whole: Path, place: Path, data: st.DataObject) -> None:
    run = emptied(place) / "run"
    shutil.copytree(whole / "run", run)
    name = data.draw(st.sampled_from(["best", "last"]))
    path = run / f"checkpoints/{name}.pt"
    content = torch.load(path, weights_only=True)
    tensors = [
        *(torch.zeros(0), torch.ones(3), torch.full((2,), float("nan"))),
        *(torch.zeros(1).expand(2**30), torch.eye(3).to_sparse(), torch.ones(2, device="meta")),
        unfolding(),
    ]
    torch.save(data.draw(changed(content, tensors)), path)
    image = next((whole / "data").rglob("*.png"))
    box = run.parent
    at = [f"checkpoint={path}", "device=cpu"]
    predicting = [f"input={image}", f"output={box}/p", "overlays=true"]
    tried(predict.main, [*at, *predicting], place, "box/p")
    scoring = ["split=test", f"output={box}/e", "panels=1", f"paths.data={box}/own"]
    tried(evaluate.main, [*at, *scoring], place, "box/e")
    exporting = ["format=safetensors", f"output={box}/x"]
    tried(export.main, [at[0], *exporting], place, "box/x")
    if name == "last":
        tried(train.main, [f"resume={run}", "check=false", "trainer.device=cpu"], place, "box/run")


@BOUNDED
@given(st.data())
def test_split_files(whole: Path, place: Path, data: st.DataObject) -> None:
    images = next((whole / "data").rglob("images"))
    names = sorted(path.stem for path in images.iterdir())
    rows = [["case", "group", "split", "fold"]]
    rows += [[n, n, ("train", "val", "test")[i % 3], str(i % 2)] for i, n in enumerate(names)]
    if data.draw(st.booleans()):
        rows = data.draw(changed(rows))
    text = "\n".join(",".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows)
    content = (
        data.draw(damaged(text)) if data.draw(st.booleans()) else text.encode("utf-8", "replace")
    )
    box = emptied(place)
    (box / "splits.csv").write_bytes(content)
    folders = [f"dataset.images={images}", f"dataset.masks={images.parent}/masks"]
    named = ["dataset=folder", *folders, f"dataset.splits_file={box}/splits.csv"]
    tried(check_data.main, [*named, f"output={box}/o"], place, "box/o")
    scoring = [f"checkpoint={whole}/run", f"output={box}/e", "device=cpu", "panels=0"]
    tried(evaluate.main, [*named, *scoring], place, "box/e")


@BOUNDED
@given(st.data())
def test_results(whole: Path, place: Path, data: st.DataObject) -> None:
    """metrics.json of a run and of an evaluation, history.csv, per_case.csv."""
    run = emptied(place) / "run"
    shutil.copytree(whole / "run", run)
    files = [run / "metrics.json", run / "history.csv", *(run / "evaluation").rglob("*.*")]
    file = data.draw(st.sampled_from([f for f in files if f.suffix in (".json", ".csv")]))
    text = file.read_text()
    if file.suffix == ".json" and data.draw(st.booleans()):
        file.write_text(json.dumps(data.draw(changed(json.loads(text)))))
    else:
        file.write_bytes(data.draw(damaged(text)))
    tried(compare.main, [str(run), f"output={run.parent}/o"], place, "box/o")
    given_ = [f"checkpoint={run}", "format=safetensors", f"output={run.parent}/x"]
    tried(export.main, given_, place, "box/x")
