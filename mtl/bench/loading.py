"""The loader alone: photos a second, augmentation left out on both sides, since ours runs on the device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mtl.bench import peer
from mtl.bench.measure import machine, medians, ratio, seconds_of
from mtl.config import ModelConfig, TrainConfig
from mtl.data.cache import open_cache
from mtl.data.check import check_folder
from mtl.data.dataset import PhotoDataset, make_loader
from mtl.data.folder import read_folder


def bench_loading(config: TrainConfig, repetitions: int) -> dict[str, Any]:
    """Whole epochs over the training photos, in turns: decoded each time, from the cache, and by the peer."""
    folder = read_folder(config)
    samples, model = folder.train, ModelConfig(image_size=config.image_size)
    cache = open_cache(config, Path(config.data_dir))
    building = seconds_of(lambda: check_folder(folder, cache=cache))
    cpu = torch.device("cpu")
    loaders: dict[str, Any] = {
        "decoded": make_loader(PhotoDataset(samples, model), config.batch_size, seed=0, device=cpu),
        "cached": make_loader(PhotoDataset(samples, model, cache=cache), config.batch_size, seed=0, device=cpu),
    }
    if peer.is_installed():
        loaders["peer"] = peer.make_loader(samples, config.image_size, config.batch_size, augmented=False)
    # The first epoch, in which worker processes start, is not among them.
    seconds = medians({name: _drained(loader) for name, loader in loaders.items()}, repetitions)
    rates = {name: len(samples) / taken for name, taken in seconds.items()}
    return {
        "bench": "loading",
        "machine": machine(),
        "photos": len(samples),
        "image_size": config.image_size,
        "batch_size": config.batch_size,
        "first_reading_photos_per_s": (len(folder.train) + len(folder.val)) / building,
        "photos_per_s": rates,
        "ratio": ratio(rates["cached"], rates.get("peer")),
    }


def _drained(loader: Any) -> Callable[[], object]:
    def drain() -> None:
        for _ in loader:
            pass

    return drain
