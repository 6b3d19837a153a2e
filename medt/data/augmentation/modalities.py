"""One augmentation a kind of image."""

from __future__ import annotations

from typing import Any

import albumentations as A
import cv2

from medt.data.augmentation.base import Deformation, as_probability, as_range, as_strength
from medt.data.augmentation.transforms import ColorJitter, DepthGain, Shadow, Speckle

BLUR = (0.3, 1.2)  # deviation in pixels
NOISE = (0.01, 0.04)  # deviation as a fraction of full scale


class Histology(Deformation):
    """For tissue, which has no up and down, in varying stain and sharpness.

    Laboratories stain alike but not equally: of all changes that of colours helps most on images of
    another laboratory (Tellez et al. 2019, https://arxiv.org/abs/1902.06543). Flips always; quarter
    turns where images are square.

    Args:
        affine_probability, rotation, zoom, shift, elastic_probability, elastic_strength: as for
            `Deformation`.
        color_probability: of a change of colours: in colour images by channel, else all alike.
        color_gain: standard deviation of the factor, around the channel's mean.
        color_shift: standard deviation of the shift, in standard deviations of the channel.
        blur_probability: of a Gaussian blur of 0.3 to 1.2 pixels.
        noise_probability: of Gaussian noise with a deviation of 0.01 to 0.04 of full scale.

    Raises:
        UserError: a probability outside 0..1, a negative strength, or a zoom that is no range.
    """

    def __init__(
        self,
        affine_probability: float = 0.5,
        rotation: float = 45.0,
        zoom: tuple[float, float] = (0.8, 1.25),
        shift: float = 0.1,
        elastic_probability: float = 0.2,
        elastic_strength: float = 0.015,
        color_probability: float = 0.8,
        color_gain: float = 0.1,
        color_shift: float = 0.15,
        blur_probability: float = 0.1,
        noise_probability: float = 0.2,
    ) -> None:
        super().__init__(
            affine_probability, rotation, zoom, shift, elastic_probability, elastic_strength
        )
        self.color_probability = as_probability(color_probability, "color_probability")
        self.color_gain = as_strength(color_gain, "color_gain")
        self.color_shift = as_strength(color_shift, "color_shift")
        self.blur_probability = as_probability(blur_probability, "blur_probability")
        self.noise_probability = as_probability(noise_probability, "noise_probability")

    def appearance(self, height: int, width: int, channels: int) -> list[Any]:
        return [
            ColorJitter(self.color_gain, self.color_shift, p=self.color_probability),
            A.GaussianBlur(sigma_limit=BLUR, p=self.blur_probability),
            A.GaussNoise(std_range=NOISE, p=self.noise_probability),
        ]


class Strong(Histology):
    """For few images, of any kind that has no up and down: larger changes, and more of them.

    Elastic deformations let a U-Net learn from thirty images (Ronneberger et al. 2015,
    https://arxiv.org/abs/1505.04597); gamma varies contrast as in nnU-Net (Isensee et al. 2021,
    Nature Methods 18). Boxes hide parts (DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552)
    so that the network looks at the surroundings: of the image only, the mask says what lies
    behind.

    Args:
        affine_probability, rotation, zoom, shift, elastic_probability, elastic_strength,
        color_probability, color_gain, color_shift, blur_probability, noise_probability: as for
            `Histology`.
        gamma_probability: of a power of the values on the scale 0..1.
        gamma: smallest and largest exponent.
        dropout_probability: of 1 to 6 black boxes.
        dropout_size: longest side of a box, as a fraction of the image's; the shortest is a third.

    Raises:
        UserError: as `Histology`, or a gamma that is no range, or boxes larger than the image.
    """

    def __init__(
        self,
        affine_probability: float = 0.8,
        rotation: float = 45.0,
        zoom: tuple[float, float] = (0.7, 1.4),
        shift: float = 0.1,
        elastic_probability: float = 0.4,
        elastic_strength: float = 0.02,
        color_probability: float = 0.9,
        color_gain: float = 0.2,
        color_shift: float = 0.3,
        blur_probability: float = 0.2,
        noise_probability: float = 0.3,
        gamma_probability: float = 0.3,
        gamma: tuple[float, float] = (0.6, 1.6),
        dropout_probability: float = 0.3,
        dropout_size: float = 0.2,
    ) -> None:
        super().__init__(
            affine_probability,
            rotation,
            zoom,
            shift,
            elastic_probability,
            elastic_strength,
            color_probability,
            color_gain,
            color_shift,
            blur_probability,
            noise_probability,
        )
        self.gamma_probability = as_probability(gamma_probability, "gamma_probability")
        self.gamma = as_range(gamma, "gamma")
        self.dropout_probability = as_probability(dropout_probability, "dropout_probability")
        self.dropout_size = as_probability(dropout_size, "dropout_size")

    def appearance(self, height: int, width: int, channels: int) -> list[Any]:
        sides = (self.dropout_size / 3, self.dropout_size)
        return [
            *super().appearance(height, width, channels),
            _gamma(self.gamma, self.gamma_probability),
            A.CoarseDropout(
                num_holes_range=(1, 6),
                hole_height_range=sides,
                hole_width_range=sides,
                p=self.dropout_probability,
            ),
        ]


