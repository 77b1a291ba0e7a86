"""Faster engines: made in a thread while the plain one answers, and taken once they agree with it and are faster."""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from mtl.analysis.engine import ZERO_GPU_SECONDS, EagerEngine, Engine, Outputs, ZeroGpuEngine
from mtl.model import MultiTaskNetwork
from mtl.place import place_of

log = logging.getLogger(__name__)

# What a faster engine costs to make, about a second of both cores, these photos do not pay back.
PATIENCE_PHOTOS = 8
TOLERANCE = 1e-3  # of any logit, or of its size; float32 sums in another order differ by a hundredth of that
ROUNDS = 3
OPSET = 17


class OnnxEngine:
    """The network in ONNX Runtime on the CPU, float32, convolutions and BatchNorm folded into one."""

    def __init__(self, plain: EagerEngine):
        import onnxruntime  # type: ignore[import-untyped] # only here, and it takes a while

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(_to_onnx(plain), options, providers=["CPUExecutionProvider"])

    def __call__(self, squares: np.ndarray) -> Outputs:
        return Outputs(*self._session.run(None, {"pixels": squares}))


def _to_onnx(plain: EagerEngine) -> bytes:
    """By PyTorch's exporter of TorchScript: a second, where the newer one takes half a minute."""
    size = plain.answers.network.config.image_size
    with TemporaryDirectory(prefix="mtl-") as folder:
        file = Path(folder, "model.onnx")
        torch.onnx.export(
            plain.answers,
            (torch.zeros(2, size, size, 3, dtype=torch.uint8),),
            file,
            input_names=["pixels"],
            dynamic_axes={"pixels": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
        return file.read_bytes()


# By the kind of device: what can be faster there.
FASTER: dict[str, Callable[[EagerEngine], Engine]] = {"cpu": OnnxEngine}


class SwitchingEngine:
    """The plain engine from the first photo on, a faster one as soon as it is ready and better.

    A faster one is made of a copy of the weights: where these are changed in place, the plain one answers again until
    there is a new copy.
    """

    def __init__(self, plain: EagerEngine, make_faster: Callable[[EagerEngine], Engine]):
        self._plain, self._make_faster = plain, make_faster
        self._weights = [*plain.answers.parameters(), *plain.answers.buffers()]
        self._fast: Engine | None = None
        self._tried: tuple[int, ...] | None = None  # versions of the weights that it was, or is being, made of
        self._photos = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, squares: np.ndarray) -> Outputs:
        fast = self._ready()
        if fast is not None:
            return fast(squares)
        self._photos += len(squares)
        if self._photos > PATIENCE_PHOTOS:
            self.prepare()
        return self._plain(squares)

    @property
    def name(self) -> str:
        """Of the engine that answers just now."""
        return type(self._ready() or self._plain).__name__

    def _ready(self) -> Engine | None:
        return self._fast if self._tried == self._versions() else None

    def prepare(self) -> threading.Thread | None:
        """Begin to make the faster one, unless that was tried with these weights; the thread that does or did."""
        with self._lock:
            versions = self._versions()
            if self._tried != versions:
                self._fast, self._tried = None, versions
                self._thread = threading.Thread(target=self._make, args=(versions,), name="engine")
                self._thread.start()
            return self._thread

    def _versions(self) -> tuple[int, ...]:
        """Of each tensor how often it was written to."""
        return tuple(tensor._version for tensor in self._weights)

    def _make(self, versions: tuple[int, ...]) -> None:
        try:
            fast = self._make_faster(self._plain)
            taken = is_better(fast, self._plain)
        # The edge of a thread: the plain engine goes on answering, whatever a package that is missing or new does.
        except Exception:
            log.info("no faster engine", exc_info=True)
            return
        with self._lock:
            if taken and self._tried == versions:
                self._fast = fast


def is_better(engine: Engine, plain: EagerEngine) -> bool:
    """Does it say the same of noise, one square and several, and one square's answer sooner?"""
    size = plain.answers.network.config.image_size
    squares = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    for some in (squares, squares[:1]):
        pairs = zip(engine(some), plain(some), strict=True)
        if not all(np.allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE) for ours, theirs in pairs):
            log.warning("%s answers otherwise than the plain engine, so it is not taken", type(engine).__name__)
            return False
    # In turns: what else the machine does meets both.
    seconds = [(_seconds(engine, squares[:1]), _seconds(plain, squares[:1])) for _ in range(ROUNDS)]
    ours, theirs = np.min(seconds, axis=0)
    log.info("%s: %.1f ms a photo, plain %.1f ms", type(engine).__name__, 1000 * ours, 1000 * theirs)
    return bool(ours < theirs)


def _seconds(engine: Engine, squares: np.ndarray) -> float:
    start = time.perf_counter()
    engine(squares)
    return time.perf_counter() - start


def make_engine(network: MultiTaskNetwork, device: torch.device) -> Engine:
    """The engine for where this runs, as `mtl.place` finds it."""
    if place_of(os.environ).zero_gpu:
        import spaces  # type: ignore[import-not-found] # only there

        return ZeroGpuEngine(network, device, spaces.GPU(duration=ZERO_GPU_SECONDS))
    eager, faster = EagerEngine(network, device), FASTER.get(device.type)
    return SwitchingEngine(eager, faster) if faster else eager
