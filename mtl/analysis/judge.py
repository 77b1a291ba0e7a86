"""All of a record that hangs on the mask: judged when the network has drawn it, and again when a person has."""

from typing import NamedTuple

import numpy as np

from mtl.analysis.lesion import MaskMeasures, measure_mask
from mtl.analysis.predict import Analysis
from mtl.analysis.quality import Quality, assess_quality
from mtl.analysis.skin_tone import SkinTone, estimate_skin_tone


class Judgement(NamedTuple):
    """The fields of a record that go by these names."""

    measures: MaskMeasures
    quality: Quality
    skin_tone: SkinTone | None


def judge(
    analysis: Analysis, image: np.ndarray, mask: np.ndarray, confidence_map: np.ndarray | None, threshold: float
) -> Judgement:
    """Of a photo (H, W, 3) uint8 and its mask (H, W) 0/1.

    confidence_map: (H, W) float32, what was cut at `threshold` to give the mask; None for a mask drawn by hand.
    """
    return Judgement(
        measure_mask(mask, image, confidence_map, threshold),
        assess_quality(image, mask),
        estimate_skin_tone(image, mask) if _shows_skin(analysis) else None,
    )


def _shows_skin(analysis: Analysis) -> bool:
    """Whether what has the colour of skin may be taken for skin: in a photo of hair most of it is hair."""
    applying = [group.group.lower() for group in analysis.groups if group.applies]
    return not applying or any("skin" in group for group in applying)
