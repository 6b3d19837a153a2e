"""Synthetic H&E-stained gland images, made on the spot, in the manner of the GlaS colon dataset.

They let training and tests run without a download. A picture is built from the concentrations of
haematoxylin (nuclei, blue-violet) and eosin (cytoplasm and fibres, pink), which each image's own
stain matrix turns into optical density and RGB. As in real slides, glands and surroundings share
their colours: a lumen (part of its gland) is as white as a tear in the tissue (background), and
inflamed stroma is as dark as epithelium. What tells a gland is structure: crowded, elongated nuclei
along a closed border, around cytoplasm, mucin or a lumen.

Lengths in this file are in pixels of a 256 x 256 image; ``scale`` turns them into actual pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Instances = NDArray[np.uint16]

REFERENCE_SIZE = 256
# Optical density (natural logarithm) of R, G, B at concentration 1, as colon slides show it.
STAIN_RGB = ((0.95, 1.35, 0.55), (0.10, 0.80, 0.38))  # haematoxylin, eosin
PLACEMENT_ATTEMPTS = 250
SMALLEST_GLAND = 150  # area below which what an overlap leaves of a gland is dropped
TOUCHING_OVERLAP = 0.15  # fraction of a gland that may lie where another one already is


@dataclass(frozen=True)
class SyntheticCase:
    """One synthetic image and its glands."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB, 0..255
    instances: Instances  # (H, W), 0 = background, 1..n = glands, each connected, lumens included


def synthetic_case(seed: int, index: int, size: int = REFERENCE_SIZE) -> SyntheticCase:
    """Make case ``index`` (>= 0) of collection ``seed`` (>= 0): a pure function of its arguments.

    ``size`` is the height and width in pixels: more pixels show a field of view finer, not wider.
    """
    rng = np.random.default_rng((seed, index))
    tissue = _Tissue(rng, scale=size / REFERENCE_SIZE)
    void = _patches(rng, size, 80 * tissue.scale, tissue.void)
    instances = _place_glands(rng, tissue, void)
    stains = _Stains(np.zeros((size, size), np.float32), np.zeros((size, size), np.float32))
    _paint_stroma(rng, tissue, stains)
    stains.blend(void, 0.0, 0.02)
    _paint_debris(rng, tissue, stains, _patches(rng, size, 30 * tissue.scale, tissue.debris))
    _paint_glands(rng, tissue, stains, instances)
    return SyntheticCase(_develop(rng, tissue, stains), instances)


class _Tissue:
    """What is common to a whole image: one patient, one slide."""

    def __init__(self, rng: Generator, scale: float) -> None:
        self.scale = scale  # pixels per unit of length
        crowded = rng.random() < 0.5
        self.coverage = rng.uniform(0.4, 0.7) if crowded else rng.uniform(0.25, 0.55)
        sparse = rng.random()
        if sparse < 0.18:
            self.coverage = 0.0 if sparse > 0.17 else rng.uniform(0.08, 0.2)
        # Of the glands: the gap is relative to their radius, 0 lets them touch.
        self.gap = 0.0 if crowded else rng.uniform(0.08, 0.35)
        self.radius = np.exp(rng.uniform(np.log(19), np.log(40)))
        self.elongation = rng.uniform(1.0, 2.6)
        self.wobble = rng.uniform(0.05, 0.3)
        self.direction = rng.uniform(0, np.pi)  # radians; of fibres too
        # Of the epithelium: one neat row of nuclei, or the stratified ones of a tumour.
        self.nuclear_rows = rng.uniform(1.0, 2.8)
        self.cell_height = rng.uniform(12, 20)
        self.goblet = rng.choice([0.0, 0.2, 0.9])  # fraction of glands full of mucin vacuoles
        self.cytoplasm = rng.uniform((0.05, 0.3), (0.3, 0.9))  # haematoxylin, eosin
        self.nucleus = rng.uniform(0.8, 1.15)  # haematoxylin
        # Of the surroundings: fractions of the image, but for the eosin and the width of the cleft.
        self.stroma_eosin = rng.uniform(0.3, 1.1)
        self.cellularity = rng.uniform(0.1, 0.9)
        self.cleft = rng.choice([0.0, 0.0, rng.uniform(2.0, 6.0)])  # around shrunken glands
        self.void = rng.choice([0.0, 0.0, rng.uniform(0.05, 0.4)])  # bare slide
        self.debris = rng.choice([0.0, 0.0, rng.uniform(0.05, 0.25)])  # necrosis or mucus


