"""Classes are what the user says, or what mask values leave no doubt about."""

from __future__ import annotations

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from medt.data.folder.classes import (
    evident_classes,
    extended_example,
    given_classes,
    instance_classes,
)
from medt.data.labels import Labels
from medt.errors import UserError

RED, GREEN = {"name": "red", "color": [255, 0, 0]}, {"name": "green", "color": "#00ff00"}
BLACK = {"name": "background", "color": [0, 0, 0]}


def test_colours_become_ids_and_are_the_classes_own() -> None:
    plan = given_classes([BLACK, RED, GREEN], ignore=[255, 255, 255])
    assert plan.labels == Labels({0: 0, 0xFF0000: 1, 0x00FF00: 2}, ignore=0xFFFFFF, painted=True)
    assert [c.color for c in plan.classes] == [(0, 0, 0), (255, 0, 0), (0, 255, 0)]
    mask = np.array([[0xFF0000, 0x00FF00, 0xFFFFFF, 0]])
    assert plan.labels.class_ids(mask).tolist() == [[1, 2, 255, 0]]
    with pytest.raises(UserError, match="no class: #0000ff"):
        plan.labels.class_ids(np.array([[0x0000FF]]))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([BLACK, {"name": "b", "value": 3}], "entry 1"),
        ([BLACK, "b"], "entry 1"),
        ([BLACK, {"name": "b", "color": [0, 0, 0]}], "another class one colour"),
        (["a", "a"], "several classes have the name a"),
        (["a", "b\x1b[2J"], r"name 'b\\x1b\[2J' .* not printable"),
        (["a", " "], "not printable"),
        (["a", "b" * 101], "101 characters"),
        (["a"], "1 entries"),
        ([f"c{i}" for i in range(256)], "256 entries"),
        ([BLACK, {"name": "b", "color": [0, 0, 256]}], "entry 1"),
        ([BLACK, {"name": "b", "color": [0, 0]}], "entry 1"),
        ([BLACK, {"name": "b", "color": "red"}], "entry 1"),
        (["a", {"name": "b", "value": True}], "entry 1"),
        (["a", 3], "entry 1"),
    ],
)
def test_faulty_entries_are_refused(classes: list[object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        given_classes(classes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("classes", "ignore"), [(["a", "b"], "white"), ([BLACK, RED], 255), ([BLACK, RED], [1])]
)
def test_what_is_ignored_is_of_the_same_kind(classes: list[object], ignore: object) -> None:
    with pytest.raises(UserError, match=r"dataset\.ignore=.* is no (number|colour)"):
        given_classes(classes, ignore)  # type: ignore[arg-type]


def test_object_numbers_are_one_class() -> None:
    plan = instance_classes(["background", "nucleus"], ignore=65535)
    mask = np.array([[0, 1, 700, 65535]])
    assert plan.labels.class_ids(mask).tolist() == [[0, 1, 1, 255]]
    assert [c.name for c in plan.classes] == ["background", "nucleus"]
    with pytest.raises(UserError, match="two classes"):
        instance_classes(["a", "b", "c"])
    with pytest.raises(UserError, match="several classes have the name a"):
        instance_classes(["a", "a"])


def test_colours_are_never_guessed_but_shown_with_a_config_to_paste() -> None:
    found = {0xFF0000: 25, 0: 75}
    with pytest.raises(
        UserError, match=r"colours #000000 \(75\.0%\), #ff0000 \(25\.0%\)"
    ) as caught:
        evident_classes(found, painted=True)
    entries = "{name:background,color:[0,0,0]},{name:class_ff0000,color:[255,0,0]}"
    assert f"'dataset.classes=[{entries}]'" in caught.value.hint
    with pytest.raises(UserError, match="save the masks as PNG"):
        evident_classes(found, painted=True, lossy=True)


def test_jpegs_of_several_classes_are_not_parted_in_two() -> None:
    found = {0: 500, 3: 20, 126: 30, 128: 200, 131: 20, 255: 200}
    solid = {0: 400, 128: 150, 255: 150}
    with pytest.raises(UserError, match="save the masks as PNG, or give each class a range"):
        evident_classes(found, painted=False, lossy=True, solid=solid)


def test_soft_edges_leave_what_is_ignored_out() -> None:
    found = {0: 500, 255: 40, 200: 200} | dict.fromkeys(range(30, 190, 5), 1)
    with pytest.raises(UserError, match="soft edges") as caught:
        evident_classes(found, painted=False, ignore=255, solid={0: 400, 200: 150})
    setting = caught.value.hint.partition("'")[2].rstrip("'")
    parsed = OverridesParser.create().parse_override(setting).value()
    ids = given_classes(parsed, ignore=255).labels.class_ids(np.array([[0, 99, 101, 200, 255]]))
    assert ids.tolist() == [[0, 0, 1, 1, 255]]


def test_many_values_are_counted() -> None:
    with pytest.raises(UserError, match=r"\.\.\. \(100 different\)"):
        evident_classes(dict.fromkeys(range(100), 1), painted=False)


@pytest.mark.parametrize("painted", [False, True])
def test_more_values_than_one_names_are_rather_those_of_images(painted: bool) -> None:
    for count, swapped in ((20, False), (21, True)):
        with pytest.raises(UserError) as caught:
            evident_classes(dict.fromkeys(range(count), 1), painted)
        assert ("dataset.images and dataset.masks swapped?" in caught.value.hint) == swapped
        assert ("dataset.classes=" in caught.value.hint) != swapped
        assert ("dataset.mask=instances" in caught.value.hint) != painted


def test_an_example_keeps_the_classes_and_adds_the_others() -> None:
    plan = given_classes([BLACK, RED])
    assert extended_example(plan, {0: 1, 0xFF0000: 1, 0x0000FF: 2}).endswith(
        "{name:red,color:[255,0,0]},{name:class_0000ff,color:[0,0,255]}]"
    )


def test_an_example_keeps_ranges_and_names_of_any_kind() -> None:
    plan = given_classes(
        [{"name": "a b, c", "value": [0, 9]}, {"name": "d", "value": 10}], ignore=255
    )
    expected = '[{name:"a b, c",value:[0,9]},{name:d,value:10},{name:class_11,value:11}]'
    assert extended_example(plan, {0: 1, 10: 1, 11: 1, 255: 1}) == f"dataset.classes={expected}"
    parsed = OverridesParser.create().parse_override(f"dataset.classes={expected}").value()
    assert given_classes(parsed).classes[0].name == "a b, c"


def test_a_class_cannot_be_ignored() -> None:
    with pytest.raises(UserError, match=r"dataset\.ignore=1 is the class gland"):
        given_classes(["background", "gland"], ignore=1)
