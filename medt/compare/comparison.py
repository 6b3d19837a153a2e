"""Training runs side by side, in groups that differ only in seed or fold."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from medt.compare.case_results import PAIRED_RULE, fold_notes, fold_report, pair_rows
from medt.compare.past_run import Result, Run, Settings
from medt.data.layout import listed
from medt.io.files import natural_key
from medt.io.text import abridged, for_terminal
from medt.targets import FOLLOWED

# The key that names what a config group holds; a class stands for itself without its module.
HEADS = dict.fromkeys(("dataset", "model", "augmentation"), "name")
HEADS |= dict.fromkeys(("loss", "optimizer", "scheduler"), "_target_")
# Keys of the dataset that change what the network sees, but not which cases are scored.
INPUT_KEYS = {
    f"dataset.{key}"
    for key in (
        *("image_size", "normalize", "window", "eight_bit", "channels"),
        *("sampling", "crop_foreground", "crops_per_case"),
    )
}
# Of these the ones that decide at which size validation is scored.
SIZE_KEYS = ("dataset.image_size", "dataset.sampling")
EMPTY_KEY = "trainer.empty"
MOST_NAMED = 10  # settings in the name of a group

# How to read the numbers.
VALIDATION_NOTE = (
    "val Dice, val IoU: foreground, mean over the validation cases, of the weights that the run's "
    "folder stands for; with trainer.use=best they were chosen on these very cases, which flatters."
)
EVALUATION_NOTE = (
    "Other Dice: foreground, mean over the cases of that evaluation that show some, counted from "
    "its per_case.csv, whatever its rule for empty images (empty=...); by that rule where the file "
    "holds no pixels, and with protocol=paper_official. Of several results the newest."
)
MEAN_NOTE = (
    "Mean ± sample standard deviation over the runs of a row, one for each seed and fold. A single "
    "run has no deviation: what seeds change is not known there."
)


@dataclass(frozen=True)
class Group:
    """Runs that differ only in seed or fold; `differs` tells them from the other groups."""

    name: str
    differs: Settings
    runs: list[Run]

    @property
    def mean_dice(self) -> float:
        return statistics.mean(run.dice for run in self.runs)

    @property
    def folded(self) -> bool:
        """Whether its runs are rounds of a cross-validation."""
        return any(run.fold is not None for run in self.runs)

    def results(self, evaluation: str) -> list[Result] | None:
        """One result a run, or None where a run lacks it."""
        known = _results(self.runs, evaluation)
        return known if len(known) == len(self.runs) else None


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups of runs that differ only in seed, fold and circumstances, best mean Dice first."""
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(json.dumps(run.settings, sort_keys=True), []).append(run)
    members = [sorted(group, key=_seed_and_fold) for group in alike.values()]
    differs = tell_apart([group[0].settings for group in members])
    if len(members) == 1:
        config = members[0][0].config
        names = [f"{_shown(config['dataset']['name'])} {_shown(config['model']['name'])}"]
    else:
        names = list(map(_name, differs))
    groups = [Group(*parts) for parts in zip(names, differs, members, strict=True)]
    return sorted(groups, key=lambda group: (-group.mean_dice, natural_key(group.name)))


