"""benchmark.py on one image: what it prints and writes. No test here judges a time."""

from __future__ import annotations

import json
import statistics

import benchmark
import pytest
import torch

TINY = ["batch_size=1", "image_size=128", "rounds=1"]


def test_writes_times_and_ratios(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "WARM_UP_ROUNDS", 0)
    threads = torch.get_num_threads()
    output = tmp_path / "new" / "benchmark.json"
    assert benchmark.main([*TINY, "threads=1", f"output={output}"]) == 0
    report = json.loads(output.read_text())

    assert torch.get_num_threads() == threads
    assert report["settings"] == {
        "batch_size": 1,
        "image_size": [128, 128],
        "rounds": 1,
        "threads": 1,
    }
    assert list(report["parameters"]) == ["medt", "naive", "basic_unet"]
    assert report["parameters"]["medt"] == 1_524_298
    for phase in ("training", "inference"):
        medians = report["medians"][phase]
        for name, seconds in report["seconds"][phase].items():
            assert len(seconds) == 1
            assert seconds[0] > 0
            assert medians[name] == statistics.median(seconds)
        assert report["ratios"][phase] == {
            pair: pytest.approx(medians[pair.split("/")[0]] / medians[pair.split("/")[1]])
            for pair in ("naive/medt", "naive/basic_unet", "medt/basic_unet")
        }
    printed = capsys.readouterr().out
    assert "BasicUNet features" not in printed
    assert all(name in printed for name in report["parameters"])
    last = printed.splitlines()[-1]
    assert last.startswith("valid" if report["valid"] else "not valid")


@pytest.mark.parametrize(
    ("seconds", "valid"), [(8.9, False), (9.0, True), (11.5, True), (11.6, False)]
)
def test_validity_is_the_naive_training_step_in_basic_unets(seconds, valid):
    training = {"medt": [1.0, 2.0, 9.0], "naive": [seconds] * 3, "basic_unet": [1.0] * 3}
    inference = {"medt": [1.0], "naive": [1.0], "basic_unet": [1.0]}
    summary = benchmark.summarise({}, {"training": training, "inference": inference})
    assert summary["valid"] is valid
    assert summary["ratios"]["training"]["naive/medt"] == pytest.approx(seconds / 2)


@pytest.mark.parametrize("override", ["rounds=0", "batch_size=0", "threads=-1", "image_size=100"])
def test_bad_values_are_one_line(override, capsys):
    assert benchmark.main([*TINY, override]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert override.split("=")[1] in error
    assert error.count("\n") == 1
