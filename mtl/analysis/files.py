"""Photos as files: which there are, and an answer written beside others as JSON, mask and overlay."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mtl.analysis.engine import Engine
from mtl.analysis.lesion import measure_mask
from mtl.analysis.overlay import draw_overlay
from mtl.analysis.predict import Analysis, analyse_squares, photo_and_square, to_dict
from mtl.config import ModelConfig
from mtl.data.folder import PHOTO_SUFFIXES
from mtl.errors import ConfigError, PhotoError

log = logging.getLogger(__name__)

RESULTS = ("mask", "overlay")  # kinds of pictures written for a photo


def find_photos(names: Sequence[str]) -> list[Path]:
    """Files as named, folders as the photos in them, hidden ones left out; PhotoError where there is nothing."""
    photos: list[Path] = []
    for name in names:
        path = Path(name)
        if not path.exists():
            raise PhotoError(f"{name}: there is no such file; check its name")
        inside = [p for p in sorted(path.iterdir()) if _is_photo_name(p.name)] if path.is_dir() else [path]
        if not inside:
            raise PhotoError(f"{name}: there is no photo in this folder")
        photos += inside
    return photos


def walk_photos(folder: Path, *, recursive: bool) -> Iterator[str]:
    """The photos in a folder, as names relative to it with "/", hidden ones left out, in the order of the disk.

    They are named while the folder is being read, so that millions take no memory; of its subfolders, each one that is
    still to be read takes its name. Links to folders are not followed, since they may lead in circles.
    """
    unread = [""]
    while unread:
        inside = unread.pop()
        try:
            with os.scandir(folder / inside) as entries:
                for entry in entries:
                    if entry.is_dir():
                        if recursive and not entry.is_symlink() and not entry.name.startswith("."):
                            unread.append(f"{inside}{entry.name}/")
                    elif _is_photo_name(entry.name):
                        yield inside + entry.name
        except OSError as error:
            if not inside:
                raise
            log.warning("%s: this folder cannot be read (%s); its photos are left out", inside, error.strerror)


def _is_photo_name(name: str) -> bool:
    # macOS puts a `._x.jpg` beside each x.jpg on foreign disks, which is no photo.
    return Path(name).suffix.lower() in PHOTO_SUFFIXES and not name.startswith(".")


def result_paths(photos: Sequence[Path], output_dir: Path) -> list[dict[str, Path]]:
    """Where each photo's pictures go, {kind: path}: x_mask.png, and x-2_mask.png for another photo of that name.

    Raises ConfigError where one would overwrite a photo.
    """
    taken: set[str] = set()
    paths = [
        {kind: output_dir / f"{stem}_{kind}.png" for kind in RESULTS}
        for stem in [_free_name(photo.stem, taken) for photo in photos]
    ]
    originals = {photo.resolve() for photo in photos}
    for path in (path for kinds in paths for path in kinds.values()):
        if path.resolve() in originals:
            raise ConfigError(f"--output-dir {output_dir}: {path.name} there is one of the photos; take another folder")
    return paths


def _free_name(stem: str, taken: set[str]) -> str:
    """`stem`, numbered where it is taken; noted as taken."""
    names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
    # Some file systems tell no capitals from small letters.
    free = next(name for name in names if name.lower() not in taken)
    taken.add(free.lower())
    return free


def analyse_file(
    path: Path,
    engine: Engine,
    config: ModelConfig,
    conf_thresh: float | None = None,
    results: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """The answer for one file, JSON-able: maps are left out, and written as PNG to `results` (kind -> path)."""
    photo, square = photo_and_square(path, config)
    [analysis] = analyse_squares([square], engine, config, threshold=conf_thresh)
    return {"photo": str(path), **answer_of(analysis, photo, config, results)}


def answer_of(
    analysis: Analysis, photo: np.ndarray, config: ModelConfig, results: Mapping[str, Path] | None = None
) -> dict[str, Any]:
    """The answer for an analysed photo (H, W, 3) uint8, as `analyse_file` gives it."""
    answer = to_dict(analysis, config)
    measures = measure_mask(analysis.mask, photo, analysis.confidence_map, analysis.threshold)
    classification = {"trained": any(config.trained), **answer["classification"]}
    segmentation = {
        "trained": analysis.mask_trained,
        "height": analysis.height,
        "width": analysis.width,
        "lesion_area_ratio": analysis.lesion_area_ratio,
        "threshold": analysis.threshold,
        "area_interval_px": measures.area_interval_px,
        "certainty": measures.certainty,
        "lesions": [asdict(lesion) for lesion in measures.lesions],
    }
    if results:
        _write(analysis.mask * np.uint8(255), results["mask"])
        _write(draw_overlay(photo, analysis.mask, measures.lesions), results["overlay"])
    written = {kind: str(result) for kind, result in (results or {}).items()}
    return {"classification": classification, "segmentation": segmentation, **written}


def _write(pixels: np.ndarray, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{path}: cannot be written ({reason}); choose another --output-dir or make room") from error
