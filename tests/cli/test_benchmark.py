"""benchmark.py on one small image: what it prints and writes. No test here judges a time."""

from __future__ import annotations

import json
import os
import statistics

import benchmark
import cv2
import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from medt.benchmark.glas import measure_evaluation, measure_preparation
from medt.benchmark.large import measure_large
from medt.benchmark.loader import EPOCHS, SAMPLINGS, LoaderJob, loader_work
from medt.benchmark.measure import jobs_of, loader_overrides
from medt.benchmark.report import (
    add_shares,
    closing_lines,
    failure_lines,
    growth,
    ratios,
    record_of,
    table_of,
    validity,
)
from medt.benchmark.timing import Timing, time_group, workers_for
from medt.benchmark.worker import DOES_NOT_FIT, LIMIT, Failure, Job, Ready, Step
from medt.cli.arguments import CONFIGS
from medt.cli.benchmark import show
from medt.cli.settings import plain
from medt.config import register_schema
from medt.errors import UserError
from medt.ops import library

TINY = ["sizes=[32]", "batches=[1]", "rounds=1", "threads=1", "loader=false"]
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def tiny_benchmark(tmp_path_factory):
    """Output folder and exit code of one run; tests only read it."""
    folder = tmp_path_factory.mktemp("benchmark") / "new"
    networks = "networks=[gated_axial_unet,medt,unet]"
    return folder, benchmark.main([*TINY, networks, f"output={folder}"])


def test_writes_every_variant(tiny_benchmark):
    folder, code = tiny_benchmark
    assert code == 0
    report = json.loads((folder / "benchmark.json").read_text())
    assert (folder / "benchmark.png").read_bytes().startswith(PNG)
    assert sorted(path.name for path in folder.iterdir()) == ["benchmark.json", "benchmark.png"]
    assert report["settings"]["sizes"] == [32]
    assert report["machine"]["threads"] == 1
    assert report["loader"] == []
    assert [line.split(":")[0] for line in report["skipped"]] == ["medt at 32 x 32"]

    records = {(r["network"], r["backend"]): r for r in report["variants"]}
    axial = [("gated_axial_unet", backend) for backend in ("naive", "torch", "fused", LIMIT)]
    assert list(records) == [*axial, ("unet", None)]
    for (_, backend), record in records.items():
        if backend == "fused" and not library.available():
            assert "not installed" in record["failures"]["training"]
            continue
        assert record["failures"] == {}
        assert record["threads"] == 1
        for phase in ("training", "inference"):
            assert len(record["seconds"][phase]) == 1
            assert record["medians"][phase] == statistics.median(record["seconds"][phase]) > 0
            assert record["images_per_second"][phase] == pytest.approx(1 / record["medians"][phase])
            assert (record["memory_bytes"][phase] is None) == (backend == LIMIT)
    assert records[("unet", None)]["parameters"] == 1_979_042

    limit = records[("gated_axial_unet", LIMIT)]["medians"]["training"]
    torch_record = records[("gated_axial_unet", "torch")]
    share = torch_record["share_of_limit"]["training"]
    assert share == pytest.approx(100 * limit / torch_record["medians"]["training"])
    assert records[("unet", None)]["share_of_limit"]["training"] is None


def test_prints_the_table(tiny_benchmark, capsys):
    report = json.loads((tiny_benchmark[0] / "benchmark.json").read_text())
    show(report)
    printed = capsys.readouterr().out
    table = [line for line in printed.splitlines() if " | " in line]
    assert max(map(len, table)) <= 105
    rows = [[cell.strip() for cell in line.split("|")] for line in table[2:]]
    assert [row[1] for row in rows] == ["naive", "torch", "fused", LIMIT, "-"]
    assert "skipped: medt at 32 x 32" in printed
    assert printed.splitlines()[-1].startswith("validity not judged: naive medt must take 9 to")


