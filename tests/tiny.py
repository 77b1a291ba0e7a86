"""Tiny trainings for tests: a few 64 px photos, random starting weights, one thread: equal means bit for bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from builders import draw_photo, save

from mtl.config import ModelConfig, TrainConfig
from mtl.model import MultiTaskNetwork

ONE_THREAD = "one_thread"  # the fixture that every module which trains or predicts uses


def tiny_config(data: Path, **settings: Any) -> TrainConfig:
    """Settings of a run of seconds on `data`, in runs/ beside it."""
    small = {"epochs": 2, "batch_size": 4, "image_size": 64, "init": "none", "threads": 1}
    place = {"data_dir": str(data), "output_dir": str(data.parent / "runs"), "device": "cpu", "precision": "float32"}
    return TrainConfig(**{**small, **place, **settings})


def random_network(config: ModelConfig | None = None, seed: int = 0) -> MultiTaskNetwork:
    """The same network for the same seed, with BatchNorm statistics, and answers that differ by photo."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MultiTaskNetwork(config or ModelConfig(image_size=64)).train()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            network(torch.randn(8, 3, 64, 64))
            network.classification_head[-1].weight *= 30
    return network.eval()


def write_two_classes(path: Path, train: int = 8, val: int = 4) -> Path:
    """A data folder of dry and straight photos, in two far colours, with lesion masks; eight classes have none."""
    labels = {}
    for side, count in (("train", train), ("val", val)):
        for number in range(count):
            class_id = (1, 5)[number % 2]
            photo, mask = draw_photo(class_id, 64, np.random.default_rng((number, side == "val")))
            save(photo, path / "images" / side / f"{side}_{number}.png")
            save(mask * np.uint8(255), path / "masks" / side / f"{side}_{number}.png")
            labels[f"{side}_{number}.png"] = class_id
    (path / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    return path
