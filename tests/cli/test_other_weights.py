"""Results are shown beside the weights that they are of, and beside no others of the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import compare
import evaluate
import export
import pytest
import torch

from medt.checkpoint import load_checkpoint


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A run whose last weights predict background only, first best.pt evaluated, then last.pt."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    path = run / "checkpoints/last.pt"
    content = torch.load(path, weights_only=True)
    bias = [name for name in content["weights"] if name.endswith("bias")][-1]
    content["weights"][bias] = torch.tensor([50.0, -50.0])
    torch.save(content, path)
    for name in ("best", "last"):
        given = [f"checkpoint={run}/checkpoints/{name}.pt", "split=test", "panels=0"]
        assert evaluate.main(given) == 0
    return run


def results(run: Path) -> dict[str, dict]:
    found = {}
    for file in sorted((run / "evaluation").glob("*/metrics.json")):
        metrics = json.loads(file.read_text())
        found[Path(metrics["prediction"]["checkpoints"][0]).stem] = metrics | {"file": file}
    return found


def dice(metrics: dict) -> float:
    return metrics["mean_over_cases"]["dice"]["foreground"]


def card(run: Path, weights: str) -> str:
    given = [f"checkpoint={run}/checkpoints/{weights}.pt", "format=safetensors"]
    assert export.main(given) == 0
    return (run / f"export/{weights}.safetensors.md").read_text()


def compared(run: Path, output: Path) -> dict:
    assert compare.main([str(run), f"output={output}"]) == 0
    return json.loads((output / "comparison.json").read_text())


def test_every_result_records_the_digest_of_its_weights(run: Path) -> None:
    for name, metrics in results(run).items():
        checkpoint = load_checkpoint(run / f"checkpoints/{name}.pt")
        assert metrics["prediction"]["weights"] == [checkpoint.digest]
    assert dice(results(run)["last"]) == 0 < dice(results(run)["best"])


def test_the_digest_is_of_the_weights_alone(run: Path, tmp_path: Path) -> None:
    path = run / "checkpoints/best.pt"
    before = load_checkpoint(path).digest
    content = torch.load(path, weights_only=True)
    content["config"]["seed"] = 77
    torch.save(content, path)
    assert load_checkpoint(path).digest == before
    name = next(iter(content["weights"]))
    content["weights"][name] = content["weights"][name] + 1e-6
    torch.save(content, path)
    assert load_checkpoint(path).digest != before


def stands_for(run: Path, use: str) -> None:
    file = run / "metrics.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use": use}))


@pytest.mark.parametrize(("use", "newer"), [("best", "last"), ("last", "best")])
def test_compare_takes_the_result_of_the_weights_for_use_though_another_is_newer(
    run: Path, tmp_path: Path, use: str, newer: str
) -> None:
    stands_for(run, use)
    wanted = dice(results(run)[use])
    given = [f"checkpoint={run}/checkpoints/{newer}.pt", "split=test", "panels=0"]
    assert evaluate.main(given) == 0
    report = compared(run, tmp_path / "out")
    (group,) = report["groups"]
    (scored,) = group["evaluations"].values()
    assert scored["mean"] == pytest.approx(wanted)
    assert not any("Left out" in note for note in report["notes"])


@pytest.mark.parametrize("use", ["best", "last"])
def test_compare_leaves_out_what_is_of_other_weights_only(
    run: Path, tmp_path: Path, use: str
) -> None:
    stands_for(run, use)
    shutil.rmtree(results(run)[use]["file"].parent)
    report = compared(run, tmp_path / "out")
    assert report["evaluations"] == []
    (note,) = [note for note in report["notes"] if "Left out" in note]
    assert "of other weights than the run stands for: synthetic-test-native of" in note


def test_compare_takes_the_validation_of_the_weights_for_use(run: Path, tmp_path: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["best"]["val_dice"], metrics["last"]["val_dice"] = 0.75, 0.5
    (run / "metrics.json").write_text(json.dumps(metrics))
    for use, score in (("last", 0.5), ("best", 0.75)):
        stands_for(run, use)
        (group,) = compared(run, tmp_path / use)["groups"]
        assert group["val_dice"]["mean"] == score


def test_a_result_that_records_no_weights_is_told_of(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(results(run)["best"]["file"].parent)
    file = results(run)["last"]["file"]
    metrics = json.loads(file.read_text())
    del metrics["prediction"]["weights"]
    file.write_text(json.dumps(metrics))
    report = compared(run, tmp_path / "out")
    assert report["evaluations"] == ["synthetic-test-native"]
    assert "of which weights is not recorded" in card(run, "last")


def test_the_card_lists_results_of_its_own_weights(run: Path) -> None:
    for name in ("best", "last"):
        found = card(run, name)
        (line,) = [line for line in found.splitlines() if line.startswith("- synthetic")]
        assert f"Dice {dice(results(run)[name]):.4f}" in line
    assert "those of the best validation" in card(run, "best")
    assert "those of the last epoch" in card(run, "last")
    assert "chosen on" not in card(run, "last")
