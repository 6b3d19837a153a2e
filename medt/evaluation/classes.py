"""A dataset whose classes are brought into the order of a network's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from medt.data.layout import DatasetIndex, SegmentationClass
from medt.errors import UserError


def in_order_of(
    index: DatasetIndex, classes: Sequence[SegmentationClass], file: str
) -> DatasetIndex:
    """The dataset with its classes in the order of a network's.

    Args:
        index: the dataset.
        classes: of the network.
        file: its checkpoint, for the error.

    Raises:
        UserError: their names differ, or the masks hold object numbers, which say by themselves
            what is background.
    """
    trained, present = ([c.name for c in owner] for owner in (classes, index.classes))
    if set(trained) != set(present):
        raise UserError(
            f"{file} was trained on the classes {', '.join(trained)}, "
            f"but dataset {index.name} has {', '.join(present)}",
            "evaluate on a dataset with the same classes; those of your own folder are named by "
            f"'dataset.classes=[{','.join(trained)}]'",
        )
    return index if trained == present else _in_order(index, classes)


def _in_order(index: DatasetIndex, classes: Sequence[SegmentationClass]) -> DatasetIndex:
    if index.labels.instances:
        raise UserError(
            f"dataset.mask=instances has the background first, {index.name} names it "
            f"{index.classes[0].name}",
            f"give 'dataset.classes=[{','.join(c.name for c in classes)}]'",
        )
    place = {c.name: c.id for c in classes}
    new_id = {c.id: place[c.name] for c in index.classes}
    values = index.labels.values or {c.id: c.id for c in index.classes}
    labels = replace(index.labels, values={value: new_id[own] for value, own in values.items()})
    return replace(index, classes=tuple(classes), labels=labels)
