"""A data folder: which photos there are, their masks, labels and split. Nothing is decoded here.

images/train/*.jpg  images/val/*.jpg     or images/*.jpg
masks/train/*.png   masks/val/*.png      or masks/*.png
labels.json | labels.csv   splits.json   classes.json   groups.csv      (all optional)
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from mtl.config import NO_CLASS, Classes, TrainConfig
from mtl.data.labels import Target, read_csv, read_json, read_labels, unknown_target
from mtl.data.split import stratified_group_split
from mtl.errors import ConfigError, DataError

PHOTO_SUFFIXES = {
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif", ".dcm",
}  # fmt: skip
MASK_SUFFIXES = {".png", ".gif", ".bmp", ".tif", ".tiff"}
Split = Literal["train", "val"]
SPLITS: tuple[Split, Split] = ("train", "val")
OPTIONAL_PARTS = ("masks", "labels.json", "labels.csv", "splits.json", "classes.json", "groups.csv")


@dataclass(frozen=True)
class Sample:
    """One photo and what is known of it; `mask` None: not known, not "no lesion"."""

    photo: Path
    mask: Path | None
    target: Target
    group: str
    mask_is_generated: bool = False  # made by a program for this run, not given with the photo

    @property
    def name(self) -> str:
        return self.photo.name


@dataclass(frozen=True)
class DataFolder:
    """The two sides of a data folder, in name order."""

    path: Path
    classes: Classes
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]

    def split(self, name: Split) -> tuple[Sample, ...]:
        return self.train if name == "train" else self.val

    def digest(self) -> str:
        """SHA-256 over the names, labels, masks given and sides: the same for the same data, wherever it lies."""
        known = [
            (side, s.name, s.target, s.mask is not None and not s.mask_is_generated)
            for side in SPLITS
            for s in self.split(side)
        ]
        return hashlib.sha256(repr(known).encode()).hexdigest()

    def class_counts(self, split: Split = "train") -> tuple[int, ...]:
        """Labelled photos of each class on one side."""
        counts = Counter(class_id for sample in self.split(split) for class_id in sample.target if class_id >= 0)
        return tuple(counts[class_id] for class_id in range(len(self.classes.names)))


def read_folder(config: TrainConfig) -> DataFolder:
    """Read the layout, labels and split of `config.data_dir`; DataError names the first file that is wrong."""
    root = Path(config.data_dir).absolute()  # else "." would have no name in messages
    if not root.is_dir():
        raise DataError(f"{config.data_dir}: there is no such folder; needed one with images/, see the README")
    for part in OPTIONAL_PARTS:
        _require_whole_link(root / part)
    classes = _read_classes(root, config.classes)
    photos = _find_photos(root)
    targets = _read_targets(root, config.labels, classes, photos)
    masks = _find_masks(root, photos)
    groups = _read_groups(root, photos)
    used = {name: path for name, path in photos.items() if config.include is None or fnmatch(name, config.include)}
    if not used:
        raise DataError(f"{root.name}: none of {len(photos)} photos fits --include {config.include}; try *")
    samples = {
        name: Sample(path, masks.get(path.stem), targets.get(name, unknown_target(classes)), groups.get(name, name))
        for name, path in used.items()
    }
    sides = _split(root, samples, set(photos), config)
    for side, names in sides.items():
        if not names:
            raise DataError(f"{root.name}: no photo in the {side} split; put photos on both sides, or remove the split")
    train, val = (tuple(samples[name] for name in sorted(sides[side])) for side in SPLITS)
    return DataFolder(root, classes, train, val)


def _read_classes(root: Path, chosen: str | None) -> Classes:
    if chosen and "," in chosen:
        return Classes(groups={"class": tuple(name.strip() for name in chosen.split(","))})
    path = _named_file(root, chosen, "classes") if chosen else root / "classes.json"
    if not path.is_file():
        return Classes()
    content = read_json(path)
    try:
        return Classes(groups=content if isinstance(content, dict) else {"class": content})
    except ConfigError as error:
        raise DataError(f"{path.name}: {error}") from None


def _named_file(root: Path, name: str, what: str) -> Path:
    """A file named in the settings: in the data folder, or a path."""
    for path in (root / name, Path(name)):
        if path.is_file():
            return path
    raise DataError(f"--{what} {name}: no such file in {root.name}, nor as a path; check its name")


def _find_photos(root: Path) -> dict[str, Path]:
    """Photo name -> path, over images/ or images/train and images/val."""
    images = root / "images"
    sides = [images / side for side in SPLITS if (images / side).is_dir()]
    loose = _files(images, PHOTO_SUFFIXES, "photo", subfolders=SPLITS)
    if loose and sides:
        raise DataError(
            f"images/: {loose[0].name} lies beside the folder {sides[0].name}/; move it into train/ or val/"
        )
    found = loose + [path for side in sides for path in _files(side, PHOTO_SUFFIXES, "photo")]
    if not found:
        raise DataError(f"{root.name}: no photos; needed images/*.jpg, or images/train/*.jpg and images/val/*.jpg")
    if twice := _first_twice(path.stem for path in found):
        raise DataError(f"images/: {twice} stands twice (names count without ending); rename one of the photos")
    return {path.name: path for path in found}


def _find_masks(root: Path, photos: dict[str, Path]) -> dict[str, Path]:
    """Photo stem -> mask; a mask without a photo of its name is an error."""
    masks = root / "masks"
    found = _files(masks, MASK_SUFFIXES, "mask", subfolders=SPLITS)
    found += [path for side in SPLITS for path in _files(masks / side, MASK_SUFFIXES, "mask")]
    stems = {path.stem for path in photos.values()}
    for path in found:
        if path.stem not in stems:
            raise DataError(f"masks/: {path.name}: there is no photo named {path.stem}; rename or remove the mask")
    if twice := _first_twice(path.stem for path in found):
        raise DataError(f"masks/: {twice} has two masks; remove one")
    return {path.stem: path for path in found}


def _files(folder: Path, suffixes: set[str], kind: str, subfolders: Iterable[str] = ()) -> list[Path]:
    """The files of a folder in name order, hidden ones left out; whatever else lies there is an error, not a skip."""
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise DataError(f"{folder.name}: it is a file; needed a folder of {kind}s, or nothing of that name")
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "Thumbs.db")) or (path.is_dir() and path.name in subfolders):
            continue
        _require_whole_link(path)
        if path.is_dir():
            named = " or ".join(f"{side}/" for side in subfolders)
            raise DataError(
                f"{folder.name}/: there is a folder {path.name}/ in it, which is never looked into; "
                f"move its files {f'into {named}' if named else f'up into {folder.name}/'}"
            )
        if path.suffix.lower() not in suffixes or not path.is_file():
            kinds = ", ".join(sorted(suffix[1:] for suffix in suffixes))
            raise DataError(f"{folder.name}/: {path.name} is no {kind} that can be read; needed {kinds}; remove it")
        found.append(path)
    return found


def _require_whole_link(path: Path) -> None:
    """Raise DataError where a path is a link to what is not there, which would else read as "there is none"."""
    if path.is_symlink() and not path.exists():
        raise DataError(f"{path.parent.name}/: {path.name} is a link to nothing; restore what it links to or remove it")


def _first_twice(names: Iterable[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _read_targets(root: Path, chosen: str | None, classes: Classes, photos: dict[str, Path]) -> dict[str, Target]:
    candidates = [_named_file(root, chosen, "labels")] if chosen else [root / "labels.json", root / "labels.csv"]
    present = [path for path in candidates if path.is_file()]
    if len(present) > 1:
        raise DataError(f"{root.name}: both labels.json and labels.csv; remove one, or choose with --labels")
    if not present:
        return {}
    targets = read_labels(present[0], classes)
    _require_photos(present[0].name, targets, photos)
    return targets


def _read_groups(root: Path, photos: dict[str, Path]) -> dict[str, str]:
    path = root / "groups.csv"
    if not path.is_file():
        return {}
    rows = [row for _, row in read_csv(path, ("image", "group"))]
    if twice := _first_twice(row["image"] for row in rows):
        raise DataError(f"{path.name}: {twice} has two groups; keep one")
    groups = {row["image"]: row["group"] for row in rows}
    _require_photos(path.name, groups, photos)
    return groups


def _require_photos(file_name: str, names: Iterable[str], photos: dict[str, Path]) -> None:
    missing = [name for name in names if name not in photos]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{file_name}: there is no photo {missing[0]}{more} in images/; add it or remove its entry")


def _split(root: Path, samples: dict[str, Sample], photos: set[str], config: TrainConfig) -> dict[Split, list[str]]:
    """The names on each side: as splits.json says, else as the folders say, else drawn. `samples` are those used."""
    path = root / "splits.json"
    if path.is_file():
        return _read_splits(path, samples, photos)
    if any((root / "images" / side).is_dir() for side in SPLITS):
        return {side: [name for name, s in samples.items() if s.photo.parent.name == side] for side in SPLITS}
    strata = {name: (sample.target, sample.mask is not None) for name, sample in samples.items()}
    members: dict[str, list[str]] = defaultdict(list)
    for name, sample in samples.items():
        members[sample.group].append(name)
    train, val = stratified_group_split(strata, list(members.values()), config.val_fraction, config.seed)
    return {"train": train, "val": val}


def _read_splits(path: Path, samples: dict[str, Sample], photos: set[str]) -> dict[Split, list[str]]:
    content = read_json(path)
    if not isinstance(content, dict) or set(content) != set(SPLITS) or not all(map(_is_names, content.values())):
        raise DataError(f'{path.name}: needed {{"train": [photo names], "val": [photo names]}}')
    listed = [name for side in SPLITS for name in content[side]]
    if twice := _first_twice(listed):
        raise DataError(f"{path.name}: {twice} is listed twice; keep it on one side")
    _require_photos(path.name, listed, dict.fromkeys(photos, path))
    return {side: [name for name in content[side] if name in samples] for side in SPLITS}


def require_trainable(folder: DataFolder, config: TrainConfig) -> None:
    """Refuse what cannot be learned from, before anything is decoded or written."""
    if config.batch_size > len(folder.train):
        raise ConfigError(
            f"batch_size: got {config.batch_size}, but there are only {len(folder.train)} training photos; "
            f"take {len(folder.train)} or less"
        )
    if config.accumulate > 1 and config.batch_size * config.accumulate > len(folder.train):
        raise ConfigError(
            f"accumulate: got {config.accumulate} batches of {config.batch_size}, but there are only "
            f"{len(folder.train)} training photos; take {len(folder.train) // config.batch_size} or less"
        )
    shown = [name for name, count in zip(folder.classes.names, folder.class_counts(), strict=True) if count]
    if len(shown) == 1 and config.classification_weight > 0:
        raise DataError(
            f"{folder.path.name}: all labelled training photos show {shown[0]}, and telling classes apart needs two; "
            "add photos of another class, or set classification_weight to 0"
        )
    learned = _tasks(folder, "train", config)
    if not learned:
        raise DataError(
            f"{folder.path.name}: no training photo has a label or a mask of a task with a weight above 0; "
            "add labels.json or masks/"
        )
    _require_measurable(folder, learned & _tasks(folder, "val", config), config)


def _tasks(folder: DataFolder, side: Split, config: TrainConfig) -> set[str]:
    """The tasks with a weight above 0 that a loss of this side's photos counts in: "class", "mask"."""
    # Without a class that a training photo shows there is none to tell apart, nor any that "none" could be far from.
    learnable = {class_id for class_id, count in enumerate(folder.class_counts()) if count}
    targets = learnable | {NO_CLASS} if learnable else set()
    tasks = set()
    if config.classification_weight and any(targets & set(sample.target) for sample in folder.split(side)):
        tasks.add("class")
    if config.segmentation_weight and any(sample.mask for sample in folder.split(side)):
        tasks.add("mask")
    return tasks


def _require_measurable(folder: DataFolder, measured: set[str], config: TrainConfig) -> None:
    """Refuse a validation side that says nothing of what is learned, or nothing of the metric that chooses the best."""
    if not measured:
        raise DataError(
            f"{folder.path.name}: no validation photo has a label or a mask of what is learned, so there is nothing to "
            "measure; put such photos into val/, or remove the split"
        )
    needs_mask = config.best_metric in ("val_jaccard", "val_dice")
    needs_label = config.best_metric in ("val_accuracy", "val_balanced_accuracy")
    labelled = "class" in measured and any(folder.class_counts("val"))
    if (needs_mask and "mask" not in measured) or (needs_label and not labelled):
        raise ConfigError(
            f"best_metric: got {config.best_metric}, but no validation photo has a {'mask' if needs_mask else 'label'} "
            "of what is learned; take val_loss, or add such photos"
        )


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
