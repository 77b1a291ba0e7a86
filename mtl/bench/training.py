"""A whole run of ours against the peer's usual loop, the same photos, batch size and image size."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from mtl.bench import peer
from mtl.bench.measure import machine, ratio
from mtl.config import TrainConfig
from mtl.data.folder import DataFolder, read_folder
from mtl.training.fit import open_job, run_job

EPOCHS = 3  # of a run; the first, in which much is made for the first time, is not measured


class EpochTimer(Callback):
    """Seconds of each epoch's training, without its validation."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = self._end = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.is_last_batch and trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self._end = time.perf_counter()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.seconds.append(self._end - self._start)


def bench_training(config: TrainConfig, repetitions: int) -> dict[str, Any]:
    """Photos a second over whole epochs, from the photos' files to the weights; runs and peer in turns."""
    folder = read_folder(config)
    theirs = _peer_epochs(folder, config) if peer.is_installed() else None
    ours_s: list[float] = []
    peer_s: list[float] = []
    for _ in range(repetitions):
        ours_s += _run_epochs(config)
        if theirs is not None:
            peer_s += [next(theirs) for _ in range(EPOCHS - 1)]
    ours, other = (len(folder.train) / median(seconds) if seconds else None for seconds in (ours_s, peer_s))
    assert ours is not None
    return {
        "bench": "training",
        "machine": machine(),
        "photos": len(folder.train),
        "image_size": config.image_size,
        "batch_size": config.batch_size,
        "device": config.device,
        "precision": config.precision,
        "epochs_measured": len(ours_s),
        "photos_per_s": {"ours": ours} | ({} if other is None else {"peer": other}),
        "ratio": ratio(ours, other),
    }


def _run_epochs(config: TrainConfig) -> list[float]:
    """Seconds of the epochs of a run, which is thrown away."""
    timer = EpochTimer()
    with tempfile.TemporaryDirectory(prefix="mtl-bench-") as runs:
        job = open_job(config.replace(output_dir=runs, epochs=EPOCHS, init="none", early_stopping_patience=0))
        run_job(replace(job, listeners=(timer,)))
    return timer.seconds[1:]


def _peer_epochs(folder: DataFolder, config: TrainConfig) -> Iterator[float]:
    """Seconds of each epoch from the second on."""
    epochs = peer.train_epochs(folder.train, len(folder.classes.names), config.image_size, config.batch_size)
    next(epochs)
    while True:
        start = time.perf_counter()
        next(epochs)
        yield time.perf_counter() - start
