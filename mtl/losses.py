"""The multi-task loss `L = w_class * CE + w_seg * BCE-with-logits`, counting only the targets that are there.

Each term is a mean over the samples that have its target, so sums and counts are returned apart: a caller that
splits a batch over devices or steps adds them up first. A missing target is cut out before any arithmetic (not
multiplied by 0, which would let NaN and rounding through), so it changes neither loss nor gradient by one bit.
"""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from mtl.config import NO_CLASS, UNKNOWN


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
) -> LossSums:
    """Both losses of a batch.

    class_logits (N, C), seg_logits (N, 1, h, w), class_targets (N, groups) int64, a class id or
    UNKNOWN for each group, or NO_CLASS throughout,
    mask_targets (N, 1, h, w) in 0..1, has_mask (N,) bool, group_ids the class ids of each group,
    trained (C,) bool: the classes with training photos; the others take no part in any softmax.
    """
    classification, classified = classification_sum(class_logits, class_targets, group_ids, trained)
    per_photo = F.binary_cross_entropy_with_logits(
        seg_logits[has_mask].float(), mask_targets[has_mask], reduction="none"
    ).mean(dim=(1, 2, 3))
    return LossSums(classification, classified, per_photo.sum(), has_mask.sum())


def classification_sum(
    class_logits: Tensor, class_targets: Tensor, group_ids: list[range], trained: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy summed over the labelled photos, and their number.

    One label: over all trained classes. Labels in several groups: the mean of one cross-entropy a group, over that
    group's logits. "none": against the uniform distribution. A label of an untrained class counts as unknown.
    """
    logits = class_logits.float().masked_fill(~trained, float("-inf"))
    is_none = (class_targets == NO_CLASS).all(dim=1) & trained.any()
    known = (class_targets >= 0) & trained[class_targets.clamp(min=0)]
    labels_per_photo = known.sum(dim=1)

    total = -F.log_softmax(logits[is_none], dim=1)[:, trained].mean(dim=1).sum()
    one = labels_per_photo == 1
    only_label = torch.where(known, class_targets, UNKNOWN).amax(dim=1)
    total = total + F.cross_entropy(logits[one], only_label[one], reduction="sum")
    for group, ids in enumerate(group_ids):
        several = known[:, group] & (labels_per_photo > 1)
        losses = F.cross_entropy(
            logits[several][:, ids.start : ids.stop], class_targets[several, group] - ids.start, reduction="none"
        )
        total = total + (losses / labels_per_photo[several]).sum()
    return total, is_none.sum() + (labels_per_photo > 0).sum()
