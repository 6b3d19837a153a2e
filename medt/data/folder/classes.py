"""Which classes a folder of masks shows: as the user says, or as its values leave no doubt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medt.data.folder.soft_edges import END, has_areas_between, has_soft_edges
from medt.data.labels import Labels
from medt.data.layout import SegmentationClass, check_classes, default_classes
from medt.errors import UserError

LARGEST_VALUE = 0xFFFF
MOST_ENTRIES = 250  # of a setting to paste
MOST_CLASSES = 8  # more values are rather object numbers
MOST_NAMED = 20  # of classes to name; more values are rather those of images
SWAPPED = "these look like images: were dataset.images and dataset.masks swapped?"
BINARY = ("background", "foreground")
HEX_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
ClassList = Sequence[str | Mapping[str, Any]]


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset, background first, and how its masks show them."""

    classes: tuple[SegmentationClass, ...]
    labels: Labels


def given_classes(entries: ClassList, ignore: Any = None) -> Classes:
    """The classes that a config lists.

    Args:
        entries: names (their values are then 0, 1, ...), or mappings with ``name`` and either
            ``value``, a number or an inclusive range ``[low, high]``, or ``color``, [r, g, b] or
            "#rrggbb"; background first.
        ignore: the value, or the colour, that is neither trained on nor scored.

    Raises:
        UserError: fewer than 2 or more than 255 entries, one that is none of these, a name, value
            or colour for the second time, or colours mixed with values.
    """
    if not 2 <= len(entries) <= 255:
        raise UserError(f"dataset.classes has {len(entries)} entries", "2 to 255, background first")
    painted = any(isinstance(entry, Mapping) and "color" in entry for entry in entries)
    names: list[str] = []
    values: dict[int, int] = {}
    for i, entry in enumerate(entries):
        given = {"name": entry, "value": i} if isinstance(entry, str) else entry
        name = given.get("name") if isinstance(given, Mapping) else None
        covered = _color(given) if painted else _range(given)
        if not isinstance(name, str) or covered is None:
            raise UserError(
                f"dataset.classes entry {i} is {entry!r}",
                "with colours each needs one: {name: gland, color: [255, 0, 0]}"
                if painted
                else "give a name, or {name: gland, value: 255}, or {name: gland, value: "
                "[128, 255]}, or {name: gland, color: [255, 0, 0]}",
            )
        if any(value in values for value in covered):
            what = "colour" if painted else "value"
            raise UserError(
                f"dataset.classes gives {name!r} and another class one {what}", "each class its own"
            )
        names.append(name)
        values.update(dict.fromkeys(covered, i))
    ignored = ignored_value(ignore, painted)
    if ignored in values:
        raise UserError(
            f"dataset.ignore={ignore!r} is the class {names[values[ignored]]}",
            "a value is a class or ignored, not both",
        )
    classes = _named_classes(names)
    if painted:
        shown = [(v >> 16, v >> 8 & 255, v & 255) for v in values]
        classes = tuple(replace(c, color=rgb) for c, rgb in zip(classes, shown, strict=True))
    return Classes(classes, Labels(values, ignored, painted))


def instance_classes(entries: ClassList | None, ignore: Any = None) -> Classes:
    """Background and one kind of object, for masks of object numbers.

    Raises:
        UserError: ``entries`` are not two names that differ.
    """
    names = ["background", "object"] if entries is None else list(entries)
    if len(names) != 2 or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"dataset.mask=instances has two classes, dataset.classes={entries!r}",
            "give two names, such as [background,gland], or leave them out",
        )
    labels = Labels(ignore=ignored_value(ignore, painted=False), instances=True)
    return Classes(_named_classes([str(name) for name in names]), labels)


def _named_classes(names: Sequence[str]) -> tuple[SegmentationClass, ...]:
    try:
        classes = default_classes(names)
        check_classes(classes)
    except UserError as error:
        raise UserError(f"dataset.classes: {error.message}", error.hint) from error
    return classes


