"""The desks: each visitor's photos with their answers, in a private folder that goes with the visitor.

No gradio here.
"""

import logging
import math
import os
import secrets
import shutil
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
from PIL import Image

from mtl.analysis.predict import NAME_CONFIDENCE, Analysis
from mtl.analysis.record import Record, Scale, scale_from_ruler
from mtl.analysis.table import Failure
from mtl.analysis.turned import Tta
from mtl.errors import ConfigError, PhotoError
from mtl.photo import (
    MAX_FILE_BYTES,
    photo_size,
    read_mask,
    read_photo,
    resize_map,
    resize_photo,
    too_large,
)
from mtl.ui.texts import Words

# Loaded with the first photo: it takes seconds, and the page is shown before.
if TYPE_CHECKING:
    from mtl.analysis.bundle import BundleItem
    from mtl.api import MultiTaskModel

log = logging.getLogger(__name__)

SHOWN_PX = 4096  # longest side of a photo on the page: browsers do not paint much more
THUMBNAIL_PX = 144
KEPT_S = 300.0  # how long a desk outlives its page: a phone in a pocket, a reload
MAX_PHOTOS = 500
MAX_DRAWN_PX = 2048  # of a mask's side; the page draws at half of it
GONE = "this photo is no longer on the server; add it again"


@dataclass
class DeskPhoto:
    """One photo on a desk. It waits, has its answer, or the reason why there is none."""

    name: str  # as it came; may hold anything
    path: Path  # in the desk's folder
    analysis: Analysis | None = None
    record: Record | None = None
    error: str = ""
    thumbnail: str = ""  # data URL
    correction: bytes = b""  # the mask as a person drew it, PNG
    scale: Scale | None = None  # as a person set it; outlives the answer of a model
    id: str = field(default_factory=lambda: secrets.token_hex(6))  # never given to another photo
    version: int = 0  # counts the thumbnails

    @property
    def state(self) -> str:
        if self.error:
            return "failed"
        return "done" if self.record else "waiting"


