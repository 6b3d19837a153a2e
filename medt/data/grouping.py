"""Which cases belong together: by a pattern of their names, by a table, as the names suggest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from medt.data.layout import DatasetIndex, listed
from medt.data.splits import SplitRow, check_groups, digest_of, lost_zeros
from medt.errors import UserError
from medt.io.plain import read_table
from medt.io.text import from_csv_cell, is_name

# A pattern may come from a file of a stranger: each part may be tried at every place of a name.
MOST_WILDCARDS = 3
WILDCARDS = {"*": ".*?", "?": ".", "#": "[0-9]+"}
TABLE = re.compile(r"(.+\.csv):([^:/\\]+)", re.IGNORECASE)
# Patterns that are tried on names, the finest first; those of one group a case, or of very few
# groups, say nothing.
USUAL = ("(*)_*_*", "(*)-*-*", "(*)_#", "(*)-#", "(*)_*", "(*)-*", "(*) *", "(*)#")
FEWEST_GROUPS = 3


class Suggestion(NamedTuple):
    """A pattern that parts the names of cases into groups, and the group of each case."""

    pattern: str
    groups: dict[str, str]


def groups_by(rule: str, images: Mapping[str, Path]) -> dict[str, str]:
    """Case -> its group, by a rule.

    Args:
        rule: a pattern, in which ``*`` stands for any characters, ``?`` for one, ``#`` for a number
            and the parenthesis holds the group, as in ``(*)_frame#``; it is matched with the whole
            name of a case or, where it holds a slash, with the end of its image's path without the
            extension. Or ``FILE.csv:COLUMN``, a table with the columns ``case`` and COLUMN.
        images: case -> its image file.

    Raises:
        UserError: the rule is none of these, or does not say the group of every case.
    """
    if table := TABLE.fullmatch(rule):
        found = _by_table(Path(table[1]), table[2])
        source, hint = f"{table[1]}", lost_zeros(images, found) or "one row for each case"
    else:
        expression = _expression(rule)
        texts = {
            name: path.with_suffix("").as_posix() if "/" in rule else name
            for name, path in images.items()
        }
        matched = {name: expression.fullmatch(text) for name, text in texts.items()}
        found = {name: match["group"] for name, match in matched.items() if match}
        source, hint = f"dataset.group={rule}", "e.g. '(*)_#' for patient7_12"
    if unknown := [name for name in images if not found.get(name)]:
        raise UserError(f"{source} names no group for {listed(unknown)}", hint)
    if wrong := [name for name in images if not is_name(found[name])]:
        raise UserError(f"{source} gives {listed(wrong)} a group that is no name", hint)
    return {name: found[name] for name in images}


def with_groups(index: DatasetIndex, rule: str) -> DatasetIndex:
    """The dataset with groups by a rule, in place of those of its split file.

    Raises:
        UserError: as `groups_by`; or a group would be in several splits.
    """
    groups = groups_by(rule, {case.name: case.image for case in index.cases})
    cases = tuple(replace(case, group=groups[case.name]) for case in index.cases)
    rows = [SplitRow(case.name, case.group, case.split, case.fold) for case in cases]
    try:
        check_groups(rows, f"dataset.group={rule} with {index.splits_file}")
    except UserError as error:
        raise UserError(
            error.message, "move or delete the split file, and one is drawn that keeps them apart"
        ) from error
    return replace(
        index, cases=cases, splits_digest=digest_of(rows), grouped_by=f"groups, by {rule}"
    )


def suggested_groups(names: Sequence[str]) -> Suggestion | None:
    """The finest usual pattern by which names fall into at least three groups of several cases."""
    for pattern in USUAL:
        expression = _expression(pattern)
        matches = [expression.fullmatch(name) for name in names]
        groups = {name: match["group"] for name, match in zip(names, matches, strict=True) if match}
        sizes = Counter(groups.values())
        if len(groups) == len(names) and FEWEST_GROUPS <= len(sizes) <= len(names) / 2:
            return Suggestion(pattern, groups)
    return None


def _by_table(file: Path, column: str) -> dict[str, str]:
    rows = read_table(file, ("case", column))
    return {from_csv_cell(row["case"].strip()): from_csv_cell(row[column].strip()) for row in rows}


def _expression(rule: str) -> re.Pattern[str]:
    inside = re.findall(r"[()]", rule)
    if inside != ["(", ")"] or sum(map(rule.count, WILDCARDS)) > MOST_WILDCARDS:
        raise UserError(
            f"dataset.group={rule} is no pattern",
            f"one pair of parentheses and at most {MOST_WILDCARDS} of * ? #, e.g. '(*)_#', or "
            "FILE.csv:COLUMN",
        )
    parts = {"(": "(?P<group>", ")": ")", **WILDCARDS}
    body = "".join(parts.get(letter, re.escape(letter)) for letter in rule)
    start = "(?:.*/)?" if "/" in rule else ""
    return re.compile(start + body, re.DOTALL)
