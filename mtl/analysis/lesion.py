"""Lesions as objects: the connected parts of a mask, largest first."""

from dataclasses import dataclass

import numpy as np
from skimage.measure import label, regionprops

# Smaller parts are specks of the mask rather than lesions; they stay in the mask and in its total area.
MIN_AREA_RATIO = 0.0005


@dataclass(frozen=True)
class Lesion:
    """One connected lesion; coordinates in pixels of the photo."""

    number: int  # from 1, largest first
    area_px: int
    area_ratio: float  # of the photo
    box: tuple[int, int, int, int]  # top, left, bottom, right (exclusive)
    equivalent_diameter_px: float  # of the disc with the same area


def find_lesions(mask: np.ndarray) -> list[Lesion]:
    """(H, W) 0/1 -> its lesions; pixels that touch at a corner are connected."""
    regions = [r for r in regionprops(label(mask, connectivity=2)) if r.area >= MIN_AREA_RATIO * mask.size]
    regions.sort(key=lambda region: -region.area)
    return [
        Lesion(number, int(r.area), float(r.area) / mask.size, tuple(r.bbox), float(r.equivalent_diameter_area))
        for number, r in enumerate(regions, start=1)
    ]
