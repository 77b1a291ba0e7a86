"""Apparent skin tone of a photo as individual typology angle, and which of its pixels look like skin."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, grey_closing, grey_opening, label
from skimage.color import rgb2lab

from mtl.photo import resize_photo

MAX_SIDE_PX = 384  # photos are judged at this longest side: no finding hangs on how large a photo came
# What skin of any tone looks like under fair light, CIELAB: lightness, chroma, and hue from pink to yellow.
SKIN_LIGHTNESS = (12, 92)
SKIN_CHROMA = (5, 45)
SKIN_HUE_DEGREES = (10, 90)
# A hair is darker, a highlight lighter than what is around within this many pixels, by more than so much L*.
DETAIL_PX = 9
DETAIL_LIGHTNESS = 8
VIGNETTE_LIGHTNESS = 15  # a dermatoscope's black rim is darker, and touches the frame
MARGIN_RATIO = 0.02  # of the longest side: so near a lesion or a rim nothing counts as skin
MIN_SKIN_RATIO = 0.1  # of the photo
# Chardon, Cretois and Hourseau 1991, "Skin colour typology and suntanning pathways", Int. J. Cosmetic Science 13;
# the sixth and its names: Del Bino and Bernerd 2013, British J. Dermatology 169 (s3). Lowest angle of each.
CATEGORIES = ((55, "very light"), (41, "light"), (28, "intermediate"), (10, "tan"), (-30, "brown"), (-90, "dark"))


@dataclass(frozen=True)
class SkinTone:
    """Of the photo, not of the person: light and camera move it by more than a category."""

    ita_degrees: float  # individual typology angle
    category: str  # "very light", "light", "intermediate", "tan", "brown" or "dark"


def estimate_skin_tone(photo: np.ndarray, mask: np.ndarray | None = None) -> SkinTone | None:
    """Photo (H, W, 3) uint8, lesion mask (H, W) 0/1 -> the tone of the skin around; None where too little is seen.

    ITA = atan((L* - 50) / b*) of the median L* and b* (Chardon 1991). The photo's white balance is taken as it is.
    """
    lab = to_lab(shrink_photo(photo))
    colour = skin_colour(lab, None if mask is None else shrink_labels(mask, lab.shape[:2]) > 0)
    if colour is None:
        return None
    lightness, _, yellowness = colour
    ita = float(np.degrees(np.arctan2(lightness - 50, yellowness)))
    return SkinTone(ita, next(name for lowest, name in CATEGORIES if ita >= lowest))


def skin_colour(lab: np.ndarray, lesion: np.ndarray | None = None) -> tuple[float, float, float] | None:
    """CIELAB (H, W, 3), lesion (H, W) bool -> the skin's median L*, a*, b*; None below MIN_SKIN_RATIO of the photo."""
    skin = find_skin(lab, lesion)
    if skin.mean() < MIN_SKIN_RATIO:
        return None
    lightness, redness, yellowness = np.median(lab[skin], axis=0).tolist()
    return lightness, redness, yellowness


def find_skin(lab: np.ndarray, lesion: np.ndarray | None = None) -> np.ndarray:
    """CIELAB (H, W, 3) -> (H, W) bool: pixels of skin colour that are no lesion, rim, hair or highlight."""
    lightness, chroma = lab[..., 0], np.hypot(lab[..., 1], lab[..., 2])
    hue = np.degrees(np.arctan2(lab[..., 2], lab[..., 1]))
    skin = _within(lightness, SKIN_LIGHTNESS) & _within(chroma, SKIN_CHROMA) & _within(hue, SKIN_HUE_DEGREES)
    return skin & find_surroundings(lightness, lesion)


def find_surroundings(lightness: np.ndarray, lesion: np.ndarray | None = None) -> np.ndarray:
    """L* (H, W), lesion (H, W) bool -> (H, W) bool: what is no lesion, rim, hair or highlight."""
    hair = grey_closing(lightness, DETAIL_PX) - lightness > DETAIL_LIGHTNESS
    highlight = lightness - grey_opening(lightness, DETAIL_PX) > DETAIL_LIGHTNESS
    around = ~hair & ~highlight & ~find_vignette(lightness)
    return around if lesion is None else around & ~_widen(lesion)


def find_vignette(lightness: np.ndarray) -> np.ndarray:
    """L* (H, W) -> (H, W) bool: the dark areas that reach a corner of the photo, as a dermatoscope's rim does."""
    dark, _ = label(lightness < VIGNETTE_LIGHTNESS)
    corners = dark[[0, 0, -1, -1], [0, -1, 0, -1]]
    return _widen(np.isin(dark, corners[corners > 0]))


def shrink_photo(photo: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> the same with the longest side at most MAX_SIDE_PX, antialiased."""
    factor = MAX_SIDE_PX / max(photo.shape)
    if factor >= 1:
        return photo
    return resize_photo(photo, (max(1, round(photo.shape[0] * factor)), max(1, round(photo.shape[1] * factor))))


def shrink_labels(labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) integers -> those nearest to the pixel centres of a grid of `shape` over the same photo."""
    rows, columns = (
        ((np.arange(to) + 0.5) * side / to).astype(int) for side, to in zip(labels.shape, shape, strict=True)
    )
    return labels[np.ix_(rows, columns)]


def to_lab(photo: np.ndarray) -> np.ndarray:
    """sRGB (H, W, 3) uint8 -> CIELAB (H, W, 3) float32, D65."""
    return np.asarray(rgb2lab(photo), np.float32)


def _widen(area: np.ndarray) -> np.ndarray:
    """(H, W) bool -> with a margin around it."""
    return np.asarray(binary_dilation(area, iterations=max(1, round(MARGIN_RATIO * max(area.shape)))))


def _within(values: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    return (values >= bounds[0]) & (values <= bounds[1])