@dataclass(frozen=True)
class _Stains:
    """Concentrations, (H, W), at least 0: 0 is clear glass, about 1 a nucleus or dense collagen."""

    haematoxylin: Floats
    eosin: Floats

    def blend(self, weight: Floats, haematoxylin: Floats | float, eosin: Floats | float) -> None:
        """Move to other concentrations as far as ``weight`` (H, W), 0..1, says."""
        self.haematoxylin[:] += weight * (haematoxylin - self.haematoxylin)
        self.eosin[:] += weight * (eosin - self.eosin)

    def add_nuclei(self, cover: Floats, haematoxylin: float) -> None:
        """Put nuclei (``cover`` (H, W), 0..1) on top of what is there."""
        self.blend(cover, haematoxylin, np.float32(0.4) * self.eosin + np.float32(0.1))


def _place_glands(rng: Generator, tissue: _Tissue, void: Floats) -> Instances:
    """(H, W) instance map. Where touching glands would overlap, the first keeps the place."""
    instances, count = np.zeros(void.shape, np.uint16), 0
    for _ in range(PLACEMENT_ATTEMPTS):
        if np.count_nonzero(instances) >= tissue.coverage * instances.size:
            break
        centre = rng.integers(len(void), size=2)
        outline = _gland_outline(rng, tissue)
        body = _filled(outline + centre, len(void))
        reach = _filled(outline * (1 + tissue.gap) + centre, len(void))
        allowed = 0 if tissue.gap else TOUCHING_OVERLAP * np.count_nonzero(body)
        if void[tuple(centre)] or np.count_nonzero(instances[reach]) > allowed:
            continue
        free = (body & (instances == 0)).astype(np.uint8)
        _, pieces, stats, _ = cv2.connectedComponentsWithStats(free, connectivity=4)
        areas = stats[1:, cv2.CC_STAT_AREA]
        if areas.max(initial=0) >= SMALLEST_GLAND * tissue.scale**2:
            count += 1
            instances[pieces == 1 + areas.argmax()] = count
    return instances


def _gland_outline(rng: Generator, tissue: _Tissue) -> Doubles:
    """(120, 2) rows and columns, around 0, of a bent, wavy ellipse."""
    azimuth = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    radius = np.ones_like(azimuth)
    for order in range(2, 7):
        amplitude = tissue.wobble * rng.normal() / order
        radius += amplitude * np.cos(order * azimuth + rng.uniform(0, 2 * np.pi))
    radius = np.maximum(radius, 0.5) * tissue.scale * tissue.radius * rng.lognormal(0, 0.25)
    stretch = np.sqrt(1 + (tissue.elongation - 1) * rng.uniform(0.3, 1.2))
    along = np.cos(azimuth) * stretch
    across = np.sin(azimuth) / stretch + rng.normal(0, tissue.wobble) * along**2
    angle = tissue.direction + rng.normal(0, 0.35)
    rows = along * np.sin(angle) + across * np.cos(angle)
    columns = along * np.cos(angle) - across * np.sin(angle)
    return np.stack((rows * radius, columns * radius), axis=1)


def _filled(outline: Doubles, size: int) -> NDArray[np.bool_]:
    """(size, size), True within the closed outline (n, 2) of rows and columns."""
    canvas = np.zeros((size, size), np.uint8)
    cv2.fillPoly(canvas, [np.rint(outline[:, ::-1]).astype(np.int32)], (1,))
    return canvas > 0


def _paint_stroma(rng: Generator, tissue: _Tissue, stains: _Stains) -> None:
    """Wavy fibres with clefts, vessels and nuclei between them."""
    size, scale = len(stains.eosin), tissue.scale
    fibres = _fibres(rng, tissue, size)
    thickness = 1 + 0.25 * _noise(rng, size, 30 * scale) + 0.25 * fibres
    stains.haematoxylin[:] = 0.12
    stains.eosin[:] = np.maximum(tissue.stroma_eosin * thickness, 0.05)
    clefts = _smoothstep(fibres + 0.7 * _noise(rng, size, 40 * scale), 1.2, 2.0)
    stains.blend(clefts, 0.0, 0.03)

    vessels = _strew(rng, scale, np.full_like(fibres, 0.12), 45, (9, 6))
    walls = cv2.GaussianBlur(vessels, (0, 0), 2 * scale).astype(np.float32)
    stains.blend(walls, 0.15, 1.0)
    stains.blend(vessels, 0.0, 0.03)
    stains.blend(_strew(rng, scale, 0.6 * vessels, 5, (2.0, 2.0)), 0.0, 1.4)  # red cells

    inflammation = tissue.cellularity * (0.45 + 0.35 * _noise(rng, size, 28 * scale))
    lymphocytes = _strew(rng, scale, inflammation * (1 - clefts), 5, (2.1, 1.8))
    stains.add_nuclei(lymphocytes, tissue.nucleus)
    fibroblasts = _strew(rng, scale, 0.35 * (1 - clefts), 11, (3.8, 1.1), tissue.direction)
    stains.add_nuclei(fibroblasts, tissue.nucleus)


