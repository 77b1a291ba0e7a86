"""The photos that a checkpoint does worst on, small, with what it marked and what is true."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from mtl.analysis.engine import Engine
from mtl.analysis.overlay import EDGE, draw_overlay
from mtl.analysis.predict import analyse
from mtl.config import ModelConfig
from mtl.data.folder import Sample
from mtl.photo import read_mask, read_photo, resize_map, resize_photo

MAX_SIDE_PX = 320
JPEG_QUALITY = 85
YELLOW = np.array([255, 214, 10], np.uint8)
LINE_PX, DASH_PX = 2, 6  # of the true outline: how wide, and how long a dash and a gap are
Progress = Callable[[int, int], None]  # (done, of how many)


@dataclass(frozen=True)
class Picture:
    """One photo of the report, at most MAX_SIDE_PX a side."""

    name: str  # the photo's
    caption: str  # what was answered, and what is true
    jpeg: bytes
    alt: str  # what is to be seen, for those who cannot see it


def draw_worst(
    report: Mapping[str, Any],
    samples: Sequence[Sample],
    engine: Engine,
    config: ModelConfig,
    progress: Progress | None = None,
) -> dict[str, list[Picture]]:
    """The photos that `report["worst"]` names, by task, in its order. samples: those that were evaluated.

    Raises PhotoError where one cannot be read any more.
    """
    by_name = {sample.name: sample for sample in samples}
    asked = [(task, entry) for task, entries in report["worst"].items() for entry in entries]
    drawn: dict[str, list[Picture]] = {task: [] for task in report["worst"]}
    for done, (task, entry) in enumerate(asked, start=1):
        sample = by_name[entry["name"]]
        drawn[task].append(
            _plain(sample, entry) if task == "classification" else _outlined(sample, entry, engine, config)
        )
        if progress:
            progress(done, len(asked))
    return drawn


def _plain(sample: Sample, entry: Mapping[str, Any]) -> Picture:
    caption = f"label {entry['label']}, answered {entry['predicted']} {100 * entry['confidence']:.0f} %"
    return Picture(sample.name, caption, _encode(_small(sample)), f"The photo {sample.name}: {caption}")


def _outlined(sample: Sample, entry: Mapping[str, Any], engine: Engine, config: ModelConfig) -> Picture:
    photo, (analysis,) = _small(sample), analyse([sample.photo], engine, config)
    height, width = photo.shape[:2]
    marked = analysis.confidence_at(height, width) >= analysis.threshold
    truth = np.zeros_like(marked) if sample.mask is None else _shrunk(read_mask(sample.mask), height, width)
    drawn = draw_truth(draw_overlay(photo, marked, opacity=0), truth)
    caption, alt = _overlap_words(entry), f"The photo {sample.name} with the marked and the true outline"
    return Picture(sample.name, caption, _encode(drawn), alt)


def _overlap_words(entry: Mapping[str, Any]) -> str:
    if "jaccard" in entry:
        return f"Jaccard {entry['jaccard']:.3f}"
    return f"{100 * entry['false_positive_area']:.2f} % marked"


def _small(sample: Sample) -> np.ndarray:
    """(H, W, 3) uint8, no side above MAX_SIDE_PX."""
    photo = read_photo(sample.photo, min_side=MAX_SIDE_PX)
    scale = min(1.0, MAX_SIDE_PX / max(photo.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in photo.shape[:2])
    return resize_photo(photo, (height, width))


def _shrunk(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask (h, w) at another size, as bool."""
    return resize_map(mask, height, width) >= 0.5


def draw_truth(photo: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """With the outline of the lesion (H, W) bool in yellow dashes, between which another outline shows through."""
    if not truth.any():
        return photo
    drawn = photo.copy()
    line = truth & ~binary_erosion(truth, iterations=LINE_PX, border_value=1) & _dashes(truth)
    # A thin dark edge, as the other outline has: yellow alone is lost on light skin.
    drawn[binary_dilation(line) & ~line] = EDGE
    drawn[line] = YELLOW
    return drawn


def _dashes(truth: np.ndarray) -> np.ndarray:
    """(H, W) bool: sectors around the lesion's middle that cut its outline into dashes and gaps."""
    rows, columns = np.nonzero(truth)
    row, column = np.ogrid[: truth.shape[0], : truth.shape[1]]
    angle = np.arctan2(row - rows.mean(), column - columns.mean()) / (2 * np.pi)
    outline_px = 2 * np.sqrt(np.pi * len(rows))  # of a disc as large
    pairs = max(3, round(outline_px / (2 * DASH_PX)))
    return np.asarray((angle * pairs) % 1 < 0.5)


def _encode(photo: np.ndarray) -> bytes:
    """(H, W, 3) uint8 -> JPEG, its colours at full sharpness: the outlines are thin."""
    file = BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    return file.getvalue()
