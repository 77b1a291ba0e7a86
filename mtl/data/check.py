"""Reads every photo and mask of a data folder once and says what a training run would meet."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sized
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from mtl.config import NO_CLASS
from mtl.data.alike import difference_hash, look_alikes
from mtl.data.folder import DataFolder, Sample, Split
from mtl.data.parallel import in_threads
from mtl.errors import DataError, PhotoError
from mtl.photo import lesion_of, read_grey, read_photo

Progress = Callable[[int, int], None]  # (done, of how many)

# Below these a figure is mostly chance.
FEW_TRAINING_PHOTOS, FEW_VALIDATION_PHOTOS, FEW_PHOTOS_OF_A_CLASS = 50, 20, 10
UNEVEN = 10  # the largest class, as a multiple of the smallest

MAX_ASPECT_DIFFERENCE = 0.02  # between photo and mask, relative
NEARLY_ALL = 0.999  # lesion in so much of a mask is lesion everywhere
DRAWN = 0.001  # something is drawn in so much of a mask; less may be noise

# What looks wrong with a mask -> what to do about it.
TOO_DARK = "hold no grey above 127, so what is drawn in them reads as no lesion"
OTHER_SHAPE = "have another aspect ratio than their photos"
ALL_LESION = "call the whole photo lesion"
CURES = {
    TOO_DARK: "draw lesions in white",
    OTHER_SHAPE: "draw them on the whole photo, or remove them",
    ALL_LESION: "see whether they are inverted",
}


@dataclass(frozen=True)
class SplitReport:
    """One side of the split, in photos."""

    photos: int = 0
    labelled: int = 0
    none_labels: int = 0
    masks: int = 0  # given with the photos
    lesion_free_masks: int = 0
    generated_masks: int = 0
    mean_mask_coverage: float = 0.0  # share of the photo that is lesion, over given masks with a lesion
    classes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DataReport:
    """What `check-data` prints."""

    splits: dict[Split, SplitReport]
    unreadable: dict[str, str]  # file name -> reason
    duplicates_across_splits: list[list[str]]  # photos with the same bytes
    look_alikes_across_splits: list[list[str]] = field(default_factory=list)  # [training, validation photo]
    doubtful_masks: dict[str, list[str]] = field(default_factory=dict)  # what looks wrong -> mask names
    warnings: list[str] = field(default_factory=list)  # what to look at, each with what to do

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def require_readable(self) -> None:
        """Raise DataError where a photo or mask cannot be read."""
        if not self.unreadable:
            return
        reasons = "; ".join(list(self.unreadable.values())[:3])
        more = f"; and {len(self.unreadable) - 3} more (check-data lists them)" if len(self.unreadable) > 3 else ""
        raise DataError(f"{_count(self.unreadable, 'file')} cannot be read: {reasons}{more}; replace or remove them")


@dataclass
class _Reading:
    """What the files of one sample hold, as far as they can be read."""

    sample: Sample
    digest: str = ""
    look: np.ndarray | None = None  # difference hash
    coverage: float | None = None
    doubt: str = ""  # a key of CURES
    problems: dict[str, str] = field(default_factory=dict)  # file name -> reason


def check_folder(folder: DataFolder, progress: Progress | None = None) -> DataReport:
    """Decode everything; `progress` is called after each photo, and may raise to break off."""
    samples = [*folder.train, *folder.val]
    readings = []
    with closing(in_threads(_read, samples)) as results:
        for reading in results:
            readings.append(reading)
            if progress:
                progress(len(readings), len(samples))
    train, val = readings[: len(folder.train)], readings[len(folder.train) :]
    report = DataReport(
        splits={"train": _summary(folder, "train", train), "val": _summary(folder, "val", val)},
        unreadable={name: reason for reading in readings for name, reason in reading.problems.items()},
        duplicates_across_splits=_duplicates(train, val),
        look_alikes_across_splits=_look_alikes(train, val),
        doubtful_masks=_doubtful_masks(readings),
    )
    return replace(report, warnings=list(_warnings(folder, report)))


# ---- one sample


def _read(sample: Sample) -> _Reading:
    reading = _Reading(sample)
    shape = None
    try:
        photo = read_photo(sample.photo, min_side=224)
        shape = photo.shape[:2]
        reading.look = difference_hash(photo)
        reading.digest = hashlib.sha256(sample.photo.read_bytes()).hexdigest()
    except (PhotoError, OSError) as error:
        reading.problems[sample.name] = str(error)
    if sample.mask is not None:
        try:
            grey = read_grey(sample.mask)
            reading.coverage = np.count_nonzero(lesion_of(grey)) / grey.size
            reading.doubt = "" if sample.mask_is_generated else _doubt(grey, reading.coverage, shape)
        except (PhotoError, OSError) as error:
            reading.problems[sample.mask.name] = f"mask {error}"
    return reading


def _doubt(grey: np.ndarray, coverage: float, photo_shape: tuple[int, ...] | None) -> str:
    """What looks wrong with a mask for a photo of this (height, width), at any scale; "" where nothing does."""
    if photo_shape:
        aspects = [width / height for height, width in (grey.shape, photo_shape)]
        if max(aspects) / min(aspects) > 1 + MAX_ASPECT_DIFFERENCE:
            return OTHER_SHAPE
    if coverage >= NEARLY_ALL:
        return ALL_LESION
    return TOO_DARK if not coverage and np.count_nonzero(grey) >= DRAWN * grey.size else ""


# ---- all of them


def _summary(folder: DataFolder, side: Split, readings: list[_Reading]) -> SplitReport:
    generated = sum(r.sample.mask_is_generated for r in readings)
    coverages = [r.coverage for r in readings if r.coverage is not None and not r.sample.mask_is_generated]
    lesions = [coverage for coverage in coverages if coverage > 0]
    return SplitReport(
        photos=len(readings),
        labelled=sum(any(class_id >= 0 for class_id in r.sample.target) for r in readings),
        none_labels=sum(NO_CLASS in r.sample.target for r in readings),
        masks=len(coverages),
        lesion_free_masks=len(coverages) - len(lesions),
        generated_masks=generated,
        mean_mask_coverage=round(float(np.mean(lesions)), 4) if lesions else 0.0,
        classes=dict(zip(folder.classes.names, folder.class_counts(side), strict=True)),
    )


def _duplicates(train: list[_Reading], val: list[_Reading]) -> list[list[str]]:
    """Groups of photos with the same bytes that stand on both sides."""
    sides: tuple[dict[str, list[str]], ...] = (defaultdict(list), defaultdict(list))
    for by_digest, readings in zip(sides, (train, val), strict=True):
        for reading in readings:
            if reading.digest:
                by_digest[reading.digest].append(reading.sample.name)
    return [names + sides[1][digest] for digest, names in sides[0].items() if digest in sides[1]]


def _look_alikes(train: list[_Reading], val: list[_Reading]) -> list[list[str]]:
    ours, theirs = ([r for r in readings if r.look is not None] for readings in (train, val))
    if not ours or not theirs:
        return []
    hashes = [np.stack([r.look for r in readings if r.look is not None]) for readings in (ours, theirs)]
    pairs = ((ours[i], theirs[j]) for i, j in look_alikes(*hashes))
    return [[a.sample.name, b.sample.name] for a, b in pairs if a.digest != b.digest]


def _doubtful_masks(readings: list[_Reading]) -> dict[str, list[str]]:
    names = defaultdict(list)
    for reading in readings:
        if reading.doubt and reading.sample.mask:
            names[reading.doubt].append(reading.sample.mask.name)
    return dict(names)


# ---- what to look at


def _warnings(folder: DataFolder, report: DataReport) -> Iterator[str]:
    yield from _about_split(folder, report)
    yield from _about_classes(report.splits["train"], report.splits["val"])
    yield from _about_masks(report)


def _about_split(folder: DataFolder, report: DataReport) -> Iterator[str]:
    train, val = report.splits["train"], report.splits["val"]
    if twice := report.duplicates_across_splits:
        first = ", ".join(twice[0])
        yield f"{_count(twice, 'photo')} in both splits (the first: {first}), so validation flatters; keep one side's"
    if alike := report.look_alikes_across_splits:
        yield (
            f"{_count(alike, 'pair')} of photos across the split look alike (the first: {' and '.join(alike[0])}); "
            "look at them, and keep photos of the same on one side, by groups.csv or splits.json"
        )
    if on_both := sorted({s.group for s in folder.train} & {s.group for s in folder.val}):
        yield f"{_count(on_both, 'group')} on both sides of the split (the first: {on_both[0]}); move each to one side"
    if train.photos < FEW_TRAINING_PHOTOS:
        yield f"only {train.photos} training photos; add more ({FEW_TRAINING_PHOTOS} at the least), or expect little"
    if val.photos < FEW_VALIDATION_PHOTOS:
        yield (
            f"only {val.photos} validation photos, so the figures jump by chance; hold out more "
            f"({FEW_VALIDATION_PHOTOS} at the least)"
        )


def _about_classes(train: SplitReport, val: SplitReport) -> Iterator[str]:
    if not train.labelled:
        yield "no training photo has a class label, so classes will not be learned; add labels.json if they should"
        return
    if missing := [name for name, count in train.classes.items() if not count]:
        yield (
            f"no training photo shows {', '.join(missing)}, so no photo will be called that; "
            "add some, or leave it out of classes.json"
        )
    if lost := [name for name in missing if val.classes[name]]:
        yield (
            f"{sum(val.classes[name] for name in lost)} validation photos show {', '.join(lost)}, which no training "
            "photo shows; move some to the training side"
        )
    present = {name: count for name, count in train.classes.items() if count}
    if few := [f"{name} ({count})" for name, count in present.items() if count < FEW_PHOTOS_OF_A_CLASS]:
        yield f"fewer than {FEW_PHOTOS_OF_A_CLASS} training photos show {', '.join(few)}; add some, or join classes"
    if max(present.values()) > UNEVEN * min(present.values()):
        yield (
            f"the classes are uneven, {min(present.values())} to {max(present.values())} training photos; "
            "try class_weighting sqrt or balanced"
        )


def _about_masks(report: DataReport) -> Iterator[str]:
    train = report.splits["train"]
    if not train.masks and not train.generated_masks:
        yield "no training photo has a mask, so lesions will not be learned; add masks/ if they should"
    elif not train.masks:
        yield f"lesions are learned from {train.generated_masks} generated masks only; draw some in masks/"
    for doubt, names in report.doubtful_masks.items():
        yield f"{_count(names, 'mask')} {doubt} (the first: {names[0]}); {CURES[doubt]}"


def _count(things: Sized, noun: str) -> str:
    return f"{len(things)} {noun}{'s' * (len(things) > 1)}"
