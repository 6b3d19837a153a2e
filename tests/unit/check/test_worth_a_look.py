"""The cases that a check draws: extremes and classes first, the rest over sizes and splits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import check_sample as spoiled
import numpy as np
import pytest
from check_sample import EVERY, SIZE, Sample

from medt.check.sample import worth_a_look


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return Sample(tmp_path)


def chosen(sample: Sample, most: int) -> dict[str, list[str]]:
    """Case -> why it is shown, in order."""
    check = sample.check()
    whole = [facts for facts in check.cases if not facts.faults]
    found = worth_a_look(whole, check.concerns(), check.index.classes, most)
    return {facts.case.name: reasons for facts, reasons in found}


def with_foreground(rows: int) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:rows] = 1
    return mask


def test_extremes_are_shown_and_named(sample: Sample) -> None:
    for i, name in enumerate(EVERY):
        sample.write(name, mask=with_foreground(10 + i))
    sample.write("case_7", mask=with_foreground(60))
    sample.write("case_13", mask=with_foreground(1))
    sample.write("case_5", mask=with_foreground(0))
    big, small = sample.image("case_2"), sample.image("case_16")[:40, :40]
    sample.write("case_2", np.vstack([big, big]), np.vstack([with_foreground(9)] * 2))
    sample.write("case_16", small, with_foreground(9)[:40, :40])
    why = chosen(sample, 9)
    expected = {
        "case_7": "largest foreground",
        "case_13": "smallest foreground",
        "case_5": "empty",
        "case_2": "largest image",
        "case_16": "smallest image",
    }
    for name, reason in expected.items():
        assert reason in why[name]
    assert len(why) == 9


def test_every_class_is_shown_however_rare(sample: Sample) -> None:
    sample.add_class()
    lumen = sample.mask("case_8")
    lumen[20:24, 20:24] = 2
    sample.write("case_8", mask=lumen)
    assert "class lumen" in chosen(sample, 6)["case_8"]
    assert "class gland" not in [reason for why in chosen(sample, 6).values() for reason in why]


def test_the_rest_is_spread_over_sizes_and_splits(sample: Sample) -> None:
    for i, name in enumerate(EVERY):
        sample.write(name, mask=with_foreground(3 + 3 * i))
    why = chosen(sample, 12)
    split = Counter(sample.cases[name].split for name in why)
    assert split == {"train": 4, "val": 4, "test": 4}
    shown = sorted(EVERY.index(name) for name in why)
    assert (shown[0], shown[-1]) == (0, 19)
    assert max(np.diff(shown)) <= 4


def test_findings_take_no_more_than_a_third(sample: Sample) -> None:
    for name in EVERY[:15]:
        sample.write(name, mask=with_foreground(0))
    why = chosen(sample, 6)
    assert sum(reasons == ["empty"] for reasons in why.values()) <= 4
    assert {"largest foreground", "smallest foreground"} <= {r for why in why.values() for r in why}
    assert len(why) == 6


@pytest.mark.parametrize("most", [0, 1, 2, 20, 100])
def test_are_never_more_than_asked_for_nor_twice(sample: Sample, most: int) -> None:
    spoiled.no_foreground(sample)
    why = chosen(sample, most)
    assert len(why) == min(most, len(EVERY))
    assert list(why) == list(chosen(sample, most))


def test_nothing_is_chosen_of_nothing(sample: Sample) -> None:
    check = sample.check()
    assert worth_a_look([], {}, check.index.classes, 12) == []
