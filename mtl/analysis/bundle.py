"""Many answers as one zip: masks, overlays, reports and the table. Photos are opened one at a time."""

import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from mtl.analysis.names import safe_names
from mtl.analysis.overlay import draw_overlay
from mtl.analysis.record import Record
from mtl.analysis.report import write_report
from mtl.analysis.table import Failure, Outcome, write_csv, write_json
from mtl.analysis.words import Translate, untranslated
from mtl.errors import MtlError
from mtl.files import write_atomically

OVERLAY_QUALITY = 92
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BundleItem:
    """One photo's part of the zip."""

    outcome: Outcome
    load: Callable[[], tuple[np.ndarray, np.ndarray]]  # photo (H, W, 3) uint8, mask (H, W) 0/1; not for a Failure


def write_bundle(
    target: Path, items: Iterable[BundleItem], t: Translate = untranslated, progress: Progress | None = None
) -> None:
    """Write the zip whole or not at all: masks/, overlays/, reports/, results.csv and results.json.

    A photo that can no longer be loaded stands in the results with its reason. progress(photos done, photos in all)
    may raise to stop. The pictures carry no metadata. Raises DiskFullError.
    """
    write_atomically(target, lambda path: _write(path, list(items), t, progress), durable=False)


def _write(path: Path, items: list[BundleItem], t: Translate, progress: Progress | None) -> None:
    stems = safe_names([item.outcome.name for item in items])
    outcomes: list[Outcome] = []
    # What is in it is compressed already, but for the table.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as bundle:
        for item, stem in zip(items, stems, strict=True):
            outcomes.append(_add(bundle, item, stem, t))
            if progress:
                progress(len(outcomes), len(items))
        bundle.writestr("results.csv", write_csv(outcomes), zipfile.ZIP_DEFLATED)
        bundle.writestr("results.json", write_json(outcomes), zipfile.ZIP_DEFLATED)


def _add(bundle: zipfile.ZipFile, item: BundleItem, stem: str, t: Translate) -> Outcome:
    """Add one photo's files; returns what the table says of it."""
    record = item.outcome
    if isinstance(record, Failure):
        return record
    try:
        photo, mask = item.load()
    except MtlError as error:
        return Failure(record.name, str(error))
    for name, content in _files(record, photo, mask, stem, t):
        bundle.writestr(name, content)
    return record


def _files(record: Record, photo: np.ndarray, mask: np.ndarray, stem: str, t: Translate) -> Iterable[tuple[str, bytes]]:
    """(name in the zip, content), each made when it is asked for."""
    overlay = draw_overlay(photo, mask, record.measures.lesions)
    yield f"masks/{stem}_mask.png", _encoded(mask * np.uint8(255), "PNG")
    yield f"overlays/{stem}_overlay.jpg", _encoded(overlay, "JPEG")
    yield f"reports/{stem}.pdf", write_report(record, photo, overlay, t)


def _encoded(pixels: np.ndarray, file_format: str) -> bytes:
    data = BytesIO()
    Image.fromarray(pixels).save(data, file_format, quality=OVERLAY_QUALITY)
    return data.getvalue()
