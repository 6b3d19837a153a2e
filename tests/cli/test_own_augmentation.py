"""A list of transforms in a file of one's own: what trains, what is refused and what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import compare
import pytest
import train
import yaml
from conftest import tiny

Refused = Callable[..., None]
HOME = "medt.data.augmentation"
FLIP = {"_target_": "albumentations.HorizontalFlip"}
BLUR = {"_target_": "albumentations.Blur", "blur_limit": [3, 5], "p": 1}
OWN = {
    "_target_": f"{HOME}.Pipeline",
    "name": "mine",
    "geometry": {
        "flip": FLIP,
        "turn": {"_target_": "albumentations.Rotate", "limit": 20, "fill_mask": 255, "p": 1},
    },
    "appearance": [
        {"_target_": "albumentations.OneOf", "transforms": {"a": BLUR, "b": FLIP}, "p": 1},
        {"_target_": f"{HOME}.Speckle", "strength": 0.1},
    ],
}


def given(folder: Path, spec: dict[str, Any]) -> list[str]:
    """The arguments of a tiny training with this augmentation."""
    (folder / "configs/augmentation").mkdir(parents=True)
    (folder / "configs/augmentation/own.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    kept = [one for one in tiny(folder) if not one.startswith("augmentation")]
    own = [f"--config-dir={folder}/configs", "augmentation=own", f"run_dir={folder}/run"]
    return [*kept, *own, "check=false", "trainer.epochs=1"]


def test_ones_own_list_trains_resumes_and_is_compared_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = given(tmp_path, OWN)
    assert train.main([*arguments, "augmentation.geometry.flip._target_=test_transforms.Own"]) == 1
    assert "test_transforms" in capsys.readouterr().err
    assert train.main(arguments) == 0
    stored = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert stored["augmentation"] == OWN
    more = [f"resume={tmp_path}/run", "trainer.epochs=2", "resume_force=true"]
    for key, said in {
        "augmentation.geometry.affine.p": "augmentation.geometry.affine names no class",
        "augmentation.appearance.color.p": "there is no augmentation.appearance.color.p in",
    }.items():
        assert train.main([*more, f"{key}=0.1"]) == 1
        assert said in capsys.readouterr().err
    assert train.main(more) == 0
    flips = [one for one in arguments if "augmentation" not in one and "config-dir" not in one]
    assert train.main([*flips, "augmentation=flip", f"run_dir={tmp_path}/flips"]) == 0
    capsys.readouterr()
    both = [f"runs=[{tmp_path}/run,{tmp_path}/flips]", f"output={tmp_path}/compared"]
    assert compare.main(both) == 0
    assert "augmentation=mine" in capsys.readouterr().out.replace("\n", "")


def in_geometry(**spec: Any) -> dict[str, Any]:
    return {**OWN, "geometry": {"own": spec}}


AFFINE = {"_target_": "albumentations.Affine", "border_mode": 4}
NOISE = {"_target_": "albumentations.GaussNoise", "p": 3}


@pytest.mark.parametrize(
    ("spec", "culprit", "hint"),
    [
        (
            in_geometry(**AFFINE, rotat=20),
            "no augmentation.geometry.own.rotat",
            "did you mean rotate?",
        ),
        (in_geometry(**AFFINE, rotate="a"), "augmentation.geometry.own.rotate is 'a'", "see its"),
        (in_geometry(**AFFINE, rotate=float("nan")), "geometry.own.rotate=nan", "finite"),
        (in_geometry(**FLIP, p=2), "augmentation.geometry.own.p=2: Input should be", "see alb"),
        (in_geometry(**FLIP, p="1"), "augmentation.geometry.own.p is '1'", "see its config"),
        (in_geometry(**FLIP, strict=True), "no augmentation.geometry.own.strict", "takes p"),
        (in_geometry(**FLIP, p=FLIP), "augmentation.geometry.own.p._target_ is not a", "plain"),
        (in_geometry(_target_="albumentations.Affine"), "own.fill_mask=0", "fill_mask: 255"),
        (in_geometry(_target_="albumentations.Resize"), "own lacks height, width", "needs"),
        (
            in_geometry(_target_="HorizontalFlip"),
            "own._target_",
            "did you mean albumentations.Hori",
        ),
        (in_geometry(_target_="albumentations.Blurr"), "Blurr", "mean albumentations.Blur"),
        (in_geometry(p=1), "augmentation.geometry.own names no class", "own._target_"),
        (
            in_geometry(_target_="albumentations.OneOf", transforms=[BLUR, NOISE]),
            "augmentation.geometry.own.transforms.1.p=3: Input should be",
            "see albumentations.GaussNoise",
        ),
        (
            in_geometry(_target_="albumentations.SomeOf", transforms=[BLUR], n=1.5),
            "augmentation.geometry.own.n is 1.5",
            "see its config",
        ),
        (
            in_geometry(_target_="albumentations.Sequential", transforms=[BLUR], p=-1),
            "augmentation.geometry.own.p=-1 is no probability",
            "from 0 to 1",
        ),
        (
            in_geometry(_target_="albumentations.Resize", height=9, width=9, p=1),
            "augmentation makes (9, 9, 3), uint8 of an image of (32, 32, 3)",
            "dataset.image_size",
        ),
        ({**OWN, "appearance": None}, "augmentation.appearance holds no", "list or a mapping"),
        (
            {**OWN, "geometri": []},
            "Pipeline takes no augmentation.geometri",
            "did you mean geometry?",
        ),
        ({"_target_": f"{HOME}.Speckle", "strength": 1}, "wrong place", f"{HOME}.Pipeline"),
        (in_geometry(_target_=f"{HOME}.Pipeline"), "wrong place", f"{HOME}.Pipeline"),
    ],
)
def test_a_fault_is_one_line_that_names_its_key(
    refused: Refused, tmp_path: Path, spec: dict[str, Any], culprit: str, hint: str
) -> None:
    refused(train.main, [*given(tmp_path, spec), "dry_run=true"], culprit, hint)
