"""What a class scores in a case whose truth does not have it: three conventions, one key.

Where most images show nothing to find, the convention decides the mean: a network that never finds
anything scores 1 on all of them under one. So by default such a case is left out of a class's
scores, and its false alarms are counted beside them (:func:`false_alarms`).

`skip` is MONAI's `DiceMetric(ignore_empty=True)`, its default, and `one` its `ignore_empty=False`;
`alarms` is what nnU-Net's evaluation does. https://docs.monai.io/en/stable/metrics.html and
nnunetv2/evaluation/evaluate_predictions.py
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medt.errors import UserError

Empty = Literal["skip", "alarms", "one"]
DEFAULT_EMPTY: Empty = "skip"

EMPTY_RULES = {
    "skip": "empty=skip: a class absent from the truth of a case is left out of that case's scores "
    'and of the means, whatever was predicted, and counted under "left out" (of a row\'s scores '
    "the most); what was predicted of it there are false alarms, counted apart.",
    "alarms": "empty=alarms: a class absent from the truth of a case scores 0 if it was predicted; "
    'else it is left out of that case\'s scores and of the means, and counted under "left out" '
    "(of a row's scores the most).",
    "one": "empty=one: a class absent from truth and prediction scores 1 (nothing to find, nothing "
    "found), a class that was predicted but is absent from the truth 0.",
}


def checked_empty(value: str, key: str = "empty") -> Empty:
    """The rule of this name.

    Raises:
        UserError: there is none; the message names the key.
    """
    for name in get_args(Empty):
        if value == name:
            return name  # type: ignore[no-any-return]
    raise UserError(f"{key}={value} is out of range", f"give one of {', '.join(EMPTY_RULES)}")


def former_empty(classes: Any) -> Empty:
    """The rule of runs whose config names none, as they are older than the key."""
    return "one" if classes == 2 else "alarms"


def left_out(empty: Empty, predicted: ArrayLike, true: ArrayLike) -> NDArray[np.bool_]:
    """Whether classes have no score, given which of them prediction and truth have: bool."""
    absent = ~np.asarray(true, bool)
    silent = ~np.asarray(predicted, bool)
    out = {"skip": absent, "alarms": absent & silent, "one": np.zeros_like(absent)}
    return np.asarray(out[empty])


def false_alarms(confusions: Sequence[NDArray[np.int64]], names: Sequence[str]) -> dict[str, Any]:
    """Cases with and without foreground, and what was predicted where there is nothing to find.

    Args:
        confusions: of each case, (classes, classes) pixels; row: truth, column: prediction. A case
            of ignored pixels alone is neither with nor without.
        names: of the classes, background first.

    Returns:
        ``foreground`` (all foreground classes as one) and ``classes`` (each of them), each with
        ``with`` and ``without`` (cases that have it in the truth, or not), ``alarms`` (of the
        latter those in which it was predicted) and ``pixels`` (that were, in all of these).
    """
    table = np.stack(confusions)
    table = table[table.any(axis=(1, 2))]
    true, predicted = table.sum(axis=2), table.sum(axis=1)
    parts = [_alarms(true[:, i], predicted[:, i]) for i in range(1, len(names))]
    of_all = _alarms(true[:, 1:].sum(axis=1), predicted[:, 1:].sum(axis=1))
    return {"foreground": of_all, "classes": dict(zip(names[1:], parts, strict=True))}


def _alarms(true: NDArray[np.int64], predicted: NDArray[np.int64]) -> dict[str, int]:
    without = true == 0
    return {
        "with": int((~without).sum()),
        "without": int(without.sum()),
        "alarms": int((predicted[without] > 0).sum()),
        "pixels": int(predicted[without].sum()),
    }
