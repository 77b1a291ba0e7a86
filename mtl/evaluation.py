"""How good a checkpoint is on a data folder: both tasks, at the mask's own size, counting only what is there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from mtl.analysis.engine import Engine
from mtl.analysis.predict import Analysis, analyse
from mtl.config import ModelConfig
from mtl.data.folder import Sample
from mtl.errors import DataError
from mtl.metrics import (
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    dice_jaccard,
    expected_calibration_error,
    label_candidates,
    overlap_counts,
    predicted_ids,
    threshold_jaccard,
)
from mtl.photo import read_mask

BATCH_SIZE = 16
Progress = Callable[[int, int], None]  # (done, of how many)


@dataclass
class _Results:
    """What was measured, photo by photo."""

    names: list[str] = field(default_factory=list)
    overlaps: list[torch.Tensor] = field(default_factory=list)  # (3,) counts, of photos with a lesion
    false_positive_areas: list[float] = field(default_factory=list)  # share of the photo, of photos without one
    probabilities: list[np.ndarray] = field(default_factory=list)  # (C,) of each photo
    targets: list[tuple[int, ...]] = field(default_factory=list)


@dataclass(frozen=True)
class _Labels:
    """Each label, what was predicted for it, and how surely each class that it competes with."""

    ids: np.ndarray  # (n,)
    predicted: np.ndarray  # (n,)
    probabilities: np.ndarray  # (n, C), 0 for what the label does not compete with


def evaluate(
    samples: Sequence[Sample], engine: Engine, config: ModelConfig, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure over photos; the result's layout is fixed: segmentation, classification, lesion_free.

    A figure without photos is None, and so is that of a task which the checkpoint was not trained in. Dice and Jaccard
    are means over photos with a lesion, at the mask's own size; a photo with labels in several groups counts once for
    each, read within the group.
    """
    results = _Results()
    for start in range(0, len(samples), BATCH_SIZE):
        part = samples[start : start + BATCH_SIZE]
        analyses = analyse([sample.photo for sample in part], engine, config)
        for sample, analysis in zip(part, analyses, strict=True):
            _measure_mask(results, sample, analysis)
            results.probabilities.append(analysis.probabilities)
            results.targets.append(sample.target)
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


def _measure_mask(results: _Results, sample: Sample, analysis: Analysis) -> None:
    if sample.mask is None or not analysis.mask_trained:
        return
    truth = read_mask(sample.mask).astype(bool)
    predicted = analysis.confidence_at(truth.shape[0], truth.shape[1]) >= analysis.threshold
    if truth.any():
        results.overlaps.append(overlap_counts(torch.from_numpy(predicted[None]), torch.from_numpy(truth[None]))[0])
        results.names.append(sample.name)
    else:
        results.false_positive_areas.append(float(predicted.mean()))


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
    labels, photos = _read_labels(results, config, within_groups=False)
    within, _ = _read_labels(results, config, within_groups=True)
    return {
        "images": photos,
        **_class_figures(labels),
        "per_class": dict(_per_class(labels, config)),
        "groups": {group: _group_figures(within, ids) for group, ids in config.classes.group_ids.items()},
    }


def _read_labels(results: _Results, config: ModelConfig, *, within_groups: bool) -> tuple[_Labels, int]:
    """The labels, and on how many photos they stand."""
    group_ids = list(config.classes.group_ids.values())
    scores = np.array(results.probabilities).reshape(-1, len(config.trained))
    targets = np.array(results.targets, dtype=int).reshape(-1, len(group_ids))
    photos, _, candidates = label_candidates(targets, group_ids, config.trained, within_groups=within_groups)
    ids, predicted = predicted_ids(scores, targets, group_ids, config.trained, within_groups=within_groups)
    odds = np.where(candidates, scores[photos], 0.0)
    labels = _Labels(ids, predicted, odds / odds.sum(axis=1, keepdims=True).clip(min=1e-12))
    return labels, len(np.unique(photos))


def _group_figures(labels: _Labels, ids: range) -> dict[str, Any]:
    inside = (labels.ids >= ids.start) & (labels.ids < ids.stop)
    part = _Labels(labels.ids[inside], labels.predicted[inside], labels.probabilities[inside])
    return {"images": int(inside.sum()), **_class_figures(part)}


def _class_figures(labels: _Labels) -> dict[str, float | None]:
    """Classes without photos are left out of the means."""
    classes = labels.probabilities.shape[1]
    confusion = confusion_matrix(labels.ids, labels.predicted, classes)
    aurocs = [score for class_id in range(classes) if (score := _auroc(labels, class_id)) is not None]
    sureness, correct = labels.probabilities.max(axis=1), labels.predicted == labels.ids
    return {
        "accuracy": accuracy(confusion),
        "balanced_accuracy": balanced_accuracy(confusion),
        "macro_auroc": _mean(aurocs),
        "ece": expected_calibration_error(sureness, correct) if len(correct) else None,
    }


def _auroc(labels: _Labels, class_id: int) -> float | None:
    """One class against the rest; None where one side has no photo."""
    positive = labels.ids == class_id
    if not positive.any() or positive.all():
        return None
    return float(roc_auc_score(positive, labels.probabilities[:, class_id]))


def _per_class(labels: _Labels, config: ModelConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    for class_id, name in enumerate(config.classes.names):
        photos = labels.ids == class_id
        yield (
            name,
            {
                "images": int(photos.sum()),
                "trained": config.trained[class_id],
                "recall": _mean(labels.predicted[photos] == class_id),
                "precision": _mean(labels.ids[labels.predicted == class_id] == class_id),
                "auroc": _auroc(labels, class_id),
            },
        )


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None
