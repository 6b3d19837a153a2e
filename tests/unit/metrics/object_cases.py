"""Label maps to score objects on: random ones, and ones that break careless code."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))
PAIRS = SIZES.flatmap(
    lambda size: st.tuples(*2 * [arrays(np.int32, size, elements=st.sampled_from([0, 0, 1, 2, 7]))])
)


def disks(rng, size=(40, 48), count=8):
    """Disks of random places and sizes; later ones cover earlier ones."""
    labels = np.zeros(size, np.uint16)
    rows, columns = np.ogrid[: size[0], : size[1]]
    for number in range(1, rng.integers(1, count) + 1):
        y, x, radius = rng.integers(0, size[0]), rng.integers(0, size[1]), rng.uniform(1, 9)
        labels[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = 3 * number
    return labels


def moved(rng, labels):
    """The same objects a little aside, some lost, with other numbers."""
    aside = np.roll(labels, rng.integers(-3, 4, 2), (0, 1))
    lost = rng.random(labels.max() + 1) < 0.2
    lost[0] = False
    return np.where(lost[aside], 0, aside.astype(np.int64) * 5)


def objects_of(labels):
    """A boolean mask for each object."""
    return [labels == number for number in np.unique(labels[labels > 0])]


def adversarial():
    """(name, prediction, truth)."""
    empty, full = np.zeros((6, 8), int), np.ones((6, 8), int)
    halves = full.copy()
    halves[:, 4:] = 2
    ring = full.copy()
    ring[2:4, 3:5] = 0
    dot = empty.copy()
    dot[2, 3] = 9
    parted = empty.copy()
    parted[0, 0] = parted[5, 7] = 4
    return [
        ("both empty", empty, empty),
        ("nothing predicted", empty, full),
        ("nothing true", full, empty),
        ("identical", halves, halves),
        ("other numbers", halves * 1000, halves),
        ("one over two", full, halves),
        ("two over one", halves, full),
        ("a dot in a ring", dot, ring),
        ("a ring around a dot", ring, dot),
        ("an object in two parts", parted, full),
        ("corners against a dot", parted, dot),
        ("exactly half", np.where(halves == 1, 5, 0), full),
    ]
