"""dataset.objects: from training to predicted objects, whatever is done on the way."""

from __future__ import annotations

import json
from contextlib import contextmanager

import cv2
import evaluate
import export
import numpy as np
import predict
import pytest
import torch
import train
import yaml
from conftest import QUICK, TINY, tiny

import medt
from medt.checkpoint import Checkpoint
from medt.data.objects import KINDS
from medt.io.images import read_mask


def training(folder, kind, *more):
    given = [*tiny(folder), QUICK, f"dataset.objects={kind}", "trainer.epochs=1"]
    return [*given, f"run_dir={folder}/run", *more]


def test_a_result_without_parting_is_told_from_that_with_it(tmp_path):
    run = tmp_path / "run"
    assert train.main(training(tmp_path, "borders")) == 0
    given = [f"checkpoint={run}", "split=test", "panels=0"]
    for rule in ("auto", "none", "seeds"):
        assert evaluate.main([*given, f"postprocess={rule}"]) == 0
    speck = round(0.1 * medt.load(run).object_area)
    numbers = [f"postprocess.smallest={speck}", f"postprocess.largest_hole={speck}"]
    assert evaluate.main([*given, "postprocess=seeds", *numbers]) == 0  # those of auto
    name = "synthetic-test-native"
    names = {folder.name for folder in (run / "evaluation").iterdir()}
    assert names == {name, f"{name}-2", f"{name}+none", f"{name}+seeds"}


def evaluated(run, *more):
    assert evaluate.main([f"checkpoint={run}", f"output={run}/scores", *more]) == 0
    return json.loads((run / "scores/metrics.json").read_text())


def test_what_is_far_smaller_than_the_objects_it_learned_from_is_none(tmp_path):
    run = tmp_path / "run"
    assert train.main(training(tmp_path, "borders")) == 0
    areas = []
    for file in (TINY / "instances").glob("train_*.png"):
        numbers, counts = np.unique(read_mask(file), return_counts=True)
        areas += counts[numbers > 0].tolist()
    typical = round(float(np.median(areas)))
    assert yaml.safe_load((run / "config.yaml").read_text())["dataset"]["object_area"] == typical
    speck = round(0.1 * typical)
    rule = evaluated(run, "split=test")["postprocess"]
    assert (rule["method"], rule["smallest"], rule["largest_hole"]) == ("seeds", speck, speck)
    image, spots = tmp_path / "spots.png", np.zeros((32, 32, 3), np.uint8)
    spots[4:14, 4:14] = 255
    spots[24:26, 24:26] = 255
    assert cv2.imwrite(str(image), spots)
    sizes = {}
    with what_is_bright_is_an_object():
        for name, more in {"auto": [], "seeds": ["postprocess.smallest=0"]}.items():
            out = tmp_path / name
            given = [f"checkpoint={run}", f"input={image}", f"output={out}", "instances=true"]
            assert predict.main([*given, f"postprocess={name}", *more]) == 0
            found = read_mask(out / "instances/spots.png")
            sizes[name] = np.bincount(found[found > 0])[1:].tolist()
    assert 4 < speck < 100
    assert sizes == {"seeds": [100, 4], "auto": [100]}


@contextmanager
def what_is_bright_is_an_object():
    """Let each checkpoint's network say so, and of no pixel that it is a border."""
    build = Checkpoint.build_model

    def scripted(checkpoint):
        model = build(checkpoint)

        def logits(_, given, __):
            bright = 50 * given[0].mean(dim=1)
            return torch.stack([-bright, bright, torch.full_like(bright, -9)], dim=1)

        model.register_forward_hook(logits)
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "build_model", scripted)
        yield


def test_a_run_without_that_target_knows_of_no_objects(tmp_path):
    assert train.main(training(tmp_path, "none")) == 0
    assert medt.load(tmp_path / "run").object_area is None


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_run_goes_from_training_to_objects(tmp_path, capsys, kind):
    run = tmp_path / "run"
    assert train.main(training(tmp_path, kind)) == 0
    assert train.main([f"resume={run}", "trainer.epochs=2", "resume_force=true"]) == 0
    assert evaluated(run, "split=test")["postprocess"]["method"] == "seeds"
    assert evaluate.main([f"checkpoint={run}", "split=val", "tune=true"]) == 0
    assert "postprocess=seeds postprocess.smallest=" in capsys.readouterr().out
    image, out = TINY / "images/test_1.png", tmp_path / "out"
    given = [f"checkpoint={run}", f"input={image}", f"output={out}", "instances=true"]
    assert predict.main([*given, "objects=true", "tta=true"]) == 0
    mask, numbers = (read_mask(out / f) for f in ("test_1.png", "instances/test_1.png"))
    assert ((numbers > 0) == (mask > 0)).all()
    assert export.main([f"checkpoint={run}", "format=torch_export"]) == 0
    card = next((run / "export").glob("*.md")).read_text()
    assert "2. none: its sigmoid is" in card
    assert "- Objects: within the mask" in card


def test_the_masks_scores_do_not_depend_on_how_objects_are_parted(tmp_path):
    run = tmp_path / "run"
    assert train.main(training(tmp_path, "borders")) == 0
    parted = evaluated(
        run,
        "split=test",
        "postprocess=seeds",
        "postprocess.smallest=0",
        "postprocess.largest_hole=0",
    )
    plain = evaluated(run, "split=test", "postprocess=none")
    assert parted["mean_over_cases"] == plain["mean_over_cases"]


def test_networks_are_averaged_in_all_channels(tmp_path):
    for seed in (0, 1):
        assert train.main(training(tmp_path / str(seed), "borders", f"seed={seed}")) == 0
    runs = [str(tmp_path / f"{seed}/run") for seed in (0, 1)]
    image = TINY / "images/test_1.png"
    single = [medt.load(run).maps(image).depths for run in runs]
    together = medt.load(runs).maps(image).depths
    assert together == pytest.approx((single[0] + single[1]) / 2, abs=0.02)


def test_windows_slide_with_all_channels(tmp_path):
    run = tmp_path / "run"
    crops = ["dataset.sampling=crop", "dataset.crops_per_case=1"]
    assert train.main(training(tmp_path, "borders", *crops)) == 0
    image = TINY / "images/test_1.png"
    maps = medt.load(run).maps(image)
    assert maps.depths.shape == maps.probabilities.shape[1:]
    assert 0 <= maps.depths.min() <= maps.depths.max() <= 1


def test_seeds_without_such_a_network_is_one_line(tmp_path, refused):
    assert train.main(training(tmp_path, "none")) == 0
    refused(
        evaluate.main,
        [f"checkpoint={tmp_path}/run", "split=test", "postprocess=seeds"],
        "postprocess=seeds needs a network that was trained to part objects",
        "dataset.objects=borders",
    )


def test_members_of_other_outputs_are_refused(tmp_path, refused):
    for kind in ("none", "borders"):
        assert train.main(training(tmp_path / kind, kind)) == 0
    refused(
        evaluate.main,
        [f"checkpoint=[{tmp_path}/none/run,{tmp_path}/borders/run]", "split=test"],
        "trained with dataset.objects=none",
        "with borders",
    )


@pytest.mark.parametrize(
    ("setting", "culprit"),
    [
        ("dataset.objects=edges", "dataset.objects=edges is not known"),
        ("dataset.border_width=0", "dataset.border_width=0"),
        ("trainer.object_weight=0", "trainer.object_weight=0"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, refused, setting, culprit):
    refused(train.main, [*tiny(tmp_path), QUICK, setting], culprit)
