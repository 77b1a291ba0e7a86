"""Work behind the page that takes seconds: data checks, made photos, uploads. Shared by all pages; no gradio here."""

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from mtl.data.check import DataReport, check_folder
from mtl.data.folder import SPLITS, DataFolder
from mtl.errors import MtlError

log = logging.getLogger(__name__)

Unit = Literal["photos", "bytes"]
Progress = Callable[[int, int], None]  # (done, of how many); may raise to break off


class CancelError(Exception):
    """Raised out of the progress callback of work that was cancelled."""


class Work:
    """One piece of work in a thread of its own: how far it is, and what came of it. Any thread may look or cancel."""

    def __init__(self, title: str, function: Callable[[Progress], Any], unit: Unit = "photos"):
        """`title` says what goes on, `function` does it and returns the result; `unit` is what it reports in."""
        self.title, self.unit = title, unit
        self.state: Literal["running", "done", "cancelled", "failed"] = "running"
        self.done, self.total = 0, 0
        self.result: Any = None
        self.error = ""
        self._began = time.monotonic()
        self._is_cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(function,), name=title, daemon=True)
        self._thread.start()

    def _run(self, function: Callable[[Progress], Any]) -> None:
        try:
            self.result = function(self._report)
            self.state = "done"
        except CancelError:
            self.state = "cancelled"
        except MtlError as error:
            self.error, self.state = str(error), "failed"
        # The edge of a thread: whatever it is, the page must not wait for ever.
        except Exception as error:
            log.exception("%s failed", self.title)
            self.error, self.state = f"{self.title} failed: {type(error).__name__}, see the server's log", "failed"

    def _report(self, done: int, total: int) -> None:
        if self._is_cancelled.is_set():
            raise CancelError
        self.done, self.total = done, total

    def cancel(self) -> None:
        """Break off at the next report; what is done already stays done."""
        self._is_cancelled.set()

    def wait(self, seconds: float | None = None) -> None:
        self._thread.join(seconds)

    @property
    def seconds_left(self) -> float | None:
        """None until there is something to reckon from."""
        took = time.monotonic() - self._began
        return took / self.done * (self.total - self.done) if self.done and took > 1 else None


class DataChecks:
    """The checks of data folders and the other work for pages, by key: asked for twice, it is done once."""

    KEPT = 32

    def __init__(self) -> None:
        self._works: OrderedDict[str, Work] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, key: str, title: str, function: Callable[[Progress], Any], unit: Unit = "photos") -> Work:
        """The work of this key: one that runs or is done, else a new one."""
        with self._lock:
            work = self._works.get(key)
            if work is None or work.state in ("cancelled", "failed"):
                work = self._works[key] = Work(title, function, unit)
            self._works.move_to_end(key)
            for old in [k for k, w in self._works.items() if w.state != "running"][: -self.KEPT]:
                del self._works[old]
            return work

    def get(self, key: str) -> Work | None:
        with self._lock:
            return self._works.get(key)

    def check(self, folder: DataFolder) -> Work:
        """Decode everything in the folder, unless that runs already or was done since the folder changed."""
        return self.begin(folder_key(folder), "Checking the photos", lambda report: check_folder(folder, report))

    def report(self, folder: DataFolder) -> DataReport | None:
        """What a finished check found in the folder as it is now."""
        work = self.get(folder_key(folder))
        return work.result if work and work.state == "done" else None


def folder_key(folder: DataFolder) -> str:
    """Changes with the photos, masks, labels, groups and sides of a folder, and with any file's size or time."""
    known = [
        (side, s.name, s.target, s.group, _stamp(s.photo), _stamp(s.mask) if s.mask else None)
        for side in SPLITS
        for s in folder.split(side)
    ]
    return hashlib.sha256(repr((str(folder.path), folder.classes.names, known)).encode()).hexdigest()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None  # it went since the folder was listed; the check says so
    return stat.st_mtime_ns, stat.st_size
