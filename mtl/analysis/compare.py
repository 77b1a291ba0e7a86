"""Two photos of one lesion: what has changed, and where they cannot be compared."""

import math
from dataclasses import dataclass

import numpy as np
from skimage.color import deltaE_ciede2000

from mtl.analysis.lesion import Lesion
from mtl.analysis.record import Record
from mtl.analysis.skin_tone import shrink_labels, shrink_photo, skin_colour, to_lab

# Without a scale, a larger change of the lesion's share of the photo may be one of the distance.
MAX_AREA_RATIO_WITHOUT_SCALE = 2
MAX_ASPECT_RATIO = 1.1  # by which the photos' aspects differ
# The skin is the same, so what its colour changes by is the light: half a stop, and a visible cast.
MAX_SKIN_LIGHTNESS_CHANGE = 10
MAX_SKIN_CHROMA_CHANGE = 10

Lab = tuple[float, float, float]


@dataclass(frozen=True)
class Comparison:
    """The largest lesion of each of two photos; pairs are (first, second)."""

    # What hinders: "no lesion", "framing" (distance or aspect differ), "light", "skin not seen" (so the light cannot be
    # judged, nor the colour), "lesion cut off". The figures stand all the same, where there are any.
    not_comparable: tuple[str, ...]
    in_mm: bool  # whether both photos have a scale; else lengths are in sides of the square with the photo's area
    areas: tuple[float, float] | None  # mm², or shares of the photo; None where a lesion is missing
    diameters: tuple[float, float] | None  # of the disc with that area
    colour_change: float | None  # ΔE2000 against the skin around; None where a lesion or the skin is not seen

    @property
    def area_ratio(self) -> float | None:
        """Second over first: 1 where nothing has changed."""
        return None if self.areas is None else self.areas[1] / self.areas[0]

    @property
    def diameter_ratio(self) -> float | None:
        """Second over first."""
        return None if self.diameters is None else self.diameters[1] / self.diameters[0]


def compare(first: Record, second: Record, first_photo: np.ndarray, second_photo: np.ndarray) -> Comparison:
    """Compare the largest lesions of two answered photos (H, W, 3) uint8.

    Areas are in mm² where both photos have a scale, else shares of the photo, which are worth something only where both
    were taken from the same distance. A corrected mask is compared like any other.
    """
    in_mm = first.scale is not None and second.scale is not None
    skins = (_skin(first, first_photo), _skin(second, second_photo))
    found = [record.measures.lesions[0] for record in (first, second) if record.measures.lesions]
    areas = None
    if len(found) == 2:
        areas = (_area(found[0], first, in_mm), _area(found[1], second, in_mm))
    return Comparison(
        not_comparable=_hindrances(first, second, areas, skins),
        in_mm=in_mm,
        areas=areas,
        diameters=None if areas is None else (_diameter(areas[0]), _diameter(areas[1])),
        colour_change=None if areas is None else _colour_change(found[0].colour_lab, found[1].colour_lab, skins),
    )


def _area(lesion: Lesion, record: Record, in_mm: bool) -> float:
    """In mm², or as a share of the photo."""
    return lesion.area_px * record.scale.mm_per_px**2 if in_mm and record.scale else lesion.area_ratio


def _diameter(area: float) -> float:
    return math.sqrt(4 * area / math.pi)


def _skin(record: Record, photo: np.ndarray) -> Lab | None:
    """The skin's colour outside of the boxes of all lesions."""
    boxes = np.zeros(photo.shape[:2], bool)
    for lesion in record.measures.lesions:
        top, left, bottom, right = lesion.box
        boxes[top:bottom, left:right] = True
    lab = to_lab(shrink_photo(photo))
    return skin_colour(lab, shrink_labels(boxes, lab.shape[:2]))


def _hindrances(
    first: Record, second: Record, areas: tuple[float, float] | None, skins: tuple[Lab | None, Lab | None]
) -> tuple[str, ...]:
    cut_off = any(issue.kind == "lesion cut off" for record in (first, second) for issue in record.quality.issues)
    found = {
        "no lesion": areas is None,
        "framing": not (first.scale and second.scale) and _framing_differs(first, second, areas),
        "light": _light_differs(*skins),
        "skin not seen": None in skins,
        "lesion cut off": cut_off,
    }
    return tuple(kind for kind, is_so in found.items() if is_so)


def _framing_differs(first: Record, second: Record, areas: tuple[float, float] | None) -> bool:
    """Whether the photos' aspects, or the lesion's shares of them, are too far apart for the same distance."""
    if _times(first.width / first.height, second.width / second.height) > MAX_ASPECT_RATIO:
        return True
    return areas is not None and _times(*areas) > MAX_AREA_RATIO_WITHOUT_SCALE


def _times(first: float, second: float) -> float:
    """How many times the larger is the smaller."""
    return max(first, second) / min(first, second)


def _light_differs(first: Lab | None, second: Lab | None) -> bool:
    if first is None or second is None:
        return False
    change = np.subtract(second, first)
    return bool(abs(change[0]) > MAX_SKIN_LIGHTNESS_CHANGE or np.hypot(*change[1:]) > MAX_SKIN_CHROMA_CHANGE)


def _colour_change(first: Lab | None, second: Lab | None, skins: tuple[Lab | None, Lab | None]) -> float | None:
    """CIE ΔE2000 of the lesion's mean colours, after the second is moved by what its skin lies off the first's."""
    if first is None or second is None or skins[0] is None or skins[1] is None:
        return None
    moved = np.asarray(second) + np.subtract(skins[0], skins[1])
    return float(deltaE_ciede2000(np.asarray(first), moved))
