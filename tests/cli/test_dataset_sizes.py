"""Each dataset comes with a size and a sampling that suit it; a run that contradicts is told."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import train
from conftest import tiny
from hydra import compose, initialize_config_dir
from torch import nn

from medt.cli.arguments import CONFIGS
from medt.config import register_schema
from medt.data.layout import DatasetCard, default_classes, write_card
from medt.data.open import PUBLISHED
from medt.io.files import write_png, write_text
from medt.models import MedT, MedTPlus

# Sampling; height, width and channels of an image, of those for crops a part; width of its objects
# in pixels.
KINDS = {
    "drive": ("crop", 200, 190, 3, 5),
    "monuseg": ("crop", 250, 250, 3, 24),
    "isbi2012": ("crop", 256, 256, 1, 40),
    "dsb2018": ("crop", 256, 256, 3, 20),
    "glas": ("resize", 522, 775, 3, 150),
    "kvasir_seg": ("resize", 530, 620, 3, 200),
    "cvc_clinicdb": ("resize", 288, 384, 3, 90),
}


def write_pairs(folder: Path, height: int, width: int, channels: int, across: int) -> None:
    """Twelve images of discs in rows, a third of them 0.4 times as wide, and their masks."""
    noise = np.random.default_rng(0)
    step = across + 8
    places = [(y, x) for y in range(step, height, step) for x in range(step, width, step)]
    for number in range(12):
        mask = np.zeros((height, width), np.uint8)
        for place, (y, x) in enumerate(places or [(height // 2, width // 2)]):
            radius = across / 2 * (0.4 if place % 3 == 1 else 1)
            cv2.circle(mask, (x, y), max(1, int(radius)), 1, -1)
        shape = (height, width, channels) if channels > 1 else (height, width)
        grey = mask * 90 if channels == 1 else mask[..., None] * 90
        image = grey + noise.integers(0, 120, shape, dtype=np.uint8)
        write_png(folder / "images" / f"case_{number}.png", image)
        write_png(folder / "masks" / f"case_{number}.png", mask)


def write_prepared(folder: Path, name: str) -> list[str]:
    """A prepared dataset whose images have the sizes of the real one's, and where it lies."""
    _, height, width, channels, across = KINDS[name]
    write_pairs(folder / name, height, width, channels, across)
    classes, prepared = default_classes(("background", "object")), {}
    if PUBLISHED[name].raster:
        prepared = {"raster": PUBLISHED[name].raster}
    write_card(folder / name, DatasetCard(name, classes, channels, "", "", "", prepared))
    rows = [f"case_{n},p{n},{'train' if n < 10 else 'val'}" for n in range(12)]
    write_text(folder / "splits" / f"{name}.csv", "\n".join(["case,group,split", *rows]) + "\n")
    return [f"dataset={name}", f"paths.data={folder}", f"paths.runs={folder}/runs"]


def test_every_published_dataset_is_here() -> None:
    assert KINDS.keys() == PUBLISHED.keys()


@pytest.mark.many_parameters
@pytest.mark.parametrize("name", KINDS)
def test_a_dry_run_at_its_own_size_and_sampling(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = write_prepared(tmp_path, name)
    small = ["model=gated_axial_unet", "model.depths=[1,1]", "trainer.device=cpu"]
    assert train.main([*given, "dry_run=true", *small]) == 0
    printed = capsys.readouterr().out
    sampling, _, _, channels, _ = KINDS[name]
    assert f"input      4 x {channels} x 128 x 128" in printed
    assert ("(40 crops an epoch)" in printed) == (sampling == "crop")
    assert "dataset.image_size" not in printed, "nothing to say about the size"


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("network", [MedT, MedTPlus])
def test_its_size_is_one_of_our_networks(name: str, network: type[nn.Module]) -> None:
    register_schema()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        size = compose("train", [f"dataset={name}"]).dataset.image_size
    with torch.device("meta"):
        assert network(image_size=size) is not None


class TestAFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> list[str]:
        """Images of 500 x 300 with objects of 24 pixels, the smaller ones of 8."""
        write_pairs(tmp_path, 500, 300, 3, 24)
        kept = [o for o in tiny(tmp_path) if not o.startswith(("dataset", "trainer.epochs"))]
        folders = [f"dataset.images={tmp_path}/images", f"dataset.masks={tmp_path}/masks"]
        return ["dataset=folder", *folders, *kept, f"run_dir={tmp_path}/run", "trainer.epochs=1"]

    LINE = (
        "warning: At dataset.image_size=128 the objects are 6.1 pixels across (median), 3.0 times "
        "less than at the size that is suggested (dataset.image_size=[384,256], or "
        "dataset.sampling=crop, which keeps the images' own resolution)"
    )

    def test_a_run_far_from_the_suggestion_says_so_in_one_line(
        self, folder, tmp_path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert train.main([*folder, "dry_run=true"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if "suggested" in line] == [self.LINE]
        assert train.main(folder) == 0
        log = (tmp_path / "run/train.log").read_text()
        assert log.count("suggested") == 1
        assert self.LINE in log

    @pytest.mark.parametrize("pasted", ["dataset.sampling=crop", "check=false"])
    def test_what_it_says_to_paste_ends_it(
        self, folder, pasted: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert train.main([*folder, "dry_run=true", pasted]) == 0
        assert "suggested" not in capsys.readouterr().out
