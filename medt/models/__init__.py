"""The attention layer and the networks. Every network maps an image to logits."""

from medt.models.axial_attention import AxialAttention
from medt.models.axial_unet import AxialUNet, GatedAxialUNet
from medt.models.baselines import Baseline
from medt.models.local_global import LocalGlobalNet, LoGo, MedT

__all__ = [
    "AxialAttention",
    "AxialUNet",
    "Baseline",
    "GatedAxialUNet",
    "LoGo",
    "LocalGlobalNet",
    "MedT",
]