def test_what_takes_too_much_memory_does_not_fit(tmp_path, capsys):
    small = [*TINY, "networks=[unet]", "sizes=[256]", "memory=0.04", f"output={tmp_path}"]
    assert benchmark.main(small) == 0
    (record,) = json.loads((tmp_path / "benchmark.json").read_text())["variants"]
    assert record["failures"]["training"] == DOES_NOT_FIT
    assert record["medians"]["training"] is None
    assert record["memory_limit_bytes"] == 40_000_000
    assert "not fit" in capsys.readouterr().out


def test_networks_that_the_official_code_has_not_are_not_timed_as_there():
    register_schema()
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        settings = plain(compose("benchmark"))
        found = {
            name: [
                job.backend
                for _, job in jobs_of(
                    name, 128, settings, lambda given: plain(compose("train", given))
                )
            ]
            for name in ("medt", "medt_plus", "unet")
        }
    assert found["medt"] == ["naive", "torch", "fused", LIMIT]
    assert found["medt_plus"] == ["torch", "fused", LIMIT]
    assert found["unet"] == [None]


def test_a_process_that_dies_is_one_line_and_the_others_go_on():
    with workers_for(os._exit, [3]) as workers:
        (timings,) = time_group(workers, 2, 1.0, lambda: None)
    assert timings["training"].failure == "its process ended with exit code 3"
    job = Job({}, "naive", 64, 1, None)
    died = record_of("medt", job, workers[0].ready, timings)
    assert died["parameters"] is None
    assert failure_lines([died])[0].endswith("inference: its process ended with exit code 3")
    assert len(table_of([died]).rows) == 1


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_loader_and_memory_give_the_same_epoch(tmp_path, sampling):
    register_schema()
    few = [o for o in loader_overrides(tmp_path, sampling) if not o.startswith("dataset.train=")]
    small = ["dataset.train=4", "dataset.size=64", "dataset.image_size=32"]
    model = ["model=gated_axial_unet", "model.depths=[1,1]"]
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        config = plain(compose("train", [*few, *small, *model]))
    work = loader_work(LoaderJob(config, threads=1))
    assert list(work.steps) == list(EPOCHS)
    assert all(step() > 0 for step in work.steps.values())


def test_rounds_end_with_the_budget_but_one_counts():
    timing = Timing()
    while timing.wants_more(rounds=5, budget=10.0):
        timing.add(Step(20.0, 7), budget=10.0)
    assert (timing.warm_up, timing.seconds, timing.memory) == ([20.0], [20.0], 7)
    timing = Timing()
    while timing.wants_more(rounds=5, budget=10.0):
        timing.add(Step(1.0, 7), budget=10.0)
    assert (len(timing.warm_up), len(timing.seconds)) == (2, 5)
    timing.add(Failure("it broke"), budget=10.0)
    assert not timing.wants_more(rounds=9, budget=10.0)


def record(name, backend, seconds, size=128, batch=4, memory=1000):
    """A record as a run would have made it."""
    timings = {phase: Timing([seconds], memory) for phase in ("inference", "training")}
    return record_of(name, Job({}, backend, size, batch, 1), Ready(10, 1, "VmHWM"), timings)


@pytest.mark.parametrize(
    ("seconds", "valid"), [(8.9, False), (9.0, True), (11.5, True), (11.6, False)]
)
def test_validity_is_the_naive_training_step_in_basic_unets(seconds, valid):
    records = [record("medt", "naive", seconds), record("unet", None, 1.0)]
    assert validity(records)["valid"] is valid
    assert validity(records[:1])["valid"] is None


