"""Each fault of a dataset is found: by its code, the cases that it names, and what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import check_sample as spoiled
import numpy as np
import pytest
import tifffile
from check_sample import EVERY, SETTINGS, SIZE, TRAIN, Sample, Spoil

from medt.check import Finding, check_dataset
from medt.errors import UserError


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return Sample(tmp_path)


def test_a_clean_dataset_has_no_findings(sample: Sample) -> None:
    calls: list[tuple[int, int]] = []
    index = sample.index()
    check = check_dataset(index, SETTINGS, lambda done, total: calls.append((done, total)))
    assert check.findings == ()
    assert [facts.case for facts in check.cases] == list(index.cases)
    assert calls == [(i + 1, 20) for i in range(20)]


ONE, NONE = ["case_3"], []
ONE_SPLIT = "give them one split in the split file"
# What is done to the sample; the code of the one finding; its cases; words of message and hint.
Fault = tuple[Spoil, str, list[str], tuple[str, ...]]
ERRORS: dict[str, Fault] = {
    "a truncated image": (spoiled.truncated, "unreadable", ONE, (
        "images/case_3.png cannot be decoded", "copy it again")),
    "a missing mask": (spoiled.mask_missing, "unreadable", ONE, (
        "No file", "masks/case_3.png", "check the path")),
    "a case without a mask": (spoiled.no_mask, "unreadable", ONE, (
        "case_3.png has no mask", "need one per image")),
    "object numbers out of range": (spoiled.bad_instances, "unreadable", ONE, (
        "instances.tif holds 70000", "1 to 65535")),
    "sizes that differ": (spoiled.other_size, "sizes", ONE, (
        "case_3: image 64 x 64, mask 64 x 40 pixels", "repair or remove the pair")),
    "a mask value that is no class": (spoiled.strange_value, "labels", ONE, (
        "case_3.png holds values that are no class: 7", "dataset.classes")),
    "channels that the network cannot take": (spoiled.five_channels, "unsuitable", ONE, (
        "five.tif has 5 channels; the network takes 3", "dataset.channels")),
    "numbers that are none": (spoiled.not_a_number, "unsuitable", ONE, (
        "Images that the network cannot take", "case_3.tif holds")),
    "no cases to validate on": (spoiled.none_to_validate_on, "no_cases", NONE, (
        "no cases in split val", "edit the split file")),
    "a patient in two splits": (
        spoiled.one_patient("case_3", "case_12"), "shared_group", ["case_3", "case_12"], (
        "Anna (train, val)", ONE_SPLIT)),
    "an image in two splits": (
        spoiled.same_image("case_3", "case_12"), "leak", ["case_3", "case_12"], (
        "case_3 and case_12 (train and val)", ONE_SPLIT)),
    "nearly the same image in two splits": (
        spoiled.similar_image("case_3", "case_17"), "near_leak", ["case_3", "case_17"], (
        "case_3 and case_17 (train and test)", ONE_SPLIT,
        """'dataset.distinct=[["case_3","case_17"]]'""")),
}  # fmt: skip
WARNINGS: dict[str, Fault] = {
    "grey among coloured images": (spoiled.grey_among_colours, "mixed", ONE, (
        "19 RGB uint8, 1 grey uint8", "commonest: case_3", "convert all alike")),
    "16 bits among 8": (spoiled.deep_among_flat, "mixed", ONE, (
        "19 RGB uint8, 1 RGB uint16", "commonest: case_3")),
    "another scale": (spoiled.beyond_one, "scale", ONE, (
        "more than 8 times", "(1): case_3", "dataset.window=[low,high]")),
    "images of one value": (spoiled.one_value, "flat", ["case_3", "case_4"], (
        "(2): case_3; case_4", "remove them with their masks")),
    "a tiny image": (spoiled.tiny, "tiny", ONE, (
        "less than 32 pixels", "(1): case_3", "use the originals")),
    "a huge image": (spoiled.huge, "huge", ONE, (
        "more than 4096 pixels", "(1): case_3", "into tiles")),
    "an image of other proportions": (spoiled.long, "squashed", ONE, (
        "dataset.image_size=64", "factor of up to 3.0 (1): case_3", "dataset.sampling=crop")),
    "an empty mask": (spoiled.no_foreground, "empty", ONE, (
        "(1): case_3", "repair or remove")),
    "a mask that is ignored throughout": (spoiled.all_ignored, "ignored", ONE, (
        "(1): case_3", "dataset.ignore")),
    "a class that no mask shows": (spoiled.lumen_nowhere, "absent_class", NONE, (
        "No mask shows the class lumen", "take it out of dataset.classes")),
    "a class that no training mask shows": (spoiled.lumen_not_in_train, "absent_class", NONE, (
        "No train mask shows the class lumen", "cannot be learnt")),
    "a class that no validation mask shows": (spoiled.lumen_not_in_val, "absent_class", NONE, (
        "No val mask shows the class lumen", "move a case")),
    "a class with few pixels": (spoiled.little_lumen, "imbalance", NONE, (
        "lumen 0.2 %", "loss.class_weights=[1,1,14.6]", "loss=tversky")),
    "a mask of mostly foreground": (spoiled.mostly_foreground, "inverted", ONE, (
        "more than 90 % foreground (1): case_3", "swap the values")),
    "too few cases": (spoiled.one_to_train_on, "few_cases", NONE, (
        "Splits of few cases: train 1", "dataset.folds=5")),
    "an image twice in a split": (
        spoiled.same_image("case_3", "case_4"), "duplicate", ["case_3", "case_4"], (
        "case_3 and case_4 (train)", "remove one with its mask")),
    "nearly the same image twice in a split": (
        spoiled.similar_image("case_3", "case_4"), "near_duplicate", ["case_3", "case_4"], (
        "case_3 and case_4 (train)", "give them one group")),
    "brighter images in one split": (spoiled.brighter, "shifted", NONE, (
        "The val images are brighter", "mix the sources")),
}  # fmt: skip


@pytest.mark.parametrize("fault", [*ERRORS, *WARNINGS])
def test_each_fault_is_the_one_finding(sample: Sample, fault: str) -> None:
    spoil, code, cases, words = {**ERRORS, **WARNINGS}[fault]
    spoil(sample)
    finding = sample.found(code)
    assert finding.severity == ("error" if fault in ERRORS else "warning")
    assert list(finding.cases) == cases
    for word in words:
        assert word in str(finding)
    assert "\n" not in str(finding)
    assert finding.hint


@pytest.mark.parametrize(
    ("groups", "advice"),
    [
        (1, "scores of so few vary much: add cases"),
        (2, "scores of so few vary much: add cases, or dataset.folds=2 to train and validate on "),
        (7, "scores of so few vary much: add cases, or dataset.folds=5 to train and validate on "),
    ],
)
def test_no_more_folds_are_advised_than_there_are_groups(
    sample: Sample, groups: int, advice: str
) -> None:
    for number, name in enumerate(EVERY[:15]):
        sample.change(name, group=f"patient_{number % groups}")
    del sample.cases[EVERY[-1]]
    found = [one for one in sample.check().findings if one.code == "few_cases"]
    assert [one.hint.partition("all in turn")[0] for one in found] == [advice]


def test_12_bits_in_16_are_dark_only_where_the_type_counts(sample: Sample) -> None:
    spoiled.twelve_bits(sample)
    finding = sample.found("low_range", normalize="unit")
    assert list(finding.cases) == EVERY
    for word in ("almost black (20): case_0; case_1", "dataset.normalize=dataset"):
        assert word in str(finding)
    for way in ({}, {"normalize": "percentile"}, {"normalize": "unit", "window": (0, 4095)}):
        assert not sample.check(**way).findings


def test_beside_8_bits_other_values_need_a_window(sample: Sample) -> None:
    sample.write("case_3", sample.image("case_3").astype(np.float32) * 5 - 360)
    error, mixed = sample.check().findings
    assert (error.severity, error.code, mixed.code) == ("error", "unsuitable", "mixed")
    assert "case_3.tif holds float32 from 40 to" in error.message
    assert "dataset.window=[low,high]" in error.hint
    (mixed,) = sample.check(window=(-360, 1000)).findings
    assert mixed.code == "mixed"


def test_stacks_of_several_lengths_may_hold_another_thing_in_a_page(sample: Sample) -> None:
    def with_pages(unlike: int) -> list[Finding]:
        for name in EVERY:
            file = sample.cases[name].image.with_suffix(".tif")
            pages = unlike if name == "case_3" else 2
            tifffile.imwrite(file, np.stack([sample.image(name)] * pages), photometric="rgb")
            sample.change(name, image=file)
        return list(check_dataset(replace(sample.index(), page=0), SETTINGS).findings)

    assert with_pages(2) == []
    (finding,) = with_pages(3)
    assert (finding.code, finding.cases) == ("pages", ("case_3",))
    assert "19 of 2 pages, 1 of 3 pages; not of the commonest: case_3" in finding.message


def test_masks_without_any_foreground_are_nothing_to_learn_from(sample: Sample) -> None:
    for name in TRAIN:
        sample.write(name, mask=np.zeros((SIZE, SIZE), np.uint8))
    findings = sample.check().findings
    assert [finding.code for finding in findings] == ["no_foreground", "empty", "absent_class"]
    assert findings[0].severity == "error"
    assert "None of the 10 training masks" in findings[0].message
    assert "check the masks" in findings[0].hint
    assert findings[1].cases == tuple(TRAIN)


def test_the_same_image_with_another_mask_contradicts(sample: Sample) -> None:
    spoiled.other_masks(sample)
    findings = {finding.code: finding for finding in sample.check().findings}
    assert list(findings) == ["duplicate", "contradiction"]
    assert "case_3 and case_4 (train)" in findings["contradiction"].message
    assert "remove the worse" in findings["contradiction"].hint


@pytest.mark.parametrize(
    ("leak", "code"),
    [
        (spoiled.same_image, "leak"),
        (spoiled.similar_image, "near_leak"),
        (spoiled.one_patient, "shared_group"),
    ],
)
def test_only_leaks_into_an_official_split_are_warnings(sample: Sample, leak, code: str) -> None:
    sample.official = ("test",)
    leak("case_3", "case_17")(sample)
    finding = sample.found(code)
    assert (finding.severity, finding.cases) == ("warning", ("case_3", "case_17"))
    assert "the publisher's" in finding.hint
    sample.change("case_17", split="val")
    assert [found.code for found in sample.check().errors] == [code]


def test_slices_of_a_patient_may_look_alike(sample: Sample) -> None:
    spoiled.similar_image("case_3", "case_4")(sample)
    sample.change("case_4", group="patient_3")
    assert sample.check().findings == ()


def test_a_pair_that_is_known_to_differ_is_waved_through(sample: Sample) -> None:
    spoiled.similar_image("case_3", "case_17")(sample)
    spoiled.similar_image("case_4", "case_5")(sample)
    known = {frozenset(("case_17", "case_3"))}
    assert sample.found("near_duplicate", distinct=known).cases == ("case_4", "case_5")
    known |= {frozenset(("case_4", "case_5"))}
    assert sample.check(distinct=known).findings == ()
    with pytest.raises(UserError, match=r"dataset.distinct names case_99, which are no cases"):
        sample.check(distinct={frozenset(("case_3", "case_99"))})


def test_where_most_images_look_alike_only_equal_ones_leak(sample: Sample) -> None:
    """Of one ultrasound probe, say, whose field of view is most of what the hash sees."""
    noise = np.random.default_rng(0)
    for name in EVERY[4:]:
        changed = sample.image("case_3") // 2 + noise.integers(0, 9, (SIZE, SIZE, 3), np.uint8)
        sample.write(name, changed)
    finding = sample.found("alike")
    assert finding.severity == "warning"
    assert "17 of 20 images look alike" in finding.message
    assert "give those as groups" in finding.hint
    sample.write("case_12", sample.image("case_0"))
    assert [finding.code for finding in sample.check().errors] == ["leak"]


def test_small_objects_ask_for_a_larger_size_or_crops(sample: Sample) -> None:
    finding = sample.found("small_objects", image_size=(8, 8))
    assert finding.severity == "warning"
    assert "At dataset.image_size=8 the objects are" in finding.message
    assert "dataset.image_size=128, or dataset.sampling=crop" in finding.hint
    assert sample.check(image_size=(8, 8), crops=True).findings == ()


def test_percentiles_make_up_for_a_low_range(sample: Sample) -> None:
    spoiled.twelve_bits(sample)
    assert sample.check(normalize="percentile").findings == ()


def test_crops_squash_nothing(sample: Sample) -> None:
    spoiled.long(sample)
    assert sample.check(crops=True).findings == ()


def test_several_faults_are_all_found_and_errors_come_first(sample: Sample) -> None:
    spoiled.similar_image("case_5", "case_6")(sample)
    spoiled.truncated(sample)
    spoiled.strange_value(sample)
    sample.cases["case_7"].image.write_bytes(b"")
    check = sample.check()
    assert [found.code for found in check.findings] == ["unreadable", "labels", "near_duplicate"]
    assert check.findings[0].cases == ("case_3", "case_7")
    assert check.concerns()["case_3"] == ["unreadable", "labels"]
    assert (len(check.errors), len(check.warnings)) == (2, 1)


def test_many_cases_are_cut_in_the_line_but_not_in_the_finding(sample: Sample) -> None:
    for name in EVERY[:12]:
        sample.write(name, mask=sample.mask(name)[:40])
    finding = sample.found("sizes")
    assert finding.message.count("pixels") == 10
    assert finding.message.endswith("; ... 12 in all")
    assert len(finding.cases) == 12
