"""What made photos are drawn with: coordinates, smooth noise, irregular cells, light.

Lengths are in short sides of the photo (0 is its middle), so that a drawing looks the same at any size. Colours are
sRGB in 0..1.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]  # (H, W), or (H, W, 3) where it is a colour; float32, for speed
Rng = np.random.Generator

NOISE_TAPS = 5  # nodes that a pixel of smooth noise is blended from


def grid(shape: tuple[int, int]) -> tuple[Field, Field]:
    """x (1, W) and y (H, 1) of the pixels' middles in short sides."""
    height, width = shape
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / min(shape)
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / min(shape)
    return x[None, :], y[:, None]


def bell(value: Field, width: float) -> Field:
    """1 where the value is 0, falling to 0 over about `width`."""
    falling: Field = np.exp(-np.square(value / width))
    return falling


def step(value: Field, softness: float) -> Field:
    """0 below zero, 1 above, one half at zero."""
    rising: Field = np.tanh(value / softness)
    return 0.5 + 0.5 * rising


def noise(rng: Rng, shape: tuple[int, int], pitch: float) -> Field:
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
    blended: Field = weights[:, :1] * nodes[first]
    for tap in range(1, NOISE_TAPS):
        blended += weights[:, tap, None] * nodes[first + tap]
    return blended


def cells(rng: Rng, shape: tuple[int, int], pitch: float) -> tuple[Field, Field, Field]:
    """Irregular cells about `pitch` wide: distance to the cell's middle, to its edge (in pitches), a number 0..1."""
    x, y = (
        axis / pitch + 0.2 * noise(rng, shape, 2.5 * pitch) + 0.07 * noise(rng, shape, 0.5 * pitch)
        for axis in grid(shape)
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


def lamp(rng: Rng, shape: tuple[int, int]) -> Field:
    """How bright the light falls over the patch (H, W), about 1."""
    x, y = grid(shape)
    angle = rng.uniform(0, 2 * np.pi)
    return 1 + 0.16 * (x * math.cos(angle) + y * math.sin(angle)) + 0.04 * noise(rng, shape, 0.5)
