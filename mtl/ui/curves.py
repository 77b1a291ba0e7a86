"""The curves of runs: metrics.jsonl as frames for plots, each line parsed once however many pages show it."""

import itertools
import json
import math
import threading
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from mtl.training.run import Run

CURVE_POINTS = 300  # of a curve by steps, in what is zoomed in on: more than a screen shows

SCORES = {
    "val_dice": "Dice",
    "val_jaccard": "Jaccard",
    "val_balanced_accuracy": "balanced accuracy",
    "val_accuracy": "accuracy",
}


@dataclass(frozen=True)
class Plot:
    """What one plot shows: for each key of a step's or of an epoch's event the name of its curve."""

    title: str
    steps: Mapping[str, str] = field(default_factory=dict)
    epochs: Mapping[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        return [*self.steps.values(), *self.epochs.values()]


def _loss_plot(title: str, key: str) -> Plot:
    return Plot(title, {key: "training"}, {f"val_{key}": "validation"})


PLOTS = (
    _loss_plot("Total loss", "loss"),
    _loss_plot("Class loss", "classification_loss"),
    _loss_plot("Mask loss", "segmentation_loss"),
    Plot("Scores on validation photos", epochs=SCORES),
    Plot("Learning rate", {"lr": "learning rate"}),
    Plot(
        "Gradient norm",
        {
            "gradient_norm_encoder": "encoder",
            "gradient_norm_classification_head": "class head",
            "gradient_norm_segmentation_head": "mask head",
        },
    ),
)
# What runs are compared by; the curve of a plot here is that of a run.
METRICS = {
    plot.title: plot
    for plot in (
        Plot("validation loss", epochs={"val_loss": ""}),
        Plot("validation class loss", epochs={"val_classification_loss": ""}),
        Plot("validation mask loss", epochs={"val_segmentation_loss": ""}),
        *(Plot(label, epochs={key: ""}) for key, label in SCORES.items()),
        Plot("training loss", {"loss": ""}),
        Plot("training class loss", {"classification_loss": ""}),
        Plot("training mask loss", {"segmentation_loss": ""}),
        Plot("learning rate", {"lr": ""}),
    )
}
STEP_KEYS = ("epochs_done", *dict.fromkeys(key for plot in PLOTS for key in plot.steps))

Version = tuple[str, int, int]  # the run's name, the reading, the bytes read: equal where the frames are equal
Window = tuple[float, float]  # the epochs that are zoomed in on
Curve = tuple[np.ndarray, np.ndarray]  # epochs and values, each (points,)
NO_CURVE: Curve = (np.empty(0), np.empty(0))
# A plot keeps the curves that it was built with, so compared runs take places that are always there.
SLOTS = ("1", "2", "3", "4", "5", "6", "7", "8")


@dataclass
class _Read:
    """What was read of one metrics.jsonl."""

    reading: int = 0
    offset: int = 0  # bytes of whole lines
    last_line: bytes = b""
    steps: dict[str, "array[float]"] = field(default_factory=lambda: {key: array("d") for key in STEP_KEYS})
    epochs: list[dict[str, Any]] = field(default_factory=list)

    def still_holds(self, lines: BinaryIO) -> bool:
        """Whether the file goes on from what was read: a resumed run puts a shorter one in its place."""
        lines.seek(self.offset - len(self.last_line))
        return lines.read(len(self.last_line)) == self.last_line

    def read_on(self, lines: BinaryIO) -> None:
        """Add the whole lines after `offset`; the rest of a line that is being written comes next time."""
        lines.seek(self.offset)
        for line in lines:
            if not line.endswith(b"\n"):
                break
            self._add(line)
            self.last_line = line
            self.offset += len(line)

    def _add(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:  # what a full disk has left of a line
            return
        if event["event"] == "step":
            for key, values in self.steps.items():
                values.append(event.get(key, math.nan))
        elif event["event"] == "epoch":
            self.epochs.append(event)

    def step_curve(self, key: str, window: Window | None) -> Curve:
        """At most CURVE_POINTS means of neighbouring steps within the window."""
        epochs, values = np.array(self.steps["epochs_done"]), np.array(self.steps[key])
        return _thinned(*_within(epochs, values, window))

    def epoch_curve(self, key: str, window: Window | None) -> Curve:
        points = [(event["epoch"], event[key]) for event in self.epochs if key in event]
        epochs, values = np.array(points, float).reshape(-1, 2).T
        return _within(epochs, values, window)

    def curves(self, plot: Plot, window: Window | None) -> dict[str, Curve]:
        by_steps = {label: self.step_curve(key, window) for key, label in plot.steps.items()}
        return by_steps | {label: self.epoch_curve(key, window) for key, label in plot.epochs.items()}


class CurveReader:
    """Keeps what it read of the last few runs, and reads only what was added since; safe to call from any thread."""

    KEPT = 8

    def __init__(self) -> None:
        self._kept: OrderedDict[Path, _Read] = OrderedDict()
        self._readings = itertools.count(1)
        self._lock = threading.Lock()

    def version(self, run: Run) -> Version:
        """What tells the curves as they stand now from other ones."""
        with self._lock:
            read = self._read(run)
            return run.name, read.reading, read.offset

    def frames(self, run: Run, window: Window | None = None) -> list[pd.DataFrame]:
        """One frame (epoch, value, curve) for each of PLOTS."""
        with self._lock:
            read = self._read(run)
            return [make_frame(read.curves(plot, window)) for plot in PLOTS]

    def compare(self, runs: Sequence[Run], metric: str) -> pd.DataFrame:
        """One frame (epoch, value, curve, run) of one of METRICS; the curve is the run's place among SLOTS."""
        with self._lock:
            curves = [next(iter(self._read(run).curves(METRICS[metric], None).values())) for run in runs]
        names = dict(zip(SLOTS, (run.name for run in runs), strict=False))
        frame = make_frame(dict.fromkeys(SLOTS, NO_CURVE) | dict(zip(SLOTS, curves, strict=False)))
        return frame.assign(run=frame["curve"].map(names).fillna(""))

    def _read(self, run: Run) -> _Read:
        path = run.metrics_file
        known = self._kept.pop(path, None)
        try:
            with path.open("rb") as lines:
                read = known if known and known.still_holds(lines) else _Read(next(self._readings))
                read.read_on(lines)
        except FileNotFoundError:
            return _Read()
        self._kept[path] = read
        while len(self._kept) > self.KEPT:
            self._kept.popitem(last=False)
        return read


def empty_frames() -> list[pd.DataFrame]:
    """The frames of a run that has no events yet."""
    return [make_frame(_Read().curves(plot, None)) for plot in PLOTS]


def make_frame(curves: Mapping[str, Curve]) -> pd.DataFrame:
    """Columns epoch, value and curve."""
    # The plot takes its colours and types from the first frame it sees and keeps them: so every frame, the empty one
    # too, names each curve once, without a point.
    labels = list(curves)
    nothing = np.full(len(labels), math.nan)
    epochs = np.concatenate([nothing, *(epochs for epochs, _ in curves.values())])
    values = np.concatenate([nothing, *(values for _, values in curves.values())])
    names = labels + [label for label, (epochs, _) in curves.items() for _ in range(len(epochs))]
    return pd.DataFrame({"epoch": epochs, "value": values, "curve": names})


def _within(epochs: np.ndarray, values: np.ndarray, window: Window | None) -> Curve:
    """The finite points in the window and one on each side, so that the line runs to the edges."""
    is_number = np.isfinite(values)
    epochs, values = epochs[is_number], values[is_number]
    if window is None:
        return epochs, values
    first, end = np.searchsorted(epochs, window[0]), np.searchsorted(epochs, window[1], side="right")
    shown = slice(max(int(first) - 1, 0), int(end) + 1)
    return epochs[shown], values[shown]


def _thinned(epochs: np.ndarray, values: np.ndarray) -> Curve:
    if len(values) <= CURVE_POINTS:
        return epochs, values
    starts = np.linspace(0, len(values), CURVE_POINTS, endpoint=False).astype(int)
    counts = np.diff(np.append(starts, len(values)))
    return np.add.reduceat(epochs, starts) / counts, np.add.reduceat(values, starts) / counts
