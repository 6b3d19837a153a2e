"""Every network of configs/model: what all of them do alike, whatever library they come from."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from medt.checkpoint import Checkpoint, build_model, load_checkpoint, model_spec, save_checkpoint
from medt.cli.arguments import CONFIGS
from medt.config import register_schema
from medt.data.layout import default_classes
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError
from medt.models import Baseline
from medt.models.medt_plus import AttentionBlock
from medt.models.pretrained import load_encoder

pytestmark = pytest.mark.seconds

NAMES = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml"))
BASELINES = ["attention_unet", "fcn", "res_unet", "unet", "unet_plus_plus"]
TWO_BRANCHES = {"medt", "logo"}
# Sizes with an odd number of pixels fit these, and sizes that do not fit the others.
ANY_SIZE = {"fcn", "unet", "unet_plus_plus", "smp_unet"}


def spec(name, *overrides, channels=3, classes=2, size=32):
    """The arguments of the network as configs/model/<name>.yaml composes them."""
    small = ["model.grid=[2,2]"] if name in TWO_BRANCHES else []
    register_schema()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", [f"model={name}", *small, *overrides])
    cfg.dataset.channels, cfg.dataset.num_classes, cfg.dataset.image_size = channels, classes, size
    return model_spec(OmegaConf.to_container(cfg.model, resolve=True))


def network(name, *overrides, **settings):
    if name == "smp_unet":
        pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    return with_attention(build_model(spec(name, *overrides, **settings)))


def with_attention(model):
    """As after some training: attention that starts as nothing would not be tested."""
    for block in model.modules():
        if isinstance(block, AttentionBlock):
            torch.nn.init.ones_(block.up_norm.weight)
    return model


def batch(channels, classes, size):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, channels, *size, generator=generator)
    return images, torch.randint(classes, (2, *size), generator=generator)


@pytest.mark.parametrize(("channels", "classes"), [(1, 5), (4, 2)])
@pytest.mark.parametrize("name", NAMES)
def test_forward_backward_odd_sizes_saving_and_training(name, channels, classes, tmp_path):
    size = (64, 128) if name in TWO_BRANCHES else (32, 64)
    settings = {"channels": channels, "classes": classes, "size": size}
    model = network(name, **settings)
    images, labels = batch(channels, classes, size)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for _ in range(2):
        logits = model(images)
        assert logits.shape == (2, classes, *size)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, labels).backward()
        unused = [key for key, weight in model.named_parameters() if weight.grad is None]
        assert unused == []
        optimizer.step()
    after = model.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    still = [key for key, _ in model.named_parameters() if torch.equal(before[key], after[key])]
    assert all(key.endswith("gates") for key in still)

    named = [c.to_dict() for c in default_classes([f"class {i}" for i in range(classes)])]
    steps = Preprocessing(size, channels, (0.5,) * channels, (0.5,) * channels)
    checkpoint = Checkpoint(
        spec(name, **settings), after, steps.to_dict(), named, {}, {}, 2, {}, training_cases=[]
    )
    save_checkpoint(checkpoint, tmp_path / "best.pt")
    loaded = load_checkpoint(tmp_path / "best.pt").build_model()
    with torch.no_grad():
        expected = model.eval()(images)
        torch.testing.assert_close(loaded(images), expected, rtol=0, atol=0)

        odd, _ = batch(channels, classes, (35, 45))
        if name in ANY_SIZE:
            assert model(odd).shape == (2, classes, 35, 45)
        else:
            with pytest.raises(UserError, match="image size 35 x 45 does not fit") as error:
                model(odd)
            nearest = [int(n) for n in error.value.hint.split(": ")[1].split(" or ")[0].split("x")]
            fitting, _ = batch(channels, classes, nearest)
            assert model(fitting).shape == (2, classes, *nearest)


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_has_the_parameters_that_its_config_states(name):
    arguments = spec(name)
    assert arguments["parameters"] > 1e6
    with redirect_stdout(io.StringIO()) as printed:
        model = build_model(arguments)
    assert printed.getvalue() == ""
    assert sum(weight.numel() for weight in model.parameters()) == arguments["parameters"]
    grey = build_model({**arguments, "channels": 1, "classes": 5})
    assert sum(weight.numel() for weight in grey.parameters()) != arguments["parameters"]


def test_another_number_of_parameters_is_an_error_that_names_both():
    with pytest.raises(UserError, match=r"model.parameters=7, but unet has 1979042 ") as e:
        build_model({**spec("unet"), "parameters": 7})
    assert "model.parameters=1979042" in e.value.hint


def test_other_features_have_another_number_of_parameters_unchecked():
    narrow = network("unet", "model.features=[8,8,16,32,64,8]")
    assert sum(weight.numel() for weight in narrow.parameters()) < spec("unet")["parameters"]


@pytest.mark.parametrize(
    ("name", "size", "nearest"),
    [
        ("res_unet", 100, "96 x 96 or 112 x 112"),
        ("attention_unet", (33, 16), "32 x 32 or 48 x 32"),
        ("unet", 16, "32 x 32"),
    ],
)
def test_a_size_that_does_not_fit_a_baseline_is_refused_when_it_is_built(name, size, nearest):
    with pytest.raises(UserError, match=f"does not fit {name}") as error:
        network(name, size=size)
    assert error.value.hint == f"the nearest that fit: {nearest}"


def test_an_unknown_baseline_or_option_is_named():
    with pytest.raises(UserError, match="there is no baseline vnet"):
        Baseline("vnet")
    with pytest.raises(UserError, match=r"fcn has no model\.encoder"):
        build_model({"_target_": "medt.models.Baseline", "architecture": "fcn", "encoder": "x"})


class TestSmpUnet:
    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("segmentation_models_pytorch")

    def test_the_encoder_is_free(self):
        model = network("smp_unet", "model.encoder=resnet18")
        assert sum(weight.numel() for weight in model.parameters()) < 15e6
        with pytest.raises(UserError, match="there is no encoder resnet35") as error:
            network("smp_unet", "model.encoder=resnet35")
        assert "resnet34" in error.value.hint

    def test_the_encoder_starts_from_a_classifiers_weights(self, tmp_path):
        from torchvision.models import resnet18

        classifier = resnet18(weights=None)
        file = tmp_path / "resnet18.pth"
        torch.save({f"module.{k}": v for k, v in classifier.state_dict().items()}, file)
        model = network("smp_unet", "model.encoder=resnet18", size=64)
        load_encoder(model, file)
        kept = classifier.layer3[1].conv2.weight
        assert torch.equal(model.network.encoder.layer3[1].conv2.weight, kept)

    def test_weights_of_another_encoder_are_refused(self, tmp_path):
        from torchvision.models import resnet18

        file = tmp_path / "resnet18.pth"
        torch.save(resnet18(weights=None).state_dict(), file)
        with pytest.raises(UserError, match=r"layer1.2.conv1.weight is missing") as error:
            load_encoder(network("smp_unet"), file)
        assert "same encoder" in error.value.hint
        with pytest.raises(UserError, match="no encoder to load"):
            load_encoder(network("unet"), file)

    def test_weights_for_other_channels_are_refused_with_theirs(self, tmp_path):
        from torchvision.models import resnet18

        file = tmp_path / "resnet18.pth"
        torch.save(resnet18(weights=None).state_dict(), file)
        grey = network("smp_unet", "model.encoder=resnet18", size=64, channels=1)
        with pytest.raises(UserError, match="images of 3 channels, this network of 1") as error:
            load_encoder(grey, file)
        key, _, value = error.value.hint.removeprefix("give ").partition("=")
        assert key == "dataset.channels"
        load_encoder(
            network("smp_unet", "model.encoder=resnet18", size=64, channels=int(value)), file
        )


def test_a_library_that_is_not_installed_is_named_with_the_command(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(UserError, match="model=smp_unet needs segmentation_models_pytorch") as e:
        Baseline("smp_unet")
    assert e.value.hint == "pip install -e '.[smp]'"


def test_every_model_config_is_covered():
    ours = {"medt", "medt_plus", "logo", "axial_unet", "gated_axial_unet"}
    assert set(NAMES) == {*BASELINES, "smp_unet", *ours}
