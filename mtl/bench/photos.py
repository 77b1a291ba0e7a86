"""Folders of made photos to measure with."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from mtl.config import DEFAULT_CLASSES
from mtl.data.made.photo import CLASS_NAMES, LESION, make_photo

DRAWN = 20  # different pictures; all others are these with other bytes


def write_photos(folder: Path, photos: int, side: int) -> Path:
    """A data folder of so many JPEG photos (side, side) with masks and labels, no two files with the same bytes."""
    images, masks = folder / "images", folder / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    kinds = [LESION, *CLASS_NAMES]
    drawn = [_encode(folder, kinds[number % len(kinds)], number, side) for number in range(min(photos, DRAWN))]
    labels = {}
    for number in range(photos):
        jpeg, png, label = drawn[number % len(drawn)]
        name = f"made_{number:06d}"
        # Behind the end of a picture, readers look at nothing.
        (images / f"{name}.jpg").write_bytes(jpeg + number.to_bytes(8))
        (masks / f"{name}.png").write_bytes(png)
        labels[f"{name}.jpg"] = label
    (folder / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    (folder / "classes.json").write_text(json.dumps(DEFAULT_CLASSES), encoding="utf-8")
    return folder


def _encode(folder: Path, kind: str, seed: int, side: int) -> tuple[bytes, bytes, int | str]:
    made = make_photo(kind, seed, (side, side))
    path = folder / "drawn"
    Image.fromarray(made.image).save(path, "JPEG", quality=90)
    jpeg = path.read_bytes()
    Image.fromarray(made.mask * np.uint8(255)).save(path, "PNG")
    png = path.read_bytes()
    path.unlink()
    return jpeg, png, made.label