def test_shares_ratios_and_growth():
    records = [
        record("gated_axial_unet", "naive", 8.0, memory=3000),
        record("gated_axial_unet", "fused", 2.0),
        record("gated_axial_unet", "fused", 8.0, size=256, memory=8000),
        record("gated_axial_unet", LIMIT, 1.5),
        record("unet", None, 1.0),
    ]
    add_shares(records)
    assert [r["share_of_limit"]["training"] for r in records] == [18.75, 75.0, None, None, None]
    found = {ratio["pair"]: ratio for ratio in ratios(records)}
    assert found["naive/fused"]["time"] == {"inference": 4.0, "training": 4.0}
    assert found["naive/fused"]["memory"]["training"] == 3.0
    assert found["fused/basic_unet"]["time"]["training"] == 2.0
    (step,) = growth(records)
    assert (step["time"], step["memory"]) == (pytest.approx(2.0), pytest.approx(3.0))


@pytest.mark.parametrize(
    "override",
    [
        *("rounds=0", "batches=[0]", "batches=[]", "threads=-1", "sizes=[100]", "memory=0"),
        *("seconds=0", "networks=[medtt]", "networks=[]", "backends=[fussed]", "sizes=[big]"),
    ],
)
def test_wrong_settings_are_one_line(override, refused, tmp_path):
    culprit = override.partition("=")[0] if override != "sizes=[100]" else "100 x 100"
    refused(benchmark.main, [*TINY, "networks=[medt]", f"output={tmp_path}/new", override], culprit)


def closing(key, report):
    """The closing lines of a benchmark that has measured nothing but this."""
    nothing = {"growth": [], "loader": [], "validity": validity([])}
    return closing_lines(
        {**nothing, "preparation": None, "evaluation": None, "large": None, key: report}
    )


def glas_archive(tmp_path):
    folder = tmp_path / "Warwick QU"
    folder.mkdir()
    for number in (1, 2, 5):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8)
        cv2.imwrite(str(folder / f"train_{number}.bmp"), pixels)
        cv2.imwrite(str(folder / f"train_{number}_anno.bmp"), pixels[..., 0] // 128)
    return folder


def test_the_preparation_of_an_archive_is_timed(tmp_path):
    folder = glas_archive(tmp_path)
    steps = []
    report = measure_preparation(folder, 2, lambda: steps.append(1))
    assert report["cases"] == 3
    assert len(report["seconds"]) == len(steps) == 2
    assert closing("preparation", report)[0].startswith("preparing the 3 cases of glas takes ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Warwick QU"]


def test_an_evaluation_with_all_scores_is_timed(tmp_path, tiny_run):
    steps = []
    checkpoint = tiny_run / "checkpoints/best.pt"
    report = measure_evaluation(glas_archive(tmp_path), checkpoint, lambda: steps.append(1))
    assert report["cases"] == 3
    assert report["seconds"] > 0
    assert len(steps) == 1
    line = closing("evaluation", report)[0]
    assert line.startswith("evaluating 3 cases of glas with all scores takes ")


def test_a_checkpoint_without_images_is_refused(refused, tiny_run):
    arguments = [*TINY, "networks=[medt]", f"checkpoint={tiny_run}/checkpoints/best.pt"]
    refused(benchmark.main, arguments, "checkpoint", "glas=ARCHIVE")


@pytest.mark.slow
def test_a_large_image_is_predicted_in_both_modes(tmp_path, tiny_run):
    steps = []
    checkpoint = tiny_run / "checkpoints/best.pt"
    report = measure_large(checkpoint, 70, lambda: steps.append(1))
    assert set(report["modes"]) == {"resize", "sliding_window"}
    assert all(100 < found["memory"] < 10_000 for found in report["modes"].values())
    assert len(steps) == 2
    line = closing("large", report)[0]
    assert line.startswith("predicting 70 x 70 pixels with mode=resize takes ")
    with pytest.raises(UserError, match="large image failed: error: there is no file"):
        measure_large(tmp_path / "nowhere.pt", 70, lambda: None)


def test_a_large_image_needs_a_checkpoint(refused):
    refused(benchmark.main, [*TINY, "networks=[medt]", "large=70"], "large", "checkpoint=FILE")
