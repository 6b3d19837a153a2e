"""MedTPlus: where its attention is, what its head computes, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from medt.checkpoint import build_model
from medt.errors import UserError
from medt.models import MedTPlus
from medt.models.medt_plus import AttentionBlock


def network(**arguments) -> MedTPlus:
    torch.manual_seed(0)
    return MedTPlus(**{"image_size": 32} | arguments).eval()


def images(*size: int) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


def test_its_number_of_parameters_is_known() -> None:
    assert sum(weight.numel() for weight in MedTPlus().parameters()) == 2_216_330


@torch.no_grad()
def test_its_head_is_one_convolution_over_the_features_of_all_strides() -> None:
    model = network(image_size=(32, 64))
    features = {}
    for stage, block in enumerate(model.decoder):
        block.register_forward_hook(lambda _, __, out, stage=stage: features.update({stage: out}))
    logits = model(images(32, 64))
    for stage, feature in features.items():
        for _ in range(stage):
            features[stage] = feature = F.interpolate(feature, scale_factor=2, mode="bilinear")
    whole = torch.cat([features[stage] for stage in range(4)], dim=1)
    torch.testing.assert_close(logits, model.head(whole), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_attention_starts_as_nothing() -> None:
    without = build_model({"_target_": "medt.models.MedTPlus", "image_size": 32, "attention": []})
    without, with_it = without.eval(), network(attention=[4, 16])
    assert list(without.attention) == []
    assert list(with_it.attention) == ["4", "16"]
    with_it.load_state_dict(without.state_dict(), strict=False)
    torch.testing.assert_close(with_it(images(32, 32)), without(images(32, 32)), rtol=0, atol=0)


def test_attention_joins_each_place_with_every_other() -> None:
    torch.manual_seed(0)
    block = AttentionBlock(32, (8, 16), heads=8, gate="after_norm").eval()
    torch.nn.init.ones_(block.up_norm.weight)
    x = torch.randn(2, 32, 8, 16, requires_grad=True)
    block(x)[0, :, 0, 0].sum().backward()
    assert x.grad is not None
    assert (x.grad[0].abs().sum(0) > 0).all()
    assert x.grad[1].abs().max() == 0


def test_positions_are_those_of_the_strides() -> None:
    model = network(image_size=(64, 128))
    assert [(block.height.length, block.width.length) for block in model.attention.values()] == [
        (8, 16),
        (4, 8),
    ]


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    with pytest.raises(UserError, match=r"attention=\[8, 6\] names a stride of 6") as error:
        network(attention=[8, 6])
    assert error.value.hint == "the 5 widths are those of strides 1, 2, 4, 8, 16"
    with pytest.raises(UserError, match="24 channels at stride 1 cannot be dealt to 8 heads") as e:
        network(attention=[1])
    assert e.value.hint == "give a multiple of 4 x heads = 32"
    with pytest.raises(UserError, match="image size 16 x 48 does not fit MedTPlus") as error:
        network(image_size=(16, 48))
    assert error.value.hint == "the nearest that fit: 32 x 48"
    with pytest.raises(UserError, match="image size 40 x 32 does not fit MedTPlus"):
        network()(images(40, 32))
    with pytest.raises(UserError, match=r"widths=\[32\] are too few"):
        network(widths=[32], attention=[1])
    assert network(widths=[8, 32], attention=[2], image_size=4)(images(4, 4)).shape == (2, 2, 4, 4)


def test_instance_norms_leave_an_image_alone_in_training() -> None:
    """Without attention the batch does not matter."""
    model = network(attention=[]).train()
    x = images(32, 32)
    torch.testing.assert_close(model(x)[:1], model(x[:1]), rtol=1e-4, atol=1e-5)
