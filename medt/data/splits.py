"""Which case is trained on, validated on, tested on: files with the columns case, group, split."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medt.data.duplicates import NearDuplicate, joined_groups
from medt.errors import UserError
from medt.io.files import natural_key, write_text
from medt.io.plain import read_table
from medt.io.text import csv_text, from_csv_cell, is_name
from medt.signatures import shortened

SPLITS = ("train", "val", "test")
COLUMNS = ("case", "group", "split")
EXHAUSTIVE_GROUPS = 16
LONGEST_FOLD = 6  # digits


@dataclass(frozen=True)
class SplitRow:
    """One line of a split file.

    Attributes:
        group: patient or slide, empty where it is not known.
        split: "train", "val" or "test".
        fold: from 0, of a cross-validation; None where the file has no such column or no number.
    """

    case: str
    group: str
    split: str
    fold: int | None = None


def read_splits(path: Path) -> list[SplitRow]:
    """Read a split file; columns other than ``COLUMNS`` and ``fold`` are ignored.

    The apostrophe that :func:`write_splits` puts before what would be a formula is none of a name.

    Raises:
        UserError: the file is absent or empty, lacks a column, names a case twice or an unknown
            split, a fold that is no number, or holds what is no name.
    """
    if not path.exists():
        raise UserError(f"No split file {path}", "check the path, or prepare the dataset")
    records = read_table(path, COLUMNS)
    rows: dict[str, SplitRow] = {}
    for number, record in enumerate(records, start=2):
        case, group, split = (from_csv_cell(record[column].strip()) for column in COLUMNS)
        for name in (case, group):
            if name and not is_name(name):
                raise UserError(
                    f"{path} line {number}: {shortened(name)} cannot be a name",
                    "give 1 to 255 characters, no line breaks or other controls",
                )
        if split not in SPLITS:
            raise UserError(
                f"{path} line {number}: unknown split {shortened(split)}",
                f"use one of {', '.join(SPLITS)}",
            )
        if not case or case in rows:
            problem = f"case {case} for the second time" if case else "a row without a case"
            raise UserError(f"{path} line {number}: {problem}", "one row per case")
        fold = record.get("fold", "").strip()
        if fold and not (fold.isascii() and fold.isdigit() and len(fold) <= LONGEST_FOLD):
            shown = shortened(fold)
            raise UserError(f"{path} line {number}: fold {shown} is no number", "0, 1, 2, ...")
        rows[case] = SplitRow(case, group, split, int(fold) if fold else None)
    if not rows:
        raise UserError(f"{path} names no cases", "one row per case, or delete the file")
    return list(rows.values())


def lost_zeros(names: Iterable[str], rows: Iterable[str]) -> str:
    """What to do where a spreadsheet took the zeros before numbers off the names in a split file.

    Args:
        names: of the images.
        rows: the names in the file.

    Returns:
        A hint; empty where that did not happen, or not to every name that the images lack.
    """
    there = set(names)
    strange = {row for row in rows if row not in there}
    full: defaultdict[str, list[str]] = defaultdict(list)
    for name in there:
        full[name.lstrip("0") or "0"].append(name)
    if not strange or any(len(full[row]) != 1 or not row.isdecimal() for row in strange):
        return ""
    example = min(strange, key=natural_key)
    whole = full[example][0]
    lengths = {len(full[row][0]) for row in strange}
    mend = f"give its column case the number format {'0' * len(whole)}, and save it again"
    if len(lengths) > 1:
        mend = "write the names as the images have them"
    return f"a spreadsheet wrote {example} for {whole}: {mend}"


def write_splits(path: Path, rows: Iterable[SplitRow]) -> None:
    """Write a split file, ordered naturally by case; with the column fold where one is known."""
    ordered = sorted(rows, key=lambda row: natural_key(row.case))
    folded = any(row.fold is not None for row in ordered)
    lines: list[tuple[str | int, ...]] = [(*COLUMNS, "fold") if folded else COLUMNS]
    for row in ordered:
        fold = ("" if row.fold is None else row.fold,) if folded else ()
        lines.append((row.case, row.group, row.split, *fold))
    write_text(path, csv_text(lines))


def digest_of(rows: Iterable[SplitRow]) -> str:
    """12 hexadecimal digits for what a split file says of these cases, in whatever order."""
    said = sorted((row.case, row.group, row.split, row.fold) for row in rows)
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]


def check_groups(rows: Iterable[SplitRow], source: Path | str) -> None:
    """Refuse splits that share a patient or slide: their scores would be too good.

    Args:
        source: what an error says the splits come from.

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
            f"{source} puts a group into several splits: {'; '.join(shared)}",
            "cases of one patient or slide belong to one split",
        )


