"""A checkpoint is self-sufficient, is data, and is either the old file or the whole new one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import medt
from medt.checkpoint import Checkpoint, build_model, load_checkpoint, save_checkpoint
from medt.errors import UserError
from medt.models import AxialUNet
from medt.weights import load_weights

ARGUMENTS = {"channels": 1, "classes": 3, "image_size": 32, "depths": [1, 1]}


def checkpoint(model: AxialUNet, target: str = "medt.models.AxialUNet") -> Checkpoint:
    return Checkpoint(
        model={"_target_": target, **ARGUMENTS},
        weights=model.state_dict(),
        preprocessing={"image_size": [32, 32], "channels": 1, "mean": [0.5], "std": [0.2]},
        classes=[{"id": i, "name": f"class {i}", "color": [i, i, i]} for i in range(3)],
        dataset={"name": "folder"},
        config={},
        epoch=7,
        scores={"val_dice": 0.5},
        training_cases=["one", "two"],
    )


@pytest.fixture
def model() -> AxialUNet:
    torch.manual_seed(0)
    return AxialUNet(**ARGUMENTS).eval()


def test_the_file_alone_gives_back_the_network(model: AxialUNet, tmp_path: Path) -> None:
    save_checkpoint(checkpoint(model), tmp_path / "best.pt")
    predictor = medt.load(tmp_path / "best.pt")
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(predictor.logits(images), expected, rtol=0, atol=0)
    assert [c.name for c in predictor.classes] == ["class 0", "class 1", "class 2"]
    assert load_checkpoint(tmp_path / "best.pt").epoch == 7


def test_a_run_folder_stands_for_its_best_checkpoint_until_it_says_another(
    model: AxialUNet, tmp_path: Path
) -> None:
    for name in ("best", "last"):
        save_checkpoint(checkpoint(model), tmp_path / f"checkpoints/{name}.pt")
    found = load_checkpoint(tmp_path)
    assert found.file == str(tmp_path / "checkpoints/best.pt")
    assert found.describe().endswith("after 7 epochs: those of its best validation")
    (tmp_path / "metrics.json").write_text('{"use": "last"}')
    found = load_checkpoint(tmp_path)
    assert found.file == str(tmp_path / "checkpoints/last.pt")
    assert found.describe().endswith("after 7 epochs: those at the end of its schedule")
    found = load_checkpoint(tmp_path / "checkpoints/last.pt")
    assert found.describe() == f"weights {tmp_path}/checkpoints/last.pt, after 7 epochs"


def test_why_it_was_taken_is_no_part_of_the_file(model: AxialUNet, tmp_path: Path) -> None:
    save_checkpoint(checkpoint(model), tmp_path / "checkpoints/best.pt")
    save_checkpoint(load_checkpoint(tmp_path), tmp_path / "copy.pt")
    assert load_checkpoint(tmp_path / "copy.pt").why == ""
    assert "why" not in torch.load(tmp_path / "copy.pt", weights_only=True)


def test_only_our_models_are_built_unless_a_name_is_allowed(
    model: AxialUNet, tmp_path: Path
) -> None:
    path = tmp_path / "best.pt"
    foreign = "medt.models.medt.AxialUNet"
    save_checkpoint(checkpoint(model, foreign), path)
    with pytest.raises(UserError, match=f"{foreign} is not one of medt.models"):
        medt.load(path)
    assert isinstance(medt.load(path, allow=foreign).model, AxialUNet)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"format": "medt-checkpoint-1", "model": Path("x")}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil.pt is damaged or not a checkpoint"):
        load_checkpoint(tmp_path / "evil.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_damaged_file_is_named(model: AxialUNet, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "best.pt"
    save_checkpoint(checkpoint(model), path)
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    with pytest.raises(UserError, match=r"best.pt is damaged or not a checkpoint"):
        load_checkpoint(path)


def test_somebody_elses_file_is_named(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other.pt is not a checkpoint of medt"):
        load_checkpoint(tmp_path / "other.pt")


def test_a_failed_write_leaves_the_old_file(
    model: AxialUNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "best.pt"
    save_checkpoint(checkpoint(model), path)
    before = path.read_bytes()

    def full_disk(content: object, file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises((OSError, UserError)):
        save_checkpoint(checkpoint(model), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["best.pt"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"_target_": "medt.models.Nope"}, r"there is no model medt\.models\.Nope"),
        ({"_target_": "medt.models.AxialUNet", "depth": 3}, r"AxialUNet takes no model\.depth"),
        ({"_target_": "medt.models.AxialUNet", "heads": 5}, "cannot be built: .*heads = 10"),
    ],
)
def test_a_model_that_cannot_be_built_says_why(spec: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model(spec)


def test_weights_may_differ_in_the_class_head_only(model: AxialUNet, tmp_path: Path) -> None:
    save_checkpoint(checkpoint(model), tmp_path / "best.pt")
    spec = {"_target_": "medt.models.AxialUNet", **ARGUMENTS}
    other = AxialUNet(**{**ARGUMENTS, "classes": 5})
    assert load_weights(other, tmp_path / "best.pt", {**spec, "classes": 5}) == [
        "head.weight",
        "head.bias",
    ]
    torch.testing.assert_close(other.branch.stem.conv1.weight, model.branch.stem.conv1.weight)
    with pytest.raises(UserError, match=r"do not fit this network: branch.stem.conv1.weight"):
        load_weights(AxialUNet(**{**ARGUMENTS, "channels": 3}), tmp_path / "best.pt", spec)
    with pytest.raises(UserError, match=r"with channels=1, this one has channels=3 \(give data"):
        load_weights(
            AxialUNet(**{**ARGUMENTS, "channels": 3}),
            tmp_path / "best.pt",
            {**spec, "channels": 3},
        )
    with pytest.raises(UserError, match=r"another network, medt\.models\.AxialUNet"):
        load_weights(nn.Linear(1, 1), tmp_path / "best.pt", {"_target_": "torch.nn.Linear"})
