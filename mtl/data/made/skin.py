"""Skin: the tones of people, and what makes a patch of it dry, oily, mixed or red."""

import math

import numpy as np

from mtl.data.made.fields import Field, Rng, bell, cells, grid, lamp, noise, step

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


def skin_tone(rng: Rng, lightness: float = 1.0) -> Field:
    """One colour (3,) from very light to very dark, a little off the six tones; `lightness` > 1 favours light."""
    place = (len(SKIN_TONES) - 1) * rng.random() ** lightness
    tone: Field = SKIN_TONES[int(place)] + (place - int(place)) * (SKIN_TONES[int(place) + 1] - SKIN_TONES[int(place)])
    return np.clip(tone * rng.normal(1, 0.025, 3), 0.05, 0.97).astype(np.float32)


def skin_photo(rng: Rng, kind: str, shape: tuple[int, int]) -> Field:
    """A patch of skin (H, W, 3): a skin type is where it is dry, oily and red."""
    none = np.zeros(shape, np.float32)
    dry, oily, red = none, none, none
    if kind == "dry":
        dry = step(noise(rng, shape, 0.3) + 1.0, 0.8)
    elif kind == "oily":
        oily = none + 1
    elif kind == "combination":
        oily = _t_zone(rng, shape)
        dry = 0.4 * (1 - oily)
    elif kind == "sensitive":
        red = step(noise(rng, shape, 0.22) + 0.5 * noise(rng, shape, 0.07), 1.1)
    return _paint_skin(rng, skin_tone(rng), dry, oily, red)


def _t_zone(rng: Rng, shape: tuple[int, int]) -> Field:
    """1 within a band across the photo, 0 beside it: (H, W)."""
    x, y = grid(shape)
    angle = rng.normal(0, 0.35)
    across = x * math.cos(angle) + y * math.sin(angle) + 0.03 * noise(rng, shape, 0.3) - rng.uniform(-0.12, 0.12)
    return step(rng.uniform(0.14, 0.2) - np.abs(across), 0.03)


def _paint_skin(rng: Rng, tone: Field, dry: Field, oily: Field, red: Field) -> Field:
    """Skin (H, W, 3) of one tone; `dry`, `oily`, `red` (H, W) in 0..1 say where and how much."""
    shape = dry.shape
    _, line, _ = cells(rng, shape, 0.035)
    pore, _, pore_size = cells(rng, shape, 0.05)
    pores = bell(pore, 0.17) * pore_size * (0.5 + oily)
    height = -0.7 * bell(line, 0.22) * (1 - 0.6 * oily) - 1.1 * pores + 0.12 * noise(rng, shape, 0.014)
    melanin = 0.07 * noise(rng, shape, 0.25) + 0.03 * noise(rng, shape, 0.05) + 0.16 * pores
    skin = tone * np.exp(-(melanin[..., None] * MELANIN + (0.04 * noise(rng, shape, 0.12))[..., None] * BLOOD))
    skin = _reddened(rng, skin, red)
    skin, height = _flaked(rng, skin, height, dry)
    skin = skin * (lamp(rng, shape) * (1 + 0.16 * _relief(height)))[..., None]
    return skin + _gloss(rng, height, oily)[..., None] * np.array((1, 0.98, 0.94), np.float32)


def _relief(height: Field) -> Field:
    """Light and shade (H, W) of small heights under a lamp on the upper left; as steep at any size as at 256 px."""
    slope: Field = np.add(*np.gradient(height)) * (min(height.shape) / 256)
    return slope


def _reddened(rng: Rng, skin: Field, red: Field) -> Field:
    """Skin with flush and fine vessels where `red`."""
    if not red.any():
        return skin
    vessels = bell(noise(rng, red.shape, 0.09), 0.04) * step(noise(rng, red.shape, 0.15) + 0.2, 0.4)
    blood = 0.36 * red + (0.15 + 0.5 * red) * vessels
    warmth = np.array((0.05, 0.0, 0.0), np.float32)  # else flush on dark skin is only darker
    kept: Field = np.exp(-blood[..., None] * BLOOD)
    return skin * kept + red[..., None] * warmth


def _flaked(rng: Rng, skin: Field, height: Field, dry: Field) -> tuple[Field, Field]:
    """Skin and its height with cracks and pale scales where `dry`."""
    if not dry.any():
        return skin, height
    _, edge, number = cells(rng, dry.shape, 0.075)
    crack = dry * bell(edge, 0.09) * step(noise(rng, dry.shape, 0.1) + 0.5, 0.5)
    scale = dry * step(number - 0.5, 0.3) * step(noise(rng, dry.shape, 0.02), 0.7) * (1 - bell(edge, 0.25))
    pale = 0.3 * skin + 0.3 * skin.mean(axis=2, keepdims=True) + np.array((0.37, 0.36, 0.34), np.float32)
    mix = (0.18 * dry + 0.55 * scale)[..., None]
    cracked = skin * np.exp(-crack[..., None] * (0.3 * MELANIN + 0.1 * BLOOD))
    return cracked + mix * (pale - cracked), height + 1.3 * scale - 0.9 * crack


def _gloss(rng: Rng, height: Field, oily: Field) -> Field:
    """Brightness (H, W) that an oily film adds: soft patches, broken into glints by the relief."""
    if not oily.any():
        return oily
    patches = step(noise(rng, oily.shape, 0.17) - 0.7, 0.7)
    glints = step(_relief(height) - 0.3, 0.15)
    return oily * (0.03 + patches * (0.15 + 0.4 * glints) + 0.12 * glints)
