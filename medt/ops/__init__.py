"""The axial attention operation."""

from medt.ops.axial_attention import axial_attention
from medt.ops.similarity import similarity_moments
from medt.ops.tables import PositionTables, position_tables

__all__ = ["PositionTables", "axial_attention", "position_tables", "similarity_moments"]