def draw_splits(
    cases: Sequence[str],
    seed: int,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    pairs: Iterable[NearDuplicate] = (),
    groups: Mapping[str, str] = {},
) -> list[SplitRow]:
    """Deal cases to train, val and test at random; groups and near-duplicates go together.

    The result depends on the set of names, the pairs and the seed, not on the order. With at least
    3 groups, every part with a fraction above 0 gets at least one; with 2 there is no test part,
    with 1 only train.

    Args:
        pairs: near-duplicates among the cases; others are left alone.
        groups: case -> group, where it is known.

    Raises:
        UserError: the fractions are negative or do not add up to 1.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6 or fractions[0] == 0:
        raise UserError(
            f"Split fractions {fractions} do not add up to 1", "e.g. 0.7, 0.15, 0.15; train above 0"
        )
    names = set(cases)
    known = (pair for pair in pairs if {pair.first, pair.second} <= names)
    linked = joined_groups({name: groups.get(name, "") for name in names}, known)
    ordered = sorted(names, key=natural_key)
    units = list(dict.fromkeys(linked[name] for name in ordered))
    held_out = [0, 0]  # val, test
    for part, fraction in enumerate(fractions[1:]):
        room = len(names) - 1 - sum(held_out) - (part == 0 and fractions[2] > 0 and len(units) > 2)
        held_out[part] = min(max(round(fraction * len(names)), fraction > 0), max(room, 0))
    parts = _deal(units, held_out, seed)
    return [
        SplitRow(name, _name_of(unit, groups), split)
        for name, unit in ((name, linked[name]) for name in ordered)
        for split, members in parts.items()
        if unit in members
    ]


def _name_of(unit: Iterable[str], groups: Mapping[str, str]) -> str:
    """The group of cases that belong together, or the first of them."""
    named = {groups[case] for case in unit if groups.get(case)}
    return min(named or unit, key=natural_key)


def _deal(
    units: Sequence[frozenset[str]], held_out: Sequence[int], seed: int
) -> dict[str, list[frozenset[str]]]:
    """Whole units to val and test, in random order, as long as they fit; the rest to train."""
    parts: dict[str, list[frozenset[str]]] = {split: [] for split in SPLITS}
    wanted = dict(zip(("val", "test"), held_out, strict=True))
    room = dict(wanted)
    for index in np.random.default_rng(seed).permutation(len(units)):
        unit = units[index]
        split = next((s for s in room if len(unit) <= room[s]), "train")
        parts[split].append(unit)
        if split in room:
            room[split] -= len(unit)
    for split, count in wanted.items():  # every unit may have been too large
        if count and not parts[split] and len(parts["train"]) > 1:
            smallest = min(parts["train"], key=len)
            parts["train"].remove(smallest)
            parts[split].append(smallest)
    return parts


def draw_beside(
    rows: Sequence[SplitRow],
    new: Sequence[str],
    pairs: Sequence[NearDuplicate],
    seed: int,
) -> list[SplitRow]:
    """Splits for cases that come to others which have theirs.

    A case that looks like one of those joins its group and split; the rest is dealt by
    :func:`draw_splits`.
    """
    there = {row.case: row for row in rows}
    groups = {row.case: row.group for row in rows} | dict.fromkeys(new, "")
    linked = joined_groups(groups, [p for p in pairs if {p.first, p.second} <= groups.keys()])
    partners = {name: sorted(linked[name] & there.keys(), key=natural_key) for name in new}
    joining = [
        SplitRow(name, there[found[0]].group, there[found[0]].split)
        for name, found in partners.items()
        if found
    ]
    alone = [name for name, found in partners.items() if not found]
    return joining + draw_splits(alone, seed, pairs=pairs)


def draw_validation(
    groups: Mapping[str, str],
    strata: Mapping[str, str],
    pairs: Iterable[NearDuplicate],
    seed: int,
) -> list[SplitRow]:
    """Deal training cases to train and val by whole groups, see :func:`validation_groups`.

    Args:
        groups: case -> patient or slide; a case of none stands for itself.
        strata: case -> stratum.
        pairs: near-duplicates, which go together across groups, too; those of which a case is not
            in ``groups`` are left alone.
    """
    known = (pair for pair in pairs if pair.first in groups and pair.second in groups)
    linked = joined_groups(groups, known)
    units = {
        case: min((groups[member] or member for member in linked[case]), key=natural_key)
        for case in groups
    }
    held_out = validation_groups(units, strata, seed)
    # Joined groups become one in the file, so that folds keep them together, too.
    return [
        SplitRow(
            case,
            units[case] if len(linked[case]) > 1 else group,
            "val" if units[case] in held_out else "train",
        )
        for case, group in groups.items()
    ]


def draw_folds(rows: Sequence[tuple[str, str]], folds: int, seed: int) -> dict[str, int]:
    """Deal cases to folds of about equal size by whole groups.

    Args:
        rows: case and group; a case of no group stands for itself.
        folds: how many, at least 2.
        seed: of the order in which groups of equal size are dealt.

    Returns:
        case -> fold, 0..folds - 1.

    Raises:
        UserError: there are fewer groups than folds.
    """
    members: defaultdict[str, list[str]] = defaultdict(list)
    for case, group in rows:
        members[group or case].append(case)
    if len(members) < folds:
        raise UserError(
            f"dataset.folds={folds}, but training and validation have {len(members)} groups",
            "give fewer folds, or more patients or slides",
        )
    names = sorted(members, key=natural_key)
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    sizes = [0] * folds
    fold_of: dict[str, int] = {}
    for group in sorted(order, key=lambda name: -len(members[name])):
        fold = sizes.index(min(sizes))
        sizes[fold] += len(members[group])
        fold_of |= dict.fromkeys(members[group], fold)
    return fold_of


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
