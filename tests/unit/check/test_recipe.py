"""The recipe that a dataset calls for, and the file that says why."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf
from test_check_facts import fact

from medt.check import CaseFacts, Check, Settings
from medt.check.cases import MaskFacts, mask_facts
from medt.check.recipe import Choice, Machine, choose, recipe_text
from medt.data.layout import DatasetIndex, default_classes
from medt.errors import UserError
from medt.models import MedTPlus

SETTINGS = Settings((128, 128), "dataset", crops=False, channels=3)
SMALL, LARGE = Machine(2, 8 * 2**30), Machine(16, 64 * 2**30)


def check_of(*facts: CaseFacts) -> Check:
    cases = tuple(one.case for one in facts)
    classes = default_classes(["background", "gland"])
    return Check(DatasetIndex("mine", classes, 3, cases), SETTINGS, facts, ())


def with_mask(facts: CaseFacts, **values: object) -> CaseFacts:
    assert facts.mask is not None
    return dataclasses.replace(facts, mask=dataclasses.replace(facts.mask, **values))


def with_image(facts: CaseFacts, **values: object) -> CaseFacts:
    assert facts.image is not None
    return dataclasses.replace(facts, image=dataclasses.replace(facts.image, **values))


def chosen(*facts: CaseFacts, machine: Machine = SMALL, **given: object) -> dict[str, object]:
    return {one.key: one.value for one in choose(check_of(*facts), machine, given)}


def test_large_objects_are_seen_whole_and_small_ones_in_crops() -> None:
    large = chosen(fact(512, 512, 80))
    assert (large["dataset.sampling"], large["dataset.image_size"]) == ("resize", 128)
    small = chosen(fact(1000, 1000, 6))
    assert (small["dataset.sampling"], small["dataset.image_size"]) == ("crop", 256)
    assert small["dataset.crops_per_case"] == 15


def test_the_network_takes_the_size_that_was_given() -> None:
    image = fact(512, 512, 80)
    assert chosen(image)["model"] == "medt_plus"
    for size in (208, [32, 48]):
        assert chosen(image, image_size=size)["model"] == "medt_plus"
        MedTPlus(image_size=size)
    for size in (200, 16, [208, 200]):
        assert chosen(image, image_size=size)["model"] == "unet"
        with pytest.raises(UserError):
            MedTPlus(image_size=size)


class TestPretrained:
    MACHINE = Machine(2, 8 * 2**30, encoders=True)
    COLOURED = with_image(
        fact(512, 512, 80), mean=(0.8, 0.5, 0.7), percentiles=((0.0, 0.5, 1.0),) * 3
    )

    def chosen(self, *facts: CaseFacts, **given: object) -> dict[str, object]:
        return chosen(*facts, machine=self.MACHINE, **given)

    def test_whole_images_in_colour_start_from_imagenet(self) -> None:
        found = self.chosen(*[self.COLOURED] * 68)
        assert (found["experiment"], found["dataset.image_size"]) == ("pretrained", 256)
        assert found["trainer.epochs"] == 40
        assert not {"model", "dataset.normalize"} & set(found)

    @pytest.mark.parametrize(("cases", "epochs"), [(5, 100), (1000, 20)])
    def test_for_less_than_from_random_weights(self, cases: int, epochs: int) -> None:
        assert self.chosen(*[self.COLOURED] * cases)["trainer.epochs"] == epochs

    def test_no_others_do(self) -> None:
        grey = fact(512, 512, 80)
        assert self.chosen(grey)["model"] == "medt_plus"
        assert self.chosen(self.COLOURED, sampling="crop")["model"] == "medt_plus"
        assert self.chosen(self.COLOURED, image_size=208)["model"] == "medt_plus"
        assert chosen(self.COLOURED)["model"] == "medt_plus"

    def test_a_size_that_was_given_or_is_larger_stays(self) -> None:
        assert "dataset.image_size" not in self.chosen(self.COLOURED, image_size=128)
        many = with_mask(self.COLOURED, objects=50, touching=10)
        sizes = [one["dataset.image_size"] for one in (self.chosen(many), chosen(many))]
        assert sizes[0] == max(256, sizes[1])

    def test_the_recipe_goes_on_from_the_experiment(self) -> None:
        choices = choose(check_of(self.COLOURED), self.MACHINE, {})
        text = recipe_text(choices, {}, "folder", "About it", "medt train")
        defaults = yaml.safe_load(text)["defaults"]
        assert defaults[0] == "pretrained"
        assert {"override /dataset": "folder"} in defaults


def test_thin_structures_are_seen_in_crops_however_long_they_are() -> None:
    vessels = with_mask(fact(584, 565, 100), thinnest=3.5)
    assert chosen(vessels)["dataset.sampling"] == "crop"


def test_crops_are_no_larger_than_the_images() -> None:
    assert chosen(fact(100, 90, 3))["dataset.image_size"] == 64


def test_objects_are_parted_where_they_lie_close() -> None:
    assert "dataset.objects" not in chosen(with_mask(fact(512, 512, 80), objects=50))
    close = with_mask(fact(512, 512, 80), objects=50, touching=10)
    assert chosen(close)["dataset.objects"] == "borders"
    small = with_mask(fact(1000, 1000, 6), objects=50, touching=10)
    assert chosen(small)["dataset.objects"] == "distance"
    assert chosen(close, sampling="crop")["dataset.objects"] == "distance"


@pytest.mark.parametrize(
    ("mean", "span", "augmentation"),
    [
        ((0.8, 0.5, 0.7), 1.0, "histology"),
        ((0.5, 0.5, 0.5), 1.0, "grey"),
        ((0.012, 0.03, 0.02), 0.06, "histology"),  # 12 of 16 bits
        ((812.0, 810.0, 811.0), 1500.0, "grey"),  # floating point
        ((0.5,), 1.0, "grey"),
        ((0.1, 0.5, 0.9, 0.3, 0.2), 1.0, "grey"),  # five stains are no colours
    ],
)
def test_colours_are_varied_where_there_are_any(mean, span, augmentation) -> None:
    percentiles = tuple((0.0, span / 2, span) for _ in mean)
    image = with_image(fact(512, 512, 80), mean=mean, percentiles=percentiles)
    assert chosen(image)["augmentation"] == augmentation


def test_the_rest_follows_from_what_was_given() -> None:
    small = [fact(1000, 1000, 6)] * 20
    whole = chosen(*small, sampling="resize", image_size=512)
    assert not {"dataset.sampling", "dataset.image_size", "dataset.crops_per_case"} & set(whole)
    assert whole["trainer.epochs"] == 300
    crops = chosen(*[fact(512, 512, 80)] * 20, sampling="crop")
    assert crops["dataset.image_size"] == 256
    assert crops["trainer.epochs"] == 100
    assert chosen(*small, crops_per_case=40)["trainer.epochs"] == 30
    assert "augmentation" not in chosen(*small, augmentation="none")


@pytest.mark.parametrize(("cases", "epochs"), [(2, 300), (80, 100), (5000, 30)])
def test_the_fewer_the_images_the_more_often_each_is_shown(cases: int, epochs: int) -> None:
    assert chosen(*[fact(512, 512, 80)] * cases)["trainer.epochs"] == epochs


def test_the_machine_decides_on_batch_and_workers() -> None:
    assert "dataset.workers" not in chosen(fact(512, 512, 80))
    assert chosen(fact(512, 512, 80), machine=LARGE)["dataset.workers"] == 4
    for memory, batch in ((2**29, 1), (2 * 2**30, 2), (8 * 2**30, 4), (None, 4)):
        machine = Machine(2, memory)
        assert chosen(fact(1000, 1000, 6), machine=machine)["trainer.batch_size"] == batch


class TestText:
    CHOICES = (
        Choice("model", "unet", "the best"),
        Choice("dataset.image_size", [128, 256], "wide " * 40),
        Choice("trainer.epochs", 120, "enough"),
    )

    def test_each_value_has_its_reason_above_it(self) -> None:
        text = recipe_text(self.CHOICES, {}, "folder", "About it", "medt train")
        values = yaml.safe_load(text)
        assert values["defaults"] == [{"override /dataset": "folder"}, {"override /model": "unet"}]
        assert values["dataset"] == {"image_size": [128, 256]}
        assert values["trainer"] == {"epochs": 120}
        lines = text.splitlines()
        assert lines[0] == "# @package _global_"
        assert "  # enough" in lines[lines.index("  epochs: 120") - 1]
        assert max(map(len, lines)) <= 100

    def test_what_was_given_is_kept(self) -> None:
        given = {"group": "(*)_#", "images": "/a b/: #c", "augmentation": "none"}
        text = recipe_text((), given, "folder", "About it", "medt train")
        values = yaml.safe_load(text)
        assert values["dataset"] == {"group": "(*)_#", "images": "/a b/: #c"}
        assert {"override /augmentation": "none"} in values["defaults"]

    def test_what_looks_like_a_reference_is_none(self) -> None:
        text = recipe_text((), {"images": "/a/${b}"}, "folder", "About it", "medt train")
        config = OmegaConf.create(yaml.safe_load(text))
        assert config.dataset.images == "/a/${b}"


def facts_of(instances: np.ndarray) -> MaskFacts:
    return mask_facts((instances > 0).astype(np.uint8), instances)


def test_objects_touch_within_a_twentieth_of_their_size() -> None:
    instances = np.zeros((200, 300), np.int32)
    instances[20:60, 20:60] = 1
    instances[20:60, 62:102] = 2
    instances[20:60, 130:170] = 3
    instances[100:140, 20:60] = 4
    assert facts_of(instances).touching == 2


def test_thickness_is_that_of_a_band_and_half_of_a_disks_diameter() -> None:
    band = np.zeros((200, 200), np.int32)
    band[:, 90:98] = 1
    assert facts_of(band).thinnest == pytest.approx(8 * 4 / math.pi, rel=0.01)  # along the grid
    rows, columns = np.mgrid[:200, :200]
    disk = ((rows - 100) ** 2 + (columns - 100) ** 2 < 60**2).astype(np.int32)
    assert facts_of(disk).thinnest == pytest.approx(60, rel=0.05)
    slanted = (abs(rows - columns) < 8 * math.sqrt(2) / 2).astype(np.int32)
    assert facts_of(slanted).thinnest == pytest.approx(8, rel=0.15)
