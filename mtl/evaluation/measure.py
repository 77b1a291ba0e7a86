"""What a model answers for each photo beside what is true, as arrays of which any part gives figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from mtl.analysis.engine import Engine
from mtl.analysis.predict import Analysis, analyse
from mtl.config import ModelConfig
from mtl.data.folder import Sample
from mtl.metrics import found_regions, hausdorff_95
from mtl.photo import read_mask

BATCH_SIZE = 16
# A mask is measured at these probabilities as well, so that the best threshold can be told.
THRESHOLDS = np.arange(1, 20) / 20
Progress = Callable[[int, int], None]  # (done, of how many)


class Columns:
    """A dataclass of arrays with one row a photo."""

    def take(self, rows: np.ndarray) -> Self:
        """Some of the rows, by number or by a mask; a row may come several times."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))  # type: ignore[arg-type]

    @classmethod
    def of(cls, rows: Sequence[tuple[object, ...]], *shapes: tuple[tuple[int, ...], type]) -> Self:
        """From one tuple a photo; shapes: of one photo's entry in each column, and its type."""
        return cls(
            *(
                np.array([row[place] for row in rows], dtype).reshape(len(rows), *shape)
                for place, (shape, dtype) in enumerate(shapes)
            )
        )


@dataclass(frozen=True)
class Answers(Columns):
    """What was said of each photo's classes."""

    probabilities: np.ndarray  # (N, C) of all trained classes together
    targets: np.ndarray  # (N, G) int: a class id, UNKNOWN or NO_CLASS, a group each
    named: np.ndarray  # (N, G) int: the class that is named by default, -1 where none is


@dataclass(frozen=True)
class Masks(Columns):
    """How the mask of each photo that has one came out, at the mask's own size."""

    photos: np.ndarray  # (M,) int: which photo
    truth: np.ndarray  # (M,) int: lesion pixels
    predicted: np.ndarray  # (M,) int: marked pixels
    overlap: np.ndarray  # (M,) int: pixels that are both
    pixels: np.ndarray  # (M,) int: of the mask
    boundary: (
        np.ndarray
    )  # (M,) the 95 % Hausdorff distance as a share of the diagonal; 1: nothing marked; nan: no lesion
    lesions: np.ndarray  # (M, 2) int: those that were found, of how many
    regions: np.ndarray  # (M, 2) int: marked regions that are lesion, of how many
    at_thresholds: np.ndarray  # (M, len(THRESHOLDS), 2) int: marked pixels and those that are lesion, if cut there

    @property
    def has_lesion(self) -> np.ndarray:
        return self.truth > 0

    @property
    def coverage(self) -> np.ndarray:
        """(M,) share of the photo that is lesion."""
        return self.truth / self.pixels

    def jaccard_at_thresholds(self) -> np.ndarray:
        """(M, len(THRESHOLDS)); nan where there is no lesion and none is marked."""
        marked, both = self.at_thresholds[..., 0], self.at_thresholds[..., 1]
        with np.errstate(invalid="ignore"):
            return both / (marked + self.truth[:, None] - both)


@dataclass(frozen=True)
class Results:
    """Of all photos."""

    names: tuple[str, ...]
    answers: Answers
    masks: Masks

    def part(self, photos: np.ndarray) -> "Results":
        """Of some photos, (n,) row numbers, one of which may come several times."""
        # Several times the same photo: its mask as often.
        row_of = np.full(len(self.names), -1)
        row_of[self.masks.photos] = np.arange(len(self.masks.photos))
        rows = row_of[photos]
        return Results(
            tuple(self.names[photo] for photo in photos), self.answers.take(photos), self.masks.take(rows[rows >= 0])
        )


def measure(
    samples: Sequence[Sample], engine: Engine, config: ModelConfig, progress: Progress | None = None
) -> Results:
    """Analyse every photo, and hold it against its label and mask. Raises PhotoError where one cannot be read."""
    answers: list[tuple[object, ...]] = []
    masks: list[tuple[object, ...]] = []
    for start in range(0, len(samples), BATCH_SIZE):
        part = samples[start : start + BATCH_SIZE]
        for sample, analysis in zip(part, analyse([each.photo for each in part], engine, config), strict=True):
            if sample.mask is not None and analysis.mask_trained:
                masks.append((len(answers), *_measure_mask(analysis, read_mask(sample.mask).astype(bool))))
            answers.append((analysis.probabilities, sample.target, _named(analysis)))
        if progress:
            progress(len(answers), len(samples))
    classes, groups = len(config.trained), len(config.classes.groups)
    return Results(
        tuple(sample.name for sample in samples),
        Answers.of(answers, ((classes,), float), ((groups,), int), ((groups,), int)),
        Masks.of(
            masks, *[((), int)] * 5, ((), float), ((2,), int), ((2,), int), ((len(THRESHOLDS), 2), int)
        ),
    )  # fmt: skip


def _named(analysis: Analysis) -> tuple[int, ...]:
    """For each group the class that the page would name, -1 where it names none."""
    named, start = [], 0
    for answer in analysis.groups:
        named.append(start + answer.names.index(answer.answer) if answer.answer in answer.names else -1)
        start += len(answer.names)
    return tuple(named)


def _measure_mask(analysis: Analysis, truth: np.ndarray) -> tuple[object, ...]:
    """The columns of `Masks` after the first."""
    probabilities = analysis.confidence_at(truth.shape[0], truth.shape[1])
    predicted = probabilities >= analysis.threshold
    counts = int(truth.sum()), int(predicted.sum()), int((truth & predicted).sum()), truth.size
    boundary = _boundary(predicted, truth) if truth.any() else np.nan
    lesions, regions = found_regions(truth, predicted), found_regions(predicted, truth)
    return (*counts, boundary, lesions, regions, _cut_everywhere(probabilities, truth))


def _boundary(predicted: np.ndarray, truth: np.ndarray) -> float:
    return hausdorff_95(predicted, truth) / float(np.hypot(*truth.shape)) if predicted.any() else 1.0


def _cut_everywhere(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(H, W) probabilities and lesion -> (len(THRESHOLDS), 2) pixels at or above each, and those that are lesion."""
    steps = np.searchsorted(THRESHOLDS.astype(np.float32), probabilities.ravel(), side="right")
    every = np.bincount(steps, minlength=len(THRESHOLDS) + 1)
    lesion = np.bincount(steps[truth.ravel()], minlength=len(THRESHOLDS) + 1)
    above = np.cumsum(np.stack([every, lesion], axis=1)[::-1], axis=0)[::-1]
    return above[1:]
