"""Images of different things that share their outline, shading and colours; and changed copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]


def fundus(seed: int, side: int = 384) -> Image:
    """A bright disc on black with vessels that spring from a spot: (side, side, 3) uint8."""
    random = np.random.default_rng(seed)
    y, x = (np.mgrid[:side, :side] - side / 2) / side
    across = random.choice([-0.28, 0.28]) + random.normal(0, 0.015)
    shade = 1 - 1.5 * (y**2 + x**2)
    spot = np.exp(-(y**2 + (x - across) ** 2) / (2 * 0.043**2))
    pixels = shade[..., None] * [200, 90, 40] + spot[..., None] * [60, 90, 60]
    vessels = np.zeros((side, side), np.uint8)
    for _ in range(8):
        angle, width = random.uniform(0, 2 * np.pi), int(random.integers(2, 6))
        place = np.array([side / 2 + across * side, side / 2])
        for step in range(60):
            after = place + 0.016 * side * np.array([np.cos(angle), np.sin(angle)])
            thick = max(1, width - step // 15)
            cv2.line(vessels, place.astype(int).tolist(), after.astype(int).tolist(), 255, thick)
            place, angle = after, angle + random.normal(0, 0.18)
    pixels *= 1 - 0.4 * cv2.GaussianBlur(vessels, (0, 0), 1.0)[..., None] / 255
    pixels += random.normal(0, 3, pixels.shape)
    pixels[y**2 + x**2 > 0.47**2] = 0
    return np.asarray(np.clip(pixels, 0, 255), np.uint8)


def ultrasound(seed: int) -> Image:
    """A sector of speckle with dark cysts on black: (360, 480) uint8."""
    random = np.random.default_rng(seed)
    height, width = 360, 480
    y, x = np.mgrid[:height, :width]
    radius, angle = np.hypot(y + 30, x - width / 2), np.arctan2(x - width / 2, y + 30)
    speckle = cv2.GaussianBlur(random.rayleigh(40, (height, width)), (0, 0), 1.5)
    gain = cv2.resize(random.uniform(0.5, 1.4, (6, 8)), (width, height))
    pixels = 2 * speckle * gain * np.exp(-radius / 450)
    for _ in range(random.integers(1, 4)):
        centre = int(random.uniform(150, 330)), int(random.uniform(90, 300))
        axes = int(random.uniform(15, 52)), int(random.uniform(11, 37))
        cv2.ellipse(pixels, centre, axes, random.uniform(0, 180), 0, 360, 12.0, -1)
    pixels[(radius < 60) | (radius > 375) | (abs(angle) > 0.75)] = 0
    return np.asarray(np.clip(pixels, 0, 255), np.uint8)


def micrograph(seed: int, side: int = 384) -> Image:
    """Cells with dark borders and noise, as in electron microscopy: (side, side) uint8."""
    random = np.random.default_rng(seed)
    centres = random.uniform(0, side, (70, 2))
    y, x = np.mgrid[:side:2, :side:2]
    away = np.sort(np.hypot(y[..., None] - centres[:, 0], x[..., None] - centres[:, 1]))
    border = np.clip((away[..., 1] - away[..., 0]) / 5, 0, 1)
    pixels = cv2.resize(60 + 120 * border + random.normal(0, 18, border.shape), (side, side))
    return np.asarray(np.clip(pixels, 0, 255), np.uint8)


GENERATED: dict[str, Callable[[int], Image]] = {
    "fundus": fundus,
    "ultrasound": ultrasound,
    "micrograph": micrograph,
}


def _jpeg(image: Image) -> Image:
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED))


def _lit(image: Image, factor: float) -> Image:
    return np.asarray(np.clip(image * factor, 0, 255), image.dtype)


def _noisy(image: Image) -> Image:
    noise = np.random.default_rng(0).normal(0, 10, image.shape)
    return np.asarray(np.clip(image + noise, 0, 255), np.uint8)


def _moved(image: Image, matrix: Any, border: int) -> Image:
    height, width = image.shape[:2]
    return np.asarray(cv2.warpAffine(image, np.float32(matrix), (width, height), borderMode=border))


def _shifted(image: Image, border: int) -> Image:
    height, width = image.shape[:2]
    return _moved(image, [[1, 0, 0.02 * width], [0, 1, -0.015 * height]], border)


def _turned(image: Image) -> Image:
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 1.0, 1.0)
    return _moved(image, matrix, cv2.BORDER_REFLECT)


def _without_margin(image: Image, both: bool) -> Image:
    margin = max(1, round(0.01 * max(image.shape[:2])))
    inner = slice(margin, -margin if both else None)
    return image[inner, inner]


CHANGES: dict[str, Callable[[Image], Image]] = {
    "the same": lambda image: image,
    "JPEG": _jpeg,
    "half the size": lambda image: cv2.resize(
        image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA
    ),
    "twice the size": lambda image: cv2.resize(
        image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC
    ),
    "brighter": lambda image: _lit(image, 1.2),
    "darker": lambda image: _lit(image, 0.7),
    "another gamma": lambda image: np.asarray(255 * (image / 255) ** 1.4, np.uint8),
    "noisy": _noisy,
    "blurred": lambda image: cv2.GaussianBlur(image, (0, 0), max(image.shape[:2]) / 300),
    "shifted": lambda image: _shifted(image, cv2.BORDER_REFLECT),
    "shifted in from black": lambda image: _shifted(image, cv2.BORDER_CONSTANT),
    "turned": _turned,
    "cut at two sides": lambda image: _without_margin(image, both=False),
    "cut all around": lambda image: _without_margin(image, both=True),
}
