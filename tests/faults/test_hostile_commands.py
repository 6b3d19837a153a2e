"""Whatever a stranger's files hold: an answer or one line, and nothing else happens."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import check_data
import compare
import evaluate
import export
import predict
import pytest
import torch
import train
import yaml
from conftest import files_below, tiny_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medt.training.trainer import Trainer

pytestmark = pytest.mark.skipif(
    os.environ.get("MEDT_FAULTS") != "all", reason="takes minutes: make test-faults"
)
EXAMPLES = 200
BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=120_000,  # milliseconds: a hang
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
MOST_GROWTH = 600  # megabytes of the process, over all examples of a test
Command = Callable[[Sequence[str]], int]


def unfolding() -> list[Any]:
    laughs: list[Any] = ["ha"]
    for _ in range(12):
        laughs = [laughs] * 10
    return laughs


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


HOSTILE: list[Any] = [
    *(None, True, False, 0, -1, 1, 10**7, 2**63, 10**30, 0.5, -1.5, 1e300),
    *(float("nan"), float("inf"), "", "x", "x" * 3000, "\x1b[2J\x07", "a\nb", "=1+1", "\ud800"),
    *("../../../../planted", "${oc.env:HOME}", "${loss}", "???", "null", "1", "[red]", "<b>"),
    *([], [None], [1, 2, 3], [[1], [2]], [10**7] * 4, ["a"], {}, {"a": 1}, {"name": "x"}),
    *({"_target_": "os.getcwd"}, [{"_target_": "os.getcwd"}], {"_args_": [1]}, {"_partial_": True}),
    *(nested(40), {"a": {"b": {"c": {"d": 1}}}}),
]


@st.composite
def changed(draw: st.DrawFn, content: Any, extra: Sequence[Any] = ()) -> Any:
    """A copy of nested content with one to three of its values replaced, added or left out."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        node = content
        for _ in range(draw(st.integers(0, 3))):
            below = [
                part
                for part in (node.values() if isinstance(node, dict) else node)
                if isinstance(part, dict | list) and part
            ]
            if not below:
                break
            node = draw(st.sampled_from(below))
        value = copy.deepcopy(draw(st.sampled_from([*HOSTILE, *extra])))
        if isinstance(node, dict):
            keys = st.sampled_from([*node, "more"])
        else:
            keys = st.integers(0, max(0, len(node) - 1))
        key = draw(keys)
        if isinstance(node, dict) and draw(st.integers(0, 4)) == 0:
            node.pop(key, None)
        elif isinstance(node, dict) or node:
            node[key] = value
    return content


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    """A text with a part cut out, overwritten or put in."""
    data = text.encode()
    start, length = draw(st.integers(0, len(data))), draw(st.integers(0, 40))
    fillings = [
        b'"',
        b",",
        b"\n",
        b"\0",
        b"\xff",
        b"x" * 200_000,
        b"9" * 5000,
        b"[" * 3000,
        b"&a *a",
    ]
    filling = draw(st.one_of(st.sampled_from(fillings), st.binary(max_size=20)))
    return data[:start] + filling + data[start + length :]


def children() -> set[str]:
    """The processes that this one has started and that still are."""
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        return set()
    found: set[str] = set()
    for task in tasks.iterdir():
        with contextlib.suppress(OSError):
            found |= set((task / "children").read_text().split())
    return found


