"""The photos of one visitor and their answers. No gradio here."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mtl.analysis.lesion import Lesion, find_lesions
from mtl.analysis.overlay import draw_overlay
from mtl.analysis.predict import Analysis
from mtl.api import MultiTaskModel
from mtl.errors import PhotoError
from mtl.photo import read_photo, resize_photo

SHOWN_PX = 1400  # longest side of the photo on the page; more would only make it slow
THUMBNAIL_PX = 160


@dataclass(frozen=True)
class Entry:
    """One photo: either its analysis or why there is none.

    What the page says of the mask stands here: the analysis' own maps at the photo's size take 60 MB for one of
    12 megapixels, and would stay as long as the visitor does.
    """

    path: Path
    analysis: Analysis | None = None
    lesions: tuple[Lesion, ...] = ()
    lesion_area_ratio: float = 0.0  # share of the photo, 0..1
    error: str = ""

    @property
    def name(self) -> str:
        return self.path.name


def analyse_entry(path: Path, model: MultiTaskModel) -> tuple[Entry, np.ndarray]:
    """The answer for one file, and its thumbnail (h, w, 3) with the overlay; an unreadable file gets its reason."""
    try:
        photo = read_photo(path)
    except PhotoError as error:
        return Entry(path, error=str(error)), np.full((THUMBNAIL_PX, THUMBNAIL_PX, 3), 150, np.uint8)
    analysis = model.analyze(photo)
    lesions = tuple(find_lesions(analysis.mask))
    # `replace` makes a fresh analysis, without the maps that were filled here.
    entry = Entry(path, replace(analysis), lesions, analysis.lesion_area_ratio)
    return entry, _drawn(photo, entry, THUMBNAIL_PX, overlay=True)


def shown_photo(entry: Entry, *, overlay: bool) -> np.ndarray | None:
    """The photo (h, w, 3) at the page's size, with or without the lesion drawn; None where it cannot be read."""
    if entry.analysis is None:
        return None
    return _drawn(read_photo(entry.path), entry, SHOWN_PX, overlay=overlay)


def _drawn(photo: np.ndarray, entry: Entry, longest_px: int, *, overlay: bool) -> np.ndarray:
    assert entry.analysis is not None
    height, width = photo.shape[:2]
    scale = min(1.0, longest_px / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = photo if scale == 1 else resize_photo(photo, size)
    if not overlay:
        return small
    mask = (entry.analysis.confidence_at(*size) >= entry.analysis.threshold).astype(np.uint8)
    lesions = [replace(lesion, box=tuple(round(edge * scale) for edge in lesion.box)) for lesion in entry.lesions]
    return draw_overlay(small, mask, lesions)
