"""seed= fixes a run to the bit, with any number of workers; what deterministic=true does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import train
from conftest import timeless, tiny

from medt.checkpoint import load_checkpoint

ALL = ["augmentation=strong", "trainer.ema=0.9", "trainer.batch_size=2", "trainer.gate_epoch=1"]


@pytest.fixture(autouse=True)
def _switches() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def trained(folder: Path, *more: str) -> tuple[dict[str, torch.Tensor], list[dict[str, str]]]:
    """Weights and history of a run, without what the clock says."""
    run = folder / "-".join(more).replace("/", "_")
    given = [one for one in tiny(folder) if one != "augmentation=flip"]
    assert train.main([*given, *ALL, *more, f"run_dir={run}"]) == 0
    return load_checkpoint(run / "checkpoints/last.pt").weights, timeless(run)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.seconds
def test_a_seed_fixes_everything_for_any_number_of_workers(tmp_path: Path) -> None:
    first, history = trained(tmp_path, "dataset.workers=0")
    for workers in (1, 3):
        weights, rows = trained(tmp_path, f"dataset.workers={workers}")
        assert same(first, weights)
        assert rows == history
    other, _ = trained(tmp_path, "seed=1")
    assert not same(first, other)


@pytest.mark.seconds
def test_deterministic_algorithms_are_on_and_their_cost_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = trained(tmp_path, "trainer.deterministic=true")
    assert torch.are_deterministic_algorithms_enabled()
    assert "deterministic algorithms: on a GPU slower" in capsys.readouterr().out
    second, _ = trained(tmp_path, "trainer.deterministic=true", "dataset.workers=2")
    assert same(first, second)
