"""Which scores suit a task: what is measured beside the pixels."""

from __future__ import annotations

from collections.abc import Sequence

from medt.errors import UserError
from medt.metrics.families import FAMILIES

Part = str  # of a family
PARTS: tuple[Part, ...] = tuple(dict.fromkeys(family.part for family in FAMILIES))
USUAL: tuple[Part, ...] = ("pixel", "boundary", "objects")
# Vessels and membranes are nets: they are one object, and what counts is where they are connected.
OF_NETS: tuple[Part, ...] = ("pixel", "topology")
OF_DATASET = {"drive": OF_NETS, "isbi2012": OF_NETS}


def parts_of(asked: Sequence[str] | None, dataset: str, protocol: str) -> tuple[Part, ...]:
    """What to measure: what was asked for, else what suits the dataset; pixels always.

    Raises:
        UserError: something asked for is not known.
    """
    if asked is None:
        chosen = list(OF_DATASET.get(dataset, USUAL))
    else:
        chosen = [part for part in PARTS if part in asked]
        if unknown := [str(part) for part in asked if part not in PARTS]:
            raise UserError(
                f"scores=[{','.join(map(str, asked))}]: {unknown[0]} is not known",
                f"choose from {', '.join(PARTS)}",
            )
    needed = {"pixel", *chosen} | ({"objects"} if protocol == "glas_challenge" else set())
    return tuple(part for part in PARTS if part in needed)