def megabytes() -> float:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(float(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS"))


@pytest.fixture(scope="module")
def whole(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stands after its first epoch, with an evaluation, and its images."""
    folder = tmp_path_factory.mktemp("hostile")
    run = folder / "run"
    shutil.copytree(tiny_run, run)
    last = run / "checkpoints/last.pt"
    content = torch.load(last, weights_only=True)
    content["training"] |= {"finished": False, "epoch": 1}
    del content["training"]["history"][1:]
    torch.save(content, last)
    shutil.copytree(tiny_dataset()[0], folder / "data")
    assert evaluate.main([f"checkpoint={run}", "split=test", "device=cpu"]) == 0
    return folder


@pytest.fixture
def place(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder of its own, in which nothing is trained."""
    monkeypatch.setattr(Trainer, "fit", lambda self: self.state)
    monkeypatch.chdir(tmp_path)
    before = megabytes()
    yield tmp_path
    assert megabytes() - before < MOST_GROWTH


def tried(main: Command, arguments: list[str], watched: Path, output: str) -> None:
    """Run a command: an answer or one line, no other file, no process."""
    before, running = files_below(watched), children()
    said, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(told):
        code = main(arguments)
    error = said.getvalue()
    assert code in (0, 1, 128), error
    assert "not foreseen" not in error, error
    assert "Traceback" not in error, error
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert (len(lines) == 1) == (code == 1), error
    if code == 1:
        assert error.count("\n") == 1, error
    assert "\x1b" not in error + told.getvalue()
    after = files_below(watched)
    allowed = watched / output
    changes = {path for path in {*before, *after} if before.get(path, 0) != after.get(path, 0)}
    assert {path for path in changes if not path.is_relative_to(allowed)} == set(), error
    assert children() <= running


@BOUNDED
@given(st.data())
def test_configs_of_runs(whole: Path, place: Path, data: st.DataObject) -> None:
    run = place / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(whole / "run", run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    if data.draw(st.booleans()):
        text = yaml.safe_dump(data.draw(changed(config, [unfolding()])))
        (run / "config.yaml").write_text(text)
    else:
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_bytes(data.draw(damaged(text)))
    tried(train.main, [f"resume={run}", "check=false", "trainer.device=cpu"], place, "run")
    tried(compare.main, [str(run), f"output={place}/o"], place, "o")


@BOUNDED
@given(st.data())
def test_checkpoints(whole: Path, place: Path, data: st.DataObject) -> None:
    run = place / "run"
    shutil.rmtree(run, ignore_errors=True)
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
    output = f"output={place}/o"
    at = [f"checkpoint={path}", "device=cpu"]
    tried(predict.main, [*at, f"input={image}", output, "overlays=true"], place, "o")
    data_here = f"paths.data={place}/own"
    tried(evaluate.main, [*at, "split=test", output, "panels=1", data_here], place, "o")
    tried(export.main, [at[0], "format=safetensors", output], place, "o")
    if name == "last":
        tried(train.main, [f"resume={run}", "check=false", "trainer.device=cpu"], place, "run")


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
    (place / "splits.csv").write_bytes(content)
    folders = [f"dataset.images={images}", f"dataset.masks={images.parent}/masks"]
    named = ["dataset=folder", *folders, f"dataset.splits_file={place}/splits.csv"]
    tried(check_data.main, [*named, f"output={place}/o"], place, "o")
    scoring = [f"checkpoint={whole}/run", f"output={place}/e", "device=cpu", "panels=0"]
    tried(evaluate.main, [*named, *scoring], place, "e")


@BOUNDED
@given(st.data())
def test_results(whole: Path, place: Path, data: st.DataObject) -> None:
    """metrics.json of a run and of an evaluation, history.csv, per_case.csv."""
    run = place / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(whole / "run", run)
    files = [run / "metrics.json", run / "history.csv", *(run / "evaluation").rglob("*.*")]
    file = data.draw(st.sampled_from([f for f in files if f.suffix in (".json", ".csv")]))
    text = file.read_text()
    if file.suffix == ".json" and data.draw(st.booleans()):
        file.write_text(json.dumps(data.draw(changed(json.loads(text)))))
    else:
        file.write_bytes(data.draw(damaged(text)))
    tried(compare.main, [str(run), f"output={place}/o"], place, "o")
    given_ = [f"checkpoint={run}", "format=safetensors", f"output={place}/e"]
    tried(export.main, given_, place, "e")
