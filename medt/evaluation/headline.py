"""The first lines of a result: what was found, what was missed, what was made up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any


def headline(summary: Mapping[str, Any]) -> Iterator[str]:
    """Foreground Dice, false alarms where there is nothing to find, and whole objects.

    Args:
        summary: of an evaluation.
    """
    yield dice_line(summary)
    alarms = summary["false_alarms"]
    yield _alarm_line("foreground", alarms["foreground"])
    if len(alarms["classes"]) > 1:
        yield from (_alarm_line(name, part) for name, part in alarms["classes"].items())
    for name, limits in summary.get("lesions", {}).items():
        texts = [
            f"{counts['found']} found, {counts['missed']} missed, {counts['false']} false at "
            f"IoU {limit}"
            for limit, counts in limits.items()
        ]
        yield f"objects of {name}: {'; '.join(texts)}"


def dice_line(summary: Mapping[str, Any]) -> str:
    """The mean Dice of the foreground, and which cases it is the mean of."""
    part = summary["mean_over_cases"]["dice"]
    counted = summary["cases"] - part["left_out"]["foreground"]
    if math.isnan(part["foreground"]):
        return f"no Dice: none of the {summary['cases']} cases has foreground in the truth"
    cases = "case" if counted == 1 else "cases"
    which = {
        "skip": f"{counted} {cases} with foreground",
        "alarms": f"{counted} {cases} with foreground or false alarms",
        "one": f"{counted} {cases}, an empty mask predicted empty counting 1",
    }[summary["empty"]]
    return f"foreground Dice {part['foreground']:.4f}, mean over {which} (empty={summary['empty']})"


def _alarm_line(name: str, part: Mapping[str, int]) -> str:
    """How often, and how large, a class was predicted where the truth does not have it."""
    without = part["without"]
    if not without:
        return f"no case without {name}"
    cases = "case" if without == 1 else "cases"
    return (
        f"{without} {cases} without {name}: false alarms in {part['alarms']} "
        f"({part['alarms'] / without:.2f} an image), {part['pixels'] / without:.1f} pixels an image"
    )
