"""NaN is never a mask or a score: weights are asked when read, logits when they are made."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import evaluate
import export
import numpy as np
import predict
import pytest
import torch
import train
from conftest import tiny_dataset, tiny_training
from torch import Tensor, nn

import medt
from medt.errors import UserError
from medt.inference.averaging import Ensemble, FlipsAndTurns, NotFiniteError
from medt.inference.predictor import Predictor
from medt.io.files import write_png

Refused = Callable[..., None]
SOLVED = "holds NaN or infinite values"


@pytest.fixture
def overflowing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks whose weights are fine, but whose output overflows for bright images."""
    build = medt.checkpoint.Checkpoint.build_model  # type: ignore[attr-defined]

    def spoilt(checkpoint: medt.checkpoint.Checkpoint) -> nn.Module:  # type: ignore[name-defined]
        model: nn.Module = build(checkpoint)
        model.register_forward_hook(
            lambda _, given, out: torch.where(given[0].amax((1, 2, 3), True) > 2, math.nan, out)
        )
        return model

    monkeypatch.setattr("medt.checkpoint.Checkpoint.build_model", spoilt)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A dark image, and a white one of which the networks above make NaN."""
    folder = tmp_path / "in"
    for name, value in (("dark", 0), ("white", 255)):
        write_png(folder / f"{name}.png", np.full((40, 40, 3), value, np.uint8))
    return folder


class TestPredictions:
    @pytest.mark.parametrize("more", [[], ["mode=sliding_window"], ["tta=true"]])
    @pytest.mark.usefixtures("overflowing")
    def test_the_case_is_named_and_the_others_are_predicted(
        self,
        tiny_run: Path,
        images: Path,
        tmp_path: Path,
        more: list[str],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        given = [f"checkpoint={tiny_run}", f"input={images}", f"output={tmp_path}/o", *more]
        assert predict.main(given) == 1
        said = capsys.readouterr()
        assert said.err.count("\n") == 1
        assert (
            f"{images}/white.png: the output of {tiny_run}/checkpoints/last.pt {SOLVED}" in said.err
        )
        assert "1 of 2 masks written" in said.out
        assert [path.name for path in (tmp_path / "o").glob("*.png")] == ["dark.png"]

    @pytest.mark.usefixtures("overflowing")
    def test_of_an_ensemble_the_member_is_named(
        self, tiny_run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        two = f"{tiny_run}/checkpoints/best.pt,{tiny_run}/checkpoints/last.pt"
        given = [f"checkpoint=[{two}]", f"input={images}", f"output={tmp_path}/o"]
        assert predict.main(given) == 1
        assert f"white.png: the output of {tiny_run}/checkpoints/best.pt {SOLVED}" in (
            capsys.readouterr().err
        )

    @pytest.mark.usefixtures("overflowing")
    def test_in_a_notebook_too(self, tiny_run: Path, images: Path) -> None:
        predictor = medt.load(tiny_run)
        assert predictor.predict(images / "dark.png").shape == (40, 40)
        for image in (images / "white.png", np.full((40, 40, 3), 255, np.uint8)):
            with pytest.raises(UserError, match=rf"(white\.png|the array): the output .* {SOLVED}"):
                predictor.predict(image)

    @pytest.mark.parametrize("more", [[], ["tta=true"]])
    def test_minus_infinity_is_no_certainty(
        self,
        refused: Refused,
        tiny_run: Path,
        tmp_path: Path,
        more: list[str],
        images: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        build = medt.checkpoint.Checkpoint.build_model  # type: ignore[attr-defined]

        def certain(checkpoint: medt.checkpoint.Checkpoint) -> nn.Module:  # type: ignore[name-defined]
            model: nn.Module = build(checkpoint)
            bias = torch.tensor([0.0, -math.inf])[:, None, None]
            model.register_forward_hook(lambda _, __, out: out * 0 + bias)
            return model

        monkeypatch.setattr("medt.checkpoint.Checkpoint.build_model", certain)
        tiny_dataset()
        given = [f"checkpoint={tiny_run}", *more]
        refused(evaluate.main, given, SOLVED, "last.pt")
        refused(evaluate.main, [*given, "tune=true"], SOLVED, "last.pt")
        assert predict.main([*given, f"input={images}", f"output={tmp_path}/o"]) == 1
        assert list((tmp_path / "o").glob("*.png")) == []

    @pytest.mark.usefixtures("overflowing")
    @pytest.mark.parametrize("more", [[], ["tune=true"], ["protocol=paper"]])
    def test_and_scores(
        self, refused: Refused, tiny_run: Path, more: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tiny_dataset()
        refused(evaluate.main, [f"checkpoint={tiny_run}", *more], SOLVED, "val_")

    def test_and_exports(
        self, refused: Refused, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build = medt.checkpoint.Checkpoint.build_model  # type: ignore[attr-defined]

        def spoilt(checkpoint: medt.checkpoint.Checkpoint) -> nn.Module:  # type: ignore[name-defined]
            model: nn.Module = build(checkpoint)
            model.register_forward_hook(lambda _, __, out: out * math.inf)
            return model

        monkeypatch.setattr("medt.checkpoint.Checkpoint.build_model", spoilt)
        given = [f"checkpoint={tiny_run}", "format=safetensors", f"output={tmp_path}/e"]
        refused(export.main, given, SOLVED)


def test_a_validation_that_gives_no_numbers_stops_the_training_with_the_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Predictor._network

    def spoilt(self: Predictor, batch: Tensor) -> Tensor:
        self.model.register_forward_hook(lambda _, __, out: out * math.nan)
        return made(self, batch)

    monkeypatch.setattr(Predictor, "_network", spoilt)
    assert train.main(tiny_training(tmp_path, "trainer.epochs=1")) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "the output of a validation is not finite in epoch 1" in error
    assert "Case val_1" in error


class Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros(len(x), 2, *x.shape[2:])
        out[-1, 1] = self.value
        return out


class TestAverages:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_member_that_gives_no_numbers_is_refused(self, value: float) -> None:
        from medt.data.preprocessing import Preprocessing

        steps = Preprocessing((8, 8), 3, (0.5,) * 3, (0.5,) * 3)
        ensemble = Ensemble([Constant(1.0), Constant(value)], [steps] * 2, ["good.pt", "bad.pt"])
        with pytest.raises(NotFiniteError, match=r"bad\.pt") as caught:
            ensemble(torch.zeros(3, 3, 8, 8))
        assert caught.value.index == 2

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_flips_and_turns_hide_nothing(self, value: float) -> None:
        with pytest.raises(NotFiniteError, match=r"a\.pt"):
            FlipsAndTurns(Constant(value), name="a.pt")(torch.zeros(1, 3, 8, 8))
