"""Reading every pair of a folder once: what its masks hold, and whether the classes fit."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medt.data.duplicates import Thumbnail, thumbnail
from medt.data.folder.classes import (
    MOST_CLASSES,
    MOST_NAMED,
    SWAPPED,
    Classes,
    colored_example,
    evident_classes,
    extended_example,
    fitted_to,
    likely_labels,
    told_of_soft_edges,
)
from medt.data.folder.soft_edges import has_soft_edges, solid_pixels
from medt.data.layout import listed
from medt.data.scan import WORKERS, Scan, place_of
from medt.errors import UserError
from medt.io.images import Samples, read_values
from medt.shipped import typed

log = logging.getLogger("medt")

Pairs = Mapping[str, tuple[Path, Path]]
# A mask of more is none, or its colours were changed by JPEG.
MOST_VALUES = 1024


class Seen(NamedTuple):
    """An image from outside: (H, W), whether it has an orientation tag, a thumbnail if asked."""

    size: tuple[int, int]
    turned: bool
    thumbnail: Thumbnail | None


@dataclass(frozen=True)
class Outside:
    """The look that finds this."""

    small: bool

    def __call__(self, samples: Samples, _: str) -> Seen:
        height, width = samples.pixels.shape[:2]
        shown = thumbnail(samples.opaque()) if self.small else None
        return Seen((height, width), samples.turned, shown)


@dataclass(frozen=True)
class Inspected:
    """What a pair of files holds.

    Attributes:
        values: mask value -> pixels.
        solid: the same of the pixels inside areas of their value; empty of colours.
        painted: whether the values are colours, 0xRRGGBB.
        colors: value -> the colour that the mask's palette gives to it; empty without a palette.
        hidden: the values of the alpha channel of a mask that is otherwise of one value.
        thumbnail: of the image, if asked for.
        turned: whether the image has an orientation tag and the mask has none.
    """

    values: Mapping[int, int]
    solid: Mapping[int, int]
    painted: bool
    colors: Mapping[int, int]
    hidden: frozenset[int]
    thumbnail: Thumbnail | None
    turned: bool

    def by_color(self) -> dict[int, int]:
        """Colour -> pixels; a number without a palette is a grey."""
        if self.painted:
            return dict(self.values)
        return {self.colors.get(v, v * 0x010101): count for v, count in self.values.items()}


def inspect(
    pairs: Pairs,
    scan: Scan,
    plan: Classes | None,
    ignore: Any,
    kind: str,
    page: int | None,
    small: bool,
    images: bool = True,
) -> dict[str, Inspected]:
    """Read every pair, several at a time.

    Args:
        scan: looks at what is read.
        plan: the classes that the user gives, or None.
        ignore: as in ``given_classes``.
        kind: what the masks' values are, as ``dataset.mask`` says.
        page: which image of a stack, from 0.
        small: whether thumbnails of the images are made, too.
        images: whether the images are read, not the masks alone.

    Raises:
        UserError: pairs that cannot be read or differ in size; the first ten and the count.
    """
    painted = plan is not None and plan.labels.painted

    def examine(name: str) -> Inspected | UserError:
        image_path, mask_path = pairs[name]
        place = place_of(mask_path, page)
        try:
            image = scan.image(image_path, page, Outside(small)) if images else None
            mask, in_colors, samples, palette = read_values(
                mask_path, page, painted, kind == "alpha"
            )
        except UserError as error:
            return error
        if image is not None and image.size != mask.shape:
            (h, w), (mask_h, mask_w) = image.size, mask.shape
            turned = "; one of them has an orientation tag" if (h, w) == (mask_w, mask_h) else ""
            return UserError(
                f"{image_path.name} is {w} x {h}, its mask {mask_w} x {mask_h} pixels{turned}"
            )
        values, counts = np.unique(mask, return_counts=True)
        counted = dict(zip(values.tolist(), counts.tolist(), strict=True))
        solid = {} if in_colors else solid_pixels(mask)
        soft = not in_colors and has_soft_edges(counted, solid)
        if len(values) > MOST_VALUES and kind != "instances" and not soft:
            return UserError(
                f"{mask_path.name} holds {len(values)} different values, more than classes can be",
                "check that dataset.images and dataset.masks are not swapped; "
                "dataset.mask=instances is for object numbers, and JPEG changes colours: save "
                "painted masks as PNG",
            )
        told = palette if kind == "classes" else {}  # object numbers may have any colours
        colors = {v: told[v] for v in counted if v in told}
        scan.add_mask(place, mask, list(counted), likely_labels(plan, counted, ignore, kind))
        return Inspected(
            *(counted, solid, in_colors, colors),
            hidden=_alpha_values(samples) if len(values) == 1 else frozenset(),
            thumbnail=image and image.thumbnail,
            turned=image is not None and image.turned and not samples.turned,
        )

    with ThreadPoolExecutor(WORKERS) as pool:
        results = dict(zip(pairs, pool.map(examine, pairs), strict=True))
    faults = [result.message for result in results.values() if isinstance(result, UserError)]
    if faults:
        hints = {r.hint for r in results.values() if isinstance(r, UserError)}
        settings = [hint for hint in hints if "dataset." in hint]
        shared = min(settings, default="repair, replace or remove them in pairs")
        raise UserError(
            f"Faulty files: {listed(faults)}",
            shared,
        )
    inspected = {name: one for name, one in results.items() if isinstance(one, Inspected)}
    turned = [pairs[name][0].name for name, found in inspected.items() if found.turned]
    if turned:
        log.warning(
            f"warning: images with an orientation tag whose masks have none: {listed(turned)}; the "
            "masks count as drawn on the image as viewers show it "
            f"({typed('check_data')} draws both)"
        )
    return inspected


def _alpha_values(samples: Samples) -> frozenset[int]:
    alpha = samples.transparency()
    if alpha is None or alpha.dtype.kind not in "iu":
        return frozenset()
    return frozenset(np.unique(alpha).tolist())


def checked_classes(
    plan: Classes | None,
    pairs: Pairs,
    inspected: Mapping[str, Inspected],
    ignore: Any,
    whole: bool = True,
) -> Classes:
    """The classes, inferred where none are given; every mask shows nothing else.

    Args:
        plan: the classes that the user gives, or None.
        ignore: as in ``given_classes``.
        whole: whether these are all pairs, so that a class that none shows is worth a word.

    Raises:
        UserError: values that are no class, palettes that disagree, or which is which is not
            evident.
    """
    in_colors = any(found.painted for found in inspected.values())
    if not in_colors:
        _check_palettes(plan, pairs, inspected, ignore)
    values = {
        name: found.by_color() if in_colors else found.values for name, found in inspected.items()
    }
    total: Counter[int] = Counter()
    for counted in values.values():
        total.update(counted)
    hidden = {value for found in inspected.values() for value in found.hidden}
    if len(total) == 1 < len(hidden):
        raise UserError(
            f"The masks hold one value alone, and their alpha channel {len(hidden)} different ones",
            "to take those: dataset.mask=alpha",
        )
    solid: Counter[int] = Counter()
    for found in inspected.values():
        solid.update(found.solid)
    lossy = any(mask.suffix.lower() in (".jpg", ".jpeg") for _, mask in pairs.values())
    if plan is None or (in_colors and not plan.labels.painted):
        return evident_classes(total, in_colors, ignore, lossy, _only_in(values, pairs), solid)
    kept = {value: count for value, count in total.items() if value != plan.labels.ignore}
    soft, names = not in_colors and has_soft_edges(kept, solid), [c.name for c in plan.classes]
    if plan.labels.instances:
        if lossy:
            raise UserError(
                "dataset.mask=instances, but masks are stored as JPEG, which changes numbers",
                "save object numbers as 16 bit PNG or TIFF",
            )
        if soft:
            problem, mend = told_of_soft_edges(kept, names, plan.labels.ignore)
            raise UserError(f"{problem}, no object numbers", f"leave out dataset.mask, {mend}")
        if not set(kept) - {0}:
            raise UserError("The masks hold no object number above 0", "check dataset.masks")
        return plan
    plan = fitted_to(plan, total)
    known = set(plan.labels.values or {})
    if plan.labels.ignore is not None:
        known.add(plan.labels.ignore)
    faults = [
        f"mask {pairs[name][1].name} holds {plan.labels.shown(counted.keys() - known)}"
        for name, counted in values.items()
        if counted.keys() - known
    ]
    if faults:
        mend = f"give each value a class: '{extended_example(plan, total)}'"
        if soft and len(plan.classes) == 2:
            raise UserError(*told_of_soft_edges(kept, names, plan.labels.ignore))
        if len(total) > MOST_CLASSES:
            mend = SWAPPED if len(total) > MOST_NAMED else mend
            mend = f"if these are object numbers, dataset.mask=instances, else {mend}"
        if lossy and in_colors:
            mend = "save the masks as PNG, since JPEG changes colours"
        raise UserError(
            f"Mask values that are no class: {listed(faults)}",
            f"known are {plan.labels.shown(known)}; correct the masks, set "
            f"dataset.ignore, or {mend}",
        )
    seen = {(plan.labels.values or {}).get(value) for value in total}
    absent = [c.name for c in plan.classes if c.id not in seen]
    if absent and whole:
        folder = next(iter(pairs.values()))[1].parent
        log.warning(f"warning: no mask in {folder} shows the class {', '.join(absent)}")
    return plan


def _check_palettes(
    plan: Classes | None, pairs: Pairs, inspected: Mapping[str, Inspected], ignore: Any
) -> None:
    """Refuse masks whose palettes give one number two colours, or one colour two numbers.

    Programs order palettes as they like, so that the colours tell what is what, not the numbers.
    """
    first: dict[tuple[str, int], tuple[int, int, str]] = {}
    for name, found in inspected.items():
        for number, color in found.colors.items():
            for key in (("number", number), ("color", color)):
                other, shade, file = first.setdefault(key, (number, color, pairs[name][1].name))
                if (other, shade) == (number, color):
                    continue
                pixels: Counter[int] = Counter()
                for one in inspected.values():
                    pixels.update(one.by_color())
                shown = Counter(pair for one in inspected.values() for pair in one.colors.items())
                raise UserError(
                    f"The palettes of the masks disagree: {other} is #{shade:06x} in {file}, "
                    f"{number} is #{color:06x} in {pairs[name][1].name}",
                    "if the numbers count, save the masks without palettes; if the colours count, "
                    f"give each class its own: {colored_example(plan, pixels, shown, ignore)}",
                )


def _only_in(values: Mapping[str, Mapping[int, int]], pairs: Pairs) -> dict[int, str]:
    """Value -> the mask file that alone holds it, where several masks were read."""
    holders: dict[int, list[str]] = {}
    for name, counted in values.items():
        for value in counted:
            holders.setdefault(value, []).append(pairs[name][1].name)
    return {v: names[0] for v, names in holders.items() if len(names) == 1 < len(values)}
