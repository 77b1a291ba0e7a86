"""A run's folder: all that is known of a run, on disk, so that any process shows the same.

runs/<time>-<name>/
  config.json   metrics.jsonl   multitask_history.json   run.json   log.txt   lock
  multitask_best.pth   last.ckpt   samples/   tensorboard/
"""

import json
import os
import re
import shutil
import time
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from mtl.config import TrainConfig
from mtl.errors import ConfigError, DiskFullError, RunError
from mtl.files import write_atomically, write_text
from mtl.training.locks import is_let_go, is_running, require_let_go, this_process

State = Literal[
    "preparing", "training", "validating", "saving", "stopping", "finished", "stopped", "failed", "interrupted"
]
LIVE_STATES = {"preparing", "training", "validating", "saving", "stopping"}
# What a stop waits for: the building of the network and a checkpoint that is being written cannot be broken off.
STOPS_AFTER = {
    "preparing": "after the photo that is being read; once the network is being built, in about 3 seconds",
    "training": "after this batch",
    "validating": "after this batch",
    "saving": "when the checkpoint is written, in about a second",
}

HISTORY_LISTS = (
    "train_loss",
    "train_classification_loss",
    "train_segmentation_loss",
    "val_loss",
    "val_classification_loss",
    "val_segmentation_loss",
)
# What one takes along of a run, besides the newest sample picture.
ARCHIVED = (
    "multitask_best.pth",
    "training_features.safetensors",
    "config.json",
    "multitask_history.json",
    "metrics.jsonl",
    "log.txt",
    "run.json",
)
UNCOMPRESSED = {".pth", ".png"}  # these would not get smaller
DELETED = ".deleted-"  # what a folder is called while it is removed, so that half of one is no run
LOG_TAIL_BYTES = 65_536
PLACES = {"name", "output_dir"}  # of a run, and not of what it learns from or how


@dataclass(frozen=True)
class RunStatus:
    """`run.json`: what a run does now, or how it ended."""

    state: State = "preparing"
    message: str = ""
    pid: int = 0
    pid_started: float = 0.0  # seconds since 1970; a process number alone may be another process by now
    started: str = ""
    began: float = 0.0  # seconds since 1970; put off by the time between an end and a resume
    seconds: float = 0.0  # how long it had run at `updated`
    updated: str = ""
    epoch: int = 0  # epochs done
    epochs: int = 0
    step: int = 0  # steps done over all epochs
    steps: int = 0
    images_per_second: float = 0.0
    seconds_left: float | None = None
    train_seconds: float = 0.0
    best_epoch: int | None = None
    best: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)  # of the data check
    notices: list[str] = field(default_factory=list)  # what was noticed while training, each with what to try
    resume_with: dict[str, float] = field(default_factory=dict)  # settings to change where it is resumed, as after NaN
    device: str = ""  # where it trains: "cpu", "cuda:0"
    memory_bytes: int = 0  # of the process on the CPU, else of the device

    @property
    def live(self) -> bool:
        return self.state in LIVE_STATES


STATUSES = TypeAdapter(RunStatus)


