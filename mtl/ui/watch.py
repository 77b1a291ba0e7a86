"""What runs there are and what each does now, shared by all pages. No gradio here."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtl.errors import RunError
from mtl.training.run import Run, RunStatus, list_runs

LATEST = "latest"  # the choice of whatever is trained now, else of the run that was last written to
_Stamp = tuple[int, int, int]  # inode, time and size of a run.json


@dataclass(frozen=True)
class Watched:
    """A run and its status at one moment."""

    run: Run
    status: RunStatus

    @property
    def name(self) -> str:
        return self.run.name


class RunWatch:
    """Reads the runs' folders at most a few times a second however many pages ask; safe to call from any thread."""

    FRESH_SECONDS = 0.3

    def __init__(self, runs_dir: Path):
        self.runs_dir = runs_dir
        self._lock = threading.Lock()
        self._looked, self._runs = 0.0, list[Watched]()
        self._ended: dict[str, tuple[_Stamp, Watched]] = {}

    def look(self) -> list[Watched]:
        """All runs, newest first."""
        with self._lock:
            if time.monotonic() - self._looked > self.FRESH_SECONDS:
                self._runs = [watched for run in list_runs(self.runs_dir) if (watched := self._read(run))]
                self._ended = {
                    name: self._ended[name] for watched in self._runs if (name := watched.name) in self._ended
                }
                self._looked = time.monotonic()
            return self._runs

    def forget(self) -> None:
        """Look anew next time: something was started, stopped or deleted here."""
        self._looked = 0.0

    def _read(self, run: Run) -> Watched | None:
        """None where the run was deleted meanwhile; one that has ended is read once."""
        try:
            stat = run.status_file.stat()
        except OSError:
            return None
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        known = self._ended.get(run.name)
        if known and known[0] == stamp:
            return known[1]
        watched = Watched(run, run.status())
        if watched.status.state in ("finished", "stopped", "failed"):
            self._ended[run.name] = (stamp, watched)
        return watched


def choose(runs: Sequence[Watched], name: str) -> Watched:
    """The run of a choice. Raises RunError where there is none."""
    found = latest(runs) if name == LATEST else next((watched for watched in runs if watched.name == name), None)
    if found is None:
        raise RunError(f"{name}: there is no such run; choose another, or press Start to begin one")
    return found


def latest(runs: Sequence[Watched]) -> Watched | None:
    """The newest that is trained now, else the one that was last written to."""
    live = next((watched for watched in runs if watched.status.live), None)
    return live or max(runs, key=lambda watched: watched.status.updated or watched.status.started, default=None)
