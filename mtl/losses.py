"""The multi-task loss `L = w_class * CE + w_seg * BCE-with-logits`, counting only the targets that are there.

Each term is a mean over the samples that have its target, so sums and counts are returned apart: a caller that
splits a batch over devices or steps adds them up first. A missing target is cut out before any arithmetic (not
multiplied by 0, which would let NaN and rounding through), so it changes neither loss nor gradient by one bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from mtl.config import NO_CLASS, UNKNOWN

TASKS = ("classification", "segmentation")
SegmentationLoss = Literal["bce", "dice", "bce+dice"]


@dataclass(frozen=True)
class LossSums:
    """Sums over samples and how many samples they run over, as scalar tensors."""

    classification: Tensor
    classified: Tensor
    segmentation: Tensor
    segmented: Tensor

    def __add__(self, other: Self) -> "LossSums":
        return LossSums(
            self.classification + other.classification,
            self.classified + other.classified,
            self.segmentation + other.segmentation,
            self.segmented + other.segmented,
        )

    def detached(self) -> "LossSums":
        """Without the graph that they were computed by."""
        return LossSums(self.classification.detach(), self.classified, self.segmentation.detach(), self.segmented)

    def by_task(self) -> dict[str, Tensor]:
        """The two sums, by the names of TASKS."""
        return dict(zip(TASKS, (self.classification, self.segmentation), strict=True))

    def counts(self) -> dict[str, Tensor]:
        """How many samples each sum runs over, by the names of TASKS."""
        return dict(zip(TASKS, (self.classified, self.segmented), strict=True))

    def means(self) -> tuple[Tensor, Tensor]:
        """(classification loss, segmentation loss); 0 where no sample has the target."""
        return self.classification / self.classified.clamp(min=1), self.segmentation / self.segmented.clamp(min=1)


def multitask_sums(
    class_logits: Tensor,
    seg_logits: Tensor,
    class_targets: Tensor,
    mask_targets: Tensor,
    has_mask: Tensor,
    group_ids: list[range],
    trained: Tensor,
    *,
    mask_weight: Tensor | None = None,
    class_weights: Tensor | None = None,
    segmentation: SegmentationLoss = "bce",
    label_smoothing: float = 0.0,
) -> LossSums:
    """Both terms summed over the samples that have the target.

    class_logits (N, C), seg_logits (N, 1, h, w), class_targets (N, groups) int64, a class id or
    UNKNOWN for each group, or NO_CLASS throughout,
    mask_targets (N, 1, h, w) in 0..1, has_mask (N,) bool, group_ids the class ids of each group,
    trained (C,) bool: the classes with training photos; the others take no part in any softmax.
    mask_weight (N,) and class_weights (C,): what each counts in the sums; the numbers of samples stay what they are.
    label_smoothing: see `smoothed_cross_entropy`.
    """
    classification, classified = classification_sum(
        class_logits, class_targets, group_ids, trained, class_weights, label_smoothing
    )
    per_photo = segmentation_losses(seg_logits[has_mask].float(), mask_targets[has_mask], segmentation)
    if mask_weight is not None:
        per_photo = per_photo * mask_weight[has_mask]
    return LossSums(classification, classified, per_photo.sum(), has_mask.sum())


def target_counts(class_targets: Tensor, has_mask: Tensor, trained: Tensor) -> tuple[Tensor, Tensor]:
    """(classified, segmented): how many samples have a target that counts, known before any forward pass."""
    is_none, known = _known(class_targets, trained)
    return (is_none | known.any(dim=1)).sum(), has_mask.sum()


def segmentation_losses(logits: Tensor, targets: Tensor, kind: SegmentationLoss) -> Tensor:
    """(N, 1, h, w) logits, targets in 0..1 -> one loss a photo (N,).

    dice: 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1), so a lesion-free photo has 0 where nothing is marked
    (Milletari et al. 2016, arXiv:1606.04797, without squares).
    """
    losses = logits.new_zeros(len(logits))
    if "bce" in kind:
        losses = losses + F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=(1, 2, 3))
    if "dice" in kind:
        p = torch.sigmoid(logits)
        overlap, sizes = (p * targets).sum(dim=(1, 2, 3)), (p + targets).sum(dim=(1, 2, 3))
        losses = losses + 1 - (2 * overlap + 1) / (sizes + 1)
    return losses


def _known(class_targets: Tensor, trained: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) bool: labelled "none"; (N, groups) bool: labelled with a trained class."""
    is_none = (class_targets == NO_CLASS).all(dim=1) & trained.any()
    return is_none, (class_targets >= 0) & trained[class_targets.clamp(min=0)]


def classification_sum(
    class_logits: Tensor,
    class_targets: Tensor,
    group_ids: list[range],
    trained: Tensor,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy summed over the labelled photos, and their number.

    One label: over all trained classes. Labels in several groups: the mean of one cross-entropy a group, over that
    group's logits. "none": against the uniform distribution. A label of an untrained class counts as unknown.
    """
    logits = class_logits.float().masked_fill(~trained, float("-inf"))
    is_none, known = _known(class_targets, trained)
    labels_per_photo = known.sum(dim=1)
    weights = torch.ones_like(trained, dtype=logits.dtype) if class_weights is None else class_weights

    total = -F.log_softmax(logits[is_none], dim=1)[:, trained].mean(dim=1).sum()
    one = labels_per_photo == 1
    only_label = torch.where(known, class_targets, UNKNOWN).amax(dim=1)[one]
    losses = smoothed_cross_entropy(logits[one], only_label, trained, label_smoothing)
    total = total + (weights[only_label] * losses).sum()
    for group, ids in enumerate(group_ids):
        several = known[:, group] & (labels_per_photo > 1)
        labels = class_targets[several, group]
        own = slice(ids.start, ids.stop)
        losses = smoothed_cross_entropy(logits[several][:, own], labels - ids.start, trained[own], label_smoothing)
        total = total + (weights[labels] * losses / labels_per_photo[several]).sum()
    return total, is_none.sum() + (labels_per_photo > 0).sum()


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, trained: Tensor, smoothing: float) -> Tensor:
    """Logits (n, C), -inf where not trained (C,), and ids (n,) -> (n,) cross-entropies.

    smoothing: this share of the target is spread evenly over the trained classes (Szegedy et al. 2016, 1512.00567).
    """
    losses = F.cross_entropy(logits, labels, reduction="none")
    if not smoothing:
        return losses
    return (1 - smoothing) * losses - smoothing * F.log_softmax(logits, dim=1)[:, trained].mean(dim=1)


def balancing_weights(counts: Sequence[int], power: float) -> list[float]:
    """One weight a class, the inverse of its count to this power; over the labelled photos their mean is 1.

    power 1: every class counts the same in all; 0.5: half-way; a class without photos has weight 1.
    """
    raw = [count**-power if count else 0.0 for count in counts]
    total = sum(count * weight for count, weight in zip(counts, raw, strict=True))
    scale = sum(counts) / total if total else 1.0
    return [weight * scale if count else 1.0 for count, weight in zip(counts, raw, strict=True)]
