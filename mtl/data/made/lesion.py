"""Lesions with exact masks: on skin, and close-ups that stand in for dermoscopy."""

import math

import numpy as np

from mtl.data.made.fields import Field, Rng, bell, cells, grid, lamp, noise, step
from mtl.data.made.hair import body_hairs
from mtl.data.made.skin import BLOOD, MELANIN, skin_tone


def close_up(rng: Rng, shape: tuple[int, int]) -> tuple[Field, Field]:
    """A stand-in for a dermoscopic photo: image (H, W, 3), and the lesion's level (H, W), above 0 inside."""
    radius = float(np.clip(rng.lognormal(math.log(0.25), 0.45), 0.08, 0.46))
    level = lesion_level(rng, shape, radius)
    if rng.random() < 0.12:
        level = np.maximum(level, lesion_level(rng, shape, rng.uniform(0.06, 0.12)))
    image = paint_lesion(rng, _wet_skin(rng, shape), level)
    for paint, share in ((_bubbles, 0.25), (body_hairs, 0.35), (_ruler, 0.25), (_vignette, 0.25)):
        if rng.random() < share:
            image = paint(rng, image)
    return image, level


def _wet_skin(rng: Rng, shape: tuple[int, int]) -> Field:
    """Skin (H, W, 3) under a dermoscope's gel: no relief, mottled, in the tint of its lamp."""
    tint = np.array((1, rng.normal(1.06, 0.03), rng.normal(1.14, 0.07)), np.float32)
    _, line, _ = cells(rng, shape, 0.03)
    melanin = 0.06 * noise(rng, shape, 0.2) + 0.04 * noise(rng, shape, 0.05) + 0.025 * noise(rng, shape, 0.012)
    melanin += rng.uniform(0, 0.05) * bell(line, 0.25)
    blood = 0.05 * noise(rng, shape, 0.15) + 0.03 * noise(rng, shape, 0.03)
    kept: Field = np.exp(-(melanin[..., None] * MELANIN + blood[..., None] * BLOOD))
    return skin_tone(rng, lightness=1.3) * tint * kept * lamp(rng, shape)[..., None]


def lesion_level(rng: Rng, shape: tuple[int, int], radius: float) -> Field:
    """How deep inside a lesion's outline a pixel lies (H, W), in short sides: 0 on the outline, below 0 outside."""
    x, y = grid(shape)
    free = max(0.04, 0.4 - radius)  # small ones may lie off the middle
    x, y = x - rng.uniform(-free, free), y - rng.uniform(-free, free)
    level = _outline(rng, x, y, radius)
    if rng.random() < 0.3:
        angle = rng.uniform(0, 2 * np.pi)
        lobe = _outline(rng, x - 0.8 * radius * math.cos(angle), y - 0.8 * radius * math.sin(angle), 0.65 * radius)
        level = np.maximum(level, lobe)
    ragged = rng.uniform(0.02, 0.08) * (noise(rng, shape, 0.25 * radius) + 0.6 * noise(rng, shape, 0.08 * radius))
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


def paint_lesion(rng: Rng, skin: Field, level: Field) -> Field:
    """Skin with a pigmented lesion where `level` > 0; half of its colour is reached at 0, the mask's edge."""
    shape = level.shape
    inside = step(level, float(rng.choice((0.008, 0.018, 0.035))) * rng.uniform(0.7, 1.3))
    darkness = float(np.clip(rng.lognormal(math.log(0.48), 0.45), 0.3, 1.4))
    darkness += 0.5 * float(1 - skin.mean())  # else it would be lost on dark skin
    depth = np.clip(level / level.max(), 0, 1)
    density = darkness * (_pigment(rng, shape) + rng.uniform(-0.3, 0.5) * depth)
    blood = 0.8 * rng.random() ** 3 * step(noise(rng, shape, 0.12), 0.8)
    absorbed = np.clip(density, 0.25, 2.6)[..., None] * MELANIN + blood[..., None] * BLOOD
    scattered = 0.28 * skin * np.array((0.95, 0.85, 0.75), np.float32)  # light that comes back from any pigment
    image: Field = skin + inside[..., None] * (scattered - skin) * (1 - np.exp(-absorbed))
    if rng.random() < 0.25:
        veil = 0.5 * inside * depth**0.5 * step(noise(rng, shape, 0.15) - 0.5, 0.9)
        image += veil[..., None] * (skin.mean() * np.array((0.60, 0.66, 0.76), np.float32) - image)
    return image


def _pigment(rng: Rng, shape: tuple[int, int]) -> Field:
    """A lesion's pattern (H, W), about 1: mottled, with a network, globules or neither, and darker patches."""
    pattern: Field = (
        1 + 0.25 * noise(rng, shape, 0.09) + 0.15 * noise(rng, shape, 0.03) + 0.12 * noise(rng, shape, 0.013)
    )
    pattern += rng.uniform(0, 1.2) * step(noise(rng, shape, 0.16) - 0.8, 0.6)
    middle, edge, number = cells(rng, shape, rng.uniform(0.02, 0.035))
    where = step(noise(rng, shape, 0.15), 0.6)
    style = rng.integers(3)
    if style == 0:
        pattern += where * (0.6 * bell(edge, 0.3) - 0.2)
    elif style == 1:
        pattern += where * 0.8 * number * bell(middle, 0.4)
    return pattern


# --- what lies between lens and lesion ---


def _bubbles(rng: Rng, image: Field) -> Field:
    """Air bubbles in the gel: thin bright rings, mostly small."""
    x, y = grid(image.shape[:2])
    light = np.zeros(image.shape[:2], np.float32)
    for _ in range(rng.integers(2, 9)):
        radius = float(np.clip(rng.lognormal(math.log(0.009), 0.5), 0.004, 0.05))
        right, down = x - rng.uniform(-0.5, 0.5), y - rng.uniform(-0.5, 0.5)
        ring = bell(np.hypot(right, down) - radius, 0.0035)
        light += ring * (0.12 - 0.1 * (right + down) / radius)
    return image + light[..., None]


def _ruler(rng: Rng, image: Field) -> Field:
    """A millimetre scale near one edge."""
    x, y = grid(image.shape[:2])
    tilt, side = rng.normal(0, 0.15), float(rng.choice((-1, 1)))
    along = x * math.cos(tilt) + y * math.sin(tilt)
    across = y * math.cos(tilt) - x * math.sin(tilt) - side * rng.uniform(0.36, 0.42)
    spacing = rng.uniform(0.045, 0.07)
    number = np.round(along / spacing)
    length = np.where(number % 5 == 0, np.float32(0.035), np.float32(0.02))
    tick = step(0.0022 - np.abs(along - number * spacing), 0.0012) * step(length - np.abs(across - length), 0.001)
    line = np.maximum(tick, step(0.0022 - np.abs(across), 0.0012)) * step(5.3 * spacing - np.abs(along), 0.001)
    return image * (1 - 0.75 * line[..., None])


def _vignette(rng: Rng, image: Field) -> Field:
    """The dermoscope's round, dark rim."""
    x, y = grid(image.shape[:2])
    return image * step(rng.uniform(0.54, 0.68) - np.hypot(x, y), rng.uniform(0.01, 0.05))[..., None]
