"""scripts/import_official.py: weights of the official code become a checkpoint of ours."""

from __future__ import annotations

import evaluate
import import_official
import numpy as np
import predict
import pytest
import torch
import train
from conftest import tiny_dataset

import medt
from medt.data.preprocessing import Preprocessing
from medt.io.files import write_png
from medt.io.images import read_image
from medt.models import AxialUNet, GatedAxialUNet, LoGo, MedT

NETWORKS = {
    "axial_unet": AxialUNet,
    "gated_axial_unet": GatedAxialUNet,
    "logo": LoGo,
    "medt": MedT,
}
NORMS = {"qkv_norm": "bn_qkv", "similarity_norm": "bn_similarity"}
PARTS = {"down": "conv_down", "down_norm": "bn1", "up": "conv_up", "up_norm": "bn2"}
GATES = ("f_qr", "f_kr", "f_sv", "f_sve")


def official(model):
    """A state of the official code with the weights of a network of ours."""
    state = {}
    for name, value in model.state_dict().items():
        local = "_p" if name.startswith("local_") else ""
        parts = name.removeprefix("local_").split(".")
        if parts[1] == "stem":
            state[f"{parts[2]}{local}.{parts[3]}"] = value
        elif parts[1] == "stages":
            block = f"layer{int(parts[2]) + 1}{local}.{parts[3]}"
            add_to_block(state, block, parts[4:], value)
        elif parts[0] == "decoder":
            first = 1 if local or not hasattr(model, "local_decoder") else 4
            state[f"decoder{first + int(parts[2])}{local}.{parts[3]}"] = value
        else:
            state[{"fuse": "decoderf", "head": "adjust"}[parts[0]] + "." + parts[1]] = value
    return state | {"layer1_p.0.conv1.weight": torch.zeros(1)} if local_of(model) else state


def local_of(model):
    return hasattr(model, "local_branch")


def add_to_block(state, block, parts, value):
    if parts[0] not in ("height", "width"):
        part = PARTS.get(parts[0], "downsample")
        state[".".join([block, part, *parts[1:]])] = value
        return
    layer = f"{block}.{parts[0].replace('height', 'hight')}_block"
    if parts[1] == "qkv":
        state[f"{layer}.qkv_transform.weight"] = value.squeeze(-1)
    elif parts[1] == "gates":
        state.update({f"{layer}.{gate}": one for gate, one in zip(GATES, value, strict=True)})
    elif parts[1] == "relative":
        state[f"{layer}.relative"] = value
    elif parts[1] in NORMS:
        state[f"{layer}.{NORMS[parts[1]]}.{parts[2]}"] = value.flatten() if value.dim() else value
    else:  # bn_output holds the channels of both norms in turn
        name = f"{layer}.bn_output.{parts[2]}"
        if parts[1] == "position_norm" and value.dim():
            value = torch.stack([state[name], value], dim=1).flatten()
        state[name] = value


def randomized(network, **arguments):
    """A network all of whose weights and statistics are random."""
    torch.manual_seed(0)
    model = network(**arguments)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    return model


def small(name, **more):
    return randomized(NETWORKS[name], image_size=128, width_factor=0.125, **more)


def run(folder, name, state, *more):
    torch.save(state, folder / "official.pth")
    arguments = [f"model={name}", f"weights={folder}/official.pth", f"output={folder}/ours.pt"]
    return import_official.main([*arguments, *more])


@pytest.mark.parametrize("name", NETWORKS)
def test_every_official_network_is_imported_whole(tmp_path, name):
    model = small(name)
    parallel = {f"module.{key}": value for key, value in official(model).items()}
    assert run(tmp_path, name, parallel) == 0
    imported = medt.load(tmp_path / "ours.pt").model.state_dict()
    assert imported.keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(imported[key], value, rtol=0, atol=0, msg=key)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_golden_networks_give_the_golden_logits_through_the_predictor(tmp_path, shared, name):
    file = shared / "golden" / f"official_{name}_128.pt"
    arguments = [f"model={name}", f"weights={file}", f"output={tmp_path}/ours.pt"]
    assert import_official.main(arguments) == 0
    golden = torch.load(file, weights_only=True)
    logits = medt.load(tmp_path / "ours.pt").logits(golden["input"].float())
    expected = golden["logits_eval"]
    assert (logits - expected).norm() / expected.norm() < 1e-5


def test_images_are_prepared_as_in_the_official_code(tmp_path):
    assert run(tmp_path, "axial_unet", official(small("axial_unet"))) == 0
    preprocessing = medt.load(tmp_path / "ours.pt").preprocessing
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    write_png(tmp_path / "image.png", image)
    expected = torch.from_numpy(image[..., ::-1] / 255).permute(2, 0, 1).float()
    tensor = preprocessing.tensor(preprocessing.image(tmp_path / "image.png"))
    torch.testing.assert_close(tensor, expected)
    again = Preprocessing.from_dict(preprocessing.to_dict())
    assert again == preprocessing


