"""configs/experiment: each of them composes, and trains for an epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import train
from conftest import DATA
from hydra import compose, initialize_config_dir

from medt.checkpoint import load_checkpoint
from medt.cli.arguments import CONFIGS
from medt.config import register_schema
from medt.data.layout import DatasetCard, default_classes, write_card
from medt.io.files import write_png, write_text
from medt.io.images import read_mask

SMALL = ["dataset.image_size=64", "trainer.epochs=1"]
PATCHES = "model.grid=[2,2]"  # with which the paper's network takes 64 pixels
SYNTHETIC = [f"paths.data={DATA}/experiments", "dataset.train=6", "dataset.val=2"]
SYNTHETIC += ["dataset.test=2", "dataset.size=64"]
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
# What is trained with, per dataset: its size, and how its objects are parted.
OF_DATASETS = {
    "glas": ("resize", 256, "borders"),
    "glas_fast": ("resize", 128, "none"),
    "monuseg": ("crop", 256, "borders"),
    "dsb2018": ("crop", 256, "distance"),
    "kvasir_seg": ("resize", 256, "none"),
    "drive": ("crop", 256, "none"),
}


def compose_experiment(name: str):
    register_schema()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", [f"experiment={name}"])


def write_images(folder: Path, classes: int) -> None:
    """Ten images with masks of 0, 1, ... in images/ and masks/."""
    generator = np.random.default_rng(0)
    for number in range(10):
        mask = np.zeros((70, 60), np.uint8)
        for value in range(1, classes):
            mask[10 * value : 60 - 5 * value, 10 * value : 50 - 5 * value] = value
        image = (mask[..., None] * 50 + generator.integers(0, 60, (70, 60, 3))).astype(np.uint8)
        write_png(folder / "images" / f"case_{number}.png", image)
        write_png(folder / "masks" / f"case_{number}.png", mask)


def write_prepared(folder: Path, name: str) -> list[str]:
    """A prepared dataset of this name, and the overrides that say where it lies."""
    write_images(folder / name, 2)
    for mask in (folder / name / "masks").iterdir():  # the one object of each image
        write_png(folder / name / "instances" / mask.name, read_mask(mask).astype(np.uint16))
    classes, prepared = default_classes(("background", "gland")), {"raster": "challenge"}
    card = DatasetCard(name, classes, 3, "none", "test", "none", prepared)
    write_card(folder / name, card)
    rows = [f"case_{n},p{n},{'train' if n < 6 else 'val'}" for n in range(10)]
    write_text(folder / "splits" / f"{name}.csv", "\n".join(["case,group,split", *rows]) + "\n")
    return [f"paths.data={folder}"]


def tiny_encoder(folder: Path) -> list[str]:
    """The overrides that name an encoder, and its weights in a file."""
    pytest.importorskip("segmentation_models_pytorch")
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("test_efficientnet").state_dict(), folder / "tiny.pth")
    return ["model.encoder=tu-test_efficientnet", f"model.encoder_weights={folder}/tiny.pth"]


@pytest.fixture
def given(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """What the user of an experiment gives, and what makes it small."""
    name = request.param
    if name.startswith("paper_"):
        return [*SMALL, PATCHES, *write_prepared(tmp_path, name.removeprefix("paper_"))]
    encoder = tiny_encoder(tmp_path) if name in ("pretrained", "kvasir_seg") else []
    if name in OF_DATASETS:
        prepared = write_prepared(tmp_path, compose_experiment(name).dataset.name)
        return [*SMALL, *prepared, *encoder]
    if name.startswith("folder_"):
        classes = {"folder_binary": 2, "folder_multiclass": 3}[name]
        write_images(tmp_path, classes)
        folders = [f"dataset.images={tmp_path}/images", f"dataset.masks={tmp_path}/masks"]
        names = ["dataset.classes=[background,gland,lumen]"] * (classes == 3)
        return [*SMALL, *folders, *names]
    if name == "finetune":
        start = [*SMALL, *SYNTHETIC, "loss=cross_entropy", f"run_dir={tmp_path}/start"]
        assert train.main(start) == 0
        return [*SMALL, *SYNTHETIC, f"model.weights={tmp_path}/start/checkpoints/best.pt"]
    return [*SMALL, *SYNTHETIC, *encoder, *([PATCHES] if name == "quickstart" else [])]


@pytest.mark.many_parameters
@pytest.mark.parametrize(("given", "name"), [(n, n) for n in EXPERIMENTS], indirect=["given"])
def test_trains_for_an_epoch(tmp_path: Path, given: list[str], name: str) -> None:
    assert train.main([f"experiment={name}", *given, f"run_dir={tmp_path}/run"]) == 0
    checkpoint = load_checkpoint(tmp_path / "run/checkpoints/best.pt")
    assert checkpoint.epoch == 1
    assert 0 <= checkpoint.scores["val_dice"] <= 1


def test_these_are_the_experiments() -> None:
    common = {"quickstart", "paper_glas", "paper_monuseg", "finetune", "pretrained"}
    others = {"folder_binary", "folder_multiclass", "debug"}
    assert set(EXPERIMENTS) == {*common, *others, *OF_DATASETS}


@pytest.mark.parametrize("name", OF_DATASETS)
def test_the_recipe_of_a_dataset(name: str) -> None:
    cfg = compose_experiment(name)
    dataset = cfg.dataset
    assert dataset.name == name.removesuffix("_fast")
    assert (dataset.sampling, dataset.image_size, dataset.objects) == OF_DATASETS[name]
    pretrained = name == "kvasir_seg"
    assert cfg.model.name == ("smp_unet" if pretrained else "medt_plus")
    assert (cfg.model.get("encoder_weights") == "imagenet") == pretrained
    assert cfg.augmentation.name == "histology"
    assert cfg.trainer.epochs % cfg.trainer.validate_every == 0


def test_what_is_pretrained() -> None:
    cfg = compose_experiment("pretrained")
    assert (cfg.model.architecture, cfg.model.encoder_weights) == ("smp_unet", "imagenet")
    assert cfg.model.image_size == cfg.dataset.image_size == 256
    assert cfg.dataset.normalize == "imagenet"  # as the encoder's weights were trained
    assert 0 < cfg.optimizer.encoder_factor < 1
    assert (cfg.trainer.use, cfg.trainer.patience) == ("last", None)


@pytest.mark.parametrize(("name", "size"), [("glas", 128), ("monuseg", 512)])
def test_the_papers_recipe(name: str, size: int) -> None:
    cfg = compose_experiment(f"paper_{name}")
    assert cfg.dataset.name == name
    assert cfg.dataset.image_size == cfg.model.image_size == size
    assert cfg.dataset.sampling == "resize"
    assert cfg.model._target_ == "medt.models.LocalGlobalNet"
    assert cfg.loss._target_ == "medt.losses.CrossEntropyLoss"
    assert (cfg.optimizer._target_, cfg.optimizer.lr) == ("torch.optim.Adam", 1e-3)
    assert cfg.optimizer.weight_decay == 1e-5
    assert cfg.scheduler._target_ == "medt.training.schedules.Constant"
    assert cfg.augmentation.name == "flip"
    assert (cfg.trainer.batch_size, cfg.trainer.epochs, cfg.trainer.gate_epoch) == (4, 400, 10)


def test_fine_tuning_needs_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["experiment=finetune", *SYNTHETIC]) == 1
    error = capsys.readouterr().err
    assert error == "error: model.weights has no value (this experiment needs model.weights=...)\n"