def evident_classes(
    found: Mapping[int, int],
    painted: bool,
    ignore: Any = None,
    lossy: bool = False,
    only_in: Mapping[int, str] | None = None,
    solid: Mapping[int, int] = {},
) -> Classes:
    """Background and foreground, where masks hold 0 and one other value.

    Args:
        found: value, or colour 0xRRGGBB -> number of pixels, over all masks.
        painted: whether these are colours.
        ignore: as in ``given_classes``.
        lossy: whether masks are stored as JPEG, which scatters values.
        only_in: value -> the mask file that alone holds it, for the error.
        solid: value -> its pixels inside areas, see ``medt.data.folder.soft_edges.solid_pixels``.

    Raises:
        UserError: which class is which is not evident; with the values found and a config to paste.
    """
    ignored = ignored_value(ignore, painted)
    labels = Labels(ignore=ignored, painted=painted)
    counted = {value: count for value, count in found.items() if value != ignored}
    foreground = [value for value in counted if value > 0]
    if not painted and set(counted) == {0, *foreground} and len(foreground) == 1:
        classes = default_classes(BINARY)
        return Classes(classes, replace(labels, values={0: 0, foreground[0]: 1}))
    what = "colour" if painted else "value"
    if len(counted) < 2:
        raise UserError(
            f"The masks hold only the {what} {labels.shown(counted)}: there is nothing to tell "
            "apart",
            "check that these are the masks",
        )
    if not painted and has_soft_edges(counted, solid):
        raise UserError(*told_of_soft_edges(counted, BINARY, ignored))
    total = sum(counted.values())
    rare = {v: name for v, name in (only_in or {}).items() if v in counted}
    places = {v: f" only in {name}" for v, name in rare.items()}
    shown = [
        f"{labels.shown([v])} ({counted[v] / total:.1%}{places.get(v, '')})"
        for v in sorted(counted)[:20]
    ]
    more = f", ... ({len(counted)} different)" if len(counted) > 20 else ""
    hint = _naming(counted, painted, lossy, solid)
    if 0 < len(rare) <= min(len(counted) - 2, MOST_CLASSES):
        files = ", ".join(dict.fromkeys(rare.values()))
        hint = f"if {labels.shown(rare)} is a mistake, repair {files}; else {hint}"
    raise UserError(
        f"The masks hold the {what}s {', '.join(shown)}{more}: which class is which is not evident",
        hint,
    )


def _naming(
    counted: Mapping[int, int], painted: bool, lossy: bool, solid: Mapping[int, int]
) -> str:
    """How to say which class is which."""
    if lossy and painted:
        return "JPEG changes colours: save the masks as PNG, then give each class its colour"
    if lossy and has_areas_between(counted, solid):
        return "JPEG changes values: save the masks as PNG, or give each class a range of values"
    example = f"dataset.classes={_example(counted, painted)}"
    if lossy and len(counted) > 2:
        example = _halves(max(counted))
    hint = f"name the classes, background first, e.g. '{example}'"
    if len(counted) > MOST_NAMED and not lossy:
        hint = SWAPPED
    if len(counted) > MOST_CLASSES and not painted and not lossy:
        hint = f"if these are object numbers: dataset.mask=instances; else {hint}"
    return hint


def is_open(plan: Classes | None) -> bool:
    """Whether the masks say which value is the foreground, since two names do not, nor does None.

    Of two classes given by number, 0 and 1, nobody can tell that they were.
    """
    labels = plan.labels if plan is not None else Labels({0: 0, 1: 1})
    return not labels.painted and labels.values == {0: 0, 1: 1}


def likely_labels(plan: Classes | None, found: Iterable[int], ignore: Any, kind: str) -> Labels:
    """What the values of one mask mean if the classes turn out to fit all."""
    if plan is not None and not is_open(plan):
        return replace(plan.labels, alpha=kind == "alpha")
    foreground = {value for value in found if value not in (0, ignore)}
    return Labels({0: 0, **dict.fromkeys(foreground, 1)}, ignore, alpha=kind == "alpha")


def fitted_to(plan: Classes, found: Mapping[int, int]) -> Classes:
    """Two classes given by names alone are 0 and the one other value of the masks, such as 255."""
    foreground = set(found) - {0, plan.labels.ignore}
    if not is_open(plan) or len(foreground) != 1 or 0 not in found:
        return plan
    return replace(plan, labels=replace(plan.labels, values={0: 0, foreground.pop(): 1}))


def extended_example(plan: Classes, found: Mapping[int, int]) -> str:
    """The setting that keeps the classes of a plan and makes one of every other value found."""
    values = plan.labels.values or {}
    painted = plan.labels.painted
    covered = {c.id: [v for v, i in values.items() if i == c.id] for c in plan.classes}
    entries = [
        _entry(c.name, covered[c.id][0], painted)
        if len(covered[c.id]) == 1
        else f"{{name:{_quoted(c.name)},value:[{covered[c.id][0]},{covered[c.id][-1]}]}}"
        for c in plan.classes
    ]
    others = sorted(set(found) - set(values) - {plan.labels.ignore})
    entries += [_entry(_name(v, painted), v, painted) for v in others[:MOST_ENTRIES]]
    return f"dataset.classes=[{','.join(entries)}]"


def told_of_soft_edges(
    found: Mapping[int, int], names: Sequence[str] = BINARY, ignored: int | None = None
) -> tuple[str, str]:
    """What an error says of masks of one class with soft edges, and the setting that mends it."""
    problem = (
        f"The masks hold {len(found)} values from 0 to {max(found)}, those between on edges alone: "
        "one class with soft edges"
    )
    return problem, f"part them in the middle: '{_halves(max(found), names, ignored)}'"