class Run:
    """A run's folder and what is written there; `create` makes one, `Run(path)` opens one."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not _is_run(self.path):
            raise RunError(f"{self.path.name}: no run's folder (run.json is missing); `python -m mtl runs` lists them")

    @classmethod
    def create(cls, config: TrainConfig) -> "Run":
        """A new folder under `config.output_dir`, named after the time and the data; never an existing one."""
        name = config.name or re.sub(r"[^\w.-]+", "-", Path(config.data_dir).resolve().name) or "run"
        parent = Path(config.output_dir)
        stem = f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
        for attempt in range(1, 100):
            path = parent / (stem if attempt == 1 else f"{stem}-{attempt}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise RunError(
                    f"{parent}: no run can be written there ({error.strerror}); choose another output_dir"
                ) from None
            (path / "samples").mkdir()
            status = RunStatus(started=_now(), epochs=config.epochs)
            write_text(path / "run.json", _to_json(asdict(status)), durable=False)
            return cls(path)
        raise RunError(f"{stem}: 99 runs of this name were started in one second; wait a moment")

    # ---- the files

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def status_file(self) -> Path:
        return self.path / "run.json"

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def log_file(self) -> Path:
        return self.path / "log.txt"

    @property
    def best_file(self) -> Path:
        return self.path / "multitask_best.pth"

    @property
    def last_file(self) -> Path:
        return self.path / "last.ckpt"

    @property
    def last_epoch_file(self) -> Path:
        """`last.ckpt` as it was after the last validated epoch: what a run that diverged is taken back to."""
        return self.path / "last_epoch.ckpt"

    @property
    def stop_file(self) -> Path:
        """While it exists, whoever trains this run stops at the next batch."""
        return self.path / "stop"

    # ---- the status

    def status(self) -> RunStatus:
        """As it stands on disk; a live state reads as interrupted once nobody trains the run any more."""
        status = self._stored()
        if status is None:
            return RunStatus(state="failed", message="its run.json is damaged; its weights may still be good")
        if status.live and not is_running(status.pid, status.pid_started):
            return replace(
                status, state="interrupted", message=f"its process ended before the run did; {self.what_now}"
            )
        if status.live and is_let_go(self.path):
            return replace(status, state="interrupted", message=f"it broke off without a word; {self.what_now}")
        # Whoever asks for the stop must not write run.json, which belongs to the process that trains.
        if status.live and self.stop_file.exists():
            return replace(status, state="stopping", message=STOPS_AFTER.get(status.state, ""))
        return status

    def _stored(self) -> RunStatus | None:
        """`run.json` as it is; None where it is damaged."""
        try:
            return STATUSES.validate_json(self.status_file.read_bytes())
        except (OSError, ValidationError):
            return None

    def update(self, **changes: Any) -> None:
        """Change some fields of `run.json`; only the process that trains the run may."""
        status = self._stored()
        if status is None:
            pid, pid_started = this_process()
            status = RunStatus(pid=pid, pid_started=pid_started)
        status = replace(status, **{**changes, "updated": _now()})
        self._store(replace(status, seconds=round(time.time() - status.began, 1)) if status.began else status)

    def _store(self, status: RunStatus) -> None:
        text = _to_json(asdict(status))
        try:
            # Twice a second during training: not worth waiting for the disk.
            write_text(self.status_file, text, durable=False)
        except (OSError, DiskFullError):
            # How a run ended must be told on a full disk, too: the file's own place is still there.
            with self.status_file.open("r+b") as file:
                file.write(text.encode())
                file.truncate()

    def claim(self, epochs: int) -> None:
        """Note this process as the one that trains the run, to that many epochs."""
        self.stop_file.unlink(missing_ok=True)
        pid, pid_started = this_process()
        began = time.time() - self.duration
        self.update(epochs=epochs, pid=pid, pid_started=pid_started, began=began, state="preparing", message="")

    @property
    def duration(self) -> float:
        """Seconds that it has run, without the time between an end and a resume."""
        status = self.status()
        # Older versions noted the time of the training alone.
        return time.time() - status.began if status.live and status.began else status.seconds or status.train_seconds

    @property
    def what_now(self) -> str:
        """What can be done with a run that ended early."""
        return "it can be resumed" if self.last_file.is_file() else "it had saved nothing yet; start it anew"

    def request_stop(self) -> None:
        """Ask whoever trains this run to stop at the next batch; nothing happens where it has ended."""
        status = self.status()
        if not status.live:
            return
        try:
            self.stop_file.touch()
        except OSError as error:
            raise RunError(
                f"{self.name}: it cannot be asked to stop, its folder cannot be written ({error.strerror}); "
                f"end process {status.pid} instead"
            ) from None

    # ---- the settings

    def write_config(self, settings: dict[str, Any]) -> None:
        write_text(self.config_file, _to_json(settings), durable=False)

    @property
    def settings(self) -> dict[str, Any]:
        """`config.json`: the train and model settings, the starting weights, the photos, the versions."""
        try:
            return dict(json.loads(self.config_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{self.name}: its config.json cannot be read: {error}") from None

    @property
    def config(self) -> TrainConfig:
        """What the run was started with; settings that its version did not know have their defaults."""
        try:
            return TrainConfig(**self.settings["train"])
        except (KeyError, TypeError):
            raise RunError(f"{self.name}: its config.json holds no settings; the run cannot be repeated") from None
        except ConfigError as error:
            raise RunError(f"{self.name}: its config.json is of another version: {error}") from None

    # ---- the curves

    def append_event(self, event: dict[str, Any]) -> None:
        """One line in `metrics.jsonl`, handed to the system at once."""
        with self.metrics_file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(event) + "\n")

    def events(self) -> Iterator[dict[str, Any]]:
        """All whole lines of `metrics.jsonl`; a line that a killed process left unfinished is not one."""
        return (event for event, _ in self.events_from(0))

    def events_from(self, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
        """The events that begin at a byte of `metrics.jsonl`, each with the byte where it ends."""
        if not self.metrics_file.is_file():
            return
        with self.metrics_file.open("rb") as lines:
            lines.seek(offset)
            for line in lines:
                offset += len(line)
                if line.endswith(b"\n"):
                    yield json.loads(line), offset

    def cut_back(self, step: int) -> None:
        """Forget the events after `step`, which a resumed run is going to repeat."""
        kept = [event for event in self.events() if event["step"] <= step]
        write_text(self.metrics_file, "".join(json.dumps(event) + "\n" for event in kept))

    def write_history(self, epochs: Sequence[dict[str, Any]]) -> None:
        """`multitask_history.json`, from the events of all epochs so far."""
        extra = sorted({key for e in epochs for key in e} - {"event", "epoch", "step", *HISTORY_LISTS})
        history: dict[str, Any] = {key: [event.get(key) for event in epochs] for key in (*HISTORY_LISTS, *extra)}
        text = _to_json(history | {"epochs": len(epochs)})
        write_text(self.path / "multitask_history.json", text, durable=False)

    # ---- the folder as a whole

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of `log.txt`; only its end is read."""
        try:
            with self.log_file.open("rb") as log:
                start = max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES)
                log.seek(start)
                # Where the reading begins within a line, its rest is not one.
                tail = log.read().splitlines()[1 if start else 0 :]
        except FileNotFoundError:
            return ""
        return b"\n".join(tail[-lines:]).decode(errors="replace")

    @property
    def size_bytes(self) -> int:
        """What the folder takes; what links point to is not of it."""
        total = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                try:
                    total += os.lstat(os.path.join(folder, name)).st_size
                except FileNotFoundError:  # replaced at this moment
                    continue
        return total

    def write_archive(self, path: Path) -> None:
        """Write a zip of ARCHIVED and the newest sample picture. RunError where it cannot be written.

        All as it is: config.json and log.txt name folders of this machine.
        """
        samples = sorted((self.path / "samples").glob("epoch_*.png"))[-1:]
        files = [file for file in (*(self.path / name for name in ARCHIVED), *samples) if file.is_file()]
        try:
            write_atomically(path, lambda temporary: self._zip(files, temporary), durable=False)
        except OSError as error:
            raise RunError(f"{path}: {self.name} cannot be packed there ({error.strerror}); choose another") from None

    def _zip(self, files: Iterable[Path], target: Path) -> None:
        with zipfile.ZipFile(target, "w", strict_timestamps=False) as archive:
            for file in files:
                compression = zipfile.ZIP_STORED if file.suffix in UNCOMPRESSED else zipfile.ZIP_DEFLATED
                archive.write(file, f"{self.name}/{file.relative_to(self.path).as_posix()}", compression)

    def delete(self) -> None:
        """Remove the folder and all in it, but nothing that a link in it points to. RunError where it is trained."""
        if self.status().live:
            raise RunError(f"{self.name}: it is being trained; stop it before you delete it")
        if not _is_run(self.path):
            raise RunError(f"{self.name}: it has been deleted already")
        require_let_go(self.path)
        try:
            self.path.rename(self.path.with_name(f"{DELETED}{uuid.uuid4().hex}"))
        except OSError as error:
            raise RunError(f"{self.name}: it cannot be deleted ({error.strerror}); check its folder's rights") from None
        # Also what an earlier deletion left where it was broken off.
        for leftover in self.path.parent.glob(f"{DELETED}*"):
            _remove(leftover)


def list_runs(runs_dir: str | Path) -> list[Run]:
    """The runs under a folder, newest first."""
    parent = Path(runs_dir)
    if not parent.is_dir():
        return []
    runs = []
    for path in sorted(parent.iterdir(), reverse=True):
        # No run, or deleted at this moment; what is hidden is half deleted.
        if not path.name.startswith("."):
            with suppress(RunError):
                runs.append(Run(path))
    return runs


def differing_settings(runs: Iterable[Run]) -> dict[str, dict[str, Any]]:
    """Setting -> run's name -> value, of the settings that differ; a run whose settings cannot be read is left out."""
    configs = {}
    for run in runs:
        with suppress(RunError):
            configs[run.name] = run.config.model_dump()
    columns = {
        setting: {name: config[setting] for name, config in configs.items()}
        for setting in TrainConfig.model_fields
        if setting not in PLACES
    }
    return {setting: values for setting, values in columns.items() if len(set(values.values())) > 1}


def _is_run(path: Path) -> bool:
    try:
        return (path / "run.json").is_file()
    except OSError:  # somebody else's folder
        return False


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        # What is left, because a program has it open, goes with the next deletion.
        shutil.rmtree(path, ignore_errors=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _to_json(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"
