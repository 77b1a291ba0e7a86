"""The lesion drawn on the photo: cyan, since skin is red and brown; a contour with a thin dark edge, a light fill."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation, binary_erosion

from mtl.analysis.lesion import Lesion

CYAN = np.array([0, 229, 255], np.float32)
EDGE = np.array([5, 30, 40], np.uint8)
FILL_OPACITY = 0.35


def draw_overlay(
    photo: np.ndarray, mask: np.ndarray, lesions: Sequence[Lesion] = (), *, opacity: float = FILL_OPACITY
) -> np.ndarray:
    """(H, W, 3) uint8 with the mask (H, W) 0/1 filled and outlined; several lesions get their numbers."""
    if not mask.any():
        return photo
    lesion = mask.astype(bool)
    drawn = photo.copy()
    drawn[lesion] = (photo[lesion] * (1 - opacity) + CYAN * opacity).astype(np.uint8)
    # On the screen a photo is about 800 pixels wide: the contour should be 2 of those.
    width_px = max(2, round(max(mask.shape) / 400))
    inner = lesion & ~_shrink(lesion, width_px)
    outer = _grow(lesion, max(1, width_px // 2)) & ~lesion
    drawn[inner] = CYAN.astype(np.uint8)
    drawn[outer] = EDGE
    return _number(drawn, lesions) if len(lesions) > 1 else drawn


def _shrink(lesion: np.ndarray, by_px: int) -> np.ndarray:
    return np.asarray(binary_erosion(lesion, iterations=by_px, border_value=1))


def _grow(lesion: np.ndarray, by_px: int) -> np.ndarray:
    return np.asarray(binary_dilation(lesion, iterations=by_px))


def _number(image: np.ndarray, lesions: Sequence[Lesion]) -> np.ndarray:
    picture = Image.fromarray(image)
    canvas = ImageDraw.Draw(picture)
    size = max(14, max(image.shape) // 28)
    font = ImageFont.load_default(size)
    for lesion in lesions:
        top, left, _, right = lesion.box
        place = ((left + right) / 2, max(top - 0.2 * size, size))
        canvas.text(
            place,
            str(lesion.number),
            font=font,
            fill="white",
            anchor="mb",
            stroke_width=size // 8,
            stroke_fill="#051e28",
        )
    return np.asarray(picture)
