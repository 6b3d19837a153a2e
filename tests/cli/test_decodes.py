"""How often files are decoded: once before a training's first epoch, and once per use."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import evaluate
import numpy as np
import prepare_data
import pytest
import train

from medt.data.splits import read_splits
from medt.io import images
from tests.conftest import tiny

TRAINING = ["dataset.image_size=32", "model=gated_axial_unet", "model.depths=[1,1]"]
TRAINING += ["trainer.epochs=2", "trainer.device=cpu", "augmentation=flip"]
VALUES = "dataset.classes=[{name:background,value:0},{name:foreground,value:255}]"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """folder/name -> how often it was decoded so far."""
    counts: Counter[str] = Counter()
    decode = images._decode

    def counted(chosen: Any, name: str) -> Any:
        file = Path(name.removeprefix("Mask "))
        counts[f"{file.parent.name}/{file.name}"] += 1
        return decode(chosen, name)

    monkeypatch.setattr(images, "_decode", counted)
    return counts


def folder(root: Path, values: type[np.generic] = np.uint8, inside: int = 255) -> list[str]:
    """A dataset of 20 pairs, and the overrides that name it."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for i in range(20):
        pixels = rng.integers(0, np.iinfo(values).max, (40, 40, 3)).astype(values)
        mask = np.zeros((40, 40), np.uint8)
        mask[10:30, i : i + 15] = inside
        cv2.imwrite(str(root / f"images/{i:02}.png"), pixels)
        cv2.imwrite(str(root / f"masks/{i:02}.png"), mask)
    return ["dataset=folder", f"dataset.images={root}/images", f"dataset.masks={root}/masks"]


def split_of(root: Path) -> dict[str, str]:
    return {row.case: row.split for row in read_splits(root / "images_splits.csv")}


def expected(root: Path, used: dict[str, int]) -> dict[str, int]:
    """What is decoded of a folder, by how often the files of each split are."""
    found = {
        f"{kind}/{case}.png": used.get(split, 0)
        for case, split in split_of(root).items()
        for kind in ("images", "masks")
    }
    return {name: count for name, count in found.items() if count}


@pytest.mark.parametrize("normalize", ["dataset", "percentile"])
@pytest.mark.parametrize("check", ["true", "false"])
def test_before_the_first_epoch_every_file_of_a_folder_is_decoded_once(
    tmp_path: Path, decoded: Counter[str], check: str, normalize: str
) -> None:
    """The cache then reads those of train and val once more, whatever the number of epochs."""
    given = [*TRAINING, *folder(tmp_path), f"check={check}", f"dataset.normalize={normalize}"]
    wanted = {"train": 2, "val": 2, "test": 1}
    for run in ("with a new split", "with one that is there"):
        decoded.clear()
        assert train.main([*given, f"run_dir={tmp_path}/runs/{run}"]) == 0
        assert decoded == expected(tmp_path, wanted), run
    decoded.clear()
    again = [f"resume={tmp_path}/runs/{run}", "trainer.epochs=3", "resume_force=true"]
    assert train.main([*again, f"check={check}"]) == 0
    assert decoded == expected(tmp_path, wanted)


@pytest.mark.parametrize("kind", ["classes", "instances", "ranges", "names"])
def test_the_check_reads_no_mask_of_a_folder_again_whatever_it_means(
    tmp_path: Path, decoded: Counter[str], kind: str
) -> None:
    settings = {
        "classes": [VALUES],
        "instances": ["dataset.mask=instances"],
        "ranges": [VALUES.replace("255", "[9,255]")],
        "names": ["dataset.classes=[background,gland]"],
    }[kind]
    given = [*TRAINING, *folder(tmp_path), *settings, f"run_dir={tmp_path}/run"]
    assert train.main(given) == 0
    assert decoded == expected(tmp_path, {"train": 2, "val": 2, "test": 1})


def test_the_range_of_16_bits_takes_a_second_look_at_the_training_images(
    tmp_path: Path, decoded: Counter[str]
) -> None:
    given = folder(tmp_path, np.uint16)
    assert train.main([*TRAINING, *given, f"run_dir={tmp_path}/run"]) == 0
    twice = {f"images/{case}.png": 3 for case, s in split_of(tmp_path).items() if s == "train"}
    assert decoded == expected(tmp_path, {"train": 2, "val": 2, "test": 1}) | twice


@pytest.mark.parametrize("check", ["true", "false"])
def test_a_prepared_dataset_is_decoded_no_more_often(
    tmp_path: Path, decoded: Counter[str], check: str
) -> None:
    overrides = tiny(tmp_path, f"check={check}", f"run_dir={tmp_path}/run")
    assert prepare_data.main([o for o in overrides if o.startswith(("dataset", "paths"))]) == 0
    decoded.clear()
    assert train.main(overrides) == 0
    assert max(decoded.values()) == 2
    assert sum(decoded.values()) > 0


class TestEvaluation:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        given = folder(tmp_path / "data")
        assert train.main([*TRAINING, *given, f"run_dir={tmp_path}/run", "check=false"]) == 0
        return tmp_path / "run"

    def scored(self, run: Path, *overrides: str) -> None:
        given = [f"checkpoint={run}", "split=val", "device=cpu", f"output={run}/scores"]
        assert evaluate.main([*given, *overrides]) == 0

    def test_reads_the_cases_of_its_split_alone(self, run: Path, decoded: Counter[str]) -> None:
        self.scored(run)
        assert decoded.keys() == expected(run.parent / "data", {"val": 1}).keys()

    def test_reads_other_masks_where_those_of_its_split_do_not_tell_the_values(
        self, run: Path, decoded: Counter[str]
    ) -> None:
        data = run.parent / "data"
        for case, split in split_of(data).items():
            if split == "val":
                cv2.imwrite(str(data / f"masks/{case}.png"), np.full((40, 40), 255, np.uint8))
        self.scored(run)
        others = expected(data, {"train": 1, "test": 1})
        assert {name for name in decoded if name in others} == {
            name for name in others if name.startswith("masks/")
        }

    @pytest.mark.parametrize(
        ("classes", "masks"),
        [
            (None, {"train", "val", "test"}),
            (VALUES, {"val"}),
            ("dataset.classes=[background,foreground]", {"val"}),
        ],
        ids=["not named", "by values", "by names"],
    )
    def test_reads_all_masks_of_a_folder_whose_classes_are_not_named(
        self, run: Path, decoded: Counter[str], classes: str | None, masks: set[str]
    ) -> None:
        data = run.parent / "data"
        named = ["dataset=folder", f"dataset.images={data}/images", f"dataset.masks={data}/masks"]
        self.scored(run, *named, *([] if classes is None else [classes]))
        splits = split_of(data)
        found = {
            kind: {splits[Path(name).stem] for name in decoded if name.startswith(kind)}
            for kind in ("images", "masks")
        }
        assert found == {"images": {"val"}, "masks": masks}
