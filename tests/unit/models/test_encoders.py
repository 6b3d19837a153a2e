"""Encoders of a smp_unet: names, sizes, and what is built without memory."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from test_every_network import batch, network, spec
from torch import nn

from medt.checkpoint import Checkpoint, build_model, load_checkpoint, save_checkpoint
from medt.data.layout import default_classes
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError
from medt.models.pretrained import load_encoder
from medt.models.synced_norms import synchronise_norms
from medt.models.without_memory import READ, without_memory
from medt.ops import Moments
from medt.training.precise_norm import reestimate_norms, tracked_norms

pytestmark = pytest.mark.seconds

timm = pytest.importorskip("timm")
pytest.importorskip("segmentation_models_pytorch")

# By the norms that they have; the names with test_ are tiny ones of timm.
KINDS = [
    *("mit_b0", "tu-test_efficientnet", "tu-test_resnet", "tu-test_efficientnet_gn"),
    *("tu-test_nfnet", "tu-test_convnext", "tu-test_maxvit", "timm-mobilenetv3_small_minimal_100"),
]


class Alone:
    """The pool of a process that has no other."""

    def __call__(self, moments: Moments) -> Moments:
        return moments

    def images(self, own: int) -> int:
        return own


def smp(encoder: str, size: int = 64, channels: int = 3) -> nn.Module:
    return network("smp_unet", f"model.encoder={encoder}", size=size, channels=channels)


@pytest.mark.many_parameters
@pytest.mark.parametrize("encoder", KINDS)
@pytest.mark.parametrize("channels", [1, 4])
def test_a_network_is_that_of_its_checkpoint(encoder: str, channels: int, tmp_path: Path) -> None:
    model = smp(encoder, channels=channels)
    images, labels = batch(channels, 2, (64, 64))
    nn.functional.cross_entropy(model(images), labels).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    reestimate_norms(model, [images])
    given = spec("smp_unet", f"model.encoder={encoder}", size=64, channels=channels)
    named = [c.to_dict() for c in default_classes(["a", "b"])]
    steps = Preprocessing((64, 64), channels, (0.5,) * channels, (0.5,) * channels)
    weights = model.state_dict()
    saved = Checkpoint(given, weights, steps.to_dict(), named, {}, {}, 1, {}, training_cases=[])
    save_checkpoint(saved, tmp_path / "best.pt")
    loaded = load_checkpoint(tmp_path / "best.pt").build_model()
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), model(images), rtol=0, atol=0)


def test_weights_that_are_not_used_are_not_trained() -> None:
    model = smp("timm-efficientnet-b0")
    assert [name for name, weight in model.named_parameters() if not weight.requires_grad] == [
        f"network.encoder.{name}" for name in ("conv_head.weight", "bn2.weight", "bn2.bias")
    ]


def test_a_size_that_an_encoder_cannot_take_is_refused_with_one_that_it_can() -> None:
    with pytest.raises(UserError, match=r"64 x 64 does not fit model\.encoder=tu-inc") as error:
        smp("tu-inception_v3", size=64)
    assert error.value.hint == "the nearest square that fits: 96 x 96"
    fixed = smp("tu-test_maxvit", size=96)
    assert fixed(torch.zeros(2, 3, 96, 96)).shape == (2, 2, 96, 96)
    with pytest.raises(UserError, match="tu-test_maxvit: it is built for 96 x 96"):
        fixed(torch.zeros(2, 3, 64, 64))


@pytest.mark.parametrize(
    ("encoder", "near"),
    [
        ("tu-resnet19", "tu-resnet18"),
        ("tu-resnet18.nobody", "tu-resnet18"),
        ("tu-hf-hub:timm/resnet18", ""),
        ("tu-local-dir:/tmp", ""),
        ("mit_b6", "mit_b5"),
    ],
)
def test_a_name_that_there_is_not_is_refused_with_near_ones(encoder: str, near: str) -> None:
    arguments = {"architecture": "smp_unet", "encoder": encoder}
    with pytest.raises(UserError, match=f"there is no encoder {encoder}") as error:
        build_model({"_target_": "medt.models.Baseline", **arguments})
    assert near in error.value.hint


def test_weights_of_a_classifier_of_timm_fit_its_encoder(tmp_path: Path) -> None:
    classifier = timm.create_model("test_convnext")
    torch.save(classifier.state_dict(), tmp_path / "timm.pth")
    model = smp("tu-test_convnext")
    load_encoder(model, tmp_path / "timm.pth")
    last = model.get_submodule("network.encoder.model.stages_3").state_dict()
    torch.testing.assert_close(last, classifier.stages[3].state_dict(), rtol=0, atol=0)


class TestSynchronisedNorms:
    @pytest.mark.parametrize("encoder", ["tu-test_efficientnet", "tu-test_resnet"])
    def test_that_pool_with_nobody_do_what_they_did(self, encoder: str) -> None:
        plain = smp(encoder)
        synced = copy.deepcopy(plain)
        synchronise_norms(synced, Alone())
        assert len(tracked_norms(synced)) == len(tracked_norms(plain)) > 10
        images, _ = batch(3, 2, (64, 64))
        torch.testing.assert_close(synced(images), plain(images), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(synced.state_dict(), plain.state_dict(), rtol=1e-3, atol=1e-4)
        synchronise_norms(synced, None)
        synced.load_state_dict(plain.state_dict())
        torch.testing.assert_close(synced.eval()(images), plain.eval()(images))

    def test_that_cannot_are_refused_only_where_there_is_a_pool(self) -> None:
        model = nn.Sequential(nn.BatchNorm1d(3))
        synchronise_norms(model, None)
        with pytest.raises(UserError, match="BatchNorm1d of this network cannot be synchron"):
            synchronise_norms(model, Alone())


class TestWithoutMemory:
    def test_only_short_rows_hold_numbers(self) -> None:
        with without_memory():
            row = torch.linspace(0, 1, 5)
            assert [value.item() for value in row] == [0, 0.25, 0.5, 0.75, 1]
            assert torch.linspace(0, 1, READ + 1).is_meta
            assert torch.arange(3).is_meta
            assert nn.Linear(10**6, 10**6).weight.is_meta
            assert (row * torch.ones(5)).is_meta

    @pytest.mark.parametrize("encoder", ["mit_b0", "tu-test_maxvit"])
    def test_encoders_are_built(self, encoder: str) -> None:
        with without_memory():
            model = smp(encoder)
        assert all(weight.is_meta for weight in model.parameters())