def test_grey_images_other_sizes_and_more_classes(tmp_path):
    settings = {"channels": 1, "classes": 3, "image_size": 128, "width_factor": 0.125}
    model = NETWORKS["gated_axial_unet"](**settings)
    overrides = ["channels=1", "classes=[background,gland,lumen]"]
    assert run(tmp_path, "gated_axial_unet", official(model), *overrides) == 0
    predictor = medt.load(tmp_path / "ours.pt")
    assert [c.name for c in predictor.classes] == ["background", "gland", "lumen"]
    assert predictor.predict(np.zeros((50, 40), np.uint8)).shape == (50, 40)


def test_the_checkpoint_is_evaluated_and_predicts_like_any_other(tmp_path, capsys):
    state = official(NETWORKS["axial_unet"](image_size=128, width_factor=0.125))
    assert run(tmp_path, "axial_unet", state, "classes=[background,gland]") == 0
    root, overrides = tiny_dataset()
    checkpoint = f"checkpoint={tmp_path}/ours.pt"
    assert evaluate.main([checkpoint, "split=test", *overrides]) == 0
    assert "ours.pt, imported" in capsys.readouterr().out
    assert evaluate.main([checkpoint, "split=test"]) == 1
    assert "names no dataset (give one: dataset=glas" in capsys.readouterr().err
    folder = tmp_path / "masks"
    assert predict.main([checkpoint, f"input={root}/images", f"output={folder}"]) == 0
    assert {read_image(path).shape for path in folder.glob("*.png")} == {(64, 64)}


class TestFilesThatDoNotFit:
    def refused(self, tmp_path, capsys, name, state, *more):
        """The error's line; nothing was written."""
        assert run(tmp_path, name, state, *more) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["official.pth"]
        return error

    @pytest.mark.parametrize(
        ("name", "chosen"), [("logo", "medt"), ("medt", "axial_unet"), ("axial_unet", "medt")]
    )
    def test_of_another_network_tell_which(self, tmp_path, capsys, name, chosen):
        error = self.refused(tmp_path, capsys, chosen, official(small(name)))
        assert f"its names are those of model={name}" in error

    def test_missing_and_unexpected_names_are_given(self, tmp_path, capsys):
        state = official(small("medt"))
        for name in ("conv1.weight", "layer1_p.0.width_block.bn_output.bias", "decoder5_p.bias"):
            del state[name]
            assert f"missing {name}" in self.refused(tmp_path, capsys, "medt", state)
        state["layer1.0.f_new"] = torch.zeros(1)
        error = self.refused(tmp_path, capsys, "medt", state)
        assert "unexpected layer1.0.f_new (it is incomplete or was changed" in error

    def test_other_shapes_are_given_with_the_settings_that_fit(self, tmp_path, capsys):
        state = official(small("axial_unet", channels=1, classes=3))
        error = self.refused(tmp_path, capsys, "axial_unet", state, "image_size=256")
        assert "layer1.0.hight_block.relative is 4 x 127 instead of 4 x 255" in error
        assert "image_size=128 channels=1 and 3 classes" in error
        error = self.refused(tmp_path, capsys, "axial_unet", state)
        assert "conv1.weight is 8 x 1 x 7 x 7 instead of 8 x 3 x 7 x 7" in error
        assert "adjust.bias is 3 instead of 2" in error

    @pytest.mark.parametrize(
        ("state", "message"),
        [
            ({"encoder.weight": torch.zeros(2)}, "give a file of https://github.com"),
            ({"weights": [1, 2]}, "official.pth holds no state dict"),
            ({}, "official.pth holds no state dict"),
        ],
    )
    def test_of_other_code_are_refused(self, tmp_path, capsys, state, message):
        assert message in self.refused(tmp_path, capsys, "medt", state)

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("model=unet", "the official code has no model=unet (choose one of medt, logo"),
            ("model.channels=1", "model.channels is not read here (give channels=...)"),
            ("classes=[gland]", "classes=['gland'] is out of range (give two or more"),
            ("image_size=100", "image size 100 x 100 does not fit LocalGlobalNet"),
            ("image_size=huge", "image_size='huge' is not a size in pixels"),
            ("channels=0", "channels=0 is out of range (give at least 1)"),
        ],
    )
    def test_wrong_settings_are_named(self, tmp_path, capsys, override, message):
        assert message in self.refused(tmp_path, capsys, "medt", {"a": torch.zeros(1)}, override)


def test_an_existing_file_is_kept(tmp_path, capsys):
    (tmp_path / "ours.pt").write_text("precious")
    assert run(tmp_path, "medt", {"a": torch.zeros(1)}) == 1
    assert "ours.pt exists already" in capsys.readouterr().err
    assert (tmp_path / "ours.pt").read_text() == "precious"


def test_fine_tuning_another_network_from_it_names_its_own(tmp_path, refused):
    assert run(tmp_path, "axial_unet", official(small("axial_unet"))) == 0
    _, overrides = tiny_dataset()
    start = [f"model.weights={tmp_path}/ours.pt", f"run_dir={tmp_path}/run"]
    refused(train.main, ["model=medt", *start, *overrides], "another network", "model=axial_unet")
