"""What may change when a run is resumed, to what, and what follows: the one list of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medt.errors import UserError
from medt.training.settings import CIRCUMSTANCES

FREE, FORCED, NEVER = "free", "resume_force=true", "never"


@dataclass(frozen=True)
class Rule:
    """How a setting, or all below it, may change.

    Attributes:
        keys: dotted; the most exact one that fits counts.
        change: FREE, FORCED or NEVER.
        follows: what a change means, or what to do in its place.
    """

    keys: tuple[str, ...]
    change: str
    follows: str


STEP_SIZE = ("trainer.batch_size", "trainer.accumulate", "dataset.crops_per_case")
ANEW = "start a new run with model.weights=FILE"
RULES = (
    Rule(CIRCUMSTANCES, FREE, "only where and how the run is computed"),
    Rule(
        ("dataset.root", "dataset.images", "dataset.masks", "dataset.splits_file"),
        FREE,
        "the data lie elsewhere now; the training cases must be the same",
    ),
    Rule(
        ("trainer.epochs",),
        FORCED,
        "more, or down to the epoch that is running: the schedule spans the new number of steps, "
        "and the learning rate jumps to where that schedule stands",
    ),
    Rule(
        STEP_SIZE,
        FORCED,
        "only between epochs: steps are of another size, the schedule spans their new number",
    ),
    Rule(("optimizer",), FORCED, "its settings count at once; another class starts afresh"),
    Rule(
        ("loss", "scheduler", "augmentation", "trainer", "dataset.crop_foreground"),
        FORCED,
        "counts from the next step on",
    ),
    Rule(
        ("trainer.monitor", "trainer.empty", "trainer.ema"),
        NEVER,
        f"best.pt was chosen by the former: {ANEW}",
    ),
    Rule(("dataset", "model", "seed", "overfit"), NEVER, f"it is another training: {ANEW}"),
)


def rule_of(key: str) -> Rule:
    """The rule of a dotted key."""
    fitting = [
        (len(one), rule)
        for rule in RULES
        for one in rule.keys
        if key == one or key.startswith(f"{one}.")
    ]
    if not fitting:
        raise UserError(f"{key} cannot change on resume", "leave it out")
    return max(fitting, key=lambda pair: pair[0])[1]


def check_changes(changes: Mapping[str, tuple[Any, Any]], force: bool) -> None:
    """Refuse changes of a run's config that its rules do not allow.

    Args:
        changes: by dotted key, what was and what shall be.
        force: whether resume_force=true was given.

    Raises:
        UserError: with all changes that are refused.
    """
    shown = {key: f"{key} {before} -> {after}" for key, (before, after) in changes.items()}
    rules = {key: rule_of(key) for key in changes}
    if never := [key for key in changes if rules[key].change == NEVER]:
        raise UserError(
            f"a resumed run keeps its settings: {'; '.join(shown[key] for key in never)}",
            rules[never[0]].follows,
        )
    forced = [shown[key] for key in changes if rules[key].change == FORCED]
    if forced and not force:
        raise UserError(
            f"the run's config.yaml differs: {'; '.join(forced)}",
            "leave these out, or go on with them by resume_force=true",
        )


def check_position(
    epochs: int, changes: Mapping[str, tuple[Any, Any]], training: Mapping[str, Any]
) -> None:
    """Refuse changes that do not fit where the run stands.

    Args:
        epochs: that the run shall have.
        changes: as for `check_changes`.
        training: what the run's last.pt holds of it.

    Raises:
        UserError: fewer epochs than are done, or steps of another size in the middle of an epoch.
    """
    epoch, in_epoch = training["epoch"], training["sums"] is not None
    least = epoch if in_epoch else epoch + 1
    if epochs < least:
        place = "in" if in_epoch else "after"
        raise UserError(
            f"trainer.epochs={epochs}, but the run stands {place} epoch {epoch}",
            f"give at least {least}; its best.pt and last.pt can be used as they are",
        )
    resized = [key for key in STEP_SIZE if key in changes]
    if resized and in_epoch:
        raise UserError(
            f"{resized[0]} cannot change in the middle of epoch {epoch}",
            "resume without it to the end of an epoch first",
        )


def differences(key: str, before: Any, after: Any) -> dict[str, tuple[Any, Any]]:
    """The values below a key that differ, by dotted key."""
    if isinstance(before, dict) and isinstance(after, dict):
        below = [(f"{key}.{k}", before.get(k), after.get(k)) for k in {**before, **after}]
        found = [differences(*one) for one in below if one[1] != one[2]]
        return {name: pair for part in found for name, pair in part.items()}
    return {key: (before, after)}
