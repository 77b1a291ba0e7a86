"""Times as medians over repetitions, taken in turns, and the machine that they are of."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "torchvision",
    "onnxruntime",
    "pillow",
    "gradio",
    "pytorch-lightning",
    "segmentation-models-pytorch",
)


def medians(actions: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Seconds of each action, the median; in turns, so that what else the machine does meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():
        action()  # what is made at the first call belongs to none
    for _ in range(repetitions):
        for name, action in actions.items():
            seconds[name].append(seconds_of(action))
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def seconds_of(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def ratio(ours: float, peer: float | None) -> float | None:
    """Ours as a multiple of the peer's."""
    return None if peer is None else ours / peer
