"""A hint names the likely cause, and what it says to give leads to the right result."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import check_data
import cv2
import evaluate
import numpy as np
import pytest
import train
from conftest import tiny, tiny_dataset
from PIL import Image

from medt.checkpoint import load_checkpoint
from medt.data.splits import read_splits
from medt.errors import UserError
from medt.io.images import read_alpha, read_colors, read_mask, read_values

Main = Callable[[Sequence[str]], int]
CASES = range(16)
SIZE = 96


def shape(number: int) -> np.ndarray:
    """A smooth region, (H, W) bool."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    centre = (36 + number, 58 - number)
    cv2.ellipse(mask, centre, (20 + number, 22), 10 * number, 0, 360, 1, -1)
    return mask > 0


TRUTH = float(np.mean([shape(number) for number in CASES]))


def soft(number: int) -> np.ndarray:
    return cv2.GaussianBlur(shape(number).astype(np.uint8) * 255, (0, 0), 4)


def folder(tmp_path: Path, mask: Callable[[int], np.ndarray]) -> list[str]:
    """The overrides of a folder of cases 000, 001, ... with such masks."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for number in CASES:
        image = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / f"images/{number:03d}.png")
        Image.fromarray(mask(number)).save(tmp_path / f"masks/{number:03d}.png")
    given = [f"dataset.{kind}={tmp_path}/{kind}" for kind in ("images", "masks")]
    return ["dataset=folder", *given]


def hint(main: Main, given: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a script refuses."""
    capsys.readouterr()
    assert main(given) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def pasted(error: str) -> list[str]:
    """The settings that a line's hint gives, as a shell would take them."""
    words = shlex.split(error[error.index(" (") + 2 :].rstrip().removesuffix(")"))
    return [word.rstrip(",") for word in words if re.match(r"[a-z]+(\.\w+)?=", word)]


def foreground(given: list[str], output: Path) -> float:
    """Its share of all pixels, as check_data.py reads the masks."""
    assert check_data.main([*given, f"output={output}", "cases=1"]) == 0
    cases = json.loads((output / "check.json").read_text())["cases"]
    assert len(cases) == len(CASES)
    return float(np.mean([case["mask"]["pixels"].get("1", 0) / SIZE**2 for case in cases]))


