"""Writes folders of made photos: skin, lesions and hair drawn with numpy, to try everything without one real photo."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtl.config import DEFAULT_CLASSES
from mtl.data.made.photo import CLASS_NAMES, KINDS, LESION, make_photo
from mtl.errors import ConfigError, DataError

EXAMPLES = {  # file name: kind and seed, picked by eye
    "lesion-light-skin": (LESION, 1),
    "lesion-hairs": (LESION, 13),
    "lesion-ruler": (LESION, 7),
    "lesion-brown-skin": (LESION, 8),
    "mole-dark-skin": ("normal", 3),
    "hair-straight": ("straight", 3),
    "hair-curly": ("curly", 2),
    "hair-coily": ("coily", 5),
    "hair-dreadlocks": ("dreadlocks", 7),
}


@dataclass(frozen=True)
class _Plan:
    """What photo `index` of a folder is, and which of its two targets the folder keeps."""

    index: int

    @property
    def serial(self) -> int:
        """Even photos are close-ups, odd ones go round the ten classes; both are counted by this."""
        return self.index // 2

    @property
    def kind(self) -> str:
        return CLASS_NAMES[self.serial % len(CLASS_NAMES)] if self.index % 2 else LESION

    @property
    def name(self) -> str:
        return f"made_{self.index:04d}_{self.kind}"

    @property
    def has_lesion(self) -> bool:
        return self.serial % 3 == 0

    @property
    def has_mask(self) -> bool:
        return self.serial % 9 != 8 if self.kind == LESION else self.serial % 3 != 2

    @property
    def has_label(self) -> bool:
        return self.serial % (6 if self.kind == LESION else 13) != 5

    def size(self, side: int) -> tuple[int, int]:
        """Width and height: mostly square or nearly so, some 4:3 and 3:4."""
        widths = (1.0, 1.0, 0.94, 0.75, 1.0, 1.0, 1.0)
        heights = (1.0, 1.0, 1.0, 1.0, 0.75, 0.9, 1.0)
        return round(side * widths[self.index % 7]), round(side * heights[self.index % 7])

    def label(self, class_id: int | str) -> int | str | dict[str, str]:
        """The class in one of the forms that a label may have: mostly its id, else its name, or its name by group."""
        if self.kind == LESION or self.serial % 7 not in (3, 5):
            return class_id
        group = next(group for group, names in DEFAULT_CLASSES.items() if self.kind in names)
        return self.kind if self.serial % 7 == 3 else {group: self.kind}


def write_demo_data(
    folder: Path,
    photos: int = 240,
    seed: int = 0,
    size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Fill a new or empty folder with made photos in the layout of a data folder, and return it.

    Half are lesion close-ups, half go round the ten classes; some have no mask, some no label, a few neither.
    From 40 photos on every class is in both splits. `size` is the longer side in px; `progress` gets (done, photos).
    """
    if photos < 1:
        raise ConfigError(f"photos: got {photos}; needed at least 1, and from 40 on every class is in both splits")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(f"{folder} is not empty; made photos need a new or an empty folder, name another one")
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside the folder, which is there when it is complete: half of one would be in the way for ever.
        with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
            draft = Path(beside) / folder.name
            _draw(draft, photos, seed, size, progress)
            if folder.exists():  # empty; Windows renames onto nothing only
                folder.rmdir()
            draft.rename(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror or error}); name another folder") from error
    return folder


def _draw(folder: Path, photos: int, seed: int, size: int, progress: Callable[[int, int], None] | None) -> None:
    plans = [_Plan(index) for index in range(photos)]
    validation = _validation(plans)
    labels = {}
    for done, plan in enumerate(plans, start=1):
        photo = make_photo(plan.kind, (seed, plan.index), plan.size(size), lesion=plan.has_lesion)
        split = "val" if plan in validation else "train"
        _save(photo.image, folder / "images" / split / f"{plan.name}.jpg")
        if plan.has_mask:
            _save(photo.mask * np.uint8(255), folder / "masks" / split / f"{plan.name}.png")
        if plan.has_label:
            labels[f"{plan.name}.jpg"] = plan.label(photo.label)
        if progress is not None:
            progress(done, photos)
    _write_json(labels, folder / "labels.json")
    _write_json(DEFAULT_CLASSES, folder / "classes.json")


def write_examples(folder: Path) -> list[Path]:
    """Write the page's hand-picked made photos (`EXAMPLES`, 512 px) to a folder, over earlier ones."""
    files = []
    for name, (kind, seed) in EXAMPLES.items():
        photo = make_photo(kind, seed, (512, 512), lesion=kind == "normal")
        files.append(folder / f"{name}.jpg")
        _save(photo.image, files[-1])
    return files


def _validation(plans: Sequence[_Plan]) -> set[_Plan]:
    """A fifth of each kind's photos, the last ones; at least one of a kind that has two."""
    chosen: set[_Plan] = set()
    for kind in KINDS:
        of_kind = [plan for plan in plans if plan.kind == kind]
        count = max(round(len(of_kind) / 5), min(1, len(of_kind) - 1))
        chosen.update(of_kind[len(of_kind) - count :])
    return chosen


def _save(pixels: NDArray[np.uint8], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, quality=92)


def _write_json(content: object, file: Path) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
