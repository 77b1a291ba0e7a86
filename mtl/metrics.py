"""Figures of merit for both tasks. Photos without the target are never passed in: who calls selects first."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import binary_erosion
from scipy.ndimage import label as label_regions
from scipy.spatial import cKDTree
from scipy.stats import rankdata
from torch import Tensor

# ISIC 2018 task 1: a photo whose Jaccard is below this counts as 0.
THRESHOLD_JACCARD = 0.65
MIN_REGION_RATIO = 0.0005  # of the picture: what is smaller is a speck and no region
BIAS_DRAWS = 200
SMALLEST = 1e-12  # probability whose logarithm is taken


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


def debiased_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """The same over bins of equally many, less most of what chance alone makes of it; at least 0.

    Each bin's share correct is off by chance, so a plain error of few photos is never 0. What that adds is estimated by
    drawing each share once more, as Kumar, Liang & Ma do (2019, arXiv:1909.10155, their l1 debiasing): of 284 photos of
    a calibrated model a plain error of 0.08 becomes 0.05.
    """
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(confidence)))
    sizes = np.array([len(part) for part in parts])
    means = np.array([confidence[part].mean() for part in parts])
    shares = np.array([correct[part].mean() for part in parts])
    plain = float(np.abs(shares - means) @ sizes / len(confidence))
    spread = np.sqrt(shares * (1 - shares) / sizes)
    drawn = shares + spread * np.random.default_rng(0).standard_normal((BIAS_DRAWS, len(parts)))
    return max(0.0, 2 * plain - float((np.abs(drawn - means) @ sizes).mean()) / len(confidence))


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """(n, C) and class ids (n,) -> mean of -ln of the label's probability."""
    return float(-np.log(probabilities[np.arange(len(labels)), labels].clip(min=SMALLEST)).mean())


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """(n, C) and class ids (n,) -> mean squared distance from the truth, summed over the classes, 0 to 2."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(np.square(probabilities - truth).sum(axis=1).mean())


def aurocs(scores: np.ndarray, labels: np.ndarray) -> list[float | None]:
    """(n, C) and class ids (n,) -> each class's area under the ROC curve against the rest; None where one has no photo.

    By ranks (Mann-Whitney), ties halved: scikit-learn's to the last digits, at a twentieth of its time.
    """
    if not len(labels):
        return [None] * scores.shape[1]
    positive = labels[:, None] == np.arange(scores.shape[1])
    positives = positive.sum(axis=0)
    negatives = len(labels) - positives
    above = (rankdata(scores, axis=0) * positive).sum(axis=0) - positives * (positives + 1) / 2
    pairs = (positives * negatives).tolist()
    return [float(area) / number if number else None for area, number in zip(above, pairs, strict=True)]


def hausdorff_95(predicted: np.ndarray, truth: np.ndarray) -> float:
    """(H, W) bool masks, each with a pixel -> the 95th percentile of the distances between their boundaries, pixels.

    The larger of the two directions' percentiles, as MONAI takes it: an outline may stray on a twentieth of its length.
    """
    ours, theirs = (np.argwhere(mask & ~binary_erosion(mask)) for mask in (predicted, truth))
    there, back = cKDTree(theirs).query(ours)[0], cKDTree(ours).query(theirs)[0]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def found_regions(of: np.ndarray, within: np.ndarray) -> tuple[int, int]:
    """(H, W) bool masks -> (regions of the first that lie by half or more in the second, regions of the first).

    Specks below MIN_REGION_RATIO of the picture are none.
    """
    labelled, number = label_regions(of, structure=np.ones((3, 3)))
    sizes = np.bincount(labelled.ravel(), minlength=number + 1)[1:]
    shared = np.bincount(labelled[within], minlength=number + 1)[1:]
    counted = sizes >= MIN_REGION_RATIO * of.size
    return int((shared >= sizes / 2)[counted].sum()), int(counted.sum())
