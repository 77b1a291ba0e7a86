"""A run's folder: all that is known of a run, on disk, so that any process shows the same.

runs/<time>-<name>/
  config.json   metrics.jsonl   multitask_history.json   run.json   log.txt
  multitask_best.pth   last.ckpt   samples/
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil

from mtl.config import TrainConfig
from mtl.errors import ConfigError, RunError
from mtl.files import write_text

State = Literal[
    "preparing", "training", "validating", "saving", "stopping", "finished", "stopped", "failed", "interrupted"
]
LIVE_STATES = {"preparing", "training", "validating", "saving", "stopping"}

HISTORY_LISTS = (
    "train_loss",
    "train_classification_loss",
    "train_segmentation_loss",
    "val_loss",
    "val_classification_loss",
    "val_segmentation_loss",
)


@dataclass(frozen=True)
class RunStatus:
    """`run.json`: what a run does now, or how it ended."""

    state: State = "preparing"
    message: str = ""
    pid: int = 0
    pid_started: float = 0.0  # seconds since 1970; a process number alone may be another process by now
    started: str = ""
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
    device: str = ""  # where it trains: "cpu", "cuda:0"
    memory_bytes: int = 0  # of the process on the CPU, else of the device

    @property
    def live(self) -> bool:
        return self.state in LIVE_STATES


class Run:
    """A run's folder and what is written there; `create` makes one, `Run(path)` opens one."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.status_file.is_file():
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
            _write_json(path / "run.json", asdict(RunStatus(started=_now(), epochs=config.epochs)))
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
    def stop_file(self) -> Path:
        """While it exists, whoever trains this run stops at the next batch."""
        return self.path / "stop"

    # ---- the status

    def status(self) -> RunStatus:
        """As it stands on disk; a live state whose process is gone reads as interrupted."""
        try:
            status = RunStatus(**json.loads(self.status_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return RunStatus(state="failed", message="its run.json is damaged; its weights may still be good")
        if status.live and not _is_running(status.pid, status.pid_started):
            return replace(
                status, state="interrupted", message=f"its process ended before the run did; {self.what_now}"
            )
        # Whoever asks for the stop must not write run.json, which belongs to the process that trains.
        return replace(status, state="stopping") if status.live and self.stop_file.exists() else status

    def update(self, **changes: Any) -> None:
        """Change some fields of `run.json`."""
        status = json.loads(self.status_file.read_text(encoding="utf-8"))
        _write_json(self.status_file, status | changes | {"updated": _now()})

    def claim(self, epochs: int) -> None:
        """Note this process as the one that trains the run, to that many epochs."""
        self.stop_file.unlink(missing_ok=True)
        self.update(
            epochs=epochs, pid=os.getpid(), pid_started=psutil.Process().create_time(), state="preparing", message=""
        )

    @property
    def what_now(self) -> str:
        """What can be done with a run that ended early."""
        return "it can be resumed" if self.last_file.is_file() else "it had saved nothing yet; start it anew"

    def request_stop(self) -> None:
        self.stop_file.touch()

    # ---- the settings

    def write_config(self, settings: dict[str, Any]) -> None:
        _write_json(self.config_file, settings)

    @property
    def settings(self) -> dict[str, Any]:
        """`config.json`: the train and model settings, the starting weights, the photos, the versions."""
        try:
            return dict(json.loads(self.config_file.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.name}: its config.json cannot be read: {error}") from None

    @property
    def config(self) -> TrainConfig:
        """What the run was started with."""
        try:
            return TrainConfig(**self.settings["train"])
        except (KeyError, TypeError, ConfigError) as error:
            raise RunError(f"{self.name}: its config.json cannot be read: {error}") from None

    # ---- the curves

    def append_event(self, event: dict[str, Any]) -> None:
        """One line in `metrics.jsonl`, handed to the system at once."""
        with self.metrics_file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(event) + "\n")

    def events(self) -> Iterator[dict[str, Any]]:
        """All whole lines of `metrics.jsonl`; a line that a killed process left unfinished is not one."""
        if not self.metrics_file.is_file():
            return
        with self.metrics_file.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)

    def cut_back(self, step: int) -> None:
        """Forget the events after `step`, which a resumed run is going to repeat."""
        kept = [event for event in self.events() if event["step"] <= step]
        write_text(self.metrics_file, "".join(json.dumps(event) + "\n" for event in kept))

    def write_history(self) -> None:
        """`multitask_history.json`, from the epochs in `metrics.jsonl`."""
        epochs = [event for event in self.events() if event["event"] == "epoch"]
        extra = sorted({key for e in epochs for key in e} - {"event", "epoch", "step", *HISTORY_LISTS})
        history: dict[str, Any] = {key: [event.get(key) for event in epochs] for key in (*HISTORY_LISTS, *extra)}
        _write_json(self.path / "multitask_history.json", history | {"epochs": len(epochs)})


def list_runs(runs_dir: str | Path) -> list[Run]:
    """The runs under a folder, newest first."""
    parent = Path(runs_dir)
    if not parent.is_dir():
        return []
    return [Run(path) for path in sorted(parent.iterdir(), reverse=True) if (path / "run.json").is_file()]


def _is_running(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        # Start times are exact to a hundredth of a second. A killed process whose parent has not asked is a zombie.
        return abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write_json(path: Path, content: Any) -> None:
    # Twice a second during training: not worth waiting for the disk.
    write_text(path, json.dumps(content, indent=2) + "\n", durable=False)
