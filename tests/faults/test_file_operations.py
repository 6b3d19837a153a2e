"""A power cut, or a full disk, at each file operation of a run in turn: it always goes on.

`make test` tries a part of the operations, `make test-faults` (MEDT_FAULTS=all) every one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import train
from conftest import timeless, tiny

from medt.checkpoint import load_checkpoint

STEP = 1 if os.environ.get("MEDT_FAULTS") == "all" else 17


class PowerCutError(BaseException):
    """The machine stops: nothing after this reaches the disk."""


class Disk:
    """Counts the operations that make files last, and fails from one of them on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails_at: int, fault: Any) -> None:
        self.operations, self.fails_at, self.fault = 0, fails_at, fault
        for owner, name in ((os, "fsync"), (Path, "replace"), (torch, "save"), (Path, "mkdir")):
            monkeypatch.setattr(owner, name, self.watched(getattr(owner, name)))
        unlink = Path.unlink
        monkeypatch.setattr(Path, "unlink", lambda *a, **k: self.is_off() or unlink(*a, **k))

    def is_off(self) -> bool:
        return self.fault is PowerCutError and self.operations >= self.fails_at

    def watched(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **settings: Any) -> Any:
            self.operations += 1
            if self.operations >= self.fails_at:
                if self.fault is OSError:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                raise self.fault
            return operation(*arguments, **settings)

        return run


def overrides(folder: Path) -> list[str]:
    """A run of three epochs that also saves after every step."""
    more = ["trainer.epochs=3", "trainer.checkpoint_every=0.00001 min", "trainer.batch_size=2"]
    return tiny(folder, f"run_dir={folder}/runs/a", *more, "trainer.panels=0", "check=false")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A run that nothing befalls, and the number of its file operations."""
    folder = tmp_path_factory.mktemp("whole")
    train.main([*overrides(folder), "dry_run=true"])  # the images are made
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, fails_at=10**9, fault=OSError)
        assert train.main(overrides(folder)) == 0
    return folder / "runs/a", disk.operations


@pytest.mark.parametrize("fault", [PowerCutError, OSError], ids=["power cut", "full disk"])
def test_every_file_operation_in_turn(
    whole: tuple[Path, int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fault: type[BaseException],
) -> None:
    expected, operations = whole
    assert operations > 30
    tried = 0
    for at in range(1, operations + 1, STEP):
        folder = tmp_path / str(at)
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, at, fault)
            try:
                code = train.main(overrides(folder))
            except PowerCutError:
                code = None
        said = capsys.readouterr().err
        if disk.operations < at:  # the count varies by one or two with what is there already
            assert at > operations - 5
            break
        assert code == (None if fault is PowerCutError else 1), at
        if fault is OSError:
            assert said.startswith("error: "), said
            assert said.count("\n") == 1, said
            assert "No space left on device" in said or "disk is full" in said
        assert train.main([*overrides(folder), "resume=auto"]) == 0, at
        (run,) = {path.parent.parent for path in folder.rglob("last.pt")}
        assert timeless(run) == timeless(expected), at
        for name in ("best", "last"):
            found, wanted = (
                load_checkpoint(root / f"checkpoints/{name}.pt") for root in (run, expected)
            )
            assert found.epoch == wanted.epoch
            for key, value in wanted.weights.items():
                assert torch.equal(found.weights[key], value), (at, key)
        leftovers = [p.name for p in run.rglob(".*")]
        assert leftovers == [], at
        tried += 1
    assert tried >= (operations - 5) // STEP