def _name(differs: Settings) -> str:
    """What tells a group from the others, in a few words, whoever wrote its config."""
    parts = [f"{abridged(key)}={_shown(value)}" for key, value in differs.items()]
    more = len(parts) - MOST_NAMED
    return " ".join(parts[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def tell_apart(settings: Sequence[Settings]) -> list[Settings]:
    """Of each config the keys in which it differs from the others.

    Where configs have another model, dataset, loss, ... its name stands for all of its keys, and
    only those with the same one are told apart by its other keys.
    """
    settings = [_without_followers(one) for one in settings]
    differs: list[Settings] = [{} for _ in settings]
    keys = list(dict.fromkeys(key for one in settings for key in one))
    for part in dict.fromkeys(key.partition(".")[0] for key in keys):
        heads = [_head(one, part) for one in settings]
        for own, head, told in zip(settings, heads, differs, strict=True):
            if len(set(heads)) > 1:
                told[part] = head
            peers = [one for one, other in zip(settings, heads, strict=True) if other == head]
            told |= {
                key: own.get(key, "missing")
                for key in keys
                if key.partition(".")[0] == part and _differ(peers, key)
            }
    return differs


def report(groups: Sequence[Group]) -> dict[str, Any]:
    """The comparison as plain values: evaluations, groups with means and deviations, pairs and
    notes."""
    names = {name for group in groups for run in group.runs for name in run.evaluations}
    complete = [name for name in names if any(group.results(name) for group in groups)]
    evaluations = sorted(complete, key=natural_key)
    rows = [(group.name, group.runs) for group in groups]
    pairs = {name: found for name in evaluations if (found := pair_rows(rows, name))}
    reports = [_group_report(group, evaluations) for group in groups]
    how = [VALIDATION_NOTE, *([EVALUATION_NOTE] if evaluations else []), MEAN_NOTE]
    if pairs:
        how.append(PAIRED_RULE)
    return {
        "evaluations": evaluations,
        "groups": reports,
        "pairs": pairs,
        "notes": [*how, *_facts(groups, reports), *_warnings(groups, evaluations, reports)],
    }


def _facts(groups: Sequence[Group], reports: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What the table does not show: false alarms, results left out, runs that go on."""
    runs = [run for group in groups for run in group.runs]
    for name in reports[0]["false_alarms"]:
        shares = {row["name"]: row["false_alarms"][name] for row in reports}
        texts = [f"{row} {share:.0%}" for row, share in shares.items() if share is not None]
        if texts:
            yield f"False alarms in cases without foreground, {name}: {', '.join(texts)}."
    if others := [f"{name} of {run.root}" for run in runs for name in run.others]:
        yield f"Left out, as they are of other weights than the run stands for: {listed(others)}."
    if unfinished := [str(run.root) for run in runs if not run.finished]:
        yield f"* {len(unfinished)} of {len(runs)} runs not finished: {', '.join(unfinished)}"


def _mean_alarms(group: Group, evaluation: str) -> float | None:
    """The mean share of cases with false alarms over the runs that say it."""
    shares = [r.false_alarms for r in _results(group.runs, evaluation)]
    known = [share for share in shares if share is not None]
    return statistics.mean(known) if known else None


def _warnings(
    groups: Sequence[Group], evaluations: Sequence[str], reports: Sequence[dict[str, Any]]
) -> Iterator[str]:
    """What is wrong with comparing these rows."""
    runs = [run for group in groups for run in group.runs]
    settings = [group.runs[0].settings for group in groups]
    keys = dict.fromkeys(k for one in settings for k in one if k.split(".")[0] == "dataset")
    cases = [key for key in (*keys, "overfit") if key not in INPUT_KEYS and _differ(settings, key)]
    if cases:
        differ = ", ".join(cases)
        yield f"warning: rows differ in {differ}: scores on different cases do not compare"
    splits = {name: [result.splits for result in _results(runs, name)] for name in evaluations}
    if len({run.config["dataset"]["name"] for run in runs}) == 1:
        splits = {"val Dice": [run.splits for run in runs], **splits}
    for score, digests in splits.items():
        if len(known := sorted({digest for digest in digests if digest})) > 1:
            yield (
                f"warning: {score} is of several splits ({', '.join(known)}): scores on different "
                "cases do not compare"
            )
    sizes = [key for key in SIZE_KEYS if _differ(settings, key)]
    if sizes:
        yield (
            f"warning: rows differ in {', '.join(sizes)} and so in the size at which validation is "
            "scored: compare by evaluations with protocol=native"
        )
    if _differ(settings, EMPTY_KEY):
        yield (
            f"warning: rows differ in {EMPTY_KEY} and so in which cases val Dice is the mean of: "
            "compare by evaluations"
        )
    if any(run.config.get("overfit") is not None for run in runs):
        yield "warning: runs with overfit=... were validated on their training cases"
    for group, row in zip(groups, reports, strict=True):
        if len(set(map(_seed_and_fold, group.runs))) < len(group.runs):
            what = "a seed and fold" if group.folded else "a seed"
            yield f"warning: runs of {group.name} share {what}"
        if row["folds"] is not None:
            yield from fold_notes(group.name, row["folds"])
    whole = [run for group in groups if not group.folded for run in group.runs]
    for name in evaluations:
        counts = sorted({result.cases for result in _results(whole, name)})
        if len(counts) > 1:
            shown = " and ".join(map(str, counts))
            yield f"warning: {name} was scored on {shown} cases, which do not compare"


def _seed_and_fold(run: Run) -> tuple[int, int]:
    return run.seed, -1 if run.fold is None else run.fold


def _results(runs: Sequence[Run], evaluation: str) -> list[Result]:
    return [run.evaluations[evaluation] for run in runs if evaluation in run.evaluations]


def _group_report(group: Group, names: Sequence[str]) -> dict[str, Any]:
    results = {name: group.results(name) for name in names}
    return {
        "name": group.name,
        "differs": group.differs,
        "epochs": sorted({run.epoch for run in group.runs}),
        "unfinished": sum(not run.finished for run in group.runs),
        "folds": fold_report(group.runs, names) if group.folded else None,
        "val_dice": _summary([run.dice for run in group.runs]),
        "val_iou": _summary([run.iou for run in group.runs]),
        "seconds": _summary([run.seconds for run in group.runs]),
        "evaluations": {
            name: None if known is None else _summary([result.dice for result in known])
            for name, known in results.items()
        },
        "false_alarms": {name: _mean_alarms(group, name) for name in names},
        "runs": [_run_report(run) for run in group.runs],
    }


def _run_report(run: Run) -> dict[str, Any]:
    return {
        "path": str(run.root),
        "seed": run.seed,
        "fold": run.fold,
        "epoch": run.epoch,
        "finished": run.finished,
        "val_dice": run.dice,
        "val_iou": run.iou,
        "seconds": run.seconds,
        "evaluations": {name: result.dice for name, result in run.evaluations.items()},
    }


def _summary(values: Sequence[float]) -> dict[str, float | None]:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "deviation": deviation}


def _without_followers(settings: Settings) -> Settings:
    followers = {
        f"model.{key}"
        for key, source in FOLLOWED.items()
        if settings.get(f"model.{key}") == settings.get(f"dataset.{source}")
    }
    return {key: value for key, value in settings.items() if key not in followers}


def _head(settings: Settings, part: str) -> str | None:
    """What a config group holds, in a word; None for what has no name."""
    if part not in HEADS:
        return None
    name = settings.get(f"{part}.{HEADS[part]}")
    return "none" if name is None else str(name).rpartition(".")[2]


def _differ(settings: Sequence[Settings], key: str) -> bool:
    return len({json.dumps(one.get(key, "missing"), sort_keys=True) for one in settings}) > 1


def _shown(value: Any) -> str:
    """A value as it is given on the command line, on one line; long ones without their middle."""
    if isinstance(value, float):
        return f"{value:g}"
    if not isinstance(value, str):
        value = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return abridged(for_terminal(value))
