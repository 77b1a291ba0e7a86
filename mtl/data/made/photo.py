"""One made photo of a kind, with its mask and label.

Nothing here comes from a person, and every photo says "MADE" in a corner.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl.config import DEFAULT_CLASSES
from mtl.data.made.fields import Field
from mtl.data.made.hair import STYLES, hair_photo
from mtl.data.made.lesion import close_up, lesion_level, paint_lesion
from mtl.data.made.skin import skin_photo
from mtl.errors import DataError

CLASS_NAMES = [name for names in DEFAULT_CLASSES.values() for name in names]
LESION = "lesion"  # the kind that stands in for dermoscopy; its label is "none"
KINDS = (*CLASS_NAMES, LESION)
MIN_SIDE_PX = 32  # the tag needs 28
TAG = (
    "#...#..##..###..####",
    "##.##.#..#.#..#.#...",
    "#.#.#.####.#..#.###.",
    "#...#.#..#.#..#.#...",
    "#...#.#..#.###..####",
)


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
        image = hair_photo(rng, kind, shape)
    elif kind == LESION:
        image, level = close_up(rng, shape)
    else:
        image = skin_photo(rng, kind, shape)
        if lesion:
            level = lesion_level(rng, shape, radius=rng.uniform(0.06, 0.16))
            image = paint_lesion(rng, image, level)
    image = image + 0.012 * rng.standard_normal((*shape, 3), dtype=np.float32)  # the sensor's grain
    pixels = (np.clip(_tagged(image), 0, 1) * 255 + 0.5).astype(np.uint8)
    label = "none" if kind == LESION else CLASS_NAMES.index(kind)
    return MadePhoto(pixels, (level > 0).astype(np.uint8), label)


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
