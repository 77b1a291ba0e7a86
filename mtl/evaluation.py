"""How good a checkpoint is on a data folder: both tasks, at the mask's own size, counting only what is there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from mtl.analysis.engine import Engine
from mtl.analysis.predict import Analysis, analyse
from mtl.config import ModelConfig
from mtl.data.folder import Sample
from mtl.errors import DataError
from mtl.frame import map_to_photo
from mtl.metrics import (
    accuracy,
    balanced_accuracy,
    dice_jaccard,
    expected_calibration_error,
    overlap_counts,
    threshold_jaccard,
)
from mtl.photo import read_mask, read_photo

BATCH_SIZE = 16
Progress = Callable[[int, int], None]  # (done, of how many)


@dataclass
class _Results:
    """What was measured, photo by photo."""

    names: list[str] = field(default_factory=list)
    overlaps: list[torch.Tensor] = field(default_factory=list)  # (3,) counts, of photos with a lesion
    false_positive_areas: list[float] = field(default_factory=list)  # share of the photo, of photos without one
    labelled: list[tuple[np.ndarray, int]] = field(default_factory=list)  # ((C,) probabilities, class id)
    labelled_photos: int = 0


def evaluate(
    samples: Sequence[Sample], engine: Engine, config: ModelConfig, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure over photos; the result's layout is fixed: segmentation, classification, lesion_free.

    A figure without photos is None. Dice and Jaccard are means over photos with a lesion, at the mask's own size;
    a photo with labels in several groups counts once for each, read within the group.
    """
    results = _Results()
    for start in range(0, len(samples), BATCH_SIZE):
        part = samples[start : start + BATCH_SIZE]
        analyses = analyse([read_photo(sample.photo) for sample in part], engine, config)
        for sample, analysis in zip(part, analyses, strict=True):
            _measure_mask(results, sample, analysis, config)
            _measure_class(results, sample, analysis, config)
        if progress:
            progress(min(start + BATCH_SIZE, len(samples)), len(samples))
    return {
        "photos": len(samples),
        "segmentation": _segmentation(results),
        "classification": _classification(results, config),
        "lesion_free": {
            "images": len(results.false_positive_areas),
            "false_positive_area": _mean(results.false_positive_areas),
        },
    }


def require_same_classes(config: ModelConfig, names: Sequence[str]) -> None:
    """Raise DataError where a data folder's classes are not the checkpoint's."""
    if tuple(names) != config.classes.names:
        raise DataError(
            f"the data has the classes {', '.join(names)}; the checkpoint knows {', '.join(config.classes.names)}; "
            "evaluate it on data of its own classes (--classes, --labels)"
        )


def _measure_mask(results: _Results, sample: Sample, analysis: Analysis, config: ModelConfig) -> None:
    if sample.mask is None:
        return
    truth = read_mask(sample.mask).astype(bool)
    logits = map_to_photo(analysis.mask_logits, truth.shape[0], truth.shape[1], config.center_crop, outside=-30.0)
    predicted = expit(logits) >= analysis.threshold
    if truth.any():
        results.overlaps.append(overlap_counts(torch.from_numpy(predicted[None]), torch.from_numpy(truth[None]))[0])
        results.names.append(sample.name)
    else:
        results.false_positive_areas.append(float(predicted.mean()))


def _measure_class(results: _Results, sample: Sample, analysis: Analysis, config: ModelConfig) -> None:
    labels = [(group, class_id) for group, class_id in enumerate(sample.target) if class_id >= 0]
    results.labelled_photos += bool(labels)
    for group, class_id in labels:
        probabilities = analysis.probabilities
        if len(labels) > 1:
            ids = list(config.classes.group_ids.values())[group]
            probabilities = np.zeros(len(probabilities))
            probabilities[ids.start : ids.stop] = analysis.groups[group].probabilities
        results.labelled.append((probabilities, class_id))


def _segmentation(results: _Results) -> dict[str, Any]:
    if not results.overlaps:
        return {"images": 0, "dice": None, "jaccard": None, "threshold_jaccard": None}
    dice, jaccard = dice_jaccard(torch.stack(results.overlaps))
    return {
        "images": len(results.overlaps),
        "dice": dice.mean().item(),
        "jaccard": jaccard.mean().item(),
        "threshold_jaccard": float(threshold_jaccard(jaccard.numpy()).mean()),
    }


def _classification(results: _Results, config: ModelConfig) -> dict[str, Any]:
    classes = len(config.classes.names)
    probabilities = np.array([p for p, _ in results.labelled]).reshape(-1, classes)
    labels = np.array([class_id for _, class_id in results.labelled], dtype=int)
    figures: dict[str, Any] = {"images": results.labelled_photos, **_class_figures(probabilities, labels)}
    figures["per_class"] = dict(_per_class(probabilities, labels, config))
    figures["groups"] = {}
    for group, ids in config.classes.group_ids.items():
        inside = (labels >= ids.start) & (labels < ids.stop)
        part = probabilities[inside][:, ids.start : ids.stop]
        part = part / part.sum(axis=1, keepdims=True).clip(min=1e-12)
        figures["groups"][group] = {"images": int(inside.sum()), **_class_figures(part, labels[inside] - ids.start)}
    return figures


def _class_figures(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """Of (n, k) probabilities and (n,) labels 0..k-1; classes without photos are left out of the means."""
    predicted = probabilities.argmax(axis=1) if len(labels) else labels
    confusion = np.zeros((probabilities.shape[1],) * 2, dtype=int)
    np.add.at(confusion, (labels, predicted), 1)
    aurocs = [score for k in range(probabilities.shape[1]) if (score := _auroc(probabilities, labels, k)) is not None]
    return {
        "accuracy": accuracy(confusion),
        "balanced_accuracy": balanced_accuracy(confusion),
        "macro_auroc": _mean(aurocs),
        "ece": expected_calibration_error(probabilities.max(axis=1), predicted == labels) if len(labels) else None,
    }


def _auroc(probabilities: np.ndarray, labels: np.ndarray, class_id: int) -> float | None:
    """One class against the rest; None where one side has no photo."""
    positive = labels == class_id
    if not positive.any() or positive.all():
        return None
    return float(roc_auc_score(positive, probabilities[:, class_id]))


def _per_class(
    probabilities: np.ndarray, labels: np.ndarray, config: ModelConfig
) -> Iterator[tuple[str, dict[str, Any]]]:
    predicted = probabilities.argmax(axis=1) if len(labels) else labels
    for class_id, name in enumerate(config.classes.names):
        photos = labels == class_id
        yield (
            name,
            {
                "images": int(photos.sum()),
                "trained": config.trained[class_id],
                "recall": _mean(predicted[photos] == class_id),
                "precision": _mean(labels[predicted == class_id] == class_id),
                "auroc": _auroc(probabilities, labels, class_id),
            },
        )


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None
