"""Every engine says what the plain one says; a faster one takes over unasked, and follows the weights."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import ONE_THREAD, random_network

from mtl.analysis.engine import EagerEngine, Engine, Outputs
from mtl.analysis.fast_engine import FASTER, PATIENCE_PHOTOS, SwitchingEngine, is_better
from mtl.analysis.predict import to_square
from mtl.api import DEFAULT_CHECKPOINT
from mtl.checkpoint import read_checkpoint
from mtl.config import ModelConfig

pytestmark = pytest.mark.usefixtures(ONE_THREAD)

SIZE = 64
EXAMPLES = Path(__file__).parents[1] / "assets" / "examples"


def plain_engine(seed: int = 0) -> EagerEngine:
    return EagerEngine(random_network(ModelConfig(image_size=SIZE), seed), torch.device("cpu"))


def noise(count: int, side: int = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def assert_same(ours: Outputs, theirs: Outputs) -> None:
    for part, other in zip(ours, theirs, strict=True):
        assert part.dtype == np.float32
        np.testing.assert_allclose(part, other, rtol=1e-4, atol=1e-4 + 1e-5 * np.abs(other).max())


@pytest.mark.parametrize("make_faster", FASTER.values(), ids=FASTER)
def test_a_faster_engine_says_what_the_plain_one_says(make_faster: Callable[[EagerEngine], Engine]) -> None:
    """Of the shipped model: the logits of random weights are large, and so are their roundings."""
    shipped = read_checkpoint(DEFAULT_CHECKPOINT)
    plain = EagerEngine(shipped.network(), torch.device("cpu"))
    faster = make_faster(plain)
    squares = [to_square(path, shipped.model_config).pixels for path in sorted(EXAMPLES.glob("*.jpg"))]
    for some in (squares, squares[:1], [*squares[:2], noise(1, side=224)[0]]):
        assert_same(faster(np.stack(some)), plain(np.stack(some)))


def test_what_answers_otherwise_is_not_taken() -> None:
    assert not is_better(plain_engine(seed=1), plain_engine())


class Gated:
    """A faster engine that is ready when the test says so."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.made = 0

    def __call__(self, plain: EagerEngine) -> Engine:
        assert self.go_on.wait(30)
        self.made += 1
        weights = [part.detach().clone() for part in plain.answers.state_dict().values()]
        copy = plain_engine()
        copy.answers.load_state_dict(dict(zip(plain.answers.state_dict(), weights, strict=True)))
        return lambda squares: Outputs(*(part.copy() for part in copy(squares)))


def test_the_plain_one_answers_until_the_faster_one_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtl.analysis.fast_engine.is_better", lambda *_: True)
    plain, make = plain_engine(), Gated()
    engine = SwitchingEngine(plain, make)
    wanted = plain(noise(1))
    for _ in range(PATIENCE_PHOTOS + 3):
        assert_same(engine(noise(1)), wanted)
    assert engine.name == "EagerEngine"
    make.go_on.set()
    thread = engine.prepare()
    assert thread is not None
    thread.join()
    assert engine.name != "EagerEngine"
    assert_same(engine(noise(1)), wanted)
    assert make.made == 1

    # In place, as an optimiser does.
    with torch.no_grad():
        plain.answers.network.classification_head[-1].bias.add_(1)
    changed = engine(noise(1))
    assert_same(Outputs(wanted.class_logits + 1, *wanted[1:]), changed)
    thread = engine.prepare()
    assert thread is not None
    thread.join()
    assert make.made == 2
    assert_same(engine(noise(1)), changed)


def test_a_faster_one_that_cannot_be_made_costs_nothing() -> None:
    def fails(plain: EagerEngine) -> Engine:
        raise ImportError("no module named onnxruntime")

    engine = SwitchingEngine(plain_engine(), fails)
    thread = engine.prepare()
    assert thread is not None
    thread.join()
    assert engine.prepare() is thread  # it is not tried again
    assert engine.name == "EagerEngine"
    assert engine(noise(2)).class_logits.shape == (2, 10)
