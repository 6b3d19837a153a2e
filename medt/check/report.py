"""A check as plain values for ``check.json``, and as tables for the terminal."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from medt.check import Check
from medt.check.cases import CaseFacts, ImageFacts, MaskFacts
from medt.check.finding import percent, size_text
from medt.check.masks import class_pixels
from medt.check.suggestions import suggest_normalize, suggest_size
from medt.data.splits import SPLITS

STYLES = {"error": "bold red", "warning": "yellow"}


def report(check: Check) -> dict[str, Any]:
    """All that was found: of the dataset, of each split and of each case.

    Intensities are shares of the largest number that the files' type holds; what is not known, as a
    file could not be read, is None.
    """
    concerns = check.concerns()
    settings = check.settings
    return {
        "dataset": check.index.name,
        "errors": len(check.errors),
        "warnings": len(check.warnings),
        "settings": {
            "image_size": list(settings.image_size),
            "normalize": settings.normalize,
            "crops": settings.crops,
            "channels": settings.channels,
            "distinct": sorted(sorted(pair) for pair in settings.distinct),
        },
        "classes": [c.to_dict() for c in check.index.classes],
        "suggestions": _suggestions(check.cases),
        "findings": [finding.to_dict() for finding in check.findings],
        "splits": {split: _split_values(check, cases) for split, cases in _by_split(check).items()},
        "cases": [_case_values(facts, concerns.get(facts.case.name, [])) for facts in check.cases],
    }


def tables(check: Check) -> list[Table]:
    """The splits and the classes, in 80 columns and without box characters."""
    splits = {split: _split_values(check, facts) for split, facts in _by_split(check).items()}
    return [_splits_table(splits), _classes_table(check, splits)]


def lines(check: Check, width: int = 80, suggests: bool = True) -> list[Text]:
    """The findings and, if asked for, the suggestions, wrapped to this width."""
    found = []
    for finding in check.findings:
        first = f"{finding.severity:8} {finding.code}: {finding.message}"
        found += [
            _wrapped(first, width, STYLES[finding.severity], len(finding.severity)),
            _wrapped(f"{'':8} -> {finding.hint}", width, "dim"),
        ]
    for key, suggestion in _suggestions(check.cases).items() if suggests else ():
        value = suggestion["value"]
        shown = size_text((value[0], value[1])) if key == "image_size" else value
        if key == "image_size" and check.settings.crops:
            shown += " for dataset.sampling=resize"
        first = f"suggests dataset.{key}={shown}: {suggestion['reason']}"
        found.append(_wrapped(first, width, "bold", len("suggests")))
    return found


def _wrapped(line: str, width: int, style: str, styled: int | None = None) -> Text:
    """Later lines indented; the first ``styled`` characters, or all, in a style."""
    indent = " " * 9
    wrapper = textwrap.TextWrapper(
        width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    text = Text(wrapper.fill(line))
    text.stylize(style, 0, styled)
    return text


def _by_split(check: Check) -> dict[str, list[CaseFacts]]:
    found = {s: [facts for facts in check.cases if facts.case.split == s] for s in SPLITS}
    return {split: cases for split, cases in found.items() if cases}


def _suggestions(facts: Sequence[CaseFacts]) -> dict[str, dict[str, Any]]:
    if not any(fact.image for fact in facts):
        return {}
    normalize, reason = suggest_normalize(facts)
    return {
        "image_size": suggest_size(facts).to_dict(),
        "normalize": {"value": normalize, "reason": reason},
    }


def _images(facts: Iterable[CaseFacts]) -> list[ImageFacts]:
    return [fact.image for fact in facts if fact.image is not None]


def _masks(facts: Iterable[CaseFacts]) -> list[MaskFacts]:
    return [fact.mask for fact in facts if fact.mask is not None]


def _split_values(check: Check, facts: Sequence[CaseFacts]) -> dict[str, Any]:
    images, masks = _images(facts), _masks(facts)
    pixels = class_pixels(masks)
    typical = [mask.typical for mask in masks if mask.typical is not None]
    return {
        "cases": len(facts),
        "groups": len({fact.case.group for fact in facts if fact.case.group}),
        "height": _range(image.height for image in images),
        "width": _range(image.width for image in images),
        "kinds": dict(Counter(image.kind for image in images)),
        "mean": fmean(fmean(image.mean) for image in images) if images else None,
        "deviation": fmean(fmean(image.deviation) for image in images) if images else None,
        "pixels": {c.name: pixels[c.id] for c in check.index.classes},
        "cases_with": {
            c.name: sum(c.id in mask.pixels for mask in masks) for c in check.index.classes
        },
        "ignored": sum(mask.ignored for mask in masks),
        "objects": sum(mask.objects for mask in masks),
        "object_diameter": median(typical) if typical else None,
    }


def _range(values: Iterable[int]) -> list[int] | None:
    every = list(values)
    return [min(every), max(every)] if every else None


def _case_values(facts: CaseFacts, codes: Sequence[str]) -> dict[str, Any]:
    image, mask, case = facts.image, facts.mask, facts.case
    values: dict[str, Any] = {
        "case": case.name,
        "group": case.group,
        "split": case.split,
        "findings": list(codes),
        "image": None,
        "mask": None,
    }
    if image is not None:
        values["image"] = {
            "height": image.height,
            "width": image.width,
            "channels": image.channels,
            "dtype": image.dtype,
            "range": [image.low, image.high],
            "mean": list(image.mean),
            "deviation": list(image.deviation),
            "percentiles_1_50_99": [list(channel) for channel in image.percentiles],
        }
    if mask is not None:
        values["mask"] = {
            "height": mask.height,
            "width": mask.width,
            "pixels": {str(number): count for number, count in mask.pixels.items()},
            "ignored": mask.ignored,
            "objects": mask.objects,
            "object_diameter": mask.typical,
        }
    return values


def _table() -> Table:
    return Table(box=box.ASCII_DOUBLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")


def _splits_table(splits: Mapping[str, Mapping[str, Any]]) -> Table:
    table = _table()
    table.add_column("split", no_wrap=True)
    for head in ("cases", "groups", "width x height", "images", "intensity", "objects"):
        table.add_column(head, justify="right", no_wrap=True)
    for split, values in splits.items():
        read = values["mean"] is not None
        table.add_row(
            split,
            str(values["cases"]),
            str(values["groups"] or "-"),
            f"{_span(values['width'])} x {_span(values['height'])}" if read else "-",
            "\n".join(f"{kind}" for kind in values["kinds"]) or "-",
            f"{values['mean']:.2f} +- {values['deviation']:.2f}" if read else "-",
            str(values["objects"]),
        )
    return table


def _span(ends: Sequence[int]) -> str:
    return "-".join(map(str, dict.fromkeys(ends)))


def _classes_table(check: Check, splits: Mapping[str, Mapping[str, Any]]) -> Table:
    """Shares of the labelled pixels, and in how many masks of each split a class is."""
    table = _table()
    table.add_column("class", overflow="fold", max_width=24)
    for split in splits:
        table.add_column(f"{split} pixels", justify="right", no_wrap=True)
        table.add_column("masks", justify="right", no_wrap=True)
    for c in check.index.classes:
        cells = []
        for values in splits.values():
            labelled = sum(values["pixels"].values())
            cells += [
                percent(values["pixels"][c.name] / labelled) if labelled else "-",
                str(values["cases_with"][c.name]),
            ]
        table.add_row(Text(c.name), *cells)
    if any(values["ignored"] for values in splits.values()):
        cells = [text for values in splits.values() for text in (f"{values['ignored']:,}", "")]
        table.add_row(Text("(ignored, pixels)", style="dim"), *cells)
    return table
