"""Probabilities that mean what they say: one temperature for the classes, one threshold for the mask.

Fitted on validation photos. `cross_fitted` tells how well that works: each photo at a temperature of the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from mtl.analysis.engine import Engine
from mtl.analysis.predict import NAME_CONFIDENCE
from mtl.config import ModelConfig
from mtl.data.folder import Sample
from mtl.evaluation.figures import Labels, class_figures, read_labels
from mtl.evaluation.measure import THRESHOLDS, Masks, Results, measure
from mtl.metrics import SMALLEST, negative_log_likelihood

FOLDS = 5
TEMPERATURES = (0.1, 10.0)  # of these a fit is looked for between
MIN_LABELS = 50  # from fewer no temperature can be told, nor whether a group's classes are worth naming
MIN_LESIONS = 20
MIN_PRECISION = 0.6  # of the classes named by default; below it, a group's classes are not named
TOLERANCE = 0.002  # a threshold whose mean Jaccard is so much better than that of 0.5 is worth another


@dataclass(frozen=True)
class Calibration:
    """What validation photos say about how to read the network's answers."""

    temperature: float
    mask_threshold: float
    unnamed_groups: tuple[str, ...]

    def applied(self, config: ModelConfig) -> ModelConfig:
        return config.replace(
            temperature=self.temperature, mask_threshold=self.mask_threshold, unnamed_groups=self.unnamed_groups
        )


def calibrated(
    photos: Sequence[Sample], engine: Engine, config: ModelConfig, progress: Callable[[int, int], None]
) -> ModelConfig:
    """The config of the engine's network, fitted on these photos."""
    return calibrate(measure(photos, engine, config, progress), config).applied(config)


def calibrate(results: Results, config: ModelConfig) -> Calibration:
    """From the results of validation photos; what too few photos tell of stays as it is."""
    labels = read_labels(results.answers, config)
    factor = fit_temperature(labels) if len(labels.ids) >= MIN_LABELS else 1.0
    masks = results.masks.take(results.masks.has_lesion)
    return Calibration(
        # `results` were read at the config's temperature, of which this is a multiple.
        config.temperature * factor,
        choose_threshold(masks) if len(masks.photos) >= MIN_LESIONS else config.mask_threshold,
        _unnamed_groups(results, config, factor),
    )


def fit_temperature(labels: Labels) -> float:
    """By which the logits are to be divided for the least negative log-likelihood (Guo et al. 2017, arXiv:1706.04599).

    1 leaves the probabilities as they are.
    """

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(at_temperature(labels, float(np.exp(log_temperature))).probabilities, labels.ids)

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))


def at_temperature(labels: Labels, temperature: float) -> Labels:
    """The same labels with their logits divided once more; which class is the likeliest stays."""
    # A class that does not compete has the probability 0 and keeps it.
    odds = np.where(labels.probabilities > 0, labels.probabilities.clip(min=SMALLEST) ** (1 / temperature), 0.0)
    return replace(labels, probabilities=odds / odds.sum(axis=1, keepdims=True))


def cross_fitted(labels: Labels, seed: int = 0) -> Labels:
    """Each label's probabilities at a temperature that was fitted without its photo."""
    probabilities = labels.probabilities.copy()
    for rows in _folds(labels.photos, seed):
        fitted = fit_temperature(labels.take(~rows))
        probabilities[rows] = at_temperature(labels.take(rows), fitted).probabilities
    return replace(labels, probabilities=probabilities)


def _folds(photos: np.ndarray, seed: int) -> list[np.ndarray]:
    """(n,) photo numbers -> FOLDS masks (n,) that share them out; a photo's labels stay together."""
    different = np.random.default_rng(seed).permutation(np.unique(photos))
    return [np.isin(photos, part) for part in np.array_split(different, FOLDS) if len(part)]


def choose_threshold(masks: Masks) -> float:
    """The mask threshold with the highest mean Jaccard over photos with a lesion; 0.5 where little is gained by it."""
    means = masks.jaccard_at_thresholds().mean(axis=0)
    best = int(means.argmax())
    half = len(THRESHOLDS) // 2
    return float(THRESHOLDS[best if means[best] >= means[half] + TOLERANCE else half])


def _unnamed_groups(results: Results, config: ModelConfig, factor: float) -> tuple[str, ...]:
    """The groups whose class, named at the default confidence and the new temperature, is right too seldom."""
    within = at_temperature(read_labels(results.answers, config, within_groups=True), factor)
    unnamed = []
    for group, ids in config.classes.group_ids.items():
        labels = within.of_group(ids)
        named = labels.sureness >= NAME_CONFIDENCE
        if len(labels.ids) < MIN_LABELS or not named.any():
            is_unnamed = group in config.unnamed_groups
        else:
            is_unnamed = bool(labels.correct[named].mean() < MIN_PRECISION)
        unnamed += [group] * is_unnamed
    return tuple(unnamed)


def calibration_figures(results: Results, config: ModelConfig) -> dict[str, Any]:
    """At the temperature in use, at none (1), and cross-fitted on these photos; empty where too few have a label."""
    labels = read_labels(results.answers, config)
    if len(labels.ids) < MIN_LABELS:
        return {}
    return {
        "temperature": config.temperature,
        "uncalibrated": _calibration_of(at_temperature(labels, 1 / config.temperature)),
        "cross_fitted": _calibration_of(cross_fitted(labels)),
    }


def _calibration_of(labels: Labels) -> dict[str, float | None]:
    wanted = ("ece", "ece_debiased", "brier", "nll")
    return {key: value for key, value in class_figures(labels).items() if key in wanted}