class TestSoftEdges:
    @pytest.mark.parametrize(
        "more",
        [[], ["dataset.mask=instances"], ["dataset.classes=[background,gland]"]],
        ids=["nothing given", "as object numbers", "two names"],
    )
    def test_are_parted_in_the_middle(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
    ) -> None:
        given = folder(tmp_path, soft)
        error = hint(check_data.main, [*given, *more, f"output={tmp_path}/out"], capsys)
        assert "one class with soft edges" in error
        assert "if these are object numbers" not in error
        share = foreground([*given, *pasted(error)], tmp_path / "out")
        assert share == pytest.approx(np.mean([soft(n) > 127 for n in CASES]))
        assert share == pytest.approx(TRUTH, abs=0.01)
        assert np.mean([soft(n) > 0 for n in CASES]) > TRUTH + 0.05  # what object numbers gave

    def test_names_stay_whatever_is_in_them(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        given = folder(tmp_path, soft)
        names = 'dataset.classes=["all, else",gland]'
        error = hint(check_data.main, [*given, names, f"output={tmp_path}/out"], capsys)
        foreground([*given, *pasted(error)], tmp_path / "out")
        assert "all, else" in capsys.readouterr().out


def in_alpha(plane: Callable[[int], np.ndarray], color: tuple[int, int, int]):
    def make(number: int) -> np.ndarray:
        alpha = plane(number)
        return np.dstack([np.full((SIZE, SIZE, 3), color, np.uint8), alpha])

    return make


def hard(number: int) -> np.ndarray:
    return shape(number).astype(np.uint8) * 255


class TestMasksInTheAlphaChannel:
    @pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (200, 30, 0)])
    @pytest.mark.parametrize("more", [[], ["dataset.classes=[background,gland]"]])
    def test_are_named_and_read(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        color: tuple[int, int, int],
        more: list[str],
    ) -> None:
        given = [*folder(tmp_path, in_alpha(hard, color)), *more]
        error = hint(check_data.main, [*given, f"output={tmp_path}/out"], capsys)
        assert "their alpha channel 2 different ones" in error
        assert pasted(error) == ["dataset.mask=alpha"]
        assert foreground([*given, "dataset.mask=alpha"], tmp_path / "out") == pytest.approx(TRUTH)

    def test_may_have_soft_edges_too(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        given = folder(tmp_path, in_alpha(soft, (0, 0, 0)))
        for _ in range(2):
            given += pasted(hint(check_data.main, [*given, f"output={tmp_path}/out"], capsys))
        assert foreground(given, tmp_path / "out") == pytest.approx(TRUTH, abs=0.01)

    def test_are_trained_on_and_evaluated(self, tmp_path: Path) -> None:
        given = [*folder(tmp_path, in_alpha(hard, (0, 0, 0))), "dataset.mask=alpha"]
        small = ["dataset.image_size=32", "model=gated_axial_unet", "model.depths=[1,1]"]
        quick = ["trainer.epochs=1", "trainer.device=cpu", "check=false"]
        assert train.main([*given, *small, *quick, f"run_dir={tmp_path}/run"]) == 0
        assert evaluate.main([f"checkpoint={tmp_path}/run", "split=val", "panels=0"]) == 0

    def test_need_one_and_no_colours(self, refused: Callable[..., None], tmp_path: Path) -> None:
        given = [*folder(tmp_path, hard), "dataset.mask=alpha", f"output={tmp_path}/out"]
        refused(check_data.main, given, "Mask", "000.png has no alpha", "leave out dataset.mask")
        colors = "dataset.classes=[{name:a,color:[0,0,0]},{name:b,color:[9,9,9]}]"
        refused(check_data.main, [*given, colors], "dataset.mask=alpha has values, no colours")

    def test_empty_masks_with_one_alpha_are_only_empty(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        opaque = in_alpha(lambda _: np.full((SIZE, SIZE), 255, np.uint8), (0, 0, 0))
        given = [*folder(tmp_path, opaque), f"output={tmp_path}/out"]
        assert "hold only the value 0" in hint(check_data.main, given, capsys)


class TestSplitFilesOfSpreadsheets:
    @pytest.fixture
    def given(self, tmp_path: Path) -> list[str]:
        given = folder(tmp_path, hard)
        assert check_data.main([*given, f"output={tmp_path}/out", "cases=1"]) == 0
        return [*given, f"output={tmp_path}/out"]

    @pytest.mark.parametrize("separator", [";", "\t"])
    def test_may_part_columns_as_they_do(
        self, given: list[str], tmp_path: Path, separator: str
    ) -> None:
        file = tmp_path / "images_splits.csv"
        before = read_splits(file)
        file.write_text(file.read_text().replace(",", separator), encoding="utf-8-sig")
        assert read_splits(file) == before
        assert check_data.main(given) == 0

    def test_lack_zeros_which_is_said_and_mended(
        self, given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "images_splits.csv"
        before = read_splits(file)
        saved = re.sub(r"\b0+(?=\d)", "", file.read_text()).replace(",", ";")
        assert "\n0;0;" in saved
        file.write_text(saved)
        error = hint(check_data.main, given, capsys)
        assert "a spreadsheet wrote 0 for 000" in error
        zeros = re.search(r"number format (0+),", error)
        assert zeros is not None
        lines = saved.splitlines()
        shown = [re.sub(r"^\d+", lambda n: n[0].zfill(len(zeros[1])), line) for line in lines]
        file.write_text("\n".join(shown) + "\n")
        assert check_data.main(given) == 0
        after = read_splits(file)
        assert [(row.case, row.split) for row in after] == [(r.case, r.split) for r in before]


class TestWeightsOfOtherChannels:
    def test_are_taken_with_what_the_hint_gives(
        self, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tiny_dataset()
        weights = [f"model.weights={tiny_run}/checkpoints/best.pt", "dry_run=true", "check=false"]
        given = [*tiny(tmp_path, *weights), f"run_dir={tmp_path}/run"]
        error = hint(train.main, [*given, "dataset.channels=1"], capsys)
        assert "a network with channels=3, this one has channels=1" in error
        assert pasted(error) == ["dataset.channels=3"]
        assert train.main([*given, *pasted(error)]) == 0
        assert "3 x 32 x 32" in capsys.readouterr().out

    def test_may_differ_otherwise_too(
        self, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tiny_dataset()
        weights = [f"model.weights={tiny_run}/checkpoints/best.pt", "dry_run=true", "check=false"]
        given = [*tiny(tmp_path, *weights), f"run_dir={tmp_path}/run"]
        plain = [one for one in given if not one.startswith(("model.depths", "dataset.image_size"))]
        error = hint(train.main, [*plain, "dataset.image_size=64"], capsys)
        assert set(pasted(error)) == {"dataset.image_size=32", "model.depths=[1,1]"}
        assert train.main([*plain, *pasted(error)]) == 0
        others = [one for one in plain if not one.startswith("model=")]
        error = hint(train.main, [*others, "model=unet"], capsys)
        assert pasted(error) == ["model=gated_axial_unet"]


class TestWhatReadersSayOfAMask:
    @pytest.mark.parametrize("read", [read_mask, read_values, read_colors, read_alpha])
    @pytest.mark.parametrize("kind", ["damaged", "stack"])
    def test_is_that_it_is_one(
        self, tmp_path: Path, read: Callable[[Path], object], kind: str
    ) -> None:
        file = tmp_path / "1.tif"
        pages = [Image.fromarray(np.full((4, 4), n, np.uint8)) for n in range(3)]
        pages[0].save(file, save_all=True, append_images=pages[1:])
        if kind == "damaged":
            file.write_bytes(file.read_bytes()[:20])
        with pytest.raises(UserError, match=rf"^Mask {file} ") as caught:
            read(file)
        assert "image" not in str(caught.value)

    def test_is_said_of_folders_without_any(
        self, refused: Callable[..., None], tmp_path: Path
    ) -> None:
        given = [*folder(tmp_path, hard), f"output={tmp_path}/out"]
        for file in (tmp_path / "masks").iterdir():
            file.unlink()
        refused(check_data.main, given, f"No masks in {tmp_path}/masks")


class TestFoldersOfRuns:
    @pytest.fixture
    def runs(self, tiny_run: Path, tmp_path: Path) -> Path:
        """Three runs, of which the second is the best by the weights that they stand for."""
        for name, score in (("a/one", 0.25), ("a/two", 0.75), ("three", 0.5)):
            run = tmp_path / "runs" / name
            shutil.copytree(tiny_run, run)
            metrics = json.loads((run / "metrics.json").read_text())
            metrics["last"]["val_dice"], metrics["best"]["val_dice"] = score, 1 - score
            (run / "metrics.json").write_text(json.dumps(metrics))
        return tmp_path / "runs"

    def test_are_answered_by_the_best_of_them(
        self, runs: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        error = hint(evaluate.main, [f"checkpoint={runs}"], capsys)
        given = [f"checkpoint={runs}/{name}" for name in ("a/two", "three", "a/one")]
        assert pasted(error) == given
        assert f"a folder of runs (3) (give one of them: {given[0]} (val dice 0.7500), " in error
        assert evaluate.main([pasted(error)[0], "split=val", "panels=0"]) == 0

    def test_of_other_scores_the_newest(self, runs: Path) -> None:
        path = runs / "a/one/metrics.json"
        path.write_text(path.read_text().replace("val_dice", "val_iou").replace('"dice', '"iou'))
        (runs / "three/metrics.json").write_text("no JSON")
        newest = runs / "a/one/checkpoints/best.pt"
        newest.write_bytes(newest.read_bytes())
        with pytest.raises(UserError) as caught:
            load_checkpoint(runs)
        assert pasted(str(caught.value))[0] == f"checkpoint={runs}/a/one"
        assert f"checkpoint={runs}/three" in str(caught.value)

    def test_are_no_weights_either(
        self, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tiny_dataset()
        given = [*tiny(tmp_path), f"run_dir={tmp_path}/run", "dry_run=true", "check=false"]
        error = hint(train.main, [*given, f"model.weights={runs}"], capsys)
        best = pasted(error)[0]
        assert best == f"model.weights={runs}/a/two"
        assert train.main([*given, best]) == 0

    def test_of_checkpoints_name_the_file(self, tiny_run: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError) as caught:
            load_checkpoint(tiny_run / "checkpoints")
        assert pasted(str(caught.value)) == [f"checkpoint={tiny_run}/checkpoints/best.pt"]
        with pytest.raises(UserError, match="is a folder without runs"):
            load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("model=unet++", "model=unet_plus_plus"),
        ("model=UNet++", "model=unet_plus_plus"),
        ("model=unetpp", "model=unet_plus_plus"),
        ("model=attention-unet", "model=attention_unet"),
        ("model=MedT", "model=medt"),
        ("dataset=Glas", "dataset=glas"),
        ("dataset=KVASIR", "dataset=kvasir_seg"),
        ("loss=bce", "loss=cross_entropy"),
        ("loss=Dice-CE", "loss=dice_ce"),
        ("scheduler=poly", "scheduler=polynomial"),
    ],
)
def test_names_from_elsewhere_are_understood(
    capsys: pytest.CaptureFixture[str], given: str, meant: str
) -> None:
    error = hint(train.main, [given], capsys)
    named = re.search(r"did you mean (\S+)\?", error)
    assert named is not None, error
    assert f"{given.partition('=')[0]}={named[1]}" == meant


def test_the_first_of_them_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_dataset()
    small = [one for one in tiny(tmp_path) if not one.startswith("model")]
    given = [*small, "dry_run=true", "check=false", f"run_dir={tmp_path}/run"]
    named = re.search(r"did you mean (\S+)\?", hint(train.main, [*given, "model=unet++"], capsys))
    assert named is not None
    assert train.main([*given, f"model={named[1]}"]) == 0
