"""How a photo becomes the network's square, and how a map of that square comes back onto the photo.

Pixel centres lie at half integers on both sides, so nothing shifts at any size or aspect ratio.
"""

import numpy as np

from mtl.photo import PhotoSource, read_photo, read_photo_and_size, resize_map, resize_photo


def read_square(source: PhotoSource, size: int, center_crop: bool) -> tuple[np.ndarray, tuple[int, int]]:
    """A photo's (size, size, 3) uint8 square, decoded no larger than that needs, and its own upright (height, width).

    Raises PhotoError.
    """
    photo, whole = read_photo_and_size(source, min_side=size)
    return photo_to_square(photo, size, center_crop), whole


def read_photo_and_square(source: PhotoSource, size: int, center_crop: bool) -> tuple[np.ndarray, np.ndarray]:
    """The whole photo (H, W, 3) uint8, and the square that `read_square` gives of it. Raises PhotoError."""
    reduced, whole = read_photo_and_size(source, min_side=size)
    photo = reduced if reduced.shape[:2] == whole else read_photo(source)
    return photo, photo_to_square(reduced, size, center_crop)


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
    enlarged = _enlarge(values, crop_height, crop_width)
    if (crop_height, crop_width) == (height, width):
        return enlarged
    whole = np.full((height, width), outside, np.float32)
    whole[top : top + crop_height, left : left + crop_width] = enlarged
    return whole


def _enlarge(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """As `resize_map`; where nothing is shrunk by PyTorch, in a fifth of the time."""
    if height < values.shape[0] or width < values.shape[1]:
        return resize_map(values, height, width)
    import torch  # nothing else here needs it, and it takes seconds

    given = torch.from_numpy(np.ascontiguousarray(values, np.float32))[None, None]
    return torch.nn.functional.interpolate(given, (height, width), mode="bilinear")[0, 0].numpy()


def photo_region(height: int, width: int, center_crop: bool) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the part of a photo that the network sees."""
    if not center_crop:
        return 0, 0, height, width
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side
