"""What the tests of hostile files and settings share: odd values, and what a command may not do."""

from __future__ import annotations

import contextlib
import copy
import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import evaluate
import pytest
import torch
from conftest import files_below, tiny_dataset
from hypothesis import strategies as st

from medt.training.trainer import Trainer

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
    data = text.encode("utf-8", "replace")
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


def unfinished_run(finished: Path, folder: Path) -> Path:
    """Below a folder: a run that stands after its first epoch, with an evaluation, and images."""
    run = folder / "run"
    shutil.copytree(finished, run)
    last = run / "checkpoints/last.pt"
    content = torch.load(last, weights_only=True)
    content["training"] |= {"finished": False, "epoch": 1}
    del content["training"]["history"][1:]
    torch.save(content, last)
    shutil.copytree(tiny_dataset()[0], folder / "data")
    assert evaluate.main([f"checkpoint={run}", "split=test", "device=cpu"]) == 0
    return folder


@contextlib.contextmanager
def without_training(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a folder, in which nothing is trained; all of it may take so much memory."""
    monkeypatch.setattr(Trainer, "fit", lambda self: self.state)
    monkeypatch.chdir(folder)
    before = megabytes()
    yield
    assert megabytes() - before < MOST_GROWTH


def emptied(place: Path) -> Path:
    """A new folder below `place`, in which results of one name do not meet."""
    box = place / "box"
    shutil.rmtree(box, ignore_errors=True)
    box.mkdir()
    return box


def tried(main: Command, arguments: list[str], watched: Path, output: str) -> str:
    """Run a command: an answer or one line, no other file, no process; returns that line."""
    before, running = files_below(watched), children()
    said, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(told):
        code = main(arguments)
    error = said.getvalue()
    assert code in (0, 1) or code >= 128, error
    assert "not foreseen" not in error, error
    assert "Traceback" not in error, error
    lines = {line for line in error.splitlines() if line.startswith("error: ")}  # of each run
    assert (len(lines) == 1) == (code == 1), error
    if code == 1:  # what it was doing may stand before
        assert {line for line in error.splitlines() if not line.startswith("Drawing ")} == lines, (
            error
        )
    assert "\x1b" not in error + told.getvalue()
    after = files_below(watched)
    allowed = watched / output
    changes = {path for path in {*before, *after} if before.get(path, 0) != after.get(path, 0)}
    assert {path for path in changes if not path.is_relative_to(allowed)} == set(), error
    assert children() <= running
    return "".join(lines)
