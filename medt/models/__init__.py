"""The attention layer and the networks. Every network maps an image to logits."""

from medt.models.attention import AxialAttention
from medt.models.baselines import Baseline
from medt.models.medt import AxialUNet, GatedAxialUNet, LocalGlobalNet, LoGo, MedT
from medt.models.medt_plus import MedTPlus

__all__ = [
    "AxialAttention",
    "AxialUNet",
    "Baseline",
    "GatedAxialUNet",
    "LoGo",
    "LocalGlobalNet",
    "MedT",
    "MedTPlus",
]
