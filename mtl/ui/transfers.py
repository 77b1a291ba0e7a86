"""What the Models tab does in the background: push, pull, evaluate, export; one at a time on a server. No gradio here.

A job belongs to the server, not to a request: a page that is reloaded, or a second one, shows the same job.
"""

import atexit
import logging
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mtl.errors import MtlError, TransferCancelledError
from mtl.hub.transfer import Transfer
from mtl.ui.checks import CancelError

log = logging.getLogger(__name__)

Kind = Literal["push", "pull", "evaluate", "export"]
Step = Literal["measure", "draw"]  # of an evaluation: its photos, then the pictures of its report
PACE_SECONDS = 5.0  # of the last so many the speed is told


@dataclass(frozen=True)
class PushOrder:
    """What a person filled in to push a model; kept with the job, so that it can be repeated."""

    model: str
    repo_id: str
    private: bool = True
    message: str = ""
    tag: str = ""
    license: str = ""


class Job:
    """One piece of work in a thread of its own. Any thread may look at it or cancel it."""

    def __init__(
        self,
        kind: Kind,
        subject: str,
        function: Callable[["Job"], Any],
        *,
        user: str = "",
        can_cancel: bool = True,
        order: PushOrder | None = None,
    ):
        """subject: the model or repository that it is about; user: who on the Hub began it, whose affair it then is."""
        self.kind, self.subject, self.user, self.can_cancel, self.order = kind, subject, user, can_cancel, order
        self.state: Literal["running", "done", "cancelled", "failed"] = "running"
        self.transfer = Transfer(kind, subject) if kind in ("push", "pull") else None
        self.step: Step = "measure"
        self.done, self.total = 0, 0  # photos, of an evaluation's step
        self.result: Any = None
        self.file: Path | None = None  # what it made, to be downloaded once it is done
        self.error: MtlError | None = None
        self.began = time.monotonic()  # the step
        self._moved: deque[tuple[float, int]] = deque(maxlen=64)  # when, and bytes by then
        self._is_cancelled = threading.Event()
        self._function = function
        self._thread = threading.Thread(target=self._run, name=f"{kind} {subject}", daemon=True)

    def start(self) -> None:
        self.began = time.monotonic()
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._function(self)
            self.state = "done"
        except (CancelError, TransferCancelledError):
            self.state = "cancelled"
        except MtlError as error:
            self.error, self.state = error, "failed"
        # The edge of a thread: whatever it is, the page must not wait for ever.
        except Exception as error:
            log.exception("%s of %s failed", self.kind, self.subject)
            self.error = MtlError(f"{self.kind} failed: {type(error).__name__}; see the server's log")
            self.state = "failed"
        finally:
            del self._function  # it may hold a token

    @property
    def is_cancelled(self) -> bool:
        return self._is_cancelled.is_set()

    def report(self, done: int, total: int) -> None:
        """Note how far it is; raises CancelError where it was cancelled."""
        if self.is_cancelled:
            raise CancelError
        self.done, self.total = done, total

    def go_on(self, step: Step) -> None:
        """Begin another step, with photos of its own; raises CancelError where it was cancelled."""
        self.report(0, 0)
        self.step, self.began = step, time.monotonic()

    @property
    def is_reckoning(self) -> bool:
        """Is every photo measured, and what is made of them does not say how far it is?"""
        return self.step == "measure" and 0 < self.total == self.done

    def cancel(self) -> None:
        """Break off within about a second; what was there before stays as it was."""
        self._is_cancelled.set()
        if self.transfer:
            self.transfer.cancel()

    def wait(self, seconds: float | None = None) -> None:
        self._thread.join(seconds)

    @property
    def bytes_per_second(self) -> float:
        """Over the last few seconds; 0 while nothing moves."""
        if self.transfer is None:
            return 0.0
        now, done = time.monotonic(), self.transfer.bytes_done
        self._moved.append((now, done))
        past = [(when, size) for when, size in self._moved if now - when <= PACE_SECONDS]
        return max(0.0, (done - past[0][1]) / (now - past[0][0])) if now > past[0][0] else 0.0

    @property
    def seconds_left(self) -> float | None:
        """None until there is something to reckon from."""
        if self.transfer:
            pace = self.bytes_per_second
            return (self.transfer.bytes_total - self.transfer.bytes_done) / pace if pace else None
        took, left = time.monotonic() - self.began, self.total - self.done
        return took / self.done * left if self.done and left and took > 1 else None


class Jobs:
    """The job of this server: the one that runs, or the last one until somebody puts its outcome away."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: Job | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def current(self) -> Job | None:
        return self._current

    def begin(self, job: Job) -> None:
        """Start it. Raises MtlError where another one runs."""
        with self._lock:
            if self._current and self._current.state == "running":
                raise MtlError("another model is on its way or being measured; wait for that, or cancel it")
            self._remove_files()
            self._current = job
            job.start()

    def put_away(self, job: Job) -> None:
        """Forget an outcome that somebody has read."""
        with self._lock:
            if self._current is job and job.state != "running":
                self._current = None
                self._remove_files()

    def folder(self) -> Path:
        """For what a job makes; it goes with the next job, and with the server."""
        self._folder = tempfile.TemporaryDirectory(prefix="mtl-export-")
        atexit.register(self._folder.cleanup)
        return Path(self._folder.name)

    def _remove_files(self) -> None:
        if self._folder:
            atexit.unregister(self._folder.cleanup)
            self._folder.cleanup()
            self._folder = None
