"""The rounds of a cross-validation."""

from __future__ import annotations

from dataclasses import replace

from medt.data.layout import DatasetIndex, listed
from medt.data.splits import SplitRow, check_groups, draw_folds
from medt.errors import UserError

FOLD_SEED = 0
MOST_FOLDS = 1000


def with_fold(index: DatasetIndex, folds: int, fold: int) -> DatasetIndex:
    """The dataset for one round of a cross-validation; its test cases stay what they are.

    The cases of train and val are dealt to the folds: as the split file's column ``fold`` says
    where it has one for each of them, else drawn, cases of a group together. Whatever run draws
    them, the folds are the same. Fold ``fold`` validates, the others train.

    Raises:
        UserError: fewer than two folds, no such fold, folds that the split file does not have, or
            too few groups.
    """
    if folds < 2 or not 0 <= fold < folds:
        raise UserError(
            f"dataset.folds={folds} dataset.fold={fold} is impossible",
            "folds from 2, fold from 0 to folds - 1",
        )
    dealt = [case for case in index.cases if case.split != "test"]
    unnamed = [case.name for case in dealt if case.fold is None]
    if 0 < len(unnamed) < len(dealt):
        raise UserError(
            f"The split file names no fold for {listed(unnamed)}",
            "name one for every case of train and val, or for none",
        )
    if not unnamed:
        fold_of = {case.name: case.fold for case in dealt}
        named = set(fold_of.values())
        if named != set(range(folds)):
            raise UserError(
                f"dataset.folds={folds}, but the split file names the folds "
                f"{listed(map(str, named))}",
                "give as many as it names, or take its column fold away",
            )
    else:
        pairs = [(case.name, case.group) for case in dealt]
        fold_of = dict(draw_folds(pairs, folds, FOLD_SEED))
    cases = tuple(
        replace(case, split="val" if fold_of[case.name] == fold else "train")
        if case.name in fold_of
        else case
        for case in index.cases
    )
    rows = [SplitRow(case.name, case.group, case.split) for case in cases if case.name in fold_of]
    check_groups(rows, f"fold {fold} of {folds}")
    return replace(index, cases=cases)
