"""Image sizes that a network's strides divide."""

from __future__ import annotations

from collections.abc import Sequence

from medt.errors import UserError


def as_size(image_size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) from one number or two.

    Raises:
        UserError: for anything but one or two positive whole numbers.
    """
    values = list(image_size) if isinstance(image_size, Sequence) else [image_size] * 2
    if len(values) != 2 or not all(type(v) is int and v > 0 for v in values):
        raise UserError(
            f"image_size={image_size!r} is not a size in pixels",
            "give one number, or height and width as [256,320]",
        )
    return values[0], values[1]


def check_size(
    size: tuple[int, int], multiples: tuple[int, int], network: str, smallest: int = 1
) -> None:
    """Raises UserError, naming the nearest sizes that fit, unless `multiples` divide `size`.

    Neither side may be below `smallest`, which the multiples divide.
    """
    if all(s % m == 0 and s >= smallest for s, m in zip(size, multiples, strict=True)):
        return
    least = [max(m, smallest) for m in multiples]
    sides = list(zip(size, multiples, least, strict=True))
    below = tuple(max(low, s // m * m) for s, m, low in sides)
    above = tuple(max(low, -(-s // m) * m) for s, m, low in sides)
    nearest = " or ".join(f"{h} x {w}" for h, w in dict.fromkeys((below, above)))
    needed = f"multiples of {multiples[0]} x {multiples[1]}"
    if smallest > 1:
        needed += f", at least {smallest} x {smallest}"
    raise UserError(
        f"image size {size[0]} x {size[1]} does not fit {network}, which needs {needed}",
        f"the nearest that fit: {nearest}",
    )
