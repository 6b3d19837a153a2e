"""The metric families, in the order in which they are shown."""

from __future__ import annotations

from medt.metrics.boundary import BOUNDARY
from medt.metrics.calibration import CALIBRATION
from medt.metrics.centreline import CENTRELINE
from medt.metrics.family import Family
from medt.metrics.glands import GLAS
from medt.metrics.lesions import LESIONS
from medt.metrics.nuclei import NUCLEI
from medt.metrics.pixel import PIXEL
from medt.metrics.ranking import RANKING

FAMILIES: tuple[Family, ...] = (
    *(PIXEL, CALIBRATION, RANKING, BOUNDARY, LESIONS, NUCLEI, GLAS, CENTRELINE),
)
