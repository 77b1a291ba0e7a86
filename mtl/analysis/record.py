"""Everything that is said of one photo: the page shows it, and table, JSON, zip and PDF carry it."""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from mtl.analysis.predict import GroupAnswer
from mtl.analysis.turned import Tta
from mtl.errors import ConfigError

if TYPE_CHECKING:
    from mtl.analysis.lesion import MaskMeasures
    from mtl.analysis.quality import Quality
    from mtl.analysis.skin_tone import SkinTone
    from mtl.analysis.unlike import Familiarity

# Of any photo of skin, from a microscope's to one of a whole person; beyond it the points were set by mistake.
MIN_MM_PER_PX, MAX_MM_PER_PX = 1e-5, 100.0


@dataclass(frozen=True)
class ModelIdentity:
    """Which model answered."""

    name: str  # as the page's list of models has it
    revision: str  # the first 12 hexadecimal digits of the SHA-256 over the weights
    calibrated: bool  # whether the temperature of its probabilities was fitted
    untrained: tuple[str, ...] = ()  # names of the classes without training photos


@dataclass(frozen=True)
class Scale:
    """What a pixel measures."""

    mm_per_px: float
    source: str  # "ruler" (two clicks in the photo) or "DICOM"


@dataclass(frozen=True)
class Record:
    """One photo's answer. Lengths are in pixels of the photo; `scale` makes millimetres of them."""

    name: str  # the file's name as it came, without its folder; may hold anything
    height: int
    width: int
    groups: tuple[GroupAnswer, ...]
    mask_trained: bool
    measures: "MaskMeasures"
    threshold: float  # at which the map was cut
    corrected: bool  # whether a person drew in the mask
    quality: "Quality"
    skin_tone: "SkinTone | None"  # None where too little skin is seen to tell
    familiarity: "Familiarity | None"  # None where the model knows nothing of its training photos
    model: ModelIdentity
    name_confidence: float  # below it no class is named
    seconds: float  # from the file to the answer
    at: datetime  # when, with its time zone
    scale: Scale | None = None
    tta: Tta = "off"  # the views of the photo that the answer is the mean of


def scale_from_ruler(start: tuple[float, float], end: tuple[float, float], length_mm: float) -> Scale:
    """The scale from two points (row, column) on a ruler in the photo, and how far apart they are on it.

    Raises ConfigError where the points coincide or the length is no positive number.
    """
    length_px = math.dist(start, end)
    if not 0 < length_mm < math.inf:
        raise ConfigError(
            "ruler: got a length of {length} mm; needed more than 0: type what the ruler reads", length=length_mm
        )
    if not length_px:
        raise ConfigError("ruler: got the same point twice; needed two: click both ends of a known length on the ruler")
    if not MIN_MM_PER_PX < length_mm / length_px < MAX_MM_PER_PX:
        raise ConfigError("ruler: these points and this length fit no photo of skin; set both again")
    return Scale(length_mm / length_px, "ruler")
