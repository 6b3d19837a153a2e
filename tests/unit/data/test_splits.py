"""Splits are deterministic, complete, and keep patients together."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medt.data.splits import (
    SplitRow,
    check_groups,
    draw_splits,
    read_splits,
    validation_groups,
    write_splits,
)
from medt.errors import UserError

GLAS = Path(__file__).parents[3] / "data" / "splits" / "glas.csv"


def test_a_written_file_reads_back(tmp_path: Path) -> None:
    rows = [SplitRow("case, 2", "p1", "train"), SplitRow("ä10", "", "test")]
    write_splits(tmp_path / "s.csv", reversed(rows))
    assert read_splits(tmp_path / "s.csv") == rows


def test_further_columns_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("case,group,split,grade\na,p,val,3\n", encoding="utf-8-sig")
    assert read_splits(path) == [SplitRow("a", "p", "val")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,split\na,train\n", "no column group"),
        ("case,group,split\na,,dev\n", "line 2: unknown split 'dev'"),
        ("case,group,split\na,,train\na,,val\n", "line 3: case a for the second time"),
        ("case,group,split\n,,train\n", "line 2: a row without a case"),
        ("case,group,split\na\n", "line 2 has 1 fields, the first line 3"),
        ("case,group,split\n", "names no cases"),
        ("", "no column case, group, split"),
    ],
)
def test_a_faulty_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_splits(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No split file .*s\.csv"):
        read_splits(tmp_path / "s.csv")


def test_groups_may_not_be_shared_but_unknown_ones_say_nothing() -> None:
    fine = [SplitRow("a", "p", "train"), SplitRow("b", "", "train"), SplitRow("c", "", "test")]
    check_groups(fine, Path("s.csv"))
    with pytest.raises(UserError, match=r"p \(train, test\)"):
        check_groups([*fine, SplitRow("d", "p", "test")], Path("s.csv"))


@settings(max_examples=100, deadline=None)
@given(names=st.sets(st.text(min_size=1, max_size=4), max_size=60), seed=st.integers(0, 2**32))
def test_a_draw_deals_every_case_once(names: set[str], seed: int) -> None:
    rows = draw_splits(sorted(names), seed)
    assert sorted(row.case for row in rows) == sorted(names)
    assert rows == draw_splits(sorted(names, reverse=True), seed)
    counts = Counter(row.split for row in rows)
    if len(names) >= 3:
        assert min(counts[split] for split in ("train", "val", "test")) >= 1
    elif names:
        assert counts["train"] == 1


def test_a_draw_keeps_the_fractions() -> None:
    names = [str(i) for i in range(200)]
    assert Counter(row.split for row in draw_splits(names, 0)) == {
        "train": 140,
        "val": 30,
        "test": 30,
    }
    without_test = Counter(row.split for row in draw_splits(names, 0, (0.8, 0.2, 0.0)))
    assert without_test == {"train": 160, "val": 40}
    assert draw_splits(names, 0) != draw_splits(names, 1)


def test_fractions_add_up() -> None:
    with pytest.raises(UserError, match="do not add up"):
        draw_splits(["a"], 0, (0.7, 0.2, 0.2))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=4, max_size=60).filter(
        lambda cases: len({group for group, _ in cases}) > 1
    ),
    st.integers(0, 100),
)
def test_validation_leaves_groups_to_train_on(cases: list[tuple[int, bool]], seed: int) -> None:
    groups = {str(i): str(group) for i, (group, _) in enumerate(cases)}
    strata = {str(i): str(kind) for i, (_, kind) in enumerate(cases)}
    chosen = validation_groups(groups, strata, seed)
    assert set() < chosen < set(groups.values())
    assert chosen == validation_groups(groups, strata, seed)


@pytest.mark.parametrize("count", [10, 40])
def test_validation_is_a_fifth_of_every_stratum_where_that_is_possible(count: int) -> None:
    groups = {f"{g}-{i}": f"g{g}" for g in range(count) for i in range(3)}
    strata = {case: "odd" if int(group[1:]) % 2 else "even" for case, group in groups.items()}
    chosen = validation_groups(groups, strata, seed=3)
    kinds = Counter(strata[case] for case, group in groups.items() if group in chosen)
    assert kinds == {"odd": 3 * count // 10, "even": 3 * count // 10}


def test_both_parts_hold_a_rare_stratum() -> None:
    groups = {f"{g}-{i}": f"g{g}" for g in range(10) for i in range(3)}
    strata = dict.fromkeys(groups, "common")
    for group in ("g0", "g1"):
        groups[f"rare-{group}"], strata[f"rare-{group}"] = group, "rare"
    assert len(validation_groups(groups, strata, seed=0) & {"g0", "g1"}) == 1


def test_validation_of_a_single_group_is_impossible() -> None:
    with pytest.raises(UserError, match="at least two groups"):
        validation_groups({"a": "p", "b": "p"}, {"a": "x", "b": "x"}, 0)


def test_the_committed_glas_split_is_by_patient_and_complete() -> None:
    rows = read_splits(GLAS)
    check_groups(rows, GLAS)
    assert Counter(row.split for row in rows) == {"train": 68, "val": 17, "test": 80}
    assert {row.case for row in rows if row.split != "test"} == {f"train_{i}" for i in range(1, 86)}
    assert all(row.group for row in rows if row.split != "test")
    assert {row.case[:5] for row in rows if row.split == "test"} == {"testA", "testB"}