def _paint_debris(rng: Generator, tissue: _Tissue, stains: _Stains, extent: Floats) -> None:
    """Necrosis and mucus: pale lumps and fragments of nuclei, where ``extent`` (H, W), 0..1, is."""
    lumps = _smoothstep(_noise(rng, len(extent), 4 * tissue.scale), -0.4, 0.8)
    stains.blend(extent, 0.1 * lumps, 0.02 + 0.8 * tissue.stroma_eosin * lumps)
    stains.add_nuclei(_strew(rng, tissue.scale, 0.35 * extent, 5, (1.7, 1.2)), tissue.nucleus)


def _paint_glands(rng: Generator, tissue: _Tissue, stains: _Stains, instances: Instances) -> None:
    """Epithelium around mucin and lumen, in place of whatever was painted there."""
    size, scale, count = len(instances), tissue.scale, int(instances.max())
    depth = _distance_to_border(instances) / np.float32(scale)
    gland = (instances > 0).astype(np.float32)
    if tissue.cleft:
        width = tissue.cleft * (0.5 + 0.5 * _noise(rng, size, 20 * scale))
        stains.blend((1 - gland) * _smoothstep(width - depth, -1.0, 1.0), 0.0, 0.03)

    def per_gland(values: Doubles) -> Floats:
        return np.append(0, values).astype(np.float32)[instances]

    shade = per_gland(rng.uniform(0.85, 1.15, count)) * (1 + 0.12 * _noise(rng, size, 3 * scale))
    stains.blend(gland, *tissue.cytoplasm.astype(np.float32)[:, None, None] * shade)
    nuclear_band = 3 + 3.6 * tissue.nuclear_rows
    goblet = rng.random(count) < tissue.goblet
    mucin = per_gland(goblet.astype(float)) * (depth > nuclear_band)
    stains.blend(_strew(rng, scale, mucin, 8, (3.9, 3.3)), 0.06, 0.08)  # vacuoles

    deepest = np.zeros(count + 1, np.float32)
    np.maximum.at(deepest, instances, depth)
    solid = goblet | (rng.random(count) < 0.12)  # no lumen but a narrow slit
    openness = np.where(solid, rng.uniform(0.8, 1.0, count), rng.uniform(0.4, 0.8, count))
    epithelium = np.minimum(np.where(solid, np.inf, tissue.cell_height), openness * deepest[1:])
    surface = per_gland(epithelium) * (1 + 0.15 * _noise(rng, size, 6 * scale))
    lumen = gland * _smoothstep(depth - surface, -0.5, 1.0)
    stains.blend(lumen, 0.0, 0.02)
    dirt = per_gland((rng.random(count) < 0.3) * rng.uniform(0.4, 1.0, count))
    _paint_debris(rng, tissue, stains, lumen * dirt)

    # Crowded nuclei across the border: the mark of a gland.
    band = gland * (1 - lumen) * (depth > 2.2) * (depth < nuclear_band)
    slope = cv2.GaussianBlur(depth, (0, 0), 2 * scale)
    inward = np.arctan2(cv2.Sobel(slope, cv2.CV_32F, 0, 1), cv2.Sobel(slope, cv2.CV_32F, 1, 0))
    stains.add_nuclei(_strew(rng, scale, 0.95 * band, 3.3, (2.9, 1.4), inward), tissue.nucleus)


def _develop(rng: Generator, tissue: _Tissue, stains: _Stains) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: Beer-Lambert with this image's stains, then lamp, lens and camera."""
    matrix = np.array(STAIN_RGB) * rng.lognormal(0, 0.12, (2, 3)) * rng.uniform(0.7, 1.25, (2, 1))
    density = np.dstack((stains.haematoxylin, stains.eosin)) @ matrix.astype(np.float32)
    lamp = 248 * rng.uniform(0.96, 1.02, 3).astype(np.float32)
    shading = 1 + 0.02 * _noise(rng, len(density), len(density))
    light = lamp * shading[..., None] * np.exp(-density)
    light = cv2.GaussianBlur(light, (0, 0), tissue.scale * rng.uniform(0.5, 0.9))
    grain = rng.uniform(1, 4) * rng.standard_normal(light.shape, np.float32)
    return np.clip(np.rint(light + grain), 0, 255).astype(np.uint8)