@dataclass
class Desk:
    """The photos of one open page."""

    folder: Path
    token: str = field(default_factory=lambda: secrets.token_urlsafe(18))  # what the page shows to get its photos
    photos: list[DeskPhoto] = field(default_factory=list)
    words: Words = field(default_factory=Words)
    selected: int = 0  # the number of the photo that is shown, from 1; 0: none
    name_confidence: float = NAME_CONFIDENCE
    left_at: float | None = None  # time.monotonic() since when its page is closed
    _lock: threading.Lock = field(default_factory=threading.Lock)  # one analysis at a time
    _generation: int = 0  # counts what makes a running analysis stop
    editing: threading.RLock = field(default_factory=threading.RLock)  # held by what changes an answer
    _saves: int = 0  # counts what makes a file in the making stop
    _running: int = -1  # the generation that the analysis at work began in

    def take(self, files: Sequence[Path]) -> None:
        """Copy files to the desk. Raises PhotoError where there are too many.

        They are not moved: gradio keeps uploads of the same content under one path, whoever sent them.
        """
        if len(self.photos) + len(files) > MAX_PHOTOS:
            came = len(self.photos) + len(files)
            raise PhotoError("{came} photos; needed: at most {most}, so remove some", came=came, most=MAX_PHOTOS)
        for file in files:
            photo = DeskPhoto(file.name, self.folder / f"{secrets.token_hex(8)}{file.suffix.lower()[:8]}")
            if file.stat().st_size > MAX_FILE_BYTES:  # it would be refused, and copied for nothing
                photo.error = self.words.told(too_large(file))
            else:
                shutil.copyfile(file, photo.path)
            self.photos.append(photo)

    def analyse_waiting(self, model: "MultiTaskModel", model_name: str, tta: Tta = "off") -> Iterator[int]:
        """Analyse what waits, one by one, and tell each number when its answer is there; ends when it is stopped.

        Ends at once where an analysis is already running: that one takes up what was added.
        """
        while not self._lock.acquire(timeout=0.1):
            if self._running == self._generation:
                return
        try:
            generation = self._running = self._generation
            while self._generation == generation and (number := self._next_waiting()):
                if photo := self.photo(number):  # else removed meanwhile
                    self._answer(photo, model, model_name, tta)
                    self.set_name_confidence(self.name_confidence)  # it may have been moved meanwhile
                    yield number
        finally:
            self._lock.release()

    def _answer(self, photo: DeskPhoto, model: "MultiTaskModel", model_name: str, tta: Tta) -> None:
        try:
            analyse_photo(photo, model, model_name, self.name_confidence, self.words, tta)
        except Exception:  # what nobody foresaw must not keep the other photos from their answers
            log.exception("a photo could not be analysed")
            photo.error = self.words("a fault of this program; the log of the server has it")

    def _next_waiting(self) -> int:
        """Its number: the one that is shown, else the first; 0 where none waits."""
        waiting = [number for number, photo in enumerate(self.photos, start=1) if photo.state == "waiting"]
        return self.selected if self.selected in waiting else next(iter(waiting), 0)

    @property
    def working(self) -> bool:
        """Whether an analysis is running that will take up what waits."""
        return self._lock.locked() and self._running == self._generation

    @property
    def waiting(self) -> int:
        return sum(photo.state == "waiting" for photo in self.photos)

    def photo(self, number: int) -> DeskPhoto | None:
        """The photo of a number from 1; None where there is none."""
        return self.photos[number - 1] if 1 <= number <= len(self.photos) else None

    def stop(self) -> None:
        """End a running analysis after the photo at hand; the others keep waiting."""
        self._generation += 1

    def clear(self) -> None:
        """Remove all photos, from the disk too."""
        self.stop()
        photos, self.photos, self.selected = self.photos, [], 0
        for photo in photos:
            photo.path.unlink(missing_ok=True)

    def forget_answers(self) -> None:
        """All photos wait again, as for another model or other views; what a person drew and measured stays."""
        self.stop()
        self.photos = [
            DeskPhoto(p.name, p.path, error=p.error, correction=p.correction, scale=p.scale) for p in self.photos
        ]

    def set_name_confidence(self, confidence: float) -> None:
        """Below it no class is named, in the answers that are there too."""
        with self.editing:
            self.name_confidence = confidence
            for photo in self.photos:
                if photo.record:
                    photo.record = replace(photo.record, name_confidence=confidence)

    @contextmanager
    def saving(self) -> Iterator[Callable[[], bool]]:
        """While a file of all photos is made; gives the question whether it was cancelled."""
        number = self._saves = self._saves + 1
        yield lambda: self._saves != number

    def stop_saving(self) -> None:
        """Cancel the file that is being made."""
        self._saves += 1

    def outcomes(self) -> list[Record | Failure]:
        """Of all photos that do not wait."""
        return [photo.record or Failure(photo.name, photo.error) for photo in self.photos if photo.state != "waiting"]

    def bundle(self) -> "Iterator[BundleItem]":
        """What the zip is made of; photos are read when their turn comes."""
        from mtl.analysis.bundle import BundleItem

        for photo in self.photos:
            if photo.state != "waiting":
                as_it_is = replace(photo)  # what is drawn while the zip is made belongs to the next one
                outcome = as_it_is.record or Failure(photo.name, photo.error)
                yield BundleItem(outcome, partial(pixels_and_mask, as_it_is))


# ---- one photo


def analyse_photo(
    photo: DeskPhoto, model: "MultiTaskModel", model_name: str, name_confidence: float, words: Words, tta: Tta = "off"
) -> None:
    """Fill in the answer, or the reason why there is none in the visitor's language."""
    try:
        examined = model.examine(
            _file_of(photo), name=photo.name, model_name=model_name, name_confidence=name_confidence, tta=tta
        )
    except PhotoError as error:
        photo.error = words.told(error)
        return
    photo.analysis = replace(examined.analysis)  # afresh: without the maps of the photo's size that are filled in
    _set_thumbnail(photo, examined.image, examined.analysis.mask)
    photo.record = replace(examined.record, scale=photo.scale or examined.record.scale)
    if photo.correction:  # drawn before another model was chosen
        photo.record = replace(photo.record, corrected=True)
        _measure(photo)


def pixels(photo: DeskPhoto) -> np.ndarray:
    """The photo (H, W, 3) uint8. Raises PhotoError."""
    return read_photo(_file_of(photo))


