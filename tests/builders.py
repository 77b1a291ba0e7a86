"""Tiny data folders for tests: photos drawn with numpy that can be learned from, or files that are only named."""

import colorsys
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from hypothesis import settings
from PIL import Image

from mtl.config import Classes

CLASS_COUNT = len(Classes().names)
# For property tests. No deadline: it would measure what else the machine is doing.
law = settings(deadline=None, max_examples=25)


def write_folder(
    path: Path, train: int = 12, val: int = 6, size: int = 64, labels: bool = True, masks: bool = True
) -> Path:
    """Fill a data folder with square JPEG photos `train_000.jpg`, …, `val_000.jpg`, …, and return it.

    Photo n of a side shows class n % 10 as its colour, and a dark disc as its lesion; every sixth has no lesion.
    labels: a labels.json with each photo's class id. masks: an exact PNG mask for each photo, all zero on the sixths.
    """
    ids = {}
    for side, count in (("train", train), ("val", val)):
        for number in range(count):
            name = f"{side}_{number:03}"
            rng = np.random.default_rng((count, number, side == "val"))
            photo, mask = draw_photo(number % CLASS_COUNT, size, rng, lesion=number % 6 != 5)
            save(photo, path / "images" / side / f"{name}.jpg")
            if masks:
                save(mask * np.uint8(255), path / "masks" / side / f"{name}.png")
            ids[f"{name}.jpg"] = number % CLASS_COUNT
    if labels:
        (path / "labels.json").write_text(json.dumps(ids), encoding="utf-8")
    return path


def draw_photo(
    class_id: int, size: int, rng: np.random.Generator, *, lesion: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """A photo (size, size, 3) uint8 in the class's colour, and its mask (size, size) uint8, 1 on the dark disc."""
    colour = 255 * np.array(colorsys.hsv_to_rgb(class_id / CLASS_COUNT, 0.5, 0.85))
    pixels = colour + rng.normal(0, 8, (size, size, 3))
    row, column = np.mgrid[:size, :size]
    middle, radius = rng.uniform(0.35, 0.65, 2) * size, rng.uniform(0.15, 0.3) * size
    inside = lesion & (np.hypot(row - middle[0], column - middle[1]) < radius)
    pixels[inside] *= 0.4
    return pixels.clip(0, 255).astype(np.uint8), inside.astype(np.uint8)


def save(pixels: np.ndarray, path: Path) -> Path:
    """Write an image, in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def lay_out(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files (path in the folder -> content); for what is listed and never decoded, empty content will do."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root
