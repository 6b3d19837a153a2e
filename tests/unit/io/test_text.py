"""Text from files is harmless wherever it is shown, and its names are read as they were written."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Group
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from medt.io.console import safe_console
from medt.io.terminal import safe_output
from medt.io.text import (
    abridged,
    csv_text,
    for_csv_cell,
    for_error,
    for_markdown,
    for_markdown_code,
    for_terminal,
    from_csv_cell,
    is_folder_name,
    is_name,
    json_text,
)

CLEAR = "\x1b[2J\x1b]0;pwned\x07"
TURNED = "a\u202egnp.exe"
HOSTILE = [
    CLEAR,
    TURNED,
    "a\nb\r\tc",
    "\x9b2J",
    "a\u200bb",
    "\udcff",
    "\x00",
    "\u2028",
    "\U000e0041",
]
FORMULAS = ["=1+1.png", "+1+1", "-1+1", "@SUM(A1)", '"=1', " =1", "'=1", "''=1", "a;=1", ";;-x"]
anything = st.text(st.characters(), max_size=40)  # halves of characters, too
names = anything.filter(is_name)


@given(anything)
@example(CLEAR)
@example("\ud800")
def test_a_terminal_gets_characters_that_are_seen(text: str) -> None:
    shown = for_terminal(text)
    assert shown.isprintable()
    assert for_terminal(shown) == shown
    assert (shown == text) == text.isprintable()


def test_escapes_say_what_they_stand_for() -> None:
    assert for_terminal(CLEAR) == r"\x1b[2J\x1b]0;pwned\x07"
    assert for_terminal(TURNED) == r"a\u202egnp.exe"
    assert for_terminal("a\nb", keep="\n") == "a\nb"
    assert for_terminal("Drüse 腺 a b") == "Drüse 腺 a b"


def test_long_names_lose_their_middle() -> None:
    assert abridged("a" * 200) == "a" * 200
    assert abridged("a" * 500 + ".png") == "a" * 99 + "…" + "a" * 96 + ".png"
    assert len(abridged("a" * 10**6, 33)) == 33


def test_an_error_is_one_line_without_endless_words() -> None:
    assert for_error(f"{CLEAR}\nb") == r"\x1b[2J\x1b]0;pwned\x07\nb"
    names = " ".join(f"{i}.png" for i in range(10_000))
    assert for_error(names) == names
    assert len(for_error("a b" + "c" * 10_000)) == 202


@pytest.mark.parametrize("text", ["", "a" * 256, *HOSTILE])
def test_what_is_no_name(text: str) -> None:
    assert not is_name(text) or text in ("a\u200bb", "\U000e0041")


@pytest.mark.parametrize("text", [".", "..", " ", "a/b", "../a", "a\\b", "C:x", "/a", "", "a\nb"])
def test_what_names_no_folder(text: str) -> None:
    assert not is_folder_name(text)


@pytest.mark.parametrize("text", ["glas", "a b", "..a", "Drüse 腺", "=1+1", "a-b"])
def test_what_names_a_folder(text: str) -> None:
    assert is_folder_name(text)


class TestSpreadsheets:
    @given(anything)
    @example("=1+1")
    def test_no_cell_is_a_formula(self, text: str) -> None:
        for cell in for_csv_cell(text).split(";"):
            start = cell.lstrip(' "')[:1]
            assert start not in tuple("=+-@\t\r\n") or re.fullmatch(r"[+-][0-9.e+-]+", cell, re.I)

    @given(st.lists(st.lists(names, min_size=1, max_size=4), max_size=4))
    @example([FORMULAS])
    def test_names_are_read_as_they_were_written(self, rows: list[list[str]]) -> None:
        found = list(csv.reader(io.StringIO(csv_text(rows), newline="")))
        assert [[from_csv_cell(cell) for cell in row] for row in found] == rows

    @pytest.mark.parametrize("text", FORMULAS)
    def test_a_formula_gets_an_apostrophe(self, text: str) -> None:
        cell = for_csv_cell(text)
        assert len(cell) == len(text) + 1
        assert from_csv_cell(cell) == text

    def test_numbers_stay_numbers(self) -> None:
        assert (
            csv_text([[-0.5, "-0.500000", "+3", "1e-05", None, 7]])
            == "-0.5,-0.500000,+3,1e-05,,7\n"
        )

    def test_controls_are_escapes(self) -> None:
        assert csv_text([[CLEAR, "a\nb"]]) == "\\x1b[2J\\x1b]0;pwned\\x07,a\\nb\n"


class TestMarkdown:
    @given(anything)
    def test_is_one_line_without_html(self, text: str) -> None:
        for line in (for_markdown(text), for_markdown_code(text)):
            assert line.isprintable()
        assert not re.search("[<>]", for_markdown(text))

    @pytest.mark.parametrize(
        ("text", "card"),
        [
            ("<script>alert(1)</script>", r"&lt;script&gt;alert\(1\)&lt;/script&gt;"),
            ("[a](http://b.c)", r"\[a\]\(http\://b\.c\)"),
            ("a\n# b", r"a\\n\# b"),
            ("`a` | *b* _c_ ~d~ $e$", r"\`a\` \| \*b\* \_c\_ \~d\~ \$e\$"),
            ("- a", r"\- a"),
            ("1. a", r"1\. a"),
            ("&lt;", r"&amp;lt\;"),
            ("glas-test_2 Drüse", "glas-test_2 Drüse"),
            ("    a    b", "a b"),
        ],
    )
    def test_marks_are_seen_as_what_they_are(self, text: str, card: str) -> None:
        assert for_markdown(text) == card

    def test_code_ends_where_it_should(self) -> None:
        assert for_markdown_code("a.png") == "`a.png`"
        assert for_markdown_code("a`<b>``c\n") == "``` a`<b>``c\\n ```"


@given(
    st.recursive(
        anything | st.integers() | st.none(),
        lambda v: st.lists(v) | st.dictionaries(anything, v),
        max_leaves=5,
    )
)
def test_json_means_the_same_and_can_be_shown(value: object) -> None:
    text = json_text(value)
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == value
    assert json.loads(json_text(value, indent=None)) == value


class TestWhatScriptsPrint:
    @pytest.mark.parametrize("text", HOSTILE)
    def test_is_seen_as_it_is(self, text: str, capsys: pytest.CaptureFixture[str]) -> None:
        with safe_output():
            print(text)
            print(text, file=sys.stderr)
            sys.stderr.writelines([text, "\n"])
            safe_console().print(text, Text(text, style="red"))
            safe_console(sys.stderr).print(Group(text, Text(text)))
        for stream in capsys.readouterr():
            assert stream.replace("\n", "").isprintable()
            assert for_terminal(text, keep="\n").split("\n")[0] in stream

    @pytest.mark.parametrize("text", ["a[/].png", "[red]a", "[/red]", ":smile:", "a[b]", "\\[a]"])
    def test_markup_in_names_is_text(self, text: str, capsys: pytest.CaptureFixture[str]) -> None:
        table = Table(title=text, caption=text)
        table.add_column(text)
        table.add_row(text)
        table.add_row(Text(text))
        safe_console(width=200).print(table, text)
        assert capsys.readouterr().out.count(text) == 6

    def test_colours_and_bars_are_left_to_a_terminal(self) -> None:
        screen = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", screen)
            with safe_output():
                terminal = safe_console(force_terminal=True, color_system="standard")
                terminal.print(Text("b", style="red"))
                terminal.print(Text(CLEAR, style="red"))
                with Progress(console=terminal), safe_output():
                    print(CLEAR)
        shown = screen.getvalue()
        assert "\x1b[31mb\x1b[0m" in shown
        assert "\x1b[?25l" in shown
        assert CLEAR not in shown
        assert "\x1b[2J" not in shown
        assert shown.count(r"\x1b[2J") == 2

    @pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
    def test_what_cannot_be_encoded_is_an_escape(self, encoding: str) -> None:
        code = (
            "from medt.io.console import safe_console\n"
            "from medt.io.terminal import safe_output\n"
            "with safe_output():\n"
            "    print('a\\udcff \\u817a'); safe_console().print('b\\udcff \\u817a')\n"
        )
        environment = {"PYTHONIOENCODING": encoding, "PYTHONPATH": ":".join(sys.path)}
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, env=environment
        )
        rest = "\u817a" if encoding == "utf-8" else r"\u817a"
        assert run.stdout.decode(encoding) == rf"a\udcff {rest}" + "\n" + rf"b\udcff {rest}" + "\n"
        assert not run.stderr

    def test_a_process_without_a_terminal_prints_nothing(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", None)
            with safe_output():
                print("a")
