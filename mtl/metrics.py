"""Figures of merit for both tasks. Photos without the target are never passed in: who calls selects first."""

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


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Mean distance of confidence (n,) and share correct (n,), over equally wide bins (Guo et al. 2017, 1706.04599)."""
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))
