"""Who trains: one run at a time on a device, one process at a time on a run.

The system frees these locks when their process ends, however it ends, so a killed run blocks nobody.
"""

import logging
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from mtl.errors import RunError

log = logging.getLogger(__name__)

NOTE_SECONDS = 2.0  # between a device's lock and the note of its run there is the making of the run's folder
READERS_SECONDS = 1.0  # whoever reads a run's state may hold its lock for a moment
YEAR_SECONDS = 366 * 86_400.0


@dataclass(frozen=True)
class Note:
    """Beside a device's lock: who holds it."""

    run: str  # its folder
    pid: int
    pid_started: float  # seconds since 1970
    since: float  # seconds since 1970

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since)
        clock = f"{since:%H:%M}" if since.date() == datetime.now().date() else f"{since:%Y-%m-%d %H:%M}"
        return f"{Path(self.run).name} (process {self.pid}, since {clock})"


NOTES = TypeAdapter(Note)


class DeviceLock:
    """One run at a time on a device, over all processes of this user on this machine."""

    def __init__(self, device: str):
        """device: as `str(torch.device)` says it: "cpu", "mps", "cuda", "cuda:1"."""
        self.device = device
        folder, key = _locks_folder(), _hardware(device)
        # Taken by the thread that starts a run, released by the one that trains it.
        self._lock = FileLock(folder / f"{key}.lock", thread_local=False)
        self._note_file = folder / f"{key}.json"
        self._run_lock: FileLock | None = None

    def acquire(self) -> None:
        """Take the device. RunError names the run that has it."""
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise RunError(
                f"{self.device} is training {self._holder()}; stop it, wait for its end, or choose another device"
            ) from None
        except OSError as error:
            raise RunError(
                f"{self._lock.lock_file}: {self.device} cannot be locked ({error.strerror}); "
                "set TMPDIR to a folder that can be written"
            ) from None
        # What a killed process left would name the wrong run.
        self._note_file.unlink(missing_ok=True)
        _date_ahead(Path(self._lock.lock_file))

    def hold(self, run: Path) -> None:
        """Note the run's folder as what trains here. RunError where another process trains that run."""
        self._run_lock = _locked(run)
        self.note(run)

    def note(self, run: Path) -> None:
        """Note the run's folder as what trains here."""
        note = Note(str(run.resolve()), *this_process(), since=time.time())
        # A courtesy to whoever is refused: a full disk must not end the run here.
        with suppress(OSError):
            self._note_file.write_bytes(NOTES.dump_json(note))
            _date_ahead(self._note_file)

    def release(self) -> None:
        """Give the device back; nothing happens where it is not held."""
        if not self._lock.is_locked:
            return
        self._note_file.unlink(missing_ok=True)
        if self._run_lock:
            self._run_lock.release()
        self._lock.release()

    def _holder(self) -> str:
        """The run that is trained, in words."""
        deadline = time.monotonic() + NOTE_SECONDS
        while time.monotonic() < deadline:
            note = self._note()
            if note and is_running(note.pid, note.pid_started):
                return str(note)
            time.sleep(0.02)
        return "another run"

    def _note(self) -> Note | None:
        try:
            return NOTES.validate_json(self._note_file.read_bytes())
        except (OSError, ValidationError):
            return None


@contextmanager
def lock_device(device: str) -> Iterator[DeviceLock]:
    """A device's lock, taken: it stays so after the block, until it is released, unless the block fails."""
    lock = DeviceLock(device)
    lock.acquire()
    try:
        yield lock
    except BaseException:
        lock.release()
        raise


def _locks_folder() -> Path:
    """This user's folder of locks, which nobody else can write."""
    folder = Path(tempfile.gettempdir()) / ("mtl" if sys.platform == "win32" else f"mtl-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise RunError(
            f"{folder}: no lock can be made there ({error.strerror}); set TMPDIR to a folder that can be written"
        ) from None
    if sys.platform != "win32":
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise RunError(f"{folder}: needed a folder of your own for locks; remove this one, or set TMPDIR")
        folder.chmod(0o700)
    return folder


def _hardware(device: str) -> str:
    """A name for the lock's file, the same for whatever is the same device."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return kind
    import torch

    if torch.cuda.is_available():
        # The numbers depend on CUDA_VISIBLE_DEVICES, which differs from process to process.
        return f"cuda-{torch.cuda.get_device_properties(int(index or 0)).uuid}"
    return f"cuda-{index or 0}"


def _date_ahead(path: Path) -> None:
    """Cleaners of temporary folders go by age, and a lock whose file is gone would keep nobody out."""
    ahead = time.time() + YEAR_SECONDS
    with suppress(OSError):
        os.utime(path, (ahead, ahead))


# ---- the lock of one run


def _run_lock(run: Path) -> FileLock:
    return FileLock(run / "lock", thread_local=False)


def _locked(run: Path) -> FileLock | None:
    """The run's own lock, taken; None where its disk knows no locks, so that the noted process alone tells."""
    lock = _run_lock(run)
    try:
        lock.acquire(timeout=READERS_SECONDS, poll_interval=0.01)
    except Timeout:
        raise RunError(f"{run.name}: another process trains it right now; stop it first") from None
    except OSError as error:
        log.info("%s: its folder cannot be locked (%s)", run.name, error.strerror)
        return None
    return lock


def require_let_go(run: Path) -> None:
    """RunError where somebody trains this run, also where the process is of another machine or container."""
    if lock := _locked(run):
        lock.release()


def is_let_go(run: Path) -> bool:
    """Has whoever trained this run let go of it? False also where that cannot be known."""
    if not (run / "lock").is_file():
        return False
    lock = _run_lock(run)
    try:
        lock.acquire(blocking=False)
    except OSError:  # a Timeout is one, too
        return False
    lock.release()
    return True


# ---- processes


def this_process() -> tuple[int, float]:
    """(pid, when it was started in seconds since 1970): a number alone may be another process by now."""
    return os.getpid(), psutil.Process().create_time()


def is_running(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        # Start times are exact to a hundredth of a second. A killed process whose parent has not asked is a zombie.
        return abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError, OverflowError):
        return False
