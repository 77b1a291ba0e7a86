"""Whether a photo can be trusted to show what it should: sharp, well lit, large enough, the lesion whole.

All is judged at the longest side MAX_SIDE_PX, about what the network sees: a blur that vanishes there is not reported.
The limits were chosen on the 533 validation photos that the shipped model was trained beside (249 dermoscopic photos of
lesions, 167 of hair, 117 of skin), and on 240 of them spoilt on purpose; each check says how many it flags.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, grey_opening, label
from skimage.measure import blur_effect

from mtl.analysis.lesion import MIN_AREA_RATIO
from mtl.analysis.skin_tone import (
    find_skin,
    find_surroundings,
    find_vignette,
    shrink_labels,
    shrink_photo,
    to_lab,
)

MIN_SIDE_PX = 180
MAX_BLUR = 0.55
BLUR_WINDOW_PX = 11
MIN_LIGHTNESS = 45
CLIPPED = 254  # of 255
MAX_CLIPPED_RATIO = 0.3
MAX_LIGHT_RANGE = 15  # L*
MAX_SCENE_SPREAD = 10  # L*
GLARE_LEVEL = 240  # of 255
GLARE_LIGHTNESS = 20  # L* above what is around
GLARE_PX = 21  # what is broader is no highlight
MAX_GLARE_RATIO = 0.0015  # of the photo
MIN_CUT_RATIO = 0.02  # of an edge


@dataclass(frozen=True)
class QualityIssue:
    """One reason to doubt a photo."""

    kind: str  # "blurred", "dark", "overexposed", "uneven light", "glare", "too small", "lesion cut off"
    edges: tuple[str, ...] = ()  # of "lesion cut off": "top", "left", "bottom", "right"


@dataclass(frozen=True)
class Quality:
    """What was found; nothing found means sharp and well lit."""

    issues: tuple[QualityIssue, ...] = ()


def assess_quality(photo: np.ndarray, mask: np.ndarray | None = None) -> Quality:
    """What is wrong with a photo (H, W, 3) uint8; with its lesion mask (H, W) 0/1 also whether the lesion is whole."""
    small = shrink_photo(photo)
    lab = to_lab(small)
    lesion = np.zeros(lab.shape[:2], bool) if mask is None else shrink_labels(mask, lab.shape[:2]) > 0
    found = {
        "blurred": is_blurred(lab[..., 0]),
        "dark": is_dark(lab[..., 0]),
        "overexposed": is_overexposed(small),
        "uneven light": is_unevenly_lit(lab[..., 0], lesion),
        "glare": has_glare(small, lab, lesion),
        "too small": min(photo.shape[:2]) < MIN_SIDE_PX,
    }
    issues = [QualityIssue(kind) for kind, is_so in found.items() if is_so]
    if edges := cut_edges(lesion, lab[..., 0]):
        issues.append(QualityIssue("lesion cut off", edges))
    return Quality(tuple(issues))


def is_blurred(lightness: np.ndarray) -> bool:
    """L* (H, W): a further blur takes little from the edges (Crete et al. 2007), whatever their contrast.

    Flags 1 % of lesions and hair and 6 % of skin photos, many of which are soft; blurred by a Gaussian of 2 pixels 75,
    91 and 99 %, by one of 4 pixels 94, 100 and 100 %. Noise passes for sharpness.
    """
    if min(lightness.shape) <= BLUR_WINDOW_PX:
        return False
    return bool(blur_effect(lightness / 100, BLUR_WINDOW_PX) > MAX_BLUR)


def is_dark(lightness: np.ndarray) -> bool:
    """L* (H, W): nearly nothing reaches MIN_LIGHTNESS, which fairly lit skin of a dark tone does in its lighter parts.

    Flags none; at three stops less light all, at two stops less 76 % of lesions, 23 % of hair and 15 % of skin photos.
    """
    return bool(np.quantile(lightness, 0.95) < MIN_LIGHTNESS)


def is_overexposed(photo: np.ndarray) -> bool:
    """(H, W, 3) uint8: a channel has reached its end on much of the photo; a white background counts as well.

    Flags 1 % of lesions and 3 % of hair and skin photos; at one stop more light 58, 54 and 70 %, at 1.6 more 89, 75 and
    96 %.
    """
    return bool((photo.max(axis=2) >= CLIPPED).mean() > MAX_CLIPPED_RATIO)


def is_unevenly_lit(lightness: np.ndarray, lesion: np.ndarray) -> bool:
    """L* and lesion (H, W): over what surrounds the lesion, a plane of lightness slopes steeply and fits well.

    Flags 4 % of lesions, no hair and 3 % of skin photos; 95 % of lesions under light that falls off to 30 %, fewer
    without their mask. In a scene light cannot be told from what there is to see: no plane fits, nothing is flagged.
    """
    rows, columns = np.nonzero(find_surroundings(lightness, lesion))
    if len(rows) < 0.05 * lightness.size:
        return False
    values = lightness[rows, columns]
    places = np.stack([rows / lightness.shape[0], columns / lightness.shape[1], np.ones(len(rows))], axis=1)
    plane = places @ np.linalg.lstsq(places, values, rcond=None)[0]
    spread = float((values - plane).std())
    return bool(np.ptp(np.quantile(plane, [0.02, 0.98])) > MAX_LIGHT_RANGE and spread < MAX_SCENE_SPREAD)


def has_glare(photo: np.ndarray, lab: np.ndarray, lesion: np.ndarray) -> bool:
    """Photo (H, W, 3) uint8, its CIELAB and lesion: small white spots on skin or lesion, far lighter than around.

    Flags no lesions, 5 % of hair and 8 % of skin photos, on which skin does shine; with six drawn highlights of 1 to
    2 % of the longest side 98, 58 and 74 %.
    """
    lightness = lab[..., 0]
    spots = (photo.min(axis=2) >= GLARE_LEVEL) & (lightness - grey_opening(lightness, GLARE_PX) > GLARE_LIGHTNESS)
    body = binary_dilation(find_skin(lab, lesion) | lesion, iterations=3)
    return bool((spots & body).mean() > MAX_GLARE_RATIO)


def cut_edges(lesion: np.ndarray, lightness: np.ndarray) -> tuple[str, ...]:
    """Lesion (H, W) bool, L* (H, W): the edges of the frame that a lesion runs along for MIN_CUT_RATIO of their length.

    Specks do not count, nor what was drawn over a dermatoscope's black rim.
    """
    parts, _ = label(lesion & ~find_vignette(lightness), structure=np.ones((3, 3)))
    large = np.bincount(parts.ravel()) >= MIN_AREA_RATIO * lesion.size
    large[0] = False
    inside = large[parts]
    edges = {"top": inside[0], "left": inside[:, 0], "bottom": inside[-1], "right": inside[:, -1]}
    return tuple(name for name, edge in edges.items() if edge.mean() >= MIN_CUT_RATIO)
