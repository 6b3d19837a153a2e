"""Encoders that start from weights: files of other names, ImageNet, and a rate of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_every_network import network
from torch import Tensor, nn

from medt.build import new_optimizer
from medt.errors import UserError
from medt.models.pretrained import load_encoder

pytestmark = pytest.mark.seconds

timm = pytest.importorskip("timm")
smp = pytest.importorskip("segmentation_models_pytorch")

ENCODER = "tu-test_resnet"
SLOWER = {"_target_": "torch.optim.AdamW", "lr": 0.01, "encoder_factor": 0.25}


@pytest.fixture
def model() -> nn.Module:
    return network("smp_unet", f"model.encoder={ENCODER}", size=64)


def of_others(model: nn.Module) -> dict[str, Tensor]:
    """Other weights of the same encoder under names that nobody knows, and a classifier's."""
    torch.manual_seed(5)
    own = model.get_submodule("network.encoder").state_dict()
    renamed = {
        f"part{number}.value": torch.rand_like(value) if value.is_floating_point() else value + 3
        for number, value in enumerate(own.values())
    }
    return {**renamed, "fc.weight": torch.rand(10, 32), "fc.bias": torch.rand(10)}


class TestAFileOfOtherNames:
    def test_is_taken_in_its_order(self, model: nn.Module, tmp_path: Path) -> None:
        weights = of_others(model)
        torch.save(weights, tmp_path / "others.pth")
        said = load_encoder(model, tmp_path / "others.pth")
        encoder = model.get_submodule("network.encoder").state_dict()
        assert len(encoder) == len(weights) - 2
        for value, given in zip(encoder.values(), weights.values(), strict=False):
            torch.testing.assert_close(value, given, rtol=0, atol=0)
        assert said.startswith(f"{tmp_path}/others.pth (SHA-256 ")

    def test_is_told_from_another_by_its_digest(self, model: nn.Module, tmp_path: Path) -> None:
        weights, said = of_others(model), []
        for name in ("part0.value", "part1.value", "fc.bias"):
            weights[name] = weights[name] + 1
            torch.save(weights, tmp_path / "others.pth")
            said.append(load_encoder(model, tmp_path / "others.pth"))
        assert said[0] != said[1] == said[2]

    @pytest.mark.parametrize("fault", ["swapped", "cut", "one known name"])
    def test_of_another_order_is_refused(
        self, model: nn.Module, tmp_path: Path, fault: str
    ) -> None:
        weights = of_others(model)
        names = list(weights)
        if fault == "swapped":
            weights = {name: weights[name] for name in (names[5], *names[:5], *names[6:])}
        elif fault == "cut":
            weights = {name: weights[name] for name in names[:-4]}
        else:  # so that the others are no chance
            own = list(model.get_submodule("network.encoder").state_dict())
            weights = {own[0] if name == names[0] else name: weights[name] for name in names}
        torch.save(weights, tmp_path / "others.pth")
        with pytest.raises(UserError, match=r"others\.pth does not fit this encoder: ") as caught:
            load_encoder(model, tmp_path / "others.pth")
        assert caught.value.hint.startswith("use weights of the same encoder")


class TestImageNet:
    @pytest.fixture
    def downloads(self, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
        """What the library was asked for, which gives weights of ones in place of a download."""
        asked: list[str | None] = []
        built = smp.Unet

        def unet(encoder: str, encoder_weights: str | None, **options: Any) -> nn.Module:
            asked.append(encoder_weights)
            made: nn.Module = built(encoder, encoder_weights=None, **options)
            if encoder_weights is not None:
                nn.init.ones_(next(made.get_submodule("encoder").parameters()))
            return made

        monkeypatch.setattr(smp, "Unet", unet)
        return asked

    def test_is_what_the_library_has(self, model: nn.Module, downloads: list[str | None]) -> None:
        said = load_encoder(model, "imagenet")
        assert downloads == ["imagenet"]
        assert (next(model.get_submodule("network.encoder").parameters()) == 1).all()
        assert said.startswith("imagenet (SHA-256 ")

    def test_that_cannot_be_had_is_one_line(
        self, model: nn.Module, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unet(*_: Any, **__: Any) -> nn.Module:
            raise OSError("We couldn't connect to 'https://huggingface.co'\nto load the files")

        before = {name: value.clone() for name, value in model.state_dict().items()}
        monkeypatch.setattr(smp, "Unet", unet)
        with pytest.raises(UserError, match="no weights of ImageNet") as caught:
            load_encoder(model, "imagenet")
        assert f"for model.encoder={ENCODER}: " in str(caught.value)
        assert "couldn't connect" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "model.encoder_weights=FILE" in caught.value.hint
        torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)

    def test_is_of_no_other_network(self) -> None:
        own = nn.Module()
        own.network = nn.Module()
        own.network.encoder = nn.Linear(2, 2)
        with pytest.raises(UserError, match="imagenet is for model=smp_unet only"):
            load_encoder(own, "imagenet")
        with pytest.raises(UserError, match="this model has no encoder to load"):
            load_encoder(nn.Linear(2, 2), "imagenet")


class TestTheRateOfTheEncoder:
    def test_is_a_group_of_its_own(self, model: nn.Module) -> None:
        others, encoder = new_optimizer(SLOWER, model, []).param_groups
        assert (others["lr"], encoder["lr"]) == (0.01, 0.0025)
        own = {id(one) for one in model.get_submodule("network.encoder").parameters()}
        assert {id(one) for one in encoder["params"]} == own
        together = [id(one) for group in (others, encoder) for one in group["params"]]
        assert len(together) == len(set(together))
        assert set(together) == {id(one) for one in model.parameters()}

    def test_is_that_of_the_class_where_none_is_given(self, model: nn.Module) -> None:
        spec = {"_target_": "torch.optim.Adam", "encoder_factor": 0.5}
        rates = [group["lr"] for group in new_optimizer(spec, model, []).param_groups]
        assert rates == [0.001, 0.0005]

    def test_is_none_with_a_factor_of_one(self, model: nn.Module) -> None:
        for spec in ({**SLOWER, "encoder_factor": 1.0}, {"_target_": "torch.optim.SGD"}):
            (group,) = new_optimizer(spec, model, []).param_groups
            assert len(group["params"]) == len(list(model.parameters()))

    def test_is_refused_without_an_encoder(self) -> None:
        with pytest.raises(UserError, match=r"encoder_factor=0\.25, but this network has no enc"):
            new_optimizer(SLOWER, network("unet", size=64), [])
