"""Photos as files: which there are, and an answer written beside others as JSON, mask and overlay."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from mtl.analysis.engine import Engine
from mtl.analysis.lesion import find_lesions
from mtl.analysis.overlay import draw_overlay
from mtl.analysis.predict import analyse, to_dict
from mtl.config import ModelConfig
from mtl.data.folder import PHOTO_SUFFIXES
from mtl.errors import PhotoError
from mtl.photo import read_photo


def find_photos(names: Sequence[str]) -> list[Path]:
    """Files as named, folders as the photos in them; PhotoError where there is nothing."""
    photos: list[Path] = []
    for name in names:
        path = Path(name)
        if not path.exists():
            raise PhotoError(f"{name}: there is no such file; check its name")
        inside = [p for p in sorted(path.iterdir()) if p.suffix.lower() in PHOTO_SUFFIXES] if path.is_dir() else [path]
        if not inside:
            raise PhotoError(f"{name}: there is no photo in this folder")
        photos += inside
    return photos


def analyse_file(
    path: Path, engine: Engine, config: ModelConfig, conf_thresh: float | None, output_dir: Path | None
) -> dict[str, Any]:
    """The answer for one file, JSON-able: maps are left out, and written as PNG into `output_dir` where given."""
    photo = read_photo(path)
    [analysis] = analyse([photo], engine, config, threshold=conf_thresh)
    answer = to_dict(analysis, config)
    lesions = find_lesions(analysis.mask)
    segmentation = {
        "height": analysis.height,
        "width": analysis.width,
        "lesion_area_ratio": analysis.lesion_area_ratio,
        "threshold": analysis.threshold,
        "lesions": [asdict(lesion) for lesion in lesions],
    }
    written = {}
    if output_dir is not None:
        output_dir.mkdir(parents=True, exist_ok=True)
        written = {kind: str(output_dir / f"{path.stem}_{kind}.png") for kind in ("mask", "overlay")}
        Image.fromarray(analysis.mask * 255).save(written["mask"])
        Image.fromarray(draw_overlay(photo, analysis.mask, lesions)).save(written["overlay"])
    return {"photo": str(path), "classification": answer["classification"], "segmentation": segmentation, **written}
