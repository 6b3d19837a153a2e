"""Which case is trained on, validated on, tested on: files with the columns case, group, split."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medt.errors import UserError
from medt.files import natural_key, write_text

SPLITS = ("train", "val", "test")
COLUMNS = ("case", "group", "split")
EXHAUSTIVE_GROUPS = 16


@dataclass(frozen=True)
class SplitRow:
    """One line of a split file. ``group`` is the patient or slide, empty where it is not known."""

    case: str
    group: str
    split: str


def read_splits(path: Path) -> list[SplitRow]:
    """Read a split file; further columns are ignored.

    Raises:
        UserError: the file is absent or empty, lacks a column, names a case twice or an unknown
            split.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"No split file {path}", "check the path, or prepare the dataset") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}", "it must be a UTF-8 text file") from error
    reader = csv.DictReader(io.StringIO(text))
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)}",
            f"its first line must be {','.join(COLUMNS)}",
        )
    rows: dict[str, SplitRow] = {}
    for number, record in enumerate(reader, start=2):
        case, group, split = ((record[column] or "").strip() for column in COLUMNS)
        if split not in SPLITS:
            raise UserError(
                f"{path} line {number}: unknown split {split!r}", f"use one of {', '.join(SPLITS)}"
            )
        if not case or case in rows:
            problem = f"case {case} for the second time" if case else "a row without a case"
            raise UserError(f"{path} line {number}: {problem}", "one row per case")
        rows[case] = SplitRow(case, group, split)
    if not rows:
        raise UserError(f"{path} names no cases", "one row per case, or delete the file")
    return list(rows.values())


def write_splits(path: Path, rows: Iterable[SplitRow]) -> None:
    """Write a split file, ordered naturally by case."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in sorted(rows, key=lambda row: natural_key(row.case)):
        writer.writerow((row.case, row.group, row.split))
    write_text(path, buffer.getvalue())


def check_groups(rows: Iterable[SplitRow], path: Path) -> None:
    """Refuse splits that share a patient or slide: their scores would be too good.

    Raises:
        UserError: a group other than the empty one is in several splits; all such groups are named.
    """
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[row.group].add(row.split)
    shared = [
        f"{group} ({', '.join(s for s in SPLITS if s in found)})"
        for group, found in sorted(splits.items(), key=lambda item: natural_key(item[0]))
        if group and len(found) > 1
    ]
    if shared:
        raise UserError(
            f"{path} puts a group into several splits: {'; '.join(shared)}",
            "cases of one patient or slide belong to one split",
        )


def draw_splits(
    cases: Sequence[str], seed: int, fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
) -> list[SplitRow]:
    """Deal cases to train, val and test at random; each case is its own group.

    The result depends on the set of names and the seed, not on the order. With at least 3 cases,
    every part with a fraction above 0 gets at least one; with 2 there is no test part, with 1 only
    train.

    Raises:
        UserError: the fractions are negative or do not add up to 1.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6 or fractions[0] == 0:
        raise UserError(
            f"Split fractions {fractions} do not add up to 1", "e.g. 0.7, 0.15, 0.15; train above 0"
        )
    names = sorted(set(cases), key=natural_key)
    order = np.random.default_rng(seed).permutation(len(names))
    held_out = [0, 0]  # val, test
    for part, fraction in enumerate(fractions[1:]):
        room = len(names) - 1 - sum(held_out) - (part == 0 and fractions[2] > 0 and len(names) > 2)
        held_out[part] = min(max(round(fraction * len(names)), fraction > 0), max(room, 0))
    val, test = held_out
    rows = {
        names[i]: SplitRow(
            names[i], names[i], "val" if place < val else "test" if place < val + test else "train"
        )
        for place, i in enumerate(order)
    }
    return [rows[name] for name in names]


def validation_groups(
    groups: Mapping[str, str], strata: Mapping[str, str], seed: int, fraction: float = 0.2
) -> frozenset[str]:
    """Choose whole groups (patients) for validation.

    Minimises the distance from the wanted number of cases plus the distance from the wanted number
    in each stratum (e.g. grade); both parts hold every stratum if any choice allows it. Among
    equals the one with more groups wins, then the seed decides. Up to 16 groups every subset is
    tried, else 20 000 random ones.

    Args:
        groups: case -> group, at least two groups.
        strata: case -> stratum.
        seed: of ties and of the random subsets.
        fraction: of the cases, between 0 and 1.
    """
    names = sorted(set(groups.values()), key=natural_key)
    kinds = sorted(set(strata.values()))
    if len(names) < 2:
        raise UserError("Validation by groups needs at least two groups", "add a val split by hand")
    pairs = Counter((group, strata[case]) for case, group in groups.items())
    table = np.array([[pairs[name, kind] for kind in kinds] for name in names])
    rng = np.random.default_rng(seed)
    subsets = _subsets(len(names), fraction, rng)
    chosen = subsets @ table
    wanted = fraction * table.sum(axis=0)
    distance = np.abs(chosen - wanted).sum(axis=1) + np.abs(chosen.sum(axis=1) - wanted.sum())
    lacking = ((chosen == 0) | (chosen == table.sum(axis=0))).sum(axis=1)
    order = np.lexsort((rng.random(len(subsets)), -subsets.sum(axis=1), distance, lacking))
    return frozenset(np.array(names)[subsets[order[0]].astype(bool)].tolist())


def _subsets(count: int, fraction: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """(n, count) of 0 and 1, neither all 0 nor all 1."""
    if count <= EXHAUSTIVE_GROUPS:
        numbers = np.arange(1, 2**count - 1)
        bits: NDArray[np.int64] = (numbers[:, None] >> np.arange(count)) & 1
        return bits
    drawn: NDArray[np.int64] = (rng.random((20_000, count)) < fraction).astype(np.int64)
    drawn[0] = np.arange(count) == 0  # one that is surely neither empty nor everything
    sizes = drawn.sum(axis=1)
    proper: NDArray[np.bool_] = (sizes > 0) & (sizes < count)
    return drawn[proper]
