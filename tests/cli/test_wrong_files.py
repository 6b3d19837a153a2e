"""Wrong data, checkpoints and outputs: one line, the culprit, a hint, and nothing is left."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import compare
import evaluate
import import_official
import numpy as np
import predict
import prepare_data
import pytest
import torch
import train
from conftest import DATA, TINY, tiny_training

from medt.io.files import write_png
from medt.training.trainer import Trainer

FOLDER = ["dataset=folder", "dataset.image_size=32", "model=gated_axial_unet"]
FOLDER += ["model.depths=[1,1]", "trainer.epochs=1", "trainer.device=cpu", "augmentation=flip"]


class TestData:
    """dataset=folder on six images, one thing of which is wrong."""

    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        generator = np.random.default_rng(0)
        for number in range(6):
            image = generator.integers(0, 256, (40, 36, 3), dtype=np.uint8)
            mask = np.zeros((40, 36), np.uint8)
            mask[5:25, 5:25] = 1
            write_png(tmp_path / "images" / f"{number}.png", image)
            write_png(tmp_path / "masks" / f"{number}.png", mask)
        return tmp_path

    @pytest.fixture
    def command(self, data: Path) -> list[str]:
        folders = [f"dataset.images={data}/images", f"dataset.masks={data}/masks"]
        return [*FOLDER, *folders, f"run_dir={data}/run", f"paths.runs={data}/runs"]

    def test_images_without_mask_and_masks_without_image(self, refused, data, command):
        for number in (1, 2, 3):
            (data / f"masks/{number}.png").unlink()
        (data / "images/5.png").unlink()
        hint = "same name up to the extension"
        refused(train.main, command, "without mask (3): 1.png, 2.png, 3.png", "5.png", hint)

    def test_sizes_that_differ(self, refused, data, command):
        write_png(data / "masks/3.png", np.eye(20, dtype=np.uint8))
        refused(train.main, command, "3.png is 36 x 40, its mask 20 x 20 pixels", "repair")

    def test_label_values_outside_the_class_list(self, refused, data, command):
        write_png(data / "masks/3.png", np.full((40, 36), 7, np.uint8))
        given = [*command, "dataset.classes=[background,gland]"]
        refused(train.main, given, "mask 3.png holds 7", "{name:class_7,value:7}]")
        refused(
            train.main,
            command,
            "the values 0 (60.2%), 1 (23.1%), 7 (16.7% only in 3.png)",
            "{name:class_7,value:7}]'",
        )

    @pytest.mark.parametrize("content", ["", "hello", None])
    @pytest.mark.parametrize("side", ["images", "masks"])
    def test_an_unreadable_or_truncated_file(self, refused, data, command, side, content):
        path = data / side / "1.png"
        path.write_bytes(path.read_bytes()[:60] if content is None else content.encode())
        refused(train.main, command, f"{side}/1.png cannot be decoded", "repair, replace or remove")

    @pytest.mark.parametrize(
        ("override", "culprit", "hint"),
        [
            ("dataset.classes=[gland]", "dataset.classes has 1 entries", "2 to 255"),
            ("dataset.classes=gland", "dataset.classes: Invalid value", "see --help"),
            ("dataset.classes=[{nam:a},b]", "entry 0 is {'nam': 'a'}", "give a name"),
            (
                "dataset.classes=[a,a]",
                "dataset.classes: several classes have the name a",
                "each class once",
            ),
            ("dataset.image_size=30", "image size 30 x 30", "24 x 24 or 32 x 32"),
        ],
    )
    def test_a_wrong_setting(self, refused, command, override, culprit, hint):
        key = override.partition("=")[0]
        kept = [given for given in command if given.partition("=")[0] != key]
        if key == "dataset.image_size":  # the split is drawn before the network is built
            kept.append(f"dataset.splits_file={DATA}/wrong_input_splits.csv")
        refused(train.main, [*kept, override], culprit, hint)

    def test_a_folder_that_is_not_there(self, refused, command, tmp_path):
        given = [*command, f"dataset.images={tmp_path}/nothing"]
        refused(train.main, given, f"No folder {tmp_path}/nothing", "check the path")

    def test_a_folder_that_was_not_named(self, refused, command):
        kept = [given for given in command if "dataset.masks" not in given]
        refused(train.main, kept, "dataset.masks has no value", "give it as dataset.masks=...")


@pytest.mark.parametrize(
    ("name", "page"), [("glas", "warwick.ac.uk"), ("monuseg", "monuseg.grand-challenge.org")]
)
def test_a_dataset_that_is_not_prepared(refused, tmp_path, name, page):
    command = f"python scripts/prepare_data.py dataset={name}"
    arguments = [f"dataset={name}", f"paths.data={tmp_path}", f"paths.runs={tmp_path}/runs"]
    refused(train.main, arguments, f"Dataset {name} is not prepared", page, command)
    refused(prepare_data.main, arguments[:2], f"{name} needs its archive", page)
    given = [*arguments[:2], f"source={tmp_path}/nope.zip"]
    refused(prepare_data.main, given, "No archive", "nope.zip")


class TestCheckpoints:
    @pytest.fixture
    def whole(self, tiny_run: Path) -> dict:
        return torch.load(tiny_run / "checkpoints/best.pt", weights_only=True)

    def everywhere(self, refused, path: Path, *culprits: str) -> None:
        """The file is refused by every script that takes a checkpoint."""
        predicting = [f"input={TINY}/images", f"output={path.parent}/masks"]
        refused(predict.main, [f"checkpoint={path}", *predicting], *culprits)
        refused(evaluate.main, [f"checkpoint={path}"], *culprits)

    def test_that_are_missing_truncated_or_no_checkpoint(self, refused, tiny_run, tmp_path):
        path = tmp_path / "best.pt"
        self.everywhere(refused, path, f"there is no file {path}", "checkpoint of medt")
        path.write_bytes((tiny_run / "checkpoints/best.pt").read_bytes()[:9000])
        self.everywhere(refused, path, f"{path} is damaged", "copy it again")
        path.write_text("# Read me")
        self.everywhere(refused, path, f"{path} is damaged", "copy it again")
        starting = tiny_training(tmp_path, f"model.weights={path}")
        refused(train.main, starting, f"{path} is damaged", "copy it again")

    def test_of_another_kind(self, refused, tmp_path):
        torch.save({"state_dict": {}}, tmp_path / "other.pt")
        self.everywhere(refused, tmp_path / "other.pt", "other.pt is not a checkpoint", "best.pt")

    @pytest.mark.parametrize("target", ["os.system", "medt.io.files.os.system", "torch.nn.Linear"])
    def test_that_name_code_outside_our_models(self, refused, whole, tmp_path, target):
        whole["model"]["_target_"] = target
        torch.save(whole, tmp_path / "evil.pt")
        culprit = f"evil.pt: model._target_={target} is not one of medt.models"
        self.everywhere(refused, tmp_path / "evil.pt", culprit, f"allow={target}")

    @pytest.mark.parametrize(
        ("key", "value", "culprit"),
        [
            ("model", {}, "_target_"),
            ("classes", [{"id": 0}], "color"),
            ("classes", [], "classes"),
            ("weights", {"a": 1}, "checkpoint.weights"),
            ("preprocessing", {}, "image_size"),
            ("epoch_count", 3, "epoch_count"),
        ],
    )
    def test_that_are_not_whole(self, refused, whole, tmp_path, key, value, culprit):
        torch.save({**whole, key: value}, tmp_path / "odd.pt")
        self.everywhere(refused, tmp_path / "odd.pt", "odd.pt", culprit)

    def test_whose_weights_do_not_fit(self, refused, whole, tmp_path):
        del whole["weights"]["head.bias"]
        torch.save(whole, tmp_path / "odd.pt")
        self.everywhere(refused, tmp_path / "odd.pt", "odd.pt: its weights do not fit", "head.bias")

    def test_of_other_classes(self, refused, tiny_run, tmp_path):
        folders = [f"dataset.images={TINY}/images", "split=train"]
        folders += [f"dataset.masks={TINY}/masks", f"dataset.splits_file={DATA}/s.csv"]
        arguments = [f"checkpoint={tiny_run}/checkpoints/best.pt", "dataset=folder", *folders]
        three = "dataset.classes=[background,gland,lumen]"
        refused(
            evaluate.main, [*arguments, three], "classes background, gland, but", "same classes"
        )


class TestOutputs:
    @pytest.fixture
    def checkpoint(self, tiny_run: Path) -> str:
        return f"checkpoint={tiny_run}/checkpoints/best.pt"

    def test_below_a_file(self, refused, checkpoint, tiny_run, tmp_path):
        (tmp_path / "file").write_text("x")
        images = f"input={TINY}/images"
        output = f"output={tmp_path}/file"
        refused(predict.main, [checkpoint, images, output], "file is a file", "give a folder")
        given = [checkpoint, images, f"{output}/masks"]
        refused(predict.main, given, "file/masks", "check free space and permissions")
        refused(
            train.main,
            tiny_training(tmp_path, f"run_dir={tmp_path}/file/run"),
            "file/run",
            "run_dir=",
        )
        refused(compare.main, [str(tiny_run), f"{output}/table"], "file/table", "permissions")

    def test_that_hold_something_else(self, refused, tmp_path):
        (tmp_path / "own").mkdir()
        (tmp_path / "own/config.yaml").write_text("precious: 1")
        given = tiny_training(tmp_path, f"run_dir={tmp_path}/own")
        refused(train.main, given, f"the run folder {tmp_path}/own is not empty", "choose another")

    def test_on_a_full_disk(self, refused, checkpoint, tiny_run, tmp_path, monkeypatch):
        def no_space(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", no_space)
        said = ("No space left on device", "check free space")
        images = f"input={TINY}/images"
        output = tmp_path / "masks"
        output.mkdir()
        refused(predict.main, [checkpoint, images, f"output={output}"], *said)
        official = [f"weights={tmp_path}/none", f"output={tmp_path}/ours.pt"]
        refused(import_official.main, official, f"there is no file {tmp_path}/none", "weights")
        comparison = tmp_path / "comparison"
        comparison.mkdir()
        refused(compare.main, [str(tiny_run), f"output={comparison}"], *said)

    def test_on_a_disk_that_fills_up_while_training(self, tmp_path, monkeypatch, capsys):
        save = torch.save

        def full(content: object, file: Path) -> None:
            if content["epoch"] == 2:
                Path(file).write_bytes(b"half")
                raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos")
            save(content, file)

        monkeypatch.setattr(torch, "save", full)
        assert train.main(tiny_training(tmp_path, "seed=1")) == 1
        error = capsys.readouterr().err
        assert "run/checkpoints/" in error
        assert error.endswith("most likely the disk is full (check free space and permissions)\n")
        assert error.count("\n") == 1
        kept = {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
        assert kept == {"best.pt", "last.pt"}
        monkeypatch.undo()
        assert train.main([f"resume={tmp_path}/run"]) == 0


def test_a_batch_of_one_that_norms_cannot_take_is_told_before_the_first_epoch(refused, tmp_path):
    pytest.importorskip("segmentation_models_pytorch")
    kept = [o for o in tiny_training(tmp_path, "model=smp_unet") if "model.depths" not in o]
    assert train.main([*kept, "trainer.epochs=1", f"run_dir={tmp_path}/fits"]) == 0
    hint = "a trainer.batch_size that leaves no single image over"
    odd = [*kept, "trainer.batch_size=5", f"run_dir={tmp_path}/odd"]
    refused(train.main, odd, "a batch is too small for the network's norms", hint)


class TestMemory:
    def test_a_training_that_cannot_fit_is_refused_before_it_starts(
        self, refused, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("medt.training.memory.available_bytes", lambda device: 1_000_000)
        culprit = "out of memory: a training step with trainer.batch_size=4 at 32 x 32 takes about"
        hint = "lower trainer.batch_size, with trainer.accumulate=N"
        refused(train.main, tiny_training(tmp_path, "seed=0"), culprit, "0.0 GB available", hint)

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError("Unable to allocate 7 GiB"),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7"),
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.00 GiB"),
        ],
    )
    def test_running_out_says_what_to_lower(self, tmp_path, monkeypatch, capsys, error):
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(Trainer, "accumulate", fail)
        assert train.main(tiny_training(tmp_path, "seed=0")) == 1
        line = capsys.readouterr().err
        assert line.startswith("error: out of memory: ")
        assert "lower trainer.batch_size" in line
        assert line.count("\n") == 1


def test_masks_beside_their_images(refused, tiny_run, tmp_path):
    shutil.copytree(TINY / "images", tmp_path / "images")
    given = [f"checkpoint={tiny_run}/checkpoints/best.pt", f"input={tmp_path}/images"]
    given.append(f"output={tmp_path}/images")
    refused(predict.main, given, "is where the images lie", "give another folder")
