"""One photo to one answer, and the network alone."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mtl.analysis.fast_engine import SwitchingEngine
from mtl.api import MultiTaskModel
from mtl.bench import peer
from mtl.bench.measure import machine, medians, ratio
from mtl.checkpoint import Checkpoint
from mtl.config import ModelConfig
from mtl.data.made.photo import LESION, make_photo
from mtl.model import MultiTaskNetwork
from mtl.photo import resize_photo

PHOTOS = {"0.3 MP": (480, 640), "12 MP": (3000, 4000)}  # height, width
BATCH_SIZES = (1, 16)


def bench_inference(checkpoint: str | None, device: str, sizes: Sequence[int], repetitions: int) -> dict[str, Any]:
    """Seconds from a photo's file to its answer, the mask at the photo's size included, and of the network alone."""
    model = MultiTaskModel.load(checkpoint, device)
    engine = _prepared(model)
    with tempfile.TemporaryDirectory(prefix="mtl-bench-") as folder:
        photos = {name: _write_photo(Path(folder) / f"{name}.jpg", shape) for name, shape in PHOTOS.items()}
        answers = {name: _photo_figures(model, path, repetitions) for name, path in photos.items()}
    return {
        "bench": "inference",
        "machine": machine(),
        "device": str(model.device),
        "engine": engine,
        "repetitions": repetitions,
        "photo_to_answer": answers,
        "network": {str(count): _network_figures(model, count, repetitions) for count in BATCH_SIZES},
        "image_sizes": {str(size): _size_figures(size, device, repetitions) for size in sizes},
    }


def _prepared(model: MultiTaskModel) -> str:
    """The name of the engine that answers when all is ready."""
    if isinstance(model.engine, SwitchingEngine):
        if thread := model.engine.prepare():
            thread.join()
        return model.engine.name
    return type(model.engine).__name__


def _write_photo(path: Path, shape: tuple[int, int]) -> Path:
    """A made photo; large ones are a small one enlarged, and as large as a camera's files."""
    small = make_photo(LESION, 1, (640, 480)).image
    Image.fromarray(resize_photo(small, shape)).save(path, quality=92)
    return path


def _photo_figures(model: MultiTaskModel, path: Path, repetitions: int) -> dict[str, Any]:
    config = model.config
    actions: dict[str, Callable[[], object]] = {"ours": lambda: model.predict(path)}
    if _has_peer(model):
        analyser = peer.PeerAnalyser(config.num_classes_classification, config.image_size)
        actions["peer"] = lambda: analyser(path)
    return {"megabytes": path.stat().st_size / 1e6, **_figures(actions, repetitions, 1)}


def _has_peer(model: MultiTaskModel) -> bool:
    return model.device.type == "cpu" and peer.is_installed()


def _network_figures(model: MultiTaskModel, count: int, repetitions: int) -> dict[str, Any]:
    size = model.config.image_size
    squares = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    actions: dict[str, Callable[[], object]] = {"ours": lambda: model.engine(squares)}
    if _has_peer(model):
        network, x = peer.make_network(model.config.num_classes_classification).eval(), torch.rand(count, 3, size, size)
        actions["peer"] = torch.inference_mode()(lambda: network(x))
    return _figures(actions, repetitions, count)


def _figures(actions: dict[str, Callable[[], object]], repetitions: int, count: int) -> dict[str, Any]:
    """Milliseconds a photo."""
    seconds = medians(actions, repetitions)
    return {
        **{f"{name}_ms": 1000 * taken / count for name, taken in seconds.items()},
        "ratio": ratio(seconds["ours"], seconds.get("peer")),
    }


def _size_figures(size: int, device: str, repetitions: int) -> dict[str, Any]:
    """Of a network of this input size with new weights."""
    config = ModelConfig(image_size=size)
    model = MultiTaskModel(Checkpoint("new", MultiTaskNetwork(config).state_dict(), config), device)
    _prepared(model)
    squares = np.zeros((1, size, size, 3), np.uint8)
    return {"network_ms": 1000 * medians({"ours": lambda: model.engine(squares)}, repetitions)["ours"]}
