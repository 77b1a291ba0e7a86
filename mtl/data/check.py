"""Reads every photo and mask of a data folder once and says what a training run would meet."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mtl.config import NO_CLASS
from mtl.data.folder import SPLITS, DataFolder, Sample
from mtl.errors import DataError, PhotoError
from mtl.photo import read_mask, read_photo

Progress = Callable[[int, int], None]  # (done, of how many)


@dataclass(frozen=True)
class SplitReport:
    """One side of the split, in photos."""

    photos: int = 0
    labelled: int = 0
    none_labels: int = 0
    masks: int = 0
    lesion_free_masks: int = 0
    mean_mask_coverage: float = 0.0  # share of the photo that is lesion, over photos with a lesion
    classes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DataReport:
    """What `check-data` prints."""

    splits: dict[str, SplitReport]
    unreadable: dict[str, str]  # file name -> reason
    duplicates_across_splits: list[list[str]]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def require_readable(self) -> None:
        """Raise DataError where a photo or mask cannot be read."""
        if not self.unreadable:
            return
        reasons = "; ".join(list(self.unreadable.values())[:3])
        more = f"; and {len(self.unreadable) - 3} more (check-data lists them)" if len(self.unreadable) > 3 else ""
        raise DataError(f"{len(self.unreadable)} files cannot be read: {reasons}{more}; replace or remove them")


@dataclass(frozen=True)
class _Reading:
    sample: Sample
    digest: str = ""
    coverage: float | None = None
    problems: dict[str, str] = field(default_factory=dict)  # file name -> reason


def check_folder(folder: DataFolder, progress: Progress | None = None) -> DataReport:
    """Decode everything; `progress` is called after each photo, and may raise to break off."""
    readings: dict[str, list[_Reading]] = {}
    done, total = 0, len(folder.train) + len(folder.val)
    for side in SPLITS:
        readings[side] = []
        for reading in _read_all(folder.split(side)):
            readings[side].append(reading)
            done += 1
            if progress:
                progress(done, total)
    splits: dict[str, SplitReport] = {side: _summary(folder, side, readings[side]) for side in SPLITS}
    problems = {name: reason for side in SPLITS for r in readings[side] for name, reason in r.problems.items()}
    duplicates = _duplicates(readings)
    return DataReport(splits, problems, duplicates, list(_warnings(folder, splits, duplicates)))


def _read_all(samples: Iterable[Sample]) -> Iterator[_Reading]:
    samples = list(samples)
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads, thread_name_prefix="check") as pool:
        # In slices, so that a caller who breaks off does not wait for the whole queue.
        for start in range(0, len(samples), 8 * threads):
            yield from pool.map(_read, samples[start : start + 8 * threads])


def _read(sample: Sample) -> _Reading:
    problems, digest, coverage = {}, "", None
    try:
        read_photo(sample.photo, min_side=224)
        digest = hashlib.sha256(sample.photo.read_bytes()).hexdigest()
    except (PhotoError, OSError) as error:
        problems[sample.name] = str(error)
    if sample.mask is not None:
        try:
            coverage = float(np.mean(read_mask(sample.mask)))
        except (PhotoError, OSError) as error:
            problems[sample.mask.name] = f"mask {error}"
    return _Reading(sample, digest, coverage, problems)


def _summary(folder: DataFolder, side: Any, readings: list[_Reading]) -> SplitReport:
    coverages = [r.coverage for r in readings if r.coverage is not None]
    lesions = [coverage for coverage in coverages if coverage > 0]
    return SplitReport(
        photos=len(readings),
        labelled=sum(any(class_id >= 0 for class_id in r.sample.target) for r in readings),
        none_labels=sum(NO_CLASS in r.sample.target for r in readings),
        masks=len(coverages),
        lesion_free_masks=len(coverages) - len(lesions),
        mean_mask_coverage=round(float(np.mean(lesions)), 4) if lesions else 0.0,
        classes=dict(zip(folder.classes.names, folder.class_counts(side), strict=True)),
    )


def _duplicates(readings: dict[str, list[_Reading]]) -> list[list[str]]:
    """Groups of photos with the same bytes that stand on both sides."""
    by_digest: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for side, results in readings.items():
        for reading in results:
            if reading.digest:
                by_digest[reading.digest][side].append(reading.sample.name)
    return [[name for names in sides.values() for name in names] for sides in by_digest.values() if len(sides) > 1]


def _warnings(folder: DataFolder, splits: dict[str, SplitReport], duplicates: list[list[str]]) -> Iterator[str]:
    if duplicates:
        first = ", ".join(duplicates[0])
        yield f"{len(duplicates)} photos stand in both splits (the first: {first}); validation will flatter"
    train, val = splits["train"], splits["val"]
    for name, count in train.classes.items():
        if count == 0 and train.labelled:
            yield f"no training photo shows {name}: the class will never be predicted"
            if val.classes[name]:
                yield f"{val.classes[name]} validation photos show {name}, which has no training photo"
    present = [count for count in train.classes.values() if count]
    if present and max(present) > 10 * min(present):
        yield f"the classes are uneven: {min(present)} to {max(present)} training photos"
    if not train.masks:
        yield "no training photo has a mask: the lesion mask will not be learned"
    if not train.labelled:
        yield "no training photo has a class label: the classes will not be learned"
    groups_on_both = {s.group for s in folder.train} & {s.group for s in folder.val}
    if groups_on_both:
        yield f"{len(groups_on_both)} groups stand on both sides of the split (the first: {sorted(groups_on_both)[0]})"
