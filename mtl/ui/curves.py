"""The curves of runs: metrics.jsonl as frames for plots, each line parsed once however many pages show it."""

import json
import math
import os
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from mtl.training.run import Run

CURVE_POINTS = 300  # of a training curve: more than a screen shows
# Title: the keys of a step's and of an epoch's event.
CURVES = {
    "Total loss": ("loss", "val_loss"),
    "Class loss": ("classification_loss", "val_classification_loss"),
    "Mask loss": ("segmentation_loss", "val_segmentation_loss"),
}
STEP_KEYS = ("epochs_done", *(step_key for step_key, _ in CURVES.values()))
LOSS_LABELS = ("training", "validation")
SCORES = {"val_dice": "Dice", "val_jaccard": "Jaccard", "val_balanced_accuracy": "balanced accuracy"}

Version = tuple[str, int, int]  # the run's name, its file, the bytes read of it: equal where the frames are equal


@dataclass
class _Read:
    """What was read of one metrics.jsonl."""

    file_id: int = -1
    offset: int = 0  # bytes of whole lines
    steps: dict[str, "array[float]"] = field(default_factory=lambda: {key: array("d") for key in STEP_KEYS})
    epochs: list[dict[str, Any]] = field(default_factory=list)
    frames: list[pd.DataFrame] = field(default_factory=lambda: curves({key: array("d") for key in STEP_KEYS}, []))

    def read_on(self, lines: BinaryIO) -> None:
        """Add the whole lines after `offset`; the rest of a line that is being written comes next time."""
        lines.seek(self.offset)
        tail = lines.read()
        whole = tail[: tail.rfind(b"\n") + 1]
        if not whole:
            return
        for event in map(json.loads, whole.splitlines()):
            if event["event"] == "step":
                for key, values in self.steps.items():
                    values.append(event[key])
            elif event["event"] == "epoch":
                self.epochs.append(event)
        self.offset += len(whole)
        self.frames = curves(self.steps, self.epochs)


class CurveReader:
    """Keeps what it read of the last few runs, and reads only what was added since; safe to call from any thread."""

    KEPT = 8

    def __init__(self) -> None:
        self._kept: OrderedDict[Path, _Read] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, run: Run) -> tuple[Version, list[pd.DataFrame]]:
        """The frames of CURVES and of the scores as they stand now, and what tells them from other ones."""
        with self._lock:
            try:
                with run.metrics_file.open("rb") as lines:
                    read = self._known(run.metrics_file, os.fstat(lines.fileno()))
                    read.read_on(lines)
            except FileNotFoundError:
                read = _Read()
        return (run.name, read.file_id, read.offset), read.frames

    def _known(self, path: Path, stat: os.stat_result) -> _Read:
        """What is known of a file; nothing where a resumed run has replaced it by a shorter one."""
        known = self._kept.pop(path, None)
        if known is None or known.file_id != stat.st_ino or known.offset > stat.st_size:
            known = _Read(stat.st_ino)
        self._kept[path] = known
        while len(self._kept) > self.KEPT:
            self._kept.popitem(last=False)
        return known


def empty_curves() -> list[pd.DataFrame]:
    """The frames of a run that has no events yet."""
    return _Read().frames


def curves(steps: "dict[str, array[float]]", epochs: list[dict[str, Any]]) -> list[pd.DataFrame]:
    """One frame (epoch, value, curve) for each of CURVES, then the scores; `steps` has a column for each STEP_KEYS."""
    frames = [_loss_curve(steps, epochs, *keys) for keys in CURVES.values()]
    scores = [(e["epoch"], e[key], label) for e in epochs for key, label in SCORES.items() if key in e]
    return [*frames, _frame(scores, SCORES.values())]


def _loss_curve(
    steps: "dict[str, array[float]]", epochs: list[dict[str, Any]], step_key: str, val_key: str
) -> pd.DataFrame:
    """Training by steps, averaged to CURVE_POINTS; validation by epochs."""
    train = [
        (x, y, LOSS_LABELS[0]) for x, y in zip(_thinned(steps["epochs_done"]), _thinned(steps[step_key]), strict=True)
    ]
    return _frame(train + [(event["epoch"], event[val_key], LOSS_LABELS[1]) for event in epochs], LOSS_LABELS)


def _thinned(values: "array[float]") -> list[float]:
    """At most CURVE_POINTS means of neighbours."""
    if not values:
        return []
    return [float(part.mean()) for part in np.array_split(np.array(values), min(CURVE_POINTS, len(values)))]


def _frame(points: list[tuple[float, float, str]], labels: Iterable[str]) -> pd.DataFrame:
    # The plot takes its colours and types from the first frame it sees and keeps them: so every frame, the empty one
    # too, names each curve once, without a point.
    named = [(math.nan, math.nan, label) for label in labels]
    return pd.DataFrame(named + points, columns=["epoch", "value", "curve"]).astype({"epoch": float, "value": float})