def _noise(rng: Generator, size: int, length: float) -> Floats:
    """(size, size) noise, mean 0 and deviation about 1, that varies over ``length`` pixels."""
    cells = int(np.ceil(size / length)) + 3
    coarse = rng.normal(0, 1.3, (cells, cells)).astype(np.float32)
    fine = cv2.resize(coarse, None, fx=length, fy=length, interpolation=cv2.INTER_CUBIC)
    margin = int(1.5 * length)  # a resized image repeats its edge: stay away from it
    return fine[margin : margin + size, margin : margin + size].astype(np.float32, copy=False)


def _patches(rng: Generator, size: int, length: float, fraction: float) -> Floats:
    """(size, size), 1 on random patches about ``length`` pixels wide, 0 elsewhere."""
    level = _noise(rng, size, length)
    return np.asarray(level > np.quantile(level, 1 - fraction), np.float32)


def _fibres(rng: Generator, tissue: _Tissue, size: int) -> Floats:
    """(size, size) noise of deviation about 1, stretched along wavy strands."""
    white = rng.standard_normal((2 * size, 2 * size), np.float32)
    strands = cv2.GaussianBlur(white, (0, 0), sigmaX=7 * tissue.scale, sigmaY=1.1 * tissue.scale)
    wave = 7 * tissue.scale * _noise(rng, size, 40 * tissue.scale)
    y, x = np.mgrid[:size, :size] - size / 2
    along = size + x * np.cos(tissue.direction) + y * np.sin(tissue.direction)
    across = size + y * np.cos(tissue.direction) - x * np.sin(tissue.direction) + wave
    columns, rows = along.astype(np.float32), across.astype(np.float32)
    fibres = cv2.remap(strands / strands.std(), columns, rows, cv2.INTER_LINEAR)
    return np.asarray(fibres, np.float32)


def _smoothstep(value: Floats, low: float, high: float) -> Floats:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _distance_to_border(instances: Instances) -> Floats:
    """(H, W) distance in pixels to the nearest change of label; the image's edge is none."""
    padded = np.pad(instances, ((0, 1), (0, 1)), mode="edge")
    border = (padded[1:, :-1] != instances) | (padded[:-1, 1:] != instances)
    inside = (~border).astype(np.uint8)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.asarray(np.minimum(distance, len(inside)), np.float32)  # without a border it is huge


def _strew(
    rng: Generator,
    scale: float,
    probability: Floats,
    spacing: float,
    axes: tuple[float, float],
    angles: Floats | float = 0.0,
) -> Floats:
    """(H, W) cover, 0..1, of filled ellipses on a jittered grid, more or less large and opaque.

    Each is kept with the ``probability`` (H, W) at its place. Its half lengths are ``axes``, along
    and across the direction ``angles`` (H, W) in radians.
    """
    canvas = np.zeros(probability.shape, np.uint8)
    ticks = np.arange(0, len(canvas), spacing * scale)
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    centres = grid + rng.uniform(-0.45, 0.45, grid.shape) * spacing * scale
    rows, columns = np.clip(centres, 0, len(canvas) - 1).astype(int).T
    kept = np.flatnonzero(rng.random(len(grid)) < probability[rows, columns])
    turns = np.broadcast_to(angles, canvas.shape)[rows[kept], columns[kept]]
    degrees = np.degrees(turns + rng.normal(0, 0.25, len(kept)))
    halves = scale * np.array(axes) * rng.uniform(0.7, 1.3, (len(kept), 2))
    opacities = rng.uniform(150, 255, len(kept))
    # cv2 takes whole sixteenths of a pixel where its shift is 4.
    places, sizes = (np.rint(16 * lengths).astype(int) for lengths in (centres[kept], halves))
    for (row, column), half, angle, value in zip(places, sizes, degrees, opacities, strict=True):
        cv2.ellipse(canvas, (column, row), half, angle, 0, 360, value, cv2.FILLED, cv2.LINE_AA, 4)
    return np.asarray(canvas / 255, np.float32)
