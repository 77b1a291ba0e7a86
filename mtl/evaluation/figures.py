"""The figures of an evaluation, of all photos or of some. Where no photo counts for a figure, it is None."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl.config import NO_CLASS, ModelConfig
from mtl.evaluation.measure import Answers, Masks, Results
from mtl.metrics import (
    accuracy,
    aurocs,
    balanced_accuracy,
    brier_score,
    confusion_matrix,
    debiased_calibration_error,
    expected_calibration_error,
    label_candidates,
    negative_log_likelihood,
    predicted_ids,
    threshold_jaccard,
)

FALSE_AREA = 0.01  # a lesion-free photo of which more is marked counts as wrong
BINS = 10  # of the reliability diagram


@dataclass(frozen=True)
class Labels:
    """Each label, what was predicted for it, and how surely each class that it competes with."""

    ids: np.ndarray  # (n,)
    predicted: np.ndarray  # (n,)
    probabilities: np.ndarray  # (n, C), 0 for what the label does not compete with
    photos: np.ndarray  # (n,) row number

    @property
    def sureness(self) -> np.ndarray:
        return self.probabilities.max(axis=1, initial=0.0)

    @property
    def correct(self) -> np.ndarray:
        return self.predicted == self.ids

    def take(self, rows: np.ndarray) -> "Labels":
        return Labels(self.ids[rows], self.predicted[rows], self.probabilities[rows], self.photos[rows])

    def of_group(self, ids: range) -> "Labels":
        """Those of a group's classes."""
        return self.take((self.ids >= ids.start) & (self.ids < ids.stop))


def figures(results: Results, config: ModelConfig) -> dict[str, Any]:
    """`photos`, `segmentation`, `classification`, `lesion_free`: numbers, and dictionaries of numbers."""
    return {
        "photos": len(results.names),
        "segmentation": segmentation_figures(results.masks.take(results.masks.has_lesion)),
        "classification": classification_figures(results.answers, config),
        "lesion_free": lesion_free_figures(results.masks.take(~results.masks.has_lesion)),
    }


# ---- masks


def jaccards(masks: Masks) -> np.ndarray:
    """(M,) of photos with a lesion."""
    return np.asarray(masks.overlap / (masks.truth + masks.predicted - masks.overlap))


def segmentation_figures(masks: Masks) -> dict[str, Any]:
    """Of photos with a lesion: means over photos, at the mask's own size, but for the last two, over lesions."""
    jaccard = jaccards(masks)
    error = (masks.predicted - masks.truth) / masks.truth
    return {
        "images": len(jaccard),
        "dice": _mean(2 * masks.overlap / (masks.truth + masks.predicted)),
        "jaccard": _mean(jaccard),
        "threshold_jaccard": _mean(threshold_jaccard(jaccard)),
        "hd95": _mean(masks.boundary),
        "area_error": _mean(np.abs(error)),
        "area_bias": _mean(error),
        "lesions_found": _ratio(masks.lesions),
        "regions_right": _ratio(masks.regions),
    }


def lesion_free_figures(masks: Masks) -> dict[str, Any]:
    areas = masks.predicted / masks.pixels
    return {
        "images": len(areas),
        "false_positive_area": _mean(areas),
        "over_1_percent": _mean(areas > FALSE_AREA),
    }


# ---- classes


def read_labels(answers: Answers, config: ModelConfig, *, within_groups: bool = False) -> Labels:
    """See `mtl.metrics.label_candidates` for which classes a label competes with."""
    group_ids = list(config.classes.group_ids.values())
    scores, targets = answers.probabilities, answers.targets
    photos, _, candidates = label_candidates(targets, group_ids, config.trained, within_groups=within_groups)
    ids, predicted = predicted_ids(scores, targets, group_ids, config.trained, within_groups=within_groups)
    odds = np.where(candidates, scores[photos], 0.0)
    return Labels(ids, predicted, odds / odds.sum(axis=1, keepdims=True).clip(min=1e-12), photos)


def classification_figures(answers: Answers, config: ModelConfig) -> dict[str, Any]:
    """Of all labels together; each class; each group, its labels read within it; and the photos that show no class."""
    labels, within = read_labels(answers, config), read_labels(answers, config, within_groups=True)
    shows_none = (answers.targets == NO_CLASS).all(axis=1)
    return {
        "images": len(np.unique(labels.photos)),
        **class_figures(labels),
        "per_class": dict(_per_class(labels, config)),
        "groups": {
            group: _group_figures(within, answers, number, ids)
            for number, (group, ids) in enumerate(config.classes.group_ids.items())
        },
        "none": {
            "images": int(shows_none.sum()),
            "named": _mean((answers.named[shows_none] >= 0).any(axis=1)),
        },
    }


def class_figures(labels: Labels) -> dict[str, float | None]:
    """Classes without photos are left out of the means."""
    confusion = confusion_matrix(labels.ids, labels.predicted, labels.probabilities.shape[1])
    areas, some = aurocs(labels.probabilities, labels.ids), len(labels.ids) > 0
    return {
        "accuracy": accuracy(confusion),
        "balanced_accuracy": balanced_accuracy(confusion),
        "macro_auroc": _mean([score for score in areas if score is not None]),
        "ece": expected_calibration_error(labels.sureness, labels.correct) if some else None,
        "ece_debiased": debiased_calibration_error(labels.sureness, labels.correct) if some else None,
        "brier": brier_score(labels.probabilities, labels.ids) if some else None,
        "nll": negative_log_likelihood(labels.probabilities, labels.ids) if some else None,
    }


def _group_figures(within: Labels, answers: Answers, group: int, ids: range) -> dict[str, Any]:
    """named: share of the photos with a label of the group whose class is named; named_right: how many of these so."""
    labels = within.of_group(ids)
    named = answers.named[labels.photos, group]
    return {
        "images": len(labels.ids),
        **class_figures(labels),
        "named": _mean(named >= 0),
        "named_right": _mean((named == labels.ids)[named >= 0]),
    }


def _per_class(labels: Labels, config: ModelConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    areas = aurocs(labels.probabilities, labels.ids)
    for class_id, (name, area) in enumerate(zip(config.classes.names, areas, strict=True)):
        photos = labels.ids == class_id
        yield (
            name,
            {
                "images": int(photos.sum()),
                "trained": config.trained[class_id],
                "recall": _mean(labels.predicted[photos] == class_id),
                "precision": _mean(labels.ids[labels.predicted == class_id] == class_id),
                "auroc": area,
            },
        )


def reliability(labels: Labels) -> list[dict[str, Any]]:
    """For each tenth of probability that has photos: how many, how sure they were, and the share that was right."""
    bin_of = np.minimum((labels.sureness * BINS).astype(int), BINS - 1)
    return [
        {
            "from": place / BINS,
            "to": (place + 1) / BINS,
            "images": int((bin_of == place).sum()),
            "confidence": _mean(labels.sureness[bin_of == place]),
            "accuracy": _mean(labels.correct[bin_of == place]),
        }
        for place in np.unique(bin_of).tolist()
    ]


def confusion(labels: Labels, config: ModelConfig) -> dict[str, Any]:
    """Counts of labels, truth by row, over the classes that have photos or were predicted."""
    counts = confusion_matrix(labels.ids, labels.predicted, len(config.trained))
    seen = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    return {"classes": [config.classes.names[i] for i in seen], "counts": counts[np.ix_(seen, seen)].tolist()}


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _ratio(counts: np.ndarray) -> float | None:
    """(n, 2) parts and wholes -> their share over all."""
    part, whole = counts.sum(axis=0).tolist()
    return part / whole if whole else None
