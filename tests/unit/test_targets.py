"""What a config may build: a closed list, of plain values that the class's signature takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest
import torch
from torch import nn

from medt.data.augmentation import Pipeline
from medt.errors import UserError
from medt.losses import DiceCrossEntropyLoss
from medt.signatures import check_arguments, described, fits
from medt.targets import GROUPS, build, check_spec, targets_in

LOSS = {"_target_": "medt.losses.DiceCrossEntropyLoss"}
BUILT: list[Any] = []


class Spy(nn.Module):
    """Notes that it was called."""

    def __init__(self, width: int = 3, **more: Any) -> None:
        super().__init__()
        BUILT.append((width, more))


@pytest.fixture(autouse=True)
def nothing_built() -> None:
    BUILT.clear()


OWN = f"{__name__}.Spy"
COMMAND = {"_target_": OWN}


def test_classes_of_the_groups_are_built_with_their_arguments() -> None:
    loss = build({**LOSS, "class_weights": [1, 2.5]}, "loss")
    assert isinstance(loss, DiceCrossEntropyLoss)
    parameters = [nn.Parameter(torch.ones(1))]
    adam = {"_target_": "torch.optim.AdamW", "lr": 0.5, "betas": [0.8, 0.9]}
    optimizer = build(adam, "optimizer", params=parameters)
    assert optimizer.param_groups[0]["lr"] == 0.5
    augmentation = {"_target_": "medt.data.augmentation.Pipeline"}
    assert isinstance(build(augmentation, "augmentation"), Pipeline)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(
    "name",
    [
        *("os.system", "subprocess.Popen", "builtins.eval", "torch.utils.collect_env.run", OWN),
        *("torch.hub.load", "hydra.utils.instantiate", "medt.io.files.write_text", "nowhere", ""),
        *("medt.losses.UserError", "medt.losses.torch", "medt.models._", "torch.optim.swa_utils"),
        *("torch.optim.lr_scheduler.StepLR", "medt.models.medt.AxialUNet"),
    ],
)
def test_nothing_else_is(group: str, name: str) -> None:
    with pytest.raises(UserError):
        build({"_target_": name}, group)
    assert BUILT == []


def test_what_the_user_names_is_built() -> None:
    assert isinstance(build({"_target_": OWN, "width": 5, "more": [1]}, "loss", (OWN,)), Spy)
    assert BUILT == [(5, {"more": [1]})]
    with pytest.raises(UserError, match=r"there is no loss nowhere\.Loss"):
        build({"_target_": "nowhere.Loss"}, "loss", ("nowhere.Loss",))
    with pytest.raises(UserError, match="is not a class"):
        build({"_target_": "os.getcwd"}, "loss", ("os.getcwd",))


@pytest.mark.parametrize(
    "value",
    [
        COMMAND,
        [COMMAND],
        {"a": {"b": [[COMMAND]]}},
        {"_args_": []},
        {"_partial_": True},
        {"_convert_": "all"},
        {"_recursive_": False},
        [{"_target_": None}],
    ],
)
def test_a_value_at_any_depth_names_nothing_to_build(value: Any) -> None:
    for spec in ({**LOSS, "class_weights": value}, {"_target_": OWN, "more": value}):
        with pytest.raises(UserError, match="is not a setting"):
            build(spec, "loss", (OWN,))
    assert BUILT == []


@pytest.mark.parametrize("name", ["_args_", "_partial_", "_convert_", "_recursive_", "__class__"])
def test_nor_does_a_key_beside_the_target(name: str) -> None:
    with pytest.raises(UserError, match=f"loss.{name} is not a setting"):
        build({**LOSS, name: True}, "loss")


@pytest.mark.parametrize("spec", [[LOSS], [COMMAND], "os.system", None, 3, {}, {"_target_": [1]}])
def test_a_group_is_a_mapping_that_names_a_class(spec: Any) -> None:
    with pytest.raises(UserError, match="loss names no class"):
        build(spec, "loss")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"class_weights": "${oc.env:HOME}"}, r"loss\.class_weights is '\${oc\.env:HOME}', which"),
        ({"class_weights": [1, "2"]}, r"loss\.class_weights is \[1, '2'\], which is not a list of"),
        ({"dice_weight": True}, "not a number"),
        ({"batch": 1}, "not true or false"),
        ({"gama": 1}, r"takes no loss\.gama"),
    ],
)
def test_arguments_are_held_against_the_signature_first(
    arguments: dict[str, Any], fault: str
) -> None:
    with pytest.raises(UserError, match=fault):
        build({**LOSS, **arguments}, "loss")


def test_what_the_class_itself_refuses_is_one_line() -> None:
    with pytest.raises(UserError, match=r"loss|class_weights"):
        build({**LOSS, "class_weights": [-1.0, 1.0]}, "loss")
    with pytest.raises(UserError, match="AdamW cannot be built: Invalid epsilon value"):
        build({"_target_": "torch.optim.AdamW", "eps": -1}, "optimizer", params=[torch.ones(1)])
    with pytest.raises(UserError, match=r"optimizer\.params is not a setting"):
        check_spec({"_target_": "torch.optim.SGD", "params": []}, "optimizer", given=("params",))


class TestSignatures:
    @pytest.mark.parametrize(
        ("hint", "right", "wrong"),
        [
            (int, [0, -3], [True, 1.0, "1", None, [1]]),
            (float, [0, 1.5, float("nan")], [True, "1", None]),
            (bool, [True], [0, 1, "true"]),
            (str, ["", "a"], [1, None, ["a"]]),
            (int | None, [None, 2], ["", 2.5]),
            (Literal["a", "b"], ["a"], ["c", None, 1]),
            (Sequence[int], [[1, 2], (), [3]], ["12", [1.5], {1: 2}, 1]),
            (int | Sequence[int], [1, [1, 2]], [1.5, ["a"], None]),
            (tuple[int, int], [[1, 2], (1, 2)], [[1], [1, 2, 3], ["a", 1]]),
            (tuple[float, ...], [[], [1, 2.5, 3]], [["a"], 1.0]),
            (list[list[int]], [[[1], []]], [[1], [["a"]]]),
            (dict[str, float], [{}, {"a": 1}], [{1: 1.0}, {"a": "b"}, []]),
            (Mapping[str, Any], [{"a": object}], [[]]),
            (Any, [None, 1, "a", [], {}], []),
            (torch.Tensor, [torch.ones(1)], [1.0, [1.0], None]),
        ],
    )
    def test_a_plain_value_is_of_the_type(
        self, hint: Any, right: list[Any], wrong: list[Any]
    ) -> None:
        assert all(fits(value, hint) for value in right)
        assert not any(fits(value, hint) for value in wrong)
        assert "typing" not in described(hint)

    def test_missing_and_unknown_arguments_are_named(self) -> None:
        def takes(size: int, *, name: str = "a") -> None:
            raise AssertionError

        check_arguments(takes, {"size": 3}, "x")
        check_arguments(takes, {"name": "b"}, "x", given=("size",))
        with pytest.raises(UserError, match="x lacks size"):
            check_arguments(takes, {}, "x")
        with pytest.raises(UserError, match=r"takes no x\.nam \(did you mean name\?\)"):
            check_arguments(takes, {"size": 3, "nam": "b"}, "x")
        check_arguments(takes, {"size": 3, "nam": "b"}, "x", others=True)

    def test_an_error_shows_no_endless_value(self) -> None:
        with pytest.raises(UserError) as caught:
            check_arguments(Spy, {"width": "x" * 10_000}, "x")
        assert len(str(caught.value)) < 300


class TestTransforms:
    @staticmethod
    def check(**spec: Any) -> None:
        group = {"_target_": "medt.data.augmentation.Pipeline", "geometry": [spec]}
        check_spec(group, "augmentation")

    @pytest.mark.parametrize(
        "name",
        [
            *("Lambda", "TextImage", "FDA", "HistogramMatching", "Mosaic", "TemplateTransform"),
            *("PixelDistributionAdaptation", "OverlayElements", "ToTensorV2", "CenterCrop3D"),
            *("MixUp", "BasicTransform", "Compose", "ReplayCompose", "OneOrOther", "BboxParams"),
            *("from_pretrained", "Compose.from_pretrained", "load", "core.utils", "np", "_x"),
        ],
    )
    @pytest.mark.parametrize("place", ["{}", "augmentations.{}"])
    def test_what_needs_more_than_an_image_and_plain_values_is_refused(
        self, name: str, place: str
    ) -> None:
        with pytest.raises(UserError):
            self.check(_target_=f"albumentations.{place.format(name)}")

    def test_nor_is_it_at_any_depth_or_where_the_user_allows_it(self) -> None:
        inner = {"_target_": "albumentations.Lambda"}
        with pytest.raises(UserError, match=r"geometry\.0\.transforms\.a\._target_"):
            self.check(_target_="albumentations.OneOf", transforms={"a": inner})
        group = {"_target_": "medt.data.augmentation.Pipeline", "appearance": [inner]}
        with pytest.raises(UserError, match=r"augmentation\.appearance\.0\._target_"):
            check_spec(group, "augmentation", ("albumentations.Lambda",))

    def test_a_class_that_the_user_names_is_built_with_its_parts(self) -> None:
        own = {"_target_": OWN, "geometry": {"a": {"_target_": "albumentations.NoOp"}}}
        assert list(targets_in(own)) == [OWN, "albumentations.NoOp"]
        with pytest.raises(UserError, match="is not one of"):
            build(own, "augmentation")
        assert isinstance(build(own, "augmentation", (OWN,)), Spy)
        assert [type(one).__name__ for one in BUILT[0][1]["geometry"].values()] == ["NoOp"]

    def test_only_an_augmentation_has_parts(self) -> None:
        with pytest.raises(UserError, match=r"loss\.geometry\.0\._target_ is not a setting"):
            build({"_target_": OWN, "geometry": [COMMAND]}, "loss", (OWN,))
