"""How far chance alone would move a figure: bootstrap intervals over photos (Efron & Tibshirani 1993)."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mtl.config import ModelConfig
from mtl.evaluation.figures import figures
from mtl.evaluation.measure import Results

REPLICATES = 1000
LEVEL = 0.95
COUNTS = {"photos", "images", "trained"}  # which say how much was measured, not how well
# Photos drawn with repeats look worse calibrated than they are, as any few do; the basic interval takes that off.
BIASED = {"ece", "ece_debiased"}
Figures = dict[str, Any]
Pulse = Callable[[], None]


def intervals(
    results: Results, config: ModelConfig, replicates: int = REPLICATES, seed: int = 0, pulse: Pulse = lambda: None
) -> Figures:
    """For each number of `figures`, in its place, the interval {"low", "high"} at LEVEL; None where it has none.

    pulse: called before each replicate; may raise to break off.
    """
    drawn = [_flat(figures(part, config)) for part in _drawn(results, replicates, seed, pulse)]
    found: Figures = {}
    for path, value in _flat(figures(results, config)).items():
        values = np.array([each[path] for each in drawn if each[path] is not None])
        _put(found, path, None if value is None or not len(values) else _interval(path, value, values))
    return found


def _drawn(results: Results, replicates: int, seed: int, pulse: Pulse) -> Iterator[Results]:
    random, photos = np.random.default_rng(seed), len(results.names)
    for _ in range(replicates if photos else 0):
        pulse()
        yield results.part(random.integers(0, photos, photos))


def _interval(path: tuple[str, ...], value: float, drawn: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    if path[-1] in BIASED:
        low, high = max(0.0, 2 * value - high), max(0.0, 2 * value - low)
    return {"low": low, "high": high}


def _flat(found: Figures, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], float | None]:
    flat: dict[tuple[str, ...], float | None] = {}
    for key, value in found.items():
        if isinstance(value, dict):
            flat |= _flat(value, (*path, key))
        elif key not in COUNTS:
            flat[*path, key] = value
    return flat


def _put(found: Figures, path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        found = found.setdefault(key, {})
    found[path[-1]] = value