def _file_of(photo: DeskPhoto) -> Path:
    if not photo.path.is_file():
        raise PhotoError(GONE)
    return photo.path


def mask(photo: DeskPhoto) -> np.ndarray:
    """The mask (H, W) 0/1 at the photo's size: the one that was drawn, else the map's at the chosen threshold."""
    analysis, record = photo.analysis, photo.record
    assert analysis is not None
    assert record is not None
    if photo.correction:
        drawn = read_mask(photo.correction).astype(np.float32)
        return (resize_map(drawn, record.height, record.width) >= 0.5).astype(np.uint8)
    return (replace(analysis).confidence_map >= record.threshold).astype(np.uint8)


def pixels_and_mask(photo: DeskPhoto) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 and (H, W) 0/1. Raises PhotoError."""
    return pixels(photo), mask(photo)


def cut_at(photo: DeskPhoto, threshold: float) -> None:
    """Cut the kept map at another probability, and measure again; the network does not run."""
    assert photo.record is not None
    if not math.isfinite(threshold):
        raise ConfigError("threshold: got {came}; needed a probability between 0 and 1", came=threshold)
    photo.correction = b""
    photo.record = replace(photo.record, threshold=min(max(threshold, 0.01), 0.99), corrected=False)
    _measure(photo)


def correct(photo: DeskPhoto, drawn: bytes) -> None:
    """Take the mask that a person drew (an encoded picture of any size) and measure it; nothing: the model's again."""
    assert photo.record is not None
    photo.correction = _kept_mask(drawn) if drawn else b""
    photo.record = replace(photo.record, corrected=bool(drawn))
    _measure(photo)


def _kept_mask(drawn: bytes) -> bytes:
    """A drawn mask as one-bit PNG. Raises PhotoError where it is larger than any that the page draws."""
    height, width = photo_size(drawn)
    if max(height, width) > MAX_DRAWN_PX:
        raise PhotoError(
            "a drawn mask of {width} x {height} pixels; needed: at most {most} a side",
            width=width,
            height=height,
            most=MAX_DRAWN_PX,
        )
    buffer = BytesIO()
    Image.fromarray(read_mask(drawn) * np.uint8(255)).convert("1").save(buffer, "PNG")
    return buffer.getvalue()


def set_scale(photo: DeskPhoto, start: tuple[float, float], end: tuple[float, float], length_mm: float) -> None:
    """Take the scale from two points (row, column) on a ruler. Raises ConfigError where they give none."""
    assert photo.record is not None
    photo.scale = scale_from_ruler(start, end, length_mm)
    photo.record = replace(photo.record, scale=photo.scale)


def remove_scale(photo: DeskPhoto) -> None:
    assert photo.record is not None
    photo.scale = None
    photo.record = replace(photo.record, scale=None)


def _measure(photo: DeskPhoto) -> None:
    from mtl.analysis.judge import judge

    assert photo.analysis is not None
    assert photo.record is not None
    image, cut = pixels(photo), mask(photo)
    certain = None if photo.correction else replace(photo.analysis).confidence_map
    judged = judge(photo.analysis, image, cut, certain, photo.record.threshold)
    photo.record = replace(photo.record, **judged._asdict())
    _set_thumbnail(photo, image, cut)


def _set_thumbnail(photo: DeskPhoto, image: np.ndarray, cut: np.ndarray) -> None:
    photo.thumbnail = _data_url(_drawn(image, cut, THUMBNAIL_PX), 80)
    photo.version += 1


def shown(photo: DeskPhoto) -> str:
    """The photo as the page shows it, a data URL: upright, sRGB, nothing of its metadata."""
    return _data_url(_shrunk(pixels(photo), SHOWN_PX), 92)


def thumbnail_of(path: Path, longest_px: int) -> str:
    """A small picture of a photo on the disk, a data URL."""
    return _data_url(_shrunk(read_photo(path), longest_px), 85)


def shown_mask(photo: DeskPhoto) -> str:
    """The mask that was drawn, a data URL."""
    return "data:image/png;base64," + _base64(photo.correction)


def drawn(photo: DeskPhoto, longest_px: int) -> str:
    """The photo with its lesions, a data URL."""
    return _data_url(_drawn(pixels(photo), mask(photo), longest_px), 88)


