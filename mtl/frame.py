"""How a photo becomes the network's square, and how a map of that square comes back onto the photo.

Pixel centres lie at half integers on both sides, so nothing shifts at any size or aspect ratio.
"""

import numpy as np

from mtl.photo import resize_map, resize_photo


def photo_to_square(photo: np.ndarray, size: int, center_crop: bool) -> np.ndarray:
    """(H, W, 3) uint8 -> (size, size, 3) uint8: the whole photo squeezed, or its centre square."""
    top, left, height, width = photo_region(photo.shape[0], photo.shape[1], center_crop)
    return resize_photo(photo[top : top + height, left : left + width], size)


def map_to_square(values: np.ndarray, size: int, center_crop: bool) -> np.ndarray:
    """(H, W) float32 over a photo -> (size, size) float32."""
    top, left, height, width = photo_region(values.shape[0], values.shape[1], center_crop)
    return resize_map(values[top : top + height, left : left + width], size, size)


def map_to_photo(values: np.ndarray, height: int, width: int, center_crop: bool, *, outside: float) -> np.ndarray:
    """(s, s) float32 over the square -> (height, width) float32; `outside` stands where a centre crop did not look."""
    top, left, crop_height, crop_width = photo_region(height, width, center_crop)
    enlarged = resize_map(values, crop_height, crop_width)
    if (crop_height, crop_width) == (height, width):
        return enlarged
    whole = np.full((height, width), outside, np.float32)
    whole[top : top + crop_height, left : left + crop_width] = enlarged
    return whole


def photo_region(height: int, width: int, center_crop: bool) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the part of a photo that the network sees."""
    if not center_crop:
        return 0, 0, height, width
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side