class Grey(Deformation):
    """For images without colour: electron microscopy, X-ray, infrared, slices of CT or MR.

    Elastic deformations are the key to few slices of electron microscopy (Ronneberger et al. 2015,
    https://arxiv.org/abs/1505.04597); contrast, brightness, gamma, noise and blur are those of
    nnU-Net (Isensee et al. 2021, Nature Methods 18), in all channels alike.

    Args:
        affine_probability, rotation, zoom, shift, elastic_probability, elastic_strength: as for
            `Deformation`.
        contrast_probability: of a change of contrast and brightness.
        contrast: standard deviation of the factor, around the image's mean.
        brightness: standard deviation of the shift, in standard deviations of the image.
        gamma_probability: of a power of the values on the scale 0..1.
        gamma: smallest and largest exponent.
        blur_probability: of a Gaussian blur of 0.3 to 1.2 pixels.
        noise_probability: of Gaussian noise with a deviation of 0.01 to 0.04 of full scale.
        upright: whether up and down differ, as in a chest X-ray: neither mirrors top to bottom nor
            takes quarter turns; lower `rotation`, too.

    Raises:
        UserError: a probability outside 0..1, a negative strength, or a zoom or gamma that is no
            range.
    """

    def __init__(
        self,
        affine_probability: float = 0.5,
        rotation: float = 45.0,
        zoom: tuple[float, float] = (0.8, 1.25),
        shift: float = 0.1,
        elastic_probability: float = 0.3,
        elastic_strength: float = 0.015,
        contrast_probability: float = 0.5,
        contrast: float = 0.15,
        brightness: float = 0.2,
        gamma_probability: float = 0.3,
        gamma: tuple[float, float] = (0.7, 1.5),
        blur_probability: float = 0.2,
        noise_probability: float = 0.2,
        upright: bool = False,
    ) -> None:
        super().__init__(
            affine_probability,
            rotation,
            zoom,
            shift,
            elastic_probability,
            elastic_strength,
            upright,
        )
        self.contrast_probability = as_probability(contrast_probability, "contrast_probability")
        self.contrast = as_strength(contrast, "contrast")
        self.brightness = as_strength(brightness, "brightness")
        self.gamma_probability = as_probability(gamma_probability, "gamma_probability")
        self.gamma = as_range(gamma, "gamma")
        self.blur_probability = as_probability(blur_probability, "blur_probability")
        self.noise_probability = as_probability(noise_probability, "noise_probability")

    def appearance(self, height: int, width: int, channels: int) -> list[Any]:
        return [
            ColorJitter(self.contrast, self.brightness, p=self.contrast_probability),
            _gamma(self.gamma, self.gamma_probability),
            A.GaussianBlur(sigma_limit=BLUR, p=self.blur_probability),
            A.GaussNoise(std_range=NOISE, per_channel=False, p=self.noise_probability),
        ]


class Ultrasound(Deformation):
    """For B-mode images, whose top is the probe: no mirror top to bottom, small turns.

    Changes of values are factors, so that what is black around the fan stays black: gain over depth
    and shadows behind bone or gas (Singla et al. 2022, "Speckle and Shadows", MIDL; shadows first
    by Smistad et al. 2018, Journal of Medical Imaging 5), speckle, which is multiplicative
    (Burckhardt 1978, IEEE Transactions on Sonics and Ultrasonics 25), and gamma for the compression
    of the echoes. Zoom, shift and gentle deformation stay: what serves other images serves these
    too (Tupper and Gagné 2025, https://arxiv.org/abs/2501.13193), but large turns leave what a
    probe can show (Tirindelli et al. 2021, https://arxiv.org/abs/2105.02188). Beyond an edge the
    edge is repeated: a mirrored fan would be a second probe.

    Args:
        affine_probability, rotation, zoom, shift, elastic_probability, elastic_strength: as for
            `Deformation`.
        gain_probability: of a gain over depth.
        gain: its factors lie within 1 +- this.
        speckle_probability: of multiplicative noise.
        speckle: standard deviation of its factors.
        gamma_probability: of a power of the values on the scale 0..1.
        gamma: smallest and largest exponent.
        shadow_probability: of a shadow.
        shadow: how much of the brightness it takes at most, 0..1.

    Raises:
        UserError: a probability, gain or shadow outside 0..1, a negative strength, or a zoom or
            gamma that is no range.
    """

    def __init__(
        self,
        affine_probability: float = 0.5,
        rotation: float = 15.0,
        zoom: tuple[float, float] = (0.85, 1.2),
        shift: float = 0.05,
        elastic_probability: float = 0.2,
        elastic_strength: float = 0.01,
        gain_probability: float = 0.5,
        gain: float = 0.3,
        speckle_probability: float = 0.3,
        speckle: float = 0.15,
        gamma_probability: float = 0.3,
        gamma: tuple[float, float] = (0.7, 1.5),
        shadow_probability: float = 0.2,
        shadow: float = 0.8,
    ) -> None:
        super().__init__(
            affine_probability,
            rotation,
            zoom,
            shift,
            elastic_probability,
            elastic_strength,
            upright=True,
            border=cv2.BORDER_REPLICATE,
        )
        self.gain_probability = as_probability(gain_probability, "gain_probability")
        self.gain = as_probability(gain, "gain")
        self.speckle_probability = as_probability(speckle_probability, "speckle_probability")
        self.speckle = as_strength(speckle, "speckle")
        self.gamma_probability = as_probability(gamma_probability, "gamma_probability")
        self.gamma = as_range(gamma, "gamma")
        self.shadow_probability = as_probability(shadow_probability, "shadow_probability")
        self.shadow = as_probability(shadow, "shadow")

    def appearance(self, height: int, width: int, channels: int) -> list[Any]:
        return [
            DepthGain(self.gain, p=self.gain_probability),
            Speckle(self.speckle, p=self.speckle_probability),
            _gamma(self.gamma, self.gamma_probability),
            Shadow(self.shadow, p=self.shadow_probability),
        ]


def _gamma(exponents: tuple[float, float], probability: float) -> Any:
    low, high = exponents
    return A.RandomGamma(gamma_limit=(100 * low, 100 * high), p=probability)
