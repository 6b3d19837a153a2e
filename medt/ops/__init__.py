"""The axial attention operation."""

from medt.ops.axial_attention import Backend, axial_attention, set_backend
from medt.ops.parameters import AttentionParameters, AttentionStatistics, Moments, Pool
from medt.ops.similarity import similarity_moments
from medt.ops.tables import PositionTables, position_tables

__all__ = [
    "AttentionParameters",
    "AttentionStatistics",
    "Backend",
    "Moments",
    "Pool",
    "PositionTables",
    "axial_attention",
    "position_tables",
    "set_backend",
    "similarity_moments",
]
