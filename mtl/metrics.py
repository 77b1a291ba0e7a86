"""Figures of merit for both tasks. Photos without the target are never passed in: who calls selects first."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# ISIC 2018 task 1: a photo whose Jaccard is below this counts as 0.
THRESHOLD_JACCARD = 0.65


def overlap_counts(predicted: Tensor, truth: Tensor) -> Tensor:
    """(N, ...) bool masks -> (N, 3) pixel counts: intersection, predicted, truth."""
    predicted, truth = predicted.flatten(1), truth.flatten(1)
    return torch.stack([(predicted & truth).sum(1), predicted.sum(1), truth.sum(1)], dim=1)


def dice_jaccard(counts: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 3) counts with a lesion in each truth -> Dice (N,) and Jaccard (N,)."""
    intersection, predicted, truth = counts.double().unbind(1)
    return 2 * intersection / (predicted + truth), intersection / (predicted + truth - intersection)


def threshold_jaccard(jaccard: np.ndarray) -> np.ndarray:
    """ISIC 2018's score: the Jaccard, or 0 where it is below 0.65."""
    return np.where(jaccard < THRESHOLD_JACCARD, 0.0, jaccard)


def balanced_accuracy(confusion: np.ndarray) -> float | None:
    """Mean recall over the classes that have photos, from a (truth, predicted) count matrix; None without photos."""
    photos = confusion.sum(axis=1)
    present = photos > 0
    if not present.any():
        return None
    return float((np.diag(confusion)[present] / photos[present]).mean())


def accuracy(confusion: np.ndarray) -> float | None:
    """Share of photos on the diagonal of a (truth, predicted) count matrix; None without photos."""
    return float(np.trace(confusion) / confusion.sum()) if confusion.sum() else None


def label_candidates(
    targets: np.ndarray,
    group_ids: Sequence[range],
    trained: Sequence[bool] | np.ndarray,
    *,
    within_groups: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each class label is compared with: (photo (n,), label (n,), candidates (n, C) bool), one row a label.

    The one rule of every class figure. targets (N, groups): a class id for each group, or below 0 where there is
    none; trained (C,). A photo's only label competes with all trained classes, several with those of their own group,
    as in the loss; `within_groups`: every label does. A label without any candidate has no row: nothing was predicted.
    """
    photos, groups = np.nonzero(targets >= 0)
    labels = targets[photos, groups]
    members = np.array([[class_id in ids for class_id in range(len(trained))] for ids in group_ids])
    alone = (targets >= 0).sum(axis=1)[photos] == 1
    everywhere = alone[:, None] & (not within_groups)
    candidates = np.asarray(trained, dtype=bool) & (members[groups] | everywhere)
    answered = candidates.any(axis=1)
    return photos[answered], labels[answered], candidates[answered]


def predicted_ids(
    scores: np.ndarray,
    targets: np.ndarray,
    group_ids: Sequence[range],
    trained: Sequence[bool] | np.ndarray,
    *,
    within_groups: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """(label (n,), predicted class id (n,)), one entry a label, from logits or probabilities (N, C).

    See `label_candidates` for which classes a label competes with.
    """
    photos, labels, candidates = label_candidates(targets, group_ids, trained, within_groups=within_groups)
    return labels, np.where(candidates, scores[photos], -np.inf).argmax(axis=1)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(n,) class ids and (n,) predicted ones -> (classes, classes) counts, truth by row."""
    confusion = np.zeros((classes, classes), dtype=int)
    np.add.at(confusion, (labels, predicted), 1)
    return confusion


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Mean distance of confidence (n,) and share correct (n,), over equally wide bins (Guo et al. 2017, 1706.04599)."""
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))