def _drawn(image: np.ndarray, cut: np.ndarray, longest_px: int) -> np.ndarray:
    from mtl.analysis.overlay import draw_overlay

    small = _shrunk(image, longest_px)
    height, width = small.shape[:2]
    inside = (resize_map(cut, height, width) >= 0.5).astype(np.uint8)
    return draw_overlay(small, inside)


def _shrunk(image: np.ndarray, longest_px: int) -> np.ndarray:
    height, width = image.shape[:2]
    scale = min(1.0, longest_px / max(height, width))
    return image if scale == 1 else resize_photo(image, (max(1, round(height * scale)), max(1, round(width * scale))))


def _data_url(image: np.ndarray, quality: int) -> str:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + _base64(buffer.getvalue())


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


# ---- all desks


class Desks:
    """Every open page's desk; safe to call from any thread. What a server that was killed left behind goes too."""

    def __init__(self, kept_s: float = KEPT_S, place: Path | None = None):
        """place: where temporary files go; unset: the computer's folder for them."""
        self._kept_s = kept_s
        self._desks: dict[str, Desk] = {}
        self._lock = threading.Lock()
        user = os.getuid() if hasattr(os, "getuid") else 0
        self._root = (place or Path(tempfile.gettempdir())) / f"mtl-desks-{user}"
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._remove_orphans()
        # Where gradio puts uploads and downloads before they are on a desk or saved.
        self.transfers = Path(tempfile.mkdtemp(prefix=f"{_own_prefix()}transfers-", dir=self._root))

    def of(self, session: str) -> Desk:
        """The desk of a page, by gradio's name of its session; a new one for a new page."""
        with self._lock:
            if session not in self._desks:
                folder = Path(tempfile.mkdtemp(prefix=_own_prefix(), dir=self._root))
                self._desks[session] = Desk(folder)
            desk = self._desks[session]
            if desk.left_at is not None:  # a phone's page that wakes up; nobody may tell again when it goes
                desk.left_at = time.monotonic()
                self._sweep_later()
            return desk

    def by_token(self, token: str) -> Desk | None:
        """The desk whose page knows this token."""
        with self._lock:
            return next(
                (d for d in self._desks.values() if secrets.compare_digest(d.token.encode(), token.encode())), None
            )

    def leave(self, session: str) -> None:
        """The page was closed: its desk goes soon, unless the page comes back."""
        with self._lock:
            if desk := self._desks.get(session):
                desk.left_at = time.monotonic()
                desk.stop()
                desk.stop_saving()
        self._sweep_later()

    def _sweep_later(self) -> None:
        timer = threading.Timer(self._kept_s + 1, self.sweep)
        timer.daemon = True
        timer.start()

    def sweep(self) -> None:
        """Remove the desks whose pages have been closed for long enough."""
        now = time.monotonic()
        with self._lock:
            gone = [s for s, d in self._desks.items() if d.left_at is not None and now - d.left_at >= self._kept_s]
            folders = [self._desks.pop(session).folder for session in gone]
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        self._remove_old_transfers()

    def _remove_old_transfers(self) -> None:
        """Gradio empties this folder itself, but for what was never handed over, and an empty file an upload."""
        for file in [file for file in self.transfers.rglob("*") if file.is_file()]:
            if time.time() - file.stat().st_mtime >= self._kept_s:
                file.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove all, as when the server ends."""
        with self._lock:
            desks, self._desks = list(self._desks.values()), {}
        for desk in desks:
            desk.stop()
            shutil.rmtree(desk.folder, ignore_errors=True)
        shutil.rmtree(self.transfers, ignore_errors=True)

    def _remove_orphans(self) -> None:
        for folder in self._root.iterdir():
            pid, started, *_ = [*folder.name.split("-"), ""]
            if pid.isdecimal() and _start_of(int(pid)) != started:
                shutil.rmtree(folder, ignore_errors=True)


def _own_prefix() -> str:
    """What this process's folders begin with: its id may be another's after a restart, its start may not."""
    return f"{os.getpid()}-{_start_of(os.getpid())}-"


def _start_of(pid: int) -> str:
    """When a process was started, in hundredths of a second; empty where there is none."""
    try:
        return str(round(100 * psutil.Process(pid).create_time()))
    except psutil.Error:
        return ""