def _halves(highest: int, names: Sequence[str] = BINARY, ignored: int | None = None) -> str:
    """The setting that parts values up to ``highest`` in the middle, into two classes."""
    full = 0xFF if highest <= 0xFF else LARGEST_VALUE
    middle = (full if highest >= (1 - END) * full else highest) // 2
    if ignored is not None and highest < ignored <= full:
        full = ignored - 1
    ranges = ([0, middle], [middle + 1, full])
    entries = [
        f"{{name:{_quoted(name)},value:[{low},{high}]}}"
        for name, (low, high) in zip(names, ranges, strict=True)
    ]
    return f"dataset.classes=[{','.join(entries)}]"


def colored_example(
    plan: Classes | None,
    pixels: Mapping[int, int],
    shown: Mapping[tuple[int, int], int],
    ignore: Any = None,
) -> str:
    """The settings, quoted for the shell, that tell the classes of palette masks by colour.

    Args:
        plan: the classes by number, whose names go to the colours that most masks show them in.
        pixels: colour -> its pixels.
        shown: (number, colour) -> how many masks show this number in this colour; the first mask's
            first.
        ignore: the number that is neither trained on nor scored.
    """
    values = (plan.labels.values if plan is not None else None) or {}
    names: dict[int, int] = {}  # colour -> class
    void = None
    for number, color in sorted(shown, key=lambda pair: -shown[pair]):
        if number == ignore and void is None and color not in names:
            void = color
        elif number in values and color != void and values[number] not in names.values():
            names.setdefault(color, values[number])
    counted = {color: count for color, count in pixels.items() if color != void}
    listing = _example(counted, painted=True)
    if plan is not None:
        others = sorted((c for c in counted if c not in names), key=lambda c: -counted[c])
        entries = [
            _entry(plan.classes[names[c]].name, c, True)
            for c in sorted(names, key=names.__getitem__)
        ]
        entries += [_entry(_name(c, True), c, True) for c in others[:MOST_ENTRIES]]
        listing = f"[{','.join(entries)}]"
    left_out = (
        "" if void is None else f" 'dataset.ignore=[{void >> 16},{void >> 8 & 255},{void & 255}]'"
    )
    return f"'dataset.classes={listing}'{left_out}"


def ignored_value(ignore: Any, painted: bool) -> int | None:
    """dataset.ignore as a mask value.

    Raises:
        UserError: it is no number, or with colours no colour.
    """
    if ignore is None or (isinstance(ignore, int) and not painted):
        return ignore
    color = _color({"color": ignore}) if painted else None
    if color is None:
        kind = "colour, such as [255,255,255]" if painted else "number"
        raise UserError(f"dataset.ignore={ignore!r} is no {kind}", "give one, or null")
    return color[0]


def _example(counted: Mapping[int, int], painted: bool) -> str:
    # What covers most is most often the background; where 0 or black is there, that is.
    values = sorted(counted, key=lambda value: (value != 0, -counted[value]))[:MOST_ENTRIES]
    names = ["background" if i == 0 else _name(v, painted) for i, v in enumerate(values)]
    entries = [_entry(n, v, painted) for n, v in zip(names, values, strict=True)]
    return f"[{','.join(entries)}]"


def _name(value: int, painted: bool) -> str:
    return f"class_{value:06x}" if painted else f"class_{value}"


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else f'"{name}"'


def _entry(name: str, value: int, painted: bool) -> str:
    name = _quoted(name)
    if painted:
        return f"{{name:{name},color:[{value >> 16},{value >> 8 & 255},{value & 255}]}}"
    return f"{{name:{name},value:{value}}}"


def _range(entry: Any) -> range | None:
    value = entry.get("value") if isinstance(entry, Mapping) else None
    bounds: list[Any] = list(value) if isinstance(value, list | tuple) else [value, value]
    if len(bounds) != 2 or not all(type(bound) is int for bound in bounds):
        return None
    low, high = (int(bound) for bound in bounds)
    return range(low, high + 1) if 0 <= low <= high <= LARGEST_VALUE else None


def _color(entry: Any) -> tuple[int] | None:
    """The colour of an entry as 0xRRGGBB."""
    color = entry.get("color") if isinstance(entry, Mapping) else None
    if isinstance(color, str) and HEX_COLOR.fullmatch(color):
        return (int(color[1:], 16),)
    fits = (
        isinstance(color, list | tuple)
        and len(color) == 3
        and all(isinstance(c, int) and 0 <= c <= 255 for c in color)
    )
    return (color[0] << 16 | color[1] << 8 | color[2],) if fits and color else None
