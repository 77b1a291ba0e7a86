"""A push or pull on its way: what the page and the terminal show of it, and the way to cancel it."""

import threading
import time
from dataclasses import dataclass, field
from typing import Literal

from mtl.errors import TransferCancelledError

FileState = Literal["waiting", "moving", "checking", "done", "unchanged"]


@dataclass
class TransferFile:
    """One file of a model."""

    name: str
    size: int  # bytes
    sha256: str = ""  # of a file in large-file storage; else empty until it is known
    done: int = 0  # bytes
    state: FileState = "waiting"


@dataclass
class Transfer:
    """Told by the one thread that moves the files, read and cancelled by any other."""

    kind: Literal["push", "pull"]
    repo_id: str
    files: list[TransferFile] = field(default_factory=list)
    message: str = ""  # what it does just now, or why it waits; one line
    started: float = field(default_factory=time.monotonic)
    moved_at: float = field(default_factory=time.monotonic)  # when the last byte or answer came
    _cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def bytes_done(self) -> int:
        return sum(file.done for file in self.files)

    @property
    def bytes_total(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def seconds_silent(self) -> float:
        """How long nothing has come from the Hub."""
        return time.monotonic() - self.moved_at

    def moved(self) -> None:
        self.moved_at = time.monotonic()

    def cancel(self) -> None:
        """End it within about a second; what was there before stays as it was."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def check(self) -> None:
        """Raise TransferCancelledError where it was cancelled."""
        if self.cancelled:
            raise TransferCancelledError(f"{self.repo_id}: the {self.kind} was cancelled; nothing has changed")

    def wait(self, seconds: float) -> None:
        """As sleep, and at once where it is cancelled: raises TransferCancelledError."""
        self._cancelled.wait(seconds)
        self.check()
