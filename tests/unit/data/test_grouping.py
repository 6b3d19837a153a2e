"""Cases belong together as a pattern of their names, or a table, says."""

from __future__ import annotations

from pathlib import Path

import pytest

from medt.data.grouping import groups_by, suggested_groups
from medt.errors import UserError

NAMES = ["p1_1", "p1_2", "p2_1", "p10_30"]


def by(rule: str, names: list[str] = NAMES) -> dict[str, str]:
    return groups_by(rule, {name: Path(f"/data/{name[:2]}/images/{name}.png") for name in names})


@pytest.mark.parametrize(
    ("rule", "groups"),
    [
        ("(*)_#", ["p1", "p1", "p2", "p10"]),
        ("(*)_*", ["p1", "p1", "p2", "p10"]),
        ("p(#)_*", ["1", "1", "2", "10"]),
        ("(p?)*", ["p1", "p1", "p2", "p1"]),
        ("(*)/images/*", ["p1", "p1", "p2", "p1"]),
        ("p*_(#)", ["1", "2", "1", "30"]),
    ],
)
def test_a_pattern_says_the_group(rule: str, groups: list[str]) -> None:
    assert by(rule) == dict(zip(NAMES, groups, strict=True))


def test_other_characters_of_a_pattern_are_themselves() -> None:
    assert by("(*).[x]+_#", ["a.[x]+_1", "b.[x]+_2"]) == {"a.[x]+_1": "a", "b.[x]+_2": "b"}


def test_a_table_says_the_group(tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("case,age,patient\np1_1,1,Anna\np1_2,1,Anna\np2_1,2,Bob\np10_30,,Eve\nx,,y\n")
    assert list(by(f"{table}:patient").values()) == ["Anna", "Anna", "Bob", "Eve"]
    table.write_text("case,patient\np1_1,Anna\np1_2,\n")
    with pytest.raises(UserError, match=r"patients.csv names no group for p1_2; p2_1; p10_30"):
        by(f"{table}:patient")
    with pytest.raises(UserError, match=r"patients.csv has no column eye"):
        by(f"{table}:eye")


@pytest.mark.parametrize("rule", ["", "*_#", "(*", "(*)(_#)", "*)(", "(*)_*_*_*", "((*))"])
def test_what_is_no_pattern_is_refused(rule: str) -> None:
    with pytest.raises(UserError, match=r"dataset.group=.* is no pattern") as raised:
        by(rule)
    assert "'(*)_#'" in raised.value.hint


def test_names_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match=r"dataset.group=p1_\(#\) names no group for p2_1; p10_30"):
        by("p1_(#)")


def test_a_pattern_that_backtracks_ends() -> None:
    names = [f"{'a' * 250}{number}" for number in range(50)]
    with pytest.raises(UserError, match="names no group for"):
        by("(*a*a*b)", names)


@pytest.mark.parametrize(
    ("names", "pattern", "count"),
    [
        ([f"video{v}_frame_{f}" for v in range(4) for f in range(5)], "(*)_*_*", 4),
        ([f"{v}-{f}" for v in "abc" for f in range(5)], "(*)-#", 3),
        ([f"patient{v} {f}" for v in range(4) for f in "xyz"], "(*) *", 4),
    ],
)
def test_names_suggest_groups(names: list[str], pattern: str, count: int) -> None:
    suggestion = suggested_groups(names)
    assert suggestion is not None
    assert suggestion.pattern == pattern
    assert len(set(suggestion.groups.values())) == count


@pytest.mark.parametrize(
    "names",
    [
        [f"case_{number}" for number in range(20)],
        [f"{number}" for number in range(20)],
        [f"train_{n}" for n in range(9)] + [f"test_{n}" for n in range(9)],
        ["cju1", "cju2x", "cju3", "a_b"],
        [f"p{number}_1" for number in range(20)],
        [],
    ],
)
def test_names_that_only_count_suggest_nothing(names: list[str]) -> None:
    assert suggested_groups(names) is None
