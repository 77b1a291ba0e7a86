"""What grows with the number of photos: memory and time of a training step should not, the rest in step at most."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from mtl.bench.measure import machine, seconds_of
from mtl.bench.photos import write_photos
from mtl.config import TrainConfig
from mtl.data.cache import open_cache
from mtl.data.check import check_folder
from mtl.data.folder import read_folder
from mtl.training.callbacks import StopRequested
from mtl.training.fit import open_job, run_job

SIDE_PX = 96
WARM_STEPS, STEPS = 50, 50


class StepProbe(Callback):
    """Anonymous memory and time of STEPS steps once WARM_STEPS are over, where the run ends."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.anonymous_mb: list[float] = []
        self._last = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        now = time.perf_counter()
        if trainer.global_step > WARM_STEPS:
            self.seconds.append(now - self._last)
            self.anonymous_mb.append(_anonymous_mb())
        self._last = now
        if len(self.seconds) == STEPS:
            raise StopRequested


def _anonymous_mb() -> float:
    """Of this process: what no file stands behind."""
    info = psutil.Process().memory_info()
    return (info.rss - getattr(info, "shared", 0)) / 1e6


def bench_scale(numbers: Sequence[int], image_size: int, batch_size: int) -> dict[str, Any]:
    """Of folders with so many made photos each."""
    return {
        "bench": "scale",
        "machine": machine(),
        "image_size": image_size,
        "batch_size": batch_size,
        "photos": {str(number): _measure(number, image_size, batch_size) for number in numbers},
    }


def _measure(photos: int, image_size: int, batch_size: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mtl-bench-") as place:
        data = write_photos(Path(place) / "data", photos, SIDE_PX)
        config = TrainConfig(
            data_dir=str(data),
            output_dir=f"{place}/runs",
            cache_dir=f"{place}/cache",
            image_size=image_size,
            batch_size=batch_size,
            init="none",
            epochs=1000,
        )
        reading = seconds_of(lambda: read_folder(config))
        folder = read_folder(config)
        building = seconds_of(lambda: check_folder(folder, cache=open_cache(config, data)))
        opening = seconds_of(lambda: check_folder(folder, cache=open_cache(config, data)))
        probe = StepProbe()
        job = open_job(config)
        run_job(replace(job, listeners=(probe,)))
    return {
        "listing_photos_per_s": photos / reading,
        "building_photos_per_s": photos / building,
        "opening_photos_per_s": photos / opening,
        "step_ms_per_photo": 1000 * median(probe.seconds) / batch_size,
        "anonymous_mb": {"first": probe.anonymous_mb[0], "last": probe.anonymous_mb[-1]},
    }
