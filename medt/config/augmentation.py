"""The typed schema of configs/augmentation/."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class AugmentationConfig:
    _target_: str | None = None


@dataclass
class FlipConfig(AugmentationConfig):
    _target_: str = "medt.data.augmentation.Flip"
    probability: float = 0.5


@dataclass
class DeformationConfig(AugmentationConfig):
    affine_probability: float = 0.5
    rotation: float = 45.0
    zoom: list[float] = field(default_factory=lambda: [0.8, 1.25])
    shift: float = 0.1
    elastic_probability: float = 0.2
    elastic_strength: float = 0.015


@dataclass
class HistologyConfig(DeformationConfig):
    _target_: str = "medt.data.augmentation.Histology"
    color_probability: float = 0.8
    color_gain: float = 0.1
    color_shift: float = 0.15
    blur_probability: float = 0.1
    noise_probability: float = 0.2


@dataclass
class StrongConfig(HistologyConfig):
    _target_: str = "medt.data.augmentation.Strong"
    affine_probability: float = 0.8
    zoom: list[float] = field(default_factory=lambda: [0.7, 1.4])
    elastic_probability: float = 0.4
    elastic_strength: float = 0.02
    color_probability: float = 0.9
    color_gain: float = 0.2
    color_shift: float = 0.3
    blur_probability: float = 0.2
    noise_probability: float = 0.3
    gamma_probability: float = 0.3
    gamma: list[float] = field(default_factory=lambda: [0.6, 1.6])
    dropout_probability: float = 0.3
    dropout_size: float = 0.2


@dataclass
class GreyConfig(DeformationConfig):
    _target_: str = "medt.data.augmentation.Grey"
    elastic_probability: float = 0.3
    contrast_probability: float = 0.5
    contrast: float = 0.15
    brightness: float = 0.2
    gamma_probability: float = 0.3
    gamma: list[float] = field(default_factory=lambda: [0.7, 1.5])
    blur_probability: float = 0.2
    noise_probability: float = 0.2
    upright: bool = False


@dataclass
class UltrasoundConfig(DeformationConfig):
    _target_: str = "medt.data.augmentation.Ultrasound"
    rotation: float = 15.0
    zoom: list[float] = field(default_factory=lambda: [0.85, 1.2])
    shift: float = 0.05
    elastic_strength: float = 0.01
    gain_probability: float = 0.5
    gain: float = 0.3
    speckle_probability: float = 0.3
    speckle: float = 0.15
    gamma_probability: float = 0.3
    gamma: list[float] = field(default_factory=lambda: [0.7, 1.5])
    shadow_probability: float = 0.2
    shadow: float = 0.8
