"""Where the files of an archive belong in a data folder, by their names alone; nothing is read or written here.

Understood, below any folders around them, are

images/…, masks/…               the layout of a data folder
*.jpg, or train/*.jpg …         photos without images/, which go there
dry/*.jpg, or train/dry/*.jpg … a folder a class: the photos go to images/, the folders' names become labels

with masks/ anywhere, and JSON and CSV files beside the photos' folder or above it. Everything else (texts, programs,
archives, hidden files, pictures beside images/) is left out: what reads a data folder would not look at it either.
"""

import posixpath
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from mtl.config import Classes
from mtl.data.folder import OPTIONAL_PARTS, PHOTO_SUFFIXES
from mtl.data.labels import parse_label
from mtl.errors import ArchiveError

TABLE_SUFFIXES = {".json", ".csv"}
TABLES = set(OPTIONAL_PARTS) - {"masks"}
LABEL_FILES = ("labels.json", "labels.csv")
UNREAD_SUFFIXES = {".dng", ".nef", ".cr2", ".cr3", ".arw", ".jp2", ".jxl"}
SYSTEM_NAMES = {"__macosx", "thumbs.db", "desktop.ini"}
SIDES = {"train": "train", "val": "val", "valid": "val", "validation": "val"}

Targets = dict[PurePosixPath, str]


@dataclass(frozen=True)
class Arrangement:
    """Path in the archive -> path in the data folder, and photo name -> class where folders are classes."""

    targets: Targets
    labels: dict[str, str] = field(default_factory=dict)


def arrange(paths: Iterable[PurePosixPath]) -> Arrangement:
    """Find each file's place; raises ArchiveError where there is no photo, or where a place is not clear."""
    visible = [path for path in paths if not _is_hidden(path)]
    _require_distinct(visible)
    _refuse_unread(visible)
    pictures = [path for path in visible if path.suffix.lower() in PHOTO_SUFFIXES]
    photos, masks = _below("images", pictures), _below("masks", pictures)
    top, placed = _top("images", photos), Arrangement(_inside("images", photos))
    if not photos:
        top, placed = _arrange_loose([path for path in pictures if path not in masks])
    _top("masks", masks)
    tables = _tables(visible, top)
    targets = placed.targets | _inside("masks", masks) | tables
    _require_distinct(PurePosixPath(target) for target in targets.values())
    if not placed.labels or any(name in LABEL_FILES for name in tables.values()):
        return Arrangement(targets)
    if "classes.json" not in tables.values():
        _require_classes(placed.labels.values())
    return Arrangement(targets, placed.labels)


def own_classes(labels: Iterable[str]) -> list[str]:
    """The names of another class set, sorted, where labels name two classes or more and none of the default ones."""
    names = {label.strip().lower(): label.strip() for label in labels}
    names.pop("none", None)
    return [] if len(names) < 2 or any(map(_is_default, names)) else sorted(names.values())


def _is_default(label: str) -> bool:
    try:
        parse_label(label, Classes())
    except ValueError:
        return False
    return True


def _is_hidden(path: PurePosixPath) -> bool:
    return any(part.startswith(".") or part.lower() in SYSTEM_NAMES for part in path.parts)


def _require_distinct(paths: Iterable[PurePosixPath]) -> None:
    """Refuse names that are one file on a disk that ignores case, or the ways to encode an accent."""
    seen = set()
    for path in paths:
        key = unicodedata.normalize("NFC", str(path)).casefold()
        if key in seen:
            raise ArchiveError(f"{path.name} is in it twice (upper and lower case count as one); keep one")
        seen.add(key)


def _refuse_unread(paths: Iterable[PurePosixPath]) -> None:
    for path in paths:
        if path.suffix.lower() in UNREAD_SUFFIXES:
            raise ArchiveError(f"{path.name}: {path.suffix[1:].upper()} is not read yet; save it as JPEG or PNG")


def _below(name: str, paths: Iterable[PurePosixPath]) -> dict[PurePosixPath, int]:
    """The files below a folder of this name (of images and masks, the outer one counts), and at which part it is."""
    found = {}
    for path in paths:
        folders = [part.lower() for part in path.parts[:-1]]
        at = next((at for at, folder in enumerate(folders) if folder in ("images", "masks")), None)
        if at is not None and folders[at] == name:
            found[path] = at
    return found


def _inside(name: str, found: dict[PurePosixPath, int]) -> Targets:
    return {path: str(PurePosixPath(name, *path.parts[at + 1 :])) for path, at in found.items()}


def _top(name: str, found: dict[PurePosixPath, int]) -> PurePosixPath:
    """What the one folder of this name lies in."""
    tops = sorted({PurePosixPath(*path.parts[:at]) for path, at in found.items()})
    if len(tops) > 1:
        raise ArchiveError(
            f"it holds both {tops[0] / name}/ and {tops[1] / name}/; needed one {name}/, with train/ and val/ in it"
        )
    return tops[0] if tops else PurePosixPath()


def _arrange_loose(photos: Collection[PurePosixPath]) -> tuple[PurePosixPath, Arrangement]:
    """Photos that lie in no images/: beside each other, in train/ and val/, or in a folder a class; and where."""
    if not photos:
        raise ArchiveError("no photos found; needed a zip with images/*.jpg, and labels.csv or masks/*.png")
    top = PurePosixPath(posixpath.commonpath([path.parent for path in photos]))
    # Numbered photos have the same names in each class's folder, but here they come to lie in one.
    same_names = len({path.stem.lower() for path in photos}) < len(photos)
    targets, labels = {}, {}
    for path in photos:
        folders = path.parent.relative_to(top).parts
        side = SIDES.get(folders[0].lower(), "") if folders else ""
        classes = folders[1:] if side else folders
        if len(classes) > 1:
            raise ArchiveError(f"{path.name} lies too deep; needed photos in images/, or in one folder a class")
        name = "-".join((*folders, path.name)) if same_names else path.name
        targets[path] = str(PurePosixPath("images", side, name))
        if classes:
            labels[name] = classes[0]
    return top, Arrangement(targets, labels)


def _require_classes(folders: Collection[str]) -> None:
    unknown = [folder for folder in folders if not _is_default(folder)]
    if unknown and not own_classes(folders):
        raise ArchiveError(
            f"the folder {unknown[0]}/ is none of the classes {', '.join(Classes().names)}; rename it, "
            "or put the photos into images/"
        )


def _tables(paths: Iterable[PurePosixPath], top: PurePosixPath) -> Targets:
    """The JSON and CSV files beside the photos' folder or above it; one of the layout must not be lost elsewhere."""
    tables = {}
    for path in paths:
        is_layout = path.name.lower() in TABLES
        if path.suffix.lower() in TABLE_SUFFIXES and path.parent in (top, *top.parents):
            tables[path] = path.name.lower() if is_layout else path.name
        elif is_layout:
            raise ArchiveError(f"{path.name} lies in {path.parent.name}/; move it beside images/")
    return tables
