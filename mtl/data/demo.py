"""Made photos: skin, lesions and hair drawn with numpy, so that everything can be tried without one real photo.

Nothing here comes from a person, and every photo says "MADE" in a corner. Lengths are in short sides of the photo
(0 is its middle), so that a kind looks the same at any size. Colours are sRGB in 0..1.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtl.config import DEFAULT_CLASSES
from mtl.errors import DataError

Field = NDArray[np.floating[Any]]  # (H, W), or (H, W, 3) where it is a colour; float32, for speed
Rng = np.random.Generator

CLASS_NAMES = [name for names in DEFAULT_CLASSES.values() for name in names]
LESION = "lesion"  # the kind that stands in for dermoscopy; its label is "none"
KINDS = (*CLASS_NAMES, LESION)

# Very light to very dark, after the six Fitzpatrick types.
SKIN_TONES = np.array(
    [
        (0.93, 0.80, 0.74),
        (0.89, 0.72, 0.62),
        (0.78, 0.59, 0.48),
        (0.65, 0.46, 0.35),
        (0.47, 0.31, 0.24),
        (0.32, 0.21, 0.17),
    ],
    np.float32,
)
# How much of red, green and blue one unit takes away (Beer-Lambert). Melanin's are set so that close-ups have the
# colours of ISIC 2018, whose median lesion keeps 0.86, 0.69 and 0.61 of its surrounding's red, green and blue.
MELANIN = np.array((0.50, 0.92, 1.25), np.float32)
BLOOD = np.array((0.08, 0.75, 0.60), np.float32)
HAIR_COLOURS = np.array(
    [(0.16, 0.13, 0.12), (0.38, 0.24, 0.16), (0.80, 0.62, 0.38), (0.62, 0.27, 0.13), (0.62, 0.62, 0.64)], np.float32
)
NOISE_TAPS = 5  # nodes that a pixel of smooth noise is blended from
LIGHT = np.array((-0.35, -0.5, 0.79), np.float32)  # direction to the lamp: left, above, towards the viewer
MIN_SIDE_PX = 32  # the tag needs 28
TAG = (
    "#...#..##..###..####",
    "##.##.#..#.#..#.#...",
    "#.#.#.####.#..#.###.",
    "#...#.#..#.#..#.#...",
    "#...#.#..#.###..####",
)

EXAMPLES = {  # file name: kind and seed, picked by eye
    "lesion-light-skin": (LESION, 1),
    "lesion-hairs": (LESION, 13),
    "lesion-ruler": (LESION, 7),
    "lesion-brown-skin": (LESION, 8),
    "mole-dark-skin": ("normal", 3),
    "skin-dry": ("dry", 1),
    "skin-oily": ("oily", 2),
    "hair-curly": ("curly", 2),
    "hair-dreadlocks": ("dreadlocks", 1),
}


@dataclass(frozen=True)
class MadePhoto:
    """`image` (H, W, 3) uint8; `mask` (H, W) uint8, 1 on lesion; `label` a class id, or "none" for a close-up."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    label: int | str


def make_photo(
    kind: str, seed: int | Sequence[int], size: tuple[int, int] = (256, 256), *, lesion: bool = False
) -> MadePhoto:
    """Draw one photo of a kind of `KINDS`, `size` = (width, height) px; `lesion` puts a lesion on a skin-type photo."""
    if kind not in KINDS:
        raise DataError(f"{kind!r} is no kind of made photo; the kinds are {', '.join(KINDS)}")
    if min(size) < MIN_SIDE_PX:
        raise DataError(f"a made photo of {size[0]}x{size[1]} px is too small; its sides need {MIN_SIDE_PX} px or more")
    rng = np.random.default_rng([KINDS.index(kind), *np.atleast_1d(seed)])
    shape = (size[1], size[0])
    level = np.full(shape, -1, np.float32)
    if kind in STYLES:
        image = _hair_photo(rng, kind, shape)
    elif kind == LESION:
        image, level = _close_up(rng, shape)
    else:
        image = _skin_photo(rng, kind, shape)
        if lesion:
            level = _lesion_level(rng, shape, radius=rng.uniform(0.06, 0.16))
            image = _paint_lesion(rng, image, level)
    image = image + 0.012 * rng.standard_normal((*shape, 3), dtype=np.float32)  # the sensor's grain
    pixels = (np.clip(_tagged(image), 0, 1) * 255 + 0.5).astype(np.uint8)
    label = "none" if kind == LESION else CLASS_NAMES.index(kind)
    return MadePhoto(pixels, (level > 0).astype(np.uint8), label)


