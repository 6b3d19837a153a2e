"""Frames of videos: without groups a warning, with groups no video on both sides."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import check_data
import cv2
import numpy as np
import pytest
import train
import yaml
from conftest import tiny

from medt.data.splits import SplitRow, read_splits, write_splits

VIDEOS, FRAMES, SIZE = 8, 6, 96


def write_frames(folder: Path, name: Callable[[int, int], str]) -> list[str]:
    """Videos of a scene that drifts; the settings of dataset=folder."""
    random = np.random.default_rng(0)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[20:60, 20:50] = 1
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for video in range(VIDEOS):
        coarse = random.integers(0, 256, (16, 16, 3), np.uint8)
        scene = cv2.resize(coarse, (2 * SIZE, 2 * SIZE), interpolation=cv2.INTER_CUBIC)
        for frame in range(FRAMES):
            seen = scene[9 * frame : 9 * frame + SIZE, 8 * frame : 8 * frame + SIZE]
            cv2.imwrite(str(folder / f"images/{name(video, frame)}.png"), seen)
            cv2.imwrite(str(folder / f"masks/{name(video, frame)}.png"), mask)
    return ["dataset=folder", f"dataset.images={folder}/images", f"dataset.masks={folder}/masks"]


def named(video: int, frame: int) -> str:
    return f"video{video}_{frame}"


def counted(video: int, frame: int) -> str:
    return f"{1 + video * FRAMES + frame}"


def checked(given: list[str], output: Path) -> dict[str, dict]:
    assert check_data.main([*given, f"output={output}"]) in (0, 1)
    findings = json.loads((output / "check.json").read_text())["findings"]
    return {finding["code"]: finding for finding in findings}


def videos_in(splits_file: Path) -> dict[str, set[str]]:
    """Split -> the videos of which it has frames."""
    found = defaultdict(set)
    for row in read_splits(splits_file):
        found[row.split].add(row.case.partition("_")[0])
    return found


def test_names_of_videos_on_both_sides_are_a_warning_with_the_setting(tmp_path: Path) -> None:
    finding = checked(write_frames(tmp_path, named), tmp_path / "out")["ungrouped"]
    assert finding["severity"] == "warning"
    assert "The names suggest 8 groups" in finding["message"]
    assert "'dataset.group=(*)_#'" in finding["hint"]
    assert f"delete {tmp_path}/images_splits.csv, so that a new" in finding["hint"]


def test_pasting_the_setting_keeps_every_video_in_one_split(tmp_path: Path) -> None:
    given = [*write_frames(tmp_path, named), "dataset.group=(*)_#"]
    found = checked(given, tmp_path / "out")
    assert not {"ungrouped", "neighbours", "shared_group"} & found.keys()
    videos = videos_in(tmp_path / "images_splits.csv")
    assert sum(map(len, videos.values())) == VIDEOS
    assert {row.group for row in read_splits(tmp_path / "images_splits.csv")} == {
        f"video{number}" for number in range(VIDEOS)
    }


def test_numbers_without_names_are_told_by_their_neighbours(tmp_path: Path) -> None:
    finding = checked(write_frames(tmp_path, counted), tmp_path / "out")["neighbours"]
    assert "Neighbours in number look alike (nearer than " in finding["message"]
    assert "of 47 lie in different splits" in finding["message"]


def test_a_table_of_videos_keeps_them_together(tmp_path: Path) -> None:
    given = write_frames(tmp_path, counted)
    rows = [f"{counted(v, f)},{v}" for v in range(VIDEOS) for f in range(FRAMES)]
    (tmp_path / "videos.csv").write_text("\n".join(["case,video", *rows]))
    checked([*given, f"dataset.group={tmp_path}/videos.csv:video"], tmp_path / "out")
    splits = defaultdict(set)
    for row in read_splits(tmp_path / "images_splits.csv"):
        splits[row.group].add(row.split)
    assert len(splits) == VIDEOS
    assert all(len(found) == 1 for found in splits.values())


def test_a_split_file_that_parts_the_groups_is_refused(
    tmp_path: Path, refused: Callable[..., None]
) -> None:
    given = write_frames(tmp_path, named)
    names = [named(video, frame) for video in range(VIDEOS) for frame in range(FRAMES)]
    kinds = ("train", "train", "val", "test")
    rows = [SplitRow(name, "", kinds[place % 4]) for place, name in enumerate(names)]
    write_splits(tmp_path / "images_splits.csv", rows)
    refused(
        check_data.main,
        [*given, "dataset.group=(*)_#", f"output={tmp_path}/out"],
        "dataset.group=(*)_# with",
        "into several splits: video0 (train, val, test)",
        "move or delete the split file",
    )


def test_the_rule_stands_in_the_config_of_a_run(tmp_path: Path) -> None:
    model = [given for given in tiny(tmp_path) if given.partition("=")[0].startswith("model")]
    given = [*write_frames(tmp_path, named), "dataset.group=(*)_#", *model, "trainer.epochs=1"]
    quick = ["dataset.image_size=32", "augmentation=none", f"run_dir={tmp_path}/run"]
    assert train.main([*given, *quick, "trainer.device=cpu"]) == 0
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert config["dataset"]["group"] == "(*)_#"


@pytest.mark.parametrize("rule", ["(*)_", "*_#", "nowhere.csv:video"])
def test_a_rule_that_says_nothing_is_one_line(
    tmp_path: Path, refused: Callable[..., None], rule: str
) -> None:
    given = [*write_frames(tmp_path, named), f"dataset.group={rule}", f"output={tmp_path}/out"]
    refused(check_data.main, given, rule.partition(":")[0])
