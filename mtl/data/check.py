"""Reads every photo and mask of a data folder once and says what a training run would meet."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import closing, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mtl.config import NO_CLASS
from mtl.data.alike import difference_hash, look_alikes
from mtl.data.cache import NO_HASH, Adding, PhotoCache, Stamp, hash_of, make_row, stamp_of, unknown_records
from mtl.data.folder import DataFolder, Sample, Split
from mtl.data.parallel import in_threads
from mtl.errors import DataError, PhotoError
from mtl.photo import lesion_of, read_grey, read_photo

Progress = Callable[[int, int], None]  # (done, of how many)

# Below these a figure is mostly chance.
FEW_TRAINING_PHOTOS, FEW_VALIDATION_PHOTOS, FEW_PHOTOS_OF_A_CLASS = 50, 20, 10
UNEVEN = 10  # the largest class, as a multiple of the smallest

# Of pairs of photos across the split: so many are compared, some seconds' worth for 100,000 photos, whose first 80,000
# times 20,000 they are; and so many that look alike are told.
MAX_COMPARISONS, MAX_LOOK_ALIKES = 2_000_000_000, 1000

LOOK_SIDE = 224  # photos are looked at in at least so many pixels
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
DOUBTS = ("", TOO_DARK, OTHER_SHAPE, ALL_LESION)  # by the number that is kept in the cache


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

    record: np.void  # RECORD
    problems: dict[str, str] = field(default_factory=dict)  # file name -> reason
    row: np.ndarray | None = None  # for the cache; None where it holds one, and where a file cannot be read
    notes: list[tuple[Path, Stamp, bytes]] = field(default_factory=list)  # hashes of unchanged files


def check_folder(folder: DataFolder, progress: Progress | None = None, cache: PhotoCache | None = None) -> DataReport:
    """Decode everything; `progress` is called after each photo, and may raise to break off.

    With a cache, what it knows is not read again, and what is decoded is added to it.
    """
    samples = [*folder.train, *folder.val]
    records, unreadable = read_once(samples, progress, cache)
    train, val = records[: len(folder.train)], records[len(folder.train) :]
    report = DataReport(
        splits={"train": _summary(folder, "train", train), "val": _summary(folder, "val", val)},
        unreadable=unreadable,
        duplicates_across_splits=_duplicates(folder, train, val),
        look_alikes_across_splits=_look_alikes(folder, train, val),
        doubtful_masks=_doubtful_masks(samples, records),
    )
    troubles = [cache.trouble] if cache and cache.trouble else []
    return replace(report, warnings=[*_warnings(folder, report), *troubles])


def read_once(
    samples: Sequence[Sample], progress: Progress | None = None, cache: PhotoCache | None = None
) -> tuple[np.ndarray, dict[str, str]]:
    """(N,) RECORDs of the samples, and why a file cannot be read by its name; with a cache as `check_folder` says."""
    report = progress or (lambda done, total: None)
    records = cache.find(samples) if cache else unknown_records(len(samples))
    problems: dict[str, str] = {}
    done = int(np.count_nonzero(records["row"] >= 0))
    if done:
        report(done, len(samples))
    if done == len(samples):
        return records, problems
    with cache.adding(lambda: report(done, len(samples))) if cache else nullcontext() as adding:
        if cache:
            records = cache.find(samples)  # again: another process may have added them meanwhile
        left = np.flatnonzero(records["row"] < 0).tolist()
        with closing(in_threads(partial(_read, cache=cache), (samples[index] for index in left))) as readings:
            for number, (index, reading) in enumerate(zip(left, readings, strict=True), start=1):
                if adding:
                    _keep(adding, reading)
                records[index] = reading.record
                problems |= reading.problems
                report(len(samples) - len(left) + number, len(samples))
    return records, problems


def _keep(adding: Adding, reading: _Reading) -> None:
    for note in reading.notes:
        adding.note(*note)
    if reading.row is not None:
        adding.add(reading.record, reading.row)


# ---- one sample


def _read(sample: Sample, cache: PhotoCache | None) -> _Reading:
    notes = list(_notes(sample))
    hashes = {path: file_hash for path, _, file_hash in notes}
    photo_hash = hashes.get(sample.photo, NO_HASH)
    mask_hash = hashes.get(sample.mask, NO_HASH) if sample.mask else NO_HASH
    known = cache.look_up(photo_hash, mask_hash) if cache and len(notes) == 1 + bool(sample.mask) else None
    reading = _Reading(known) if known is not None else _decode(sample, photo_hash, mask_hash, cache)
    if reading.problems or not all(map(_is_unchanged, notes)):
        reading.row = None  # what was decoded may not be what was hashed
    else:
        reading.notes = notes
    return reading


def _decode(sample: Sample, photo_hash: bytes, mask_hash: bytes, cache: PhotoCache | None) -> _Reading:
    [record] = unknown_records(1)
    reading = _Reading(record)
    photo = lesion = None
    try:
        photo = read_photo(sample.photo, min_side=LOOK_SIDE)
        record["look"] = difference_hash(photo)
        record["photo"] = np.frombuffer(photo_hash, np.uint8)
    except (PhotoError, OSError) as error:
        reading.problems[sample.name] = str(error)
    if sample.mask is not None:
        try:
            grey = read_grey(sample.mask)
            lesion = lesion_of(grey)
            record["coverage"] = coverage = np.count_nonzero(lesion) / grey.size
            record["doubt"] = DOUBTS.index(_doubt(grey, coverage, photo.shape[:2] if photo is not None else None))
            record["mask"] = np.frombuffer(mask_hash, np.uint8)
        except (PhotoError, OSError) as error:
            reading.problems[sample.mask.name] = f"mask {error}"
    if cache and photo is not None and not reading.problems:
        size = cache.image_size
        whole = photo if size == LOOK_SIDE else read_photo(sample.photo, min_side=size)
        reading.row = make_row(whole, lesion, size, cache.center_crop)
    return reading


def _notes(sample: Sample) -> Iterator[tuple[Path, Stamp, bytes]]:
    """Path, stamp and hash of those of its files that can be read; why another cannot, the decoder says."""
    for path in (sample.photo, sample.mask):
        if path is not None:
            with suppress(OSError):
                yield path, stamp_of(path), hash_of(path)


def _is_unchanged(note: tuple[Path, Stamp, bytes]) -> bool:
    try:
        return stamp_of(note[0]) == note[1]
    except OSError:
        return False


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


def _summary(folder: DataFolder, side: Split, records: np.ndarray) -> SplitReport:
    samples = folder.split(side)
    generated = np.array([sample.mask_is_generated for sample in samples], bool)
    coverages = records["coverage"][~generated & ~np.isnan(records["coverage"])]
    lesions = coverages[coverages > 0]
    return SplitReport(
        photos=len(samples),
        labelled=sum(any(class_id >= 0 for class_id in sample.target) for sample in samples),
        none_labels=sum(NO_CLASS in sample.target for sample in samples),
        masks=len(coverages),
        lesion_free_masks=len(coverages) - len(lesions),
        generated_masks=int(generated.sum()),
        mean_mask_coverage=round(float(lesions.mean()), 4) if len(lesions) else 0.0,
        classes=dict(zip(folder.classes.names, folder.class_counts(side), strict=True)),
    )


def _duplicates(folder: DataFolder, train: np.ndarray, val: np.ndarray) -> list[list[str]]:
    """Groups of photos with the same bytes that stand on both sides."""
    sides: tuple[dict[bytes, list[str]], ...] = (defaultdict(list), defaultdict(list))
    starts = [np.ascontiguousarray(records["photo"][:, :8]).view(np.uint64)[:, 0] for records in (train, val)]
    on_both = np.intersect1d(starts[0], starts[1])  # so that few are looked at one by one
    for by_hash, samples, records, start in zip(sides, (folder.train, folder.val), (train, val), starts, strict=True):
        for index in np.flatnonzero(_is_readable(records) & np.isin(start, on_both)).tolist():
            by_hash[records["photo"][index].tobytes()].append(samples[index].name)
    return [names + sides[1][photo] for photo, names in sides[0].items() if photo in sides[1]]


def _look_alikes(folder: DataFolder, train: np.ndarray, val: np.ndarray) -> list[list[str]]:
    ours, theirs = (np.flatnonzero(_is_readable(records)) for records in (train, val))
    if not len(ours) or not len(theirs):
        return []
    ours = ours[: MAX_COMPARISONS // len(theirs)]
    pairs = ((ours[i], theirs[j]) for i, j in look_alikes(train["look"][ours], val["look"][theirs]))
    different = ((i, j) for i, j in pairs if (train["photo"][i] != val["photo"][j]).any())
    return [[folder.train[i].name, folder.val[j].name] for i, j in islice(different, MAX_LOOK_ALIKES)]


def _is_readable(records: np.ndarray) -> np.ndarray:
    """(N,) bool, of the photos."""
    return np.any(records["photo"], axis=1)


def _doubtful_masks(samples: Sequence[Sample], records: np.ndarray) -> dict[str, list[str]]:
    names = defaultdict(list)
    for index in np.flatnonzero(records["doubt"]).tolist():
        sample = samples[index]
        if sample.mask and not sample.mask_is_generated:
            names[DOUBTS[records["doubt"][index]]].append(sample.mask.name)
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
        more = " or more" if len(alike) == MAX_LOOK_ALIKES else ""
        yield (
            f"{_count(alike, 'pair')}{more} of photos across the split look alike (the first: "
            f"{' and '.join(alike[0])}); look at them, and keep photos of the same on one side, by groups.csv or "
            "splits.json"
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
