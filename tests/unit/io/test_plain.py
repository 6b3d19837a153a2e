"""Files of plain values from anybody: read whole and bounded, or refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from medt.errors import UserError
from medt.io import plain
from medt.io.files import natural_key, read_bytes
from medt.io.plain import check_plain, read_json, read_table, read_text, read_yaml

Reader = Callable[[Path], Any]
READERS: list[Reader] = [read_text, read_json, read_yaml, lambda path: read_table(path, ("case",))]


def values(floats: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | floats | st.text(max_size=20),
        lambda parts: (
            st.lists(parts, max_size=4) | st.dictionaries(st.text(max_size=5), parts, max_size=4)
        ),
        max_leaves=20,
    )


@pytest.mark.parametrize("read", READERS)
class TestWhatIsOpened:
    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
    def test_is_no_pipe(self, tmp_path: Path, read: Reader) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(UserError, match="pipe is no regular file"):
            read(tmp_path / "pipe")

    @pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there are no devices")
    def test_is_no_device(self, read: Reader) -> None:
        with pytest.raises(UserError, match="/dev/zero is no regular file"):
            read(Path("/dev/zero"))

    def test_is_a_file_that_is_there(self, tmp_path: Path, read: Reader) -> None:
        with pytest.raises(UserError, match=r"No file .*nothing"):
            read(tmp_path / "nothing")
        with pytest.raises(UserError, match="Cannot read"):
            read(tmp_path)

    def test_is_text(self, tmp_path: Path, read: Reader) -> None:
        (tmp_path / "a").write_bytes(b"case\n\xff\xfe")
        with pytest.raises(UserError, match="UTF-8"):
            read(tmp_path / "a")

    def test_is_not_larger_than_text_is(
        self, tmp_path: Path, read: Reader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with (tmp_path / "a").open("wb") as file:
            file.truncate(2**40)
        with pytest.raises(UserError, match="a has 1,099,511"):
            read(tmp_path / "a")


def test_the_limit_of_other_files_can_be_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(bytes(2000))
    monkeypatch.setenv("MEDT_MAX_FILE_BYTES", "1999")
    with pytest.raises(UserError, match="MEDT_MAX_FILE_BYTES"):
        read_bytes(tmp_path / "a")
    monkeypatch.setenv("MEDT_MAX_FILE_BYTES", "2000")
    assert read_bytes(tmp_path / "a") == bytes(2000)


@given(values(st.floats(allow_nan=False, allow_infinity=False)))
def test_plain_values_come_back_from_json_as_they_were(tmp_path_factory: Any, value: Any) -> None:
    file = tmp_path_factory.mktemp("plain") / "a.json"
    file.write_text(json.dumps(value))
    assert repr(read_json(file)) == repr(value)


@given(values(st.floats()))
def test_and_from_yaml(tmp_path_factory: Any, value: Any) -> None:
    file = tmp_path_factory.mktemp("plain") / "a.yaml"
    file.write_text(yaml.safe_dump(value, allow_unicode=True))
    assert repr(read_yaml(file)) == repr(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 3000 + "]" * 3000, id="deep"),
        pytest.param("{'a':" * 3000, id="deep and torn"),
        pytest.param("[" * 40 + "]" * 40, id="a little too deep"),
        pytest.param('{"a": 1' + "0" * 5000 + "}", id="5000 digits"),
        pytest.param('{"a": 1' + "0" * 400 + "}", id="400 digits"),
        pytest.param('{"a": ', id="torn"),
        pytest.param('"' + "x" * 200_000 + '"', id="long text"),
    ],
)
@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_what_is_damaged_deep_or_endless_is_one_line(
    tmp_path: Path, read: Reader, text: str
) -> None:
    (tmp_path / "a").write_text(text)
    with pytest.raises(UserError, match=r"a (is|holds)") as caught:
        read(tmp_path / "a")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a: &a [1]\nb: *a", id="reference"),
        pytest.param(
            "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [{f'*a{i},' * 9}]\n" for i in range(9)),
            id="billion laughs",
        ),
        pytest.param("a: &a {x: 1}\nb: {<<: [*a, *a]}", id="merge"),
        pytest.param("!!python/object/apply:os.system [ls]", id="call"),
        pytest.param("a: 2020-01-01", id="date"),
        pytest.param("a: !!binary aGk=", id="bytes"),
        pytest.param("? [1, 2]\n: 3", id="list as key"),
        pytest.param("1.5: 3", id="number as key"),
    ],
)
def test_yaml_is_plain_values_only(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=r"a\.yaml (is|holds|has)"):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.seconds
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a: " + ":".join("1" * 100_000), id="to base 60"),
        pytest.param("a: " + ":".join("1" * 100_000) + ".5", id="a fraction to base 60"),
        pytest.param("a: !!int '" + ":".join("1" * 100_000) + "'", id="said to be whole"),
        pytest.param("a: 1." + "0" * 90_000, id="a long fraction"),
        pytest.param("a: 0x" + "f" * 90_000, id="a long number to base 16"),
        pytest.param(
            "".join(f"{i * (2**61 - 1)}: 1\n" for i in range(1, 20_000)), id="keys that hash alike"
        ),
    ],
)
def test_numbers_that_take_long_to_read_are_refused_unread(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=r"a\.yaml .*(number|text) of"):
        read_yaml(tmp_path / "a.yaml")


def test_what_looks_like_a_time_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("[12:30, 1:2.5, 12, -0x1f, 1_000, 2.5, .inf, 1e3]")
    expected = ["12:30", "1:2.5", 12, -31, 1000, 2.5, float("inf"), "1e3"]
    assert read_yaml(tmp_path / "a.yaml") == expected


def test_nothing_is_interpolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "told")
    (tmp_path / "a.yaml").write_text("a: ${oc.env:SECRET}")
    assert read_yaml(tmp_path / "a.yaml") == {"a": "${oc.env:SECRET}"}


def test_lists_that_share_themselves_unfold_no_further_than_allowed() -> None:
    laughs: list[Any] = ["ha"]
    for _ in range(30):
        laughs = [laughs] * 10
    with pytest.raises(UserError, match="more than 1,000,000 values"):
        check_plain(laughs, "a.pt")
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UserError, match="nested deeper"):
        check_plain(endless, "a.pt")


def test_other_types_are_refused_unless_allowed() -> None:
    for value in (b"x", {1, 2}, object(), 1j, {True: 1}, {None: 1}):
        with pytest.raises(UserError, match="do not trust"):
            check_plain({"a": [value]}, "a.pt")
    check_plain({"a": [b"x"]}, "a.pt", lambda value: value == b"x")


class TestTables:
    def read(self, tmp_path: Path, text: str) -> list[dict[str, str]]:
        (tmp_path / "a.csv").write_text(text)
        return read_table(tmp_path / "a.csv", ("case", "split"))

    def test_have_the_columns_in_any_order_and_others(self, tmp_path: Path) -> None:
        rows = self.read(tmp_path, '\ufeffsplit,case,more\ntrain,"a\nb",x\n\n')
        assert rows == [{"split": "train", "case": "a\nb", "more": "x"}]

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("case\na\n", "no column split"),
            ("", "no column case, split"),
            ("case,split,case\na,b,c\n", "a column twice"),
            ("case,split\na\n", "line 2 has 1 fields, the first line 2"),
            ("case,split\na,b,c\n", "line 2 has 3 fields"),
            ("case,split\n" + "x" * 200_000 + ",b\n", "field larger than field limit"),
        ],
    )
    def test_are_refused_in_one_line(self, tmp_path: Path, text: str, fault: str) -> None:
        with pytest.raises(UserError, match=fault):
            self.read(tmp_path, text)


def test_numbers_in_names_are_ordered_by_value_however_long() -> None:
    long = "1" + "0" * 5000
    names = [f"a{long}", "a10", "a2", "a010", "a", "b1"]
    assert sorted(names, key=natural_key) == ["a", "a2", "a010", "a10", f"a{long}", "b1"]


def test_no_other_place_reads_text_on_its_own() -> None:
    """Path.read_text waits for pipes and reads without end."""
    package = Path(plain.__file__).parents[1]
    own = {
        "training/memory.py",
        "benchmark/worker.py",
        "benchmark/measure.py",
    }  # the system's figures
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(call in path.read_text() for call in (".read_text(", "safe_load(", "DictReader("))
    }
    assert found == own


def test_reading_does_not_import_torch() -> None:
    code = "import sys, medt.io.plain, medt.signatures, medt.targets; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