# --- fields ---


def _grid(shape: tuple[int, int]) -> tuple[Field, Field]:
    """x (1, W) and y (H, 1) of the pixels' middles in short sides."""
    height, width = shape
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / min(shape)
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / min(shape)
    return x[None, :], y[:, None]


def _bell(value: Field, width: float) -> Field:
    """1 where the value is 0, falling to 0 over about `width`."""
    return np.exp(-np.square(value / width))


def _step(value: Field, softness: float) -> Field:
    """0 below zero, 1 above, one half at zero."""
    return 0.5 + 0.5 * np.tanh(value / softness)


def _noise(rng: Rng, shape: tuple[int, int], pitch: float) -> Field:
    """Smooth Gaussian noise (H, W) of unit variance, its blobs about `pitch` wide."""
    pitch_px = max(1.0, pitch * min(shape))
    rows, columns = (int(length_px / pitch_px) + NOISE_TAPS + 1 for length_px in shape)
    nodes = rng.standard_normal((columns, rows), dtype=np.float32)
    across = _between_nodes(nodes, shape[1], pitch_px)  # (W, rows)
    return _between_nodes(np.ascontiguousarray(across.T), shape[0], pitch_px)


def _between_nodes(nodes: Field, length_px: int, pitch_px: float) -> Field:
    """Rows of nodes (nodes, any), blended to one row a pixel (length, any) by a bell over the nearest five.

    The weights' squares add up to 1, which keeps the variance at 1. A product of matrices would do the same, but
    BLAS spreads it over threads, and is many times slower while other programs use the cores.
    """
    pixels = (np.arange(length_px, dtype=np.float32) + 0.5) / pitch_px
    first = np.round(pixels).astype(np.intp)
    weights = np.exp(-np.square(((pixels - first)[:, None] - np.arange(NOISE_TAPS) + NOISE_TAPS // 2) / 0.8))
    weights = (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)
    blended = weights[:, :1] * nodes[first]
    for tap in range(1, NOISE_TAPS):
        blended += weights[:, tap, None] * nodes[first + tap]
    return blended


def _cells(rng: Rng, shape: tuple[int, int], pitch: float) -> tuple[Field, Field, Field]:
    """Irregular cells about `pitch` wide: distance to the cell's middle, to its edge (in pitches), a number 0..1."""
    x, y = (
        axis / pitch + 0.2 * _noise(rng, shape, 2.5 * pitch) + 0.07 * _noise(rng, shape, 0.5 * pitch)
        for axis in _grid(shape)
    )
    x, y = x - x.min() + 1, y - y.min() + 1
    column, row = np.floor(x), np.floor(y)
    columns = int(column.max()) + 2
    jitter_x, jitter_y, values = rng.random((3, (int(row.max()) + 2) * columns), dtype=np.float32)
    inside_x, inside_y, cell = x - column, y - row, (row * columns + column).astype(np.int32)
    nearest, second = np.full(shape, 9, np.float32), np.full(shape, 9, np.float32)
    number = np.zeros(shape, np.float32)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            neighbour = cell + (down * columns + right)
            squared = (inside_x - right - jitter_x[neighbour]) ** 2 + (inside_y - down - jitter_y[neighbour]) ** 2
            number = np.where(squared < nearest, values[neighbour], number)
            second = np.minimum(second, np.maximum(squared, nearest))
            nearest = np.minimum(nearest, squared)
    return np.sqrt(nearest), np.sqrt(second) - np.sqrt(nearest), number


# --- skin ---


def _skin_tone(rng: Rng, lightness: float = 1.0) -> Field:
    """One colour (3,) from very light to very dark, a little off the six tones; `lightness` > 1 favours light."""
    place = (len(SKIN_TONES) - 1) * rng.random() ** lightness
    tone = SKIN_TONES[int(place)] + (place - int(place)) * (SKIN_TONES[int(place) + 1] - SKIN_TONES[int(place)])
    return np.clip(tone * rng.normal(1, 0.025, 3), 0.05, 0.97).astype(np.float32)


def _skin_photo(rng: Rng, kind: str, shape: tuple[int, int]) -> Field:
    """A patch of skin (H, W, 3): a skin type is where it is dry, oily and red."""
    none = np.zeros(shape, np.float32)
    dry, oily, red = none, none, none
    if kind == "dry":
        dry = _step(_noise(rng, shape, 0.3) + 1.0, 0.8)
    elif kind == "oily":
        oily = none + 1
    elif kind == "combination":
        oily = _t_zone(rng, shape)
        dry = 0.4 * (1 - oily)
    elif kind == "sensitive":
        red = _step(_noise(rng, shape, 0.22) + 0.5 * _noise(rng, shape, 0.07), 1.1)
    return _paint_skin(rng, _skin_tone(rng), dry, oily, red)


def _t_zone(rng: Rng, shape: tuple[int, int]) -> Field:
    """1 within a band across the photo, 0 beside it: (H, W)."""
    x, y = _grid(shape)
    angle = rng.normal(0, 0.35)
    across = x * math.cos(angle) + y * math.sin(angle) + 0.03 * _noise(rng, shape, 0.3) - rng.uniform(-0.12, 0.12)
    return _step(rng.uniform(0.14, 0.2) - np.abs(across), 0.03)


def _paint_skin(rng: Rng, tone: Field, dry: Field, oily: Field, red: Field) -> Field:
    """Skin (H, W, 3) of one tone; `dry`, `oily`, `red` (H, W) in 0..1 say where and how much."""
    shape = dry.shape
    _, line, _ = _cells(rng, shape, 0.035)
    pore, _, pore_size = _cells(rng, shape, 0.05)
    pores = _bell(pore, 0.17) * pore_size * (0.5 + oily)
    height = -0.7 * _bell(line, 0.22) * (1 - 0.6 * oily) - 1.1 * pores + 0.12 * _noise(rng, shape, 0.014)
    melanin = 0.07 * _noise(rng, shape, 0.25) + 0.03 * _noise(rng, shape, 0.05) + 0.16 * pores
    skin = tone * np.exp(-(melanin[..., None] * MELANIN + (0.04 * _noise(rng, shape, 0.12))[..., None] * BLOOD))
    skin = _reddened(rng, skin, red)
    skin, height = _flaked(rng, skin, height, dry)
    skin = skin * (_lamp(rng, shape) * (1 + 0.16 * _relief(height)))[..., None]
    return skin + _gloss(rng, height, oily)[..., None] * np.array((1, 0.98, 0.94), np.float32)


def _lamp(rng: Rng, shape: tuple[int, int]) -> Field:
    """How bright the light falls over the patch (H, W), about 1."""
    x, y = _grid(shape)
    angle = rng.uniform(0, 2 * np.pi)
    return 1 + 0.16 * (x * math.cos(angle) + y * math.sin(angle)) + 0.04 * _noise(rng, shape, 0.5)


def _relief(height: Field) -> Field:
    """Light and shade (H, W) of small heights under a lamp on the upper left; as steep at any size as at 256 px."""
    down, right = np.gradient(height)
    return (down + right) * (min(height.shape) / 256)


def _reddened(rng: Rng, skin: Field, red: Field) -> Field:
    """Skin with flush and fine vessels where `red`."""
    if not red.any():
        return skin
    vessels = _bell(_noise(rng, red.shape, 0.09), 0.04) * _step(_noise(rng, red.shape, 0.15) + 0.2, 0.4)
    blood = 0.36 * red + (0.15 + 0.5 * red) * vessels
    warmth = np.array((0.05, 0.0, 0.0), np.float32)  # else flush on dark skin is only darker
    return skin * np.exp(-blood[..., None] * BLOOD) + red[..., None] * warmth


def _flaked(rng: Rng, skin: Field, height: Field, dry: Field) -> tuple[Field, Field]:
    """Skin and its height with cracks and pale scales where `dry`."""
    if not dry.any():
        return skin, height
    _, edge, number = _cells(rng, dry.shape, 0.075)
    crack = dry * _bell(edge, 0.09) * _step(_noise(rng, dry.shape, 0.1) + 0.5, 0.5)
    scale = dry * _step(number - 0.5, 0.3) * _step(_noise(rng, dry.shape, 0.02), 0.7) * (1 - _bell(edge, 0.25))
    pale = 0.3 * skin + 0.3 * skin.mean(axis=2, keepdims=True) + np.array((0.37, 0.36, 0.34), np.float32)
    mix = (0.18 * dry + 0.55 * scale)[..., None]
    cracked = skin * np.exp(-crack[..., None] * (0.3 * MELANIN + 0.1 * BLOOD))
    return cracked + mix * (pale - cracked), height + 1.3 * scale - 0.9 * crack


def _gloss(rng: Rng, height: Field, oily: Field) -> Field:
    """Brightness (H, W) that an oily film adds: soft patches, broken into glints by the relief."""
    if not oily.any():
        return oily
    patches = _step(_noise(rng, oily.shape, 0.17) - 0.7, 0.7)
    glints = _step(_relief(height) - 0.3, 0.15)
    return oily * (0.03 + patches * (0.15 + 0.4 * glints) + 0.12 * glints)


# --- lesions ---


def _close_up(rng: Rng, shape: tuple[int, int]) -> tuple[Field, Field]:
    """A stand-in for a dermoscopic photo: image (H, W, 3), and the lesion's level (H, W), above 0 inside."""
    radius = float(np.clip(rng.lognormal(math.log(0.25), 0.45), 0.08, 0.46))
    level = _lesion_level(rng, shape, radius)
    if rng.random() < 0.12:
        level = np.maximum(level, _lesion_level(rng, shape, rng.uniform(0.06, 0.12)))
    image = _paint_lesion(rng, _wet_skin(rng, shape), level)
    for paint, share in ((_bubbles, 0.25), (_body_hairs, 0.35), (_ruler, 0.25), (_vignette, 0.25)):
        if rng.random() < share:
            image = paint(rng, image)
    return image, level


def _wet_skin(rng: Rng, shape: tuple[int, int]) -> Field:
    """Skin (H, W, 3) under a dermoscope's gel: no relief, mottled, in the tint of its lamp."""
    tint = np.array((1, rng.normal(1.06, 0.03), rng.normal(1.14, 0.07)), np.float32)
    _, line, _ = _cells(rng, shape, 0.03)
    melanin = 0.06 * _noise(rng, shape, 0.2) + 0.04 * _noise(rng, shape, 0.05) + 0.025 * _noise(rng, shape, 0.012)
    melanin += rng.uniform(0, 0.05) * _bell(line, 0.25)
    blood = 0.05 * _noise(rng, shape, 0.15) + 0.03 * _noise(rng, shape, 0.03)
    absorbed = melanin[..., None] * MELANIN + blood[..., None] * BLOOD
    return _skin_tone(rng, lightness=1.3) * tint * np.exp(-absorbed) * _lamp(rng, shape)[..., None]


def _lesion_level(rng: Rng, shape: tuple[int, int], radius: float) -> Field:
    """How deep inside a lesion's outline a pixel lies (H, W), in short sides: 0 on the outline, below 0 outside."""
    x, y = _grid(shape)
    free = max(0.04, 0.4 - radius)  # small ones may lie off the middle
    x, y = x - rng.uniform(-free, free), y - rng.uniform(-free, free)
    level = _outline(rng, x, y, radius)
    if rng.random() < 0.3:
        angle = rng.uniform(0, 2 * np.pi)
        lobe = _outline(rng, x - 0.8 * radius * math.cos(angle), y - 0.8 * radius * math.sin(angle), 0.65 * radius)
        level = np.maximum(level, lobe)
    ragged = rng.uniform(0.02, 0.08) * (_noise(rng, shape, 0.25 * radius) + 0.6 * _noise(rng, shape, 0.08 * radius))
    return level + radius * ragged


def _outline(rng: Rng, x: Field, y: Field, radius: float) -> Field:
    """Level (H, W) of one closed shape around 0: an ellipse whose radius wobbles with the angle (a Fourier series)."""
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(1, 1.5)
    along, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    angle = np.arctan2(across * stretch, along)
    wobble = np.zeros_like(angle)
    roughness = rng.uniform(0.03, 0.2)
    for wave in range(2, 9):
        wobble += rng.normal(0, roughness / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    return radius * (1 + wobble) - np.hypot(along, across * stretch)


def _paint_lesion(rng: Rng, skin: Field, level: Field) -> Field:
    """Skin with a pigmented lesion where `level` > 0; half of its colour is reached at 0, the mask's edge."""
    shape = level.shape
    inside = _step(level, float(rng.choice((0.008, 0.018, 0.035))) * rng.uniform(0.7, 1.3))
    darkness = float(np.clip(rng.lognormal(math.log(0.48), 0.45), 0.3, 1.4))
    darkness += 0.5 * float(1 - skin.mean())  # else it would be lost on dark skin
    depth = np.clip(level / level.max(), 0, 1)
    density = darkness * (_pigment(rng, shape) + rng.uniform(-0.3, 0.5) * depth)
    blood = 0.8 * rng.random() ** 3 * _step(_noise(rng, shape, 0.12), 0.8)
    absorbed = np.clip(density, 0.25, 2.6)[..., None] * MELANIN + blood[..., None] * BLOOD
    scattered = 0.28 * skin * np.array((0.95, 0.85, 0.75), np.float32)  # light that comes back from any pigment
    image = skin + inside[..., None] * (scattered - skin) * (1 - np.exp(-absorbed))
    if rng.random() < 0.25:
        veil = 0.5 * inside * depth**0.5 * _step(_noise(rng, shape, 0.15) - 0.5, 0.9)
        image += veil[..., None] * (skin.mean() * np.array((0.60, 0.66, 0.76), np.float32) - image)
    return image


def _pigment(rng: Rng, shape: tuple[int, int]) -> Field:
    """A lesion's pattern (H, W), about 1: mottled, with a network, globules or neither, and darker patches."""
    pattern = 1 + 0.25 * _noise(rng, shape, 0.09) + 0.15 * _noise(rng, shape, 0.03) + 0.12 * _noise(rng, shape, 0.013)
    pattern += rng.uniform(0, 1.2) * _step(_noise(rng, shape, 0.16) - 0.8, 0.6)
    middle, edge, number = _cells(rng, shape, rng.uniform(0.02, 0.035))
    where = _step(_noise(rng, shape, 0.15), 0.6)
    style = rng.integers(3)
    if style == 0:
        pattern += where * (0.6 * _bell(edge, 0.3) - 0.2)
    elif style == 1:
        pattern += where * 0.8 * number * _bell(middle, 0.4)
    return pattern


# --- what lies between lens and lesion ---


def _bubbles(rng: Rng, image: Field) -> Field:
    """Air bubbles in the gel: thin bright rings, mostly small."""
    x, y = _grid(image.shape[:2])
    light = np.zeros(image.shape[:2], np.float32)
    for _ in range(rng.integers(2, 9)):
        radius = float(np.clip(rng.lognormal(math.log(0.009), 0.5), 0.004, 0.05))
        right, down = x - rng.uniform(-0.5, 0.5), y - rng.uniform(-0.5, 0.5)
        ring = _bell(np.hypot(right, down) - radius, 0.0035)
        light += ring * (0.12 - 0.1 * (right + down) / radius)
    return image + light[..., None]


def _ruler(rng: Rng, image: Field) -> Field:
    """A millimetre scale near one edge."""
    x, y = _grid(image.shape[:2])
    tilt, side = rng.normal(0, 0.15), float(rng.choice((-1, 1)))
    along = x * math.cos(tilt) + y * math.sin(tilt)
    across = y * math.cos(tilt) - x * math.sin(tilt) - side * rng.uniform(0.36, 0.42)
    step = rng.uniform(0.045, 0.07)
    number = np.round(along / step)
    length = np.where(number % 5 == 0, np.float32(0.035), np.float32(0.02))
    tick = _step(0.0022 - np.abs(along - number * step), 0.0012) * _step(length - np.abs(across - length), 0.001)
    line = np.maximum(tick, _step(0.0022 - np.abs(across), 0.0012)) * _step(5.3 * step - np.abs(along), 0.001)
    return image * (1 - 0.75 * line[..., None])


def _vignette(rng: Rng, image: Field) -> Field:
    """The dermoscope's round, dark rim."""
    x, y = _grid(image.shape[:2])
    return image * _step(rng.uniform(0.54, 0.68) - np.hypot(x, y), rng.uniform(0.01, 0.05))[..., None]


# --- hair ---


@dataclass(frozen=True)
class _Lock:
    """What one lock looks like."""

    half_width: float
    shine: float
    knots: float  # how uneven


@dataclass(frozen=True)
class _Style:
    """How a hair type's locks run: as a helix of `coil_radius` and `coil_pitch`, seen from above by `tilt`."""

    lock: _Lock
    locks: int
    coil_radius: float
    coil_pitch: float
    tilt: float
    drift: float  # how far a lock strays from its line

    @property
    def path_length(self) -> float:
        """How long a lock is drawn for each unit that it hangs."""
        return float(np.hypot(1, 2 * np.pi * self.coil_radius / self.coil_pitch))


STYLES = {
    "straight": _Style(_Lock(0.010, 0.5, 0.0), 200, 0.0, 1.0, 0.0, 0.012),
    "wavy": _Style(_Lock(0.013, 0.45, 0.0), 150, 0.022, 0.24, 0.0, 0.03),
    "curly": _Style(_Lock(0.012, 0.45, 0.05), 150, 0.032, 0.12, 0.35, 0.05),
    "coily": _Style(_Lock(0.0056, 0.35, 0.1), 1300, 0.011, 0.024, 0.6, 0.01),
    "dreadlocks": _Style(_Lock(0.026, 0.08, 0.25), 46, 0.005, 0.3, 0.0, 0.05),
}


def _hair_photo(rng: Rng, kind: str, shape: tuple[int, int]) -> Field:
    """Hair of one type and colour (H, W, 3) before a plain backdrop."""
    style = STYLES[kind]
    colour = HAIR_COLOURS[rng.integers(len(HAIR_COLOURS))] * rng.uniform(0.85, 1.15) * rng.normal(1, 0.02, 3)
    backdrop = rng.uniform(0.3, 0.85) * rng.normal(1, 0.04, 3)
    image = (backdrop * _lamp(rng, shape)[..., None]).astype(np.float32)
    paths = _coiled(rng, _afro(rng, style, shape) if kind == "coily" else _hanging(rng, style, shape), style)
    return _draw_locks(rng, image, paths, colour.astype(np.float32), style.lock)


def _along(style: _Style, shape: tuple[int, int], length: float) -> Field:
    """Places 0..1 along a lock (1, points): one for each pixel of the doubled canvas that a lock passes."""
    return np.linspace(0, 1, int(2.0 * min(shape) * length * style.path_length), dtype=np.float32)[None, :]


def _hanging(rng: Rng, style: _Style, shape: tuple[int, int]) -> Field:
    """Middle lines (locks, points, 3) of locks that fall from above the photo; z is towards the viewer."""
    wide, tall = shape[1] / min(shape), shape[0] / min(shape)
    each = (style.locks, 1)
    root = rng.permutation(np.linspace(-1, 1, style.locks))[:, None] * rng.uniform(0.34, 0.6) * wide
    length = tall * rng.uniform(0.8, 1.3) * rng.uniform(0.8, 1.05, each)
    along = _along(style, shape, float(length.max()))
    bend = rng.normal(0, style.drift, each) * np.sin(along * 5 + rng.uniform(0, 2 * np.pi, each))
    sway = rng.normal(0, 0.07) * np.sin(2.5 * along + rng.uniform(0, 2 * np.pi))
    x = root * (1 + 0.15 * along) + bend + sway
    y = -0.5 * tall - 0.08 + along * length
    layer = np.linspace(0, 0.4, style.locks)[:, None]
    z = layer + 0.35 * np.sin(np.pi * along)  # falls over a round head: the gloss makes a band
    return np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float32)


def _afro(rng: Rng, style: _Style, shape: tuple[int, int]) -> Field:
    """Middle lines (locks, points, 3) of short locks all over a round head, the rim's at the back."""
    each = (style.locks, 1)
    head = rng.uniform(0.36, 0.5)
    angle, reach = rng.uniform(0, 2 * np.pi, each), np.sqrt(rng.uniform(0, 1, each))
    heading = angle + rng.normal(0, 1.2, each)
    length = rng.uniform(0.06, 0.14, each)
    along = _along(style, shape, 0.14)
    x = head * reach * np.cos(angle) + length * (along - 0.4) * np.cos(heading)
    y = 0.06 + head * reach * np.sin(angle) + length * (along - 0.4) * np.sin(heading)
    z = 0.5 * np.sqrt(1 - 0.9 * reach**2) + rng.uniform(0, 0.15, each)
    return np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float32)


def _coiled(rng: Rng, paths: Field, style: _Style) -> Field:
    """The paths (locks, points, 3), wound around their own middle lines."""
    each = (len(paths), 1)
    steps = np.linalg.norm(np.diff(paths[..., :2], axis=1, prepend=paths[:, :1, :2]), axis=2)
    turns = np.cumsum(steps, axis=1) / (style.coil_pitch * rng.uniform(0.8, 1.25, each))
    phase = 2 * np.pi * turns + rng.uniform(0, 2 * np.pi, each)
    phase += rng.uniform(0, 1, each) * np.sin(0.37 * phase)  # no two turns are alike
    radius = style.coil_radius * rng.uniform(0.6, 1.4, each)
    side, up = radius * np.cos(phase), radius * np.sin(phase)
    return (paths + np.stack((side, style.tilt * up, up), axis=-1)).astype(np.float32)


def _draw_locks(rng: Rng, image: Field, paths: Field, colour: Field, lock: _Lock) -> Field:
    """The photo (H, W, 3) with one lock drawn along each path (locks, points, 3), the nearer over the farther.

    Each point of a path is drawn as a short row of dots across the lock, at twice the photo's resolution.
    """
    height, width, _ = image.shape
    side_px = 2 * min(height, width)
    across = np.linspace(-1, 1, 2 + int(2.2 * lock.half_width * side_px), dtype=np.float32)
    tangent = np.gradient(paths, axis=1)
    tangent /= np.linalg.norm(tangent, axis=2, keepdims=True) + 1e-9
    depth = paths[..., 2] - paths[..., 2].min()
    depth /= depth.max() + 1e-9
    place = _dots(paths, tangent, lock.half_width * across, (2 * height, 2 * width))
    order = np.argsort((depth * 65535).astype(np.uint16), axis=None, kind="stable")  # of 16 bits: a radix sort, fast
    nearest = np.full(4 * height * width + 1, -1, np.int32)  # the last one takes the dots beside the photo
    dots = np.arange(place.size, dtype=np.int32).reshape(order.size, -1)
    nearest[place.reshape(order.size, -1)[order]] = dots[order]  # where several fall, the last one, the nearest, stays
    light = _lock_light(rng, depth, tangent, across, lock).reshape(-1, 3)[nearest[:-1]] * (nearest[:-1, None] >= 0)
    light = light.reshape(2 * height, 2 * width, 3)
    light = 0.25 * (light[::2, ::2] + light[1::2, ::2] + light[::2, 1::2] + light[1::2, 1::2])
    shade, gloss, cover = np.moveaxis(light, 2, 0)[..., None]
    return image * (1 - cover) + colour * shade + (0.25 + 0.75 * colour) * gloss


def _dots(paths: Field, tangent: Field, offsets: Field, canvas: tuple[int, int]) -> NDArray[np.int32]:
    """Places on the flat canvas (locks, points, offsets) of the dots across each lock, which ends in a point."""
    height, width = canvas
    slope = np.hypot(tangent[..., 0], tangent[..., 1]) + 1e-6
    taper = np.sqrt(np.clip(8 * (1 - np.linspace(0, 1, paths.shape[1], dtype=np.float32)), 0, 1)) / slope
    x = paths[..., 0, None] - (tangent[..., 1] * taper)[..., None] * offsets
    y = paths[..., 1, None] + (tangent[..., 0] * taper)[..., None] * offsets
    column = np.floor(x * min(canvas) + width / 2).astype(np.int32)
    row = np.floor(y * min(canvas) + height / 2).astype(np.int32)
    seen = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return np.where(seen, row * width + column, np.int32(height * width))


def _lock_light(rng: Rng, depth: Field, tangent: Field, across: Field, lock: _Lock) -> Field:
    """Shade, gloss and cover (locks, points, dots, 3): hair shines where it crosses the light (Kajiya and Kay)."""
    locks, points = depth.shape
    halfway = LIGHT + np.array((0, 0, 1), np.float32)
    along_light = tangent @ (halfway / np.linalg.norm(halfway))
    fibres = np.clip(rng.normal(1, 0.16, (locks, 1, len(across))), 0.5, 1.4) * rng.uniform(0.8, 1.2, (locks, 1, 1))
    round_shade = (fibres * (0.4 + 0.6 * np.sqrt(1 - 0.9 * across**2))).astype(np.float32)
    shade = (0.3 + 0.8 * depth)[..., None] * round_shade
    if lock.knots:
        every = max(1, points // 60)
        knots = rng.normal(1, lock.knots, (locks, points // every + 1, len(across))).astype(np.float32)
        shade *= np.clip(knots, 0.4, 1.6).repeat(every, axis=1)[:, :points]
    gloss = shade * (lock.shine * np.clip(1 - along_light**2, 0, 1) ** 12)[..., None]
    return np.stack((shade, gloss, np.ones_like(shade)), axis=-1)


def _body_hairs(rng: Rng, image: Field) -> Field:
    """Single dark hairs across the photo."""
    each = (int(rng.integers(3, 22)), 1)
    along = np.linspace(-1, 1, 4 * min(image.shape[:2]))[None, :] * rng.uniform(0.15, 0.7, each)
    turn = rng.uniform(0, np.pi) + rng.normal(0, 0.45, each) + along * rng.normal(0, 0.6, each)
    x = rng.uniform(-0.6, 0.6, each) + along * np.cos(turn)
    y = rng.uniform(-0.6, 0.6, each) + along * np.sin(turn)
    paths = np.stack((x, y, np.broadcast_to(rng.random(each), x.shape)), axis=-1).astype(np.float32)
    colour = np.array((0.45, 0.35, 0.30), np.float32) * np.float32(rng.uniform(0.5, 1.3))
    return _draw_locks(rng, image, paths, colour, _Lock(rng.uniform(0.0013, 0.0028), 0.2, 0.0))


# --- the tag, the folder ---


def _tagged(image: Field) -> Field:
    """The photo with a small half-transparent "MADE" in its lower right corner."""
    letters = np.array([[dot == "#" for dot in row] for row in TAG], np.float32)
    zoom = max(1, round(min(image.shape[:2]) / 220))
    letters = np.kron(letters, np.ones((zoom, zoom), np.float32))[..., None]
    corner = (slice(-letters.shape[0] - 4 * zoom, -4 * zoom), slice(-letters.shape[1] - 4 * zoom, -4 * zoom))
    tagged = image.copy()
    ink = 1.0 if tagged[corner].mean() < 0.55 else 0.0
    tagged[corner] += 0.55 * letters * (ink - tagged[corner])
    return tagged


@dataclass(frozen=True)
class _Plan:
    """What photo `index` of a folder is, and which of its two targets the folder keeps."""

    index: int

    @property
    def serial(self) -> int:
        """Even photos are close-ups, odd ones go round the ten classes; both are counted by this."""
        return self.index // 2

    @property
    def kind(self) -> str:
        return CLASS_NAMES[self.serial % len(CLASS_NAMES)] if self.index % 2 else LESION

    @property
    def name(self) -> str:
        return f"made_{self.index:04d}_{self.kind}"

    @property
    def has_lesion(self) -> bool:
        return self.serial % 3 == 0

    @property
    def has_mask(self) -> bool:
        return self.serial % 9 != 8 if self.kind == LESION else self.serial % 3 != 2

    @property
    def has_label(self) -> bool:
        return self.serial % (6 if self.kind == LESION else 13) != 5

    def size(self, side: int) -> tuple[int, int]:
        """Width and height: mostly square or nearly so, some 4:3 and 3:4."""
        widths = (1.0, 1.0, 0.94, 0.75, 1.0, 1.0, 1.0)
        heights = (1.0, 1.0, 1.0, 1.0, 0.75, 0.9, 1.0)
        return round(side * widths[self.index % 7]), round(side * heights[self.index % 7])

    def label(self, class_id: int | str) -> int | str | dict[str, str]:
        """The class in one of the forms that a label may have: mostly its id, else its name, or its name by group."""
        if self.kind == LESION or self.serial % 7 not in (3, 5):
            return class_id
        group = next(group for group, names in DEFAULT_CLASSES.items() if self.kind in names)
        return self.kind if self.serial % 7 == 3 else {group: self.kind}


def write_demo_data(
    folder: Path,
    photos: int = 240,
    seed: int = 0,
    size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Fill a new or empty folder with made photos in the layout of a data folder, and return it.

    Half are lesion close-ups, half go round the ten classes; some have no mask, some no label, a few neither.
    From 40 photos on every class is in both splits. `size` is the longer side in px; `progress` gets (done, photos).
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is not empty; made photos need a new or an empty folder, name another one")
    plans = [_Plan(index) for index in range(photos)]
    validation = _validation(plans)
    labels = {}
    for done, plan in enumerate(plans, start=1):
        photo = make_photo(plan.kind, (seed, plan.index), plan.size(size), lesion=plan.has_lesion)
        split = "val" if plan in validation else "train"
        _save(photo.image, folder / "images" / split / f"{plan.name}.jpg")
        if plan.has_mask:
            _save(photo.mask * np.uint8(255), folder / "masks" / split / f"{plan.name}.png")
        if plan.has_label:
            labels[f"{plan.name}.jpg"] = plan.label(photo.label)
        if progress is not None:
            progress(done, photos)
    _write_json(labels, folder / "labels.json")
    _write_json(DEFAULT_CLASSES, folder / "classes.json")
    return folder


def write_examples(folder: Path) -> list[Path]:
    """Write the page's hand-picked made photos (`EXAMPLES`, 512 px) to a folder, over earlier ones."""
    files = []
    for name, (kind, seed) in EXAMPLES.items():
        photo = make_photo(kind, seed, (512, 512), lesion=kind == "normal")
        files.append(folder / f"{name}.jpg")
        _save(photo.image, files[-1])
    return files


def _validation(plans: Sequence[_Plan]) -> set[_Plan]:
    """A fifth of each kind's photos, the last ones; at least one of a kind that has two."""
    chosen: set[_Plan] = set()
    for kind in KINDS:
        of_kind = [plan for plan in plans if plan.kind == kind]
        count = max(round(len(of_kind) / 5), min(1, len(of_kind) - 1))
        chosen.update(of_kind[len(of_kind) - count :])
    return chosen


def _save(pixels: NDArray[np.uint8], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, quality=92)


def _write_json(content: object, file: Path) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
