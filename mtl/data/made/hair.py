"""Hair: locks that run as helices, drawn the nearer over the farther; and single hairs on skin."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl.data.made.fields import Field, Rng, lamp

HAIR_COLOURS = np.array(
    [(0.16, 0.13, 0.12), (0.38, 0.24, 0.16), (0.80, 0.62, 0.38), (0.62, 0.27, 0.13), (0.62, 0.62, 0.64)], np.float32
)
LIGHT = np.array((-0.35, -0.5, 0.79), np.float32)  # direction to the lamp: left, above, towards the viewer


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


def hair_photo(rng: Rng, kind: str, shape: tuple[int, int]) -> Field:
    """Hair of one type and colour (H, W, 3) before a plain backdrop."""
    style = STYLES[kind]
    colour = HAIR_COLOURS[rng.integers(len(HAIR_COLOURS))] * rng.uniform(0.85, 1.15) * rng.normal(1, 0.02, 3)
    backdrop = rng.uniform(0.3, 0.85) * rng.normal(1, 0.04, 3)
    image = (backdrop * lamp(rng, shape)[..., None]).astype(np.float32)
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
    nearest = _nearest_dots(place, depth, 4 * height * width)
    light = _lock_light(rng, depth, tangent, across, lock).reshape(-1, 3)[nearest] * (nearest[:, None] >= 0)
    light = light.reshape(2 * height, 2 * width, 3)
    light = 0.25 * (light[::2, ::2] + light[1::2, ::2] + light[::2, 1::2] + light[1::2, 1::2])
    shade, gloss, cover = np.moveaxis(light, 2, 0)[..., None]
    drawn: Field = image * (1 - cover) + colour * shade + (0.25 + 0.75 * colour) * gloss
    return drawn


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


def _nearest_dots(place: NDArray[np.int32], depth: Field, pixels: int) -> NDArray[np.int32]:
    """The flat number of the nearest dot on each pixel of the canvas (pixels,); -1 where there is none.

    `place` (locks, points, dots) is where a dot falls, `pixels` for one beside the photo; `depth` (locks, points).
    """
    order = np.argsort((depth * 65535).astype(np.uint16), axis=None, kind="stable")  # of 16 bits: a radix sort, fast
    nearest = np.full(pixels + 1, -1, np.int32)
    dots = np.arange(place.size, dtype=np.int32).reshape(order.size, -1)
    nearest[place.reshape(order.size, -1)[order]] = dots[order]  # where several fall, the last one, the nearest, stays
    return nearest[:-1]


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


def body_hairs(rng: Rng, image: Field) -> Field:
    """Single dark hairs across the photo."""
    each = (int(rng.integers(3, 22)), 1)
    along = np.linspace(-1, 1, 4 * min(image.shape[:2]))[None, :] * rng.uniform(0.15, 0.7, each)
    turn = rng.uniform(0, np.pi) + rng.normal(0, 0.45, each) + along * rng.normal(0, 0.6, each)
    x = rng.uniform(-0.6, 0.6, each) + along * np.cos(turn)
    y = rng.uniform(-0.6, 0.6, each) + along * np.sin(turn)
    paths = np.stack((x, y, np.broadcast_to(rng.random(each), x.shape)), axis=-1).astype(np.float32)
    colour = np.array((0.45, 0.35, 0.30), np.float32) * np.float32(rng.uniform(0.5, 1.3))
    return _draw_locks(rng, image, paths, colour, _Lock(rng.uniform(0.0013, 0.0028), 0.2, 0.0))
