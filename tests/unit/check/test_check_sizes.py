"""Whether a run's image_size and sampling suit the objects, and the one line where they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from check_sample import SETTINGS
from test_check_facts import fact

from medt.check.cases import CaseFacts
from medt.check.finding import Finding
from medt.check.sizes import size_findings
from medt.check.suggestions import suggest_size


def objects(height: int, width: int, small: float, typical: float) -> CaseFacts:
    """A case whose smaller and typical objects are so many pixels across."""
    facts = fact(height, width, small)
    return replace(facts, mask=replace(facts.mask, typical=typical))


def found(*facts: CaseFacts, size: tuple[int, int], crops: bool = False) -> Finding | None:
    findings = list(size_findings(facts, replace(SETTINGS, image_size=size, crops=crops)))
    assert len(findings) <= 1, "one line at most"
    return findings[0] if findings else None


def test_a_size_below_half_of_the_suggested_one_is_told_with_the_keys_to_paste() -> None:
    nuclei = objects(1000, 1000, small=13, typical=44)
    assert suggest_size([nuclei]).size == (512, 512)
    finding = found(nuclei, size=(128, 128))
    assert (finding.code, finding.severity, finding.cases) == ("size", "warning", ())
    assert finding.message == (
        "At dataset.image_size=128 the objects are 5.6 pixels across (median), 4.0 times less than "
        "at the size that is suggested"
    )
    assert finding.hint.startswith("dataset.image_size=512, or dataset.sampling=crop, which")
    assert found(nuclei, size=(256, 256)) is None, "half of it is not less than half"
    assert found(nuclei, size=(512, 512)) is None
    assert found(nuclei, size=(128, 128), crops=True) is None


def test_objects_that_vanish_are_told_once() -> None:
    assert found(objects(1000, 1000, 15, 24), size=(128, 128)).code == "small_objects"


@pytest.mark.parametrize("turned", [False, True])
def test_wide_and_tall_images_are_measured_along_the_side_that_shrinks_more(turned: bool) -> None:
    """The area would say 1.7 times."""
    height, width = (2000, 500) if turned else (500, 2000)
    wide = objects(height, width, small=48, typical=80)
    size = (384, 128) if turned else (128, 384)
    assert suggest_size([wide]).size == size
    finding = found(wide, size=(128, 128))
    assert finding.code == "size"
    assert "are 5.1 pixels across (median), 3.0 times less" in finding.message
    shown = "[384,128]" if turned else "[128,384]"
    assert finding.hint.startswith(f"dataset.image_size={shown}, or dataset.sampling=crop")
    assert found(wide, size=size) is None


def test_images_of_both_orientations_are_measured_each_by_its_own_sides() -> None:
    """The medians of the heights and of the widths are those of a square that none of them is."""
    both = [fact(500, 1500, 200), fact(1500, 500, 200)]
    suggested = suggest_size(both)
    assert suggested.size == (128, 128)
    assert "squashed by a factor of 3.0" in suggested.reason
    assert "become 17 pixels wide" in suggested.reason


def test_images_of_many_sizes_are_measured_each_by_its_own_scale() -> None:
    """At 128 these are 4.5, 30 and 5 pixels; the median object in the median image would be 20."""
    many = [*[fact(256, 256, 9)] * 2, fact(256, 256, 60), *[fact(1024, 1024, 40)] * 2]
    assert suggest_size(many).size == (256, 256)


def test_too_large_a_size_is_told_too() -> None:
    glands = objects(522, 775, small=80, typical=150)
    finding = found(glands, size=(512, 512))
    assert finding.code == "size"
    assert "are 99.1 pixels across (median), 4.0 times more than" in finding.message
    assert finding.hint.startswith("dataset.image_size=128 saves")
    assert found(glands, size=(256, 256)) is None


def test_crops_that_hold_no_object_are_told() -> None:
    glands = objects(522, 775, small=80, typical=150)
    finding = found(glands, size=(128, 128), crops=True)
    assert finding.code == "size"
    assert "hardly hold the objects, 150 pixels across (median), 6.1 times" in finding.message
    assert finding.hint == "dataset.sampling=resize dataset.image_size=128"
    assert found(glands, size=(384, 384), crops=True) is None, "they hold two"


def test_where_no_size_suffices_crops_are_named_alone() -> None:
    cells = objects(4000, 4000, small=10, typical=50)
    finding = found(cells, size=(512, 512))
    assert (finding.code, "7.8 times less" in finding.message) == ("size", True)
    assert finding.hint.startswith("dataset.sampling=crop")


def test_small_images_need_not_be_enlarged() -> None:
    assert suggest_size([fact(64, 64, 30)]).size == (128, 128)
    assert found(fact(64, 64, 30), size=(32, 32)) is None
    assert found(fact(64, 64, 30), size=(16, 16)).code == "size"


def test_without_objects_nothing_is_said() -> None:
    assert found(fact(1000, 1000), size=(32, 32)) is None
    assert found(replace(fact(1000, 1000), mask=None), size=(32, 32)) is None
