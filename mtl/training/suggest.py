"""Settings that suit a data folder and a device better than the defaults do, each with its reason; none is imposed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtl.config import TrainConfig
from mtl.data.folder import DataFolder

if TYPE_CHECKING:
    import torch

FEW_PHOTOS = 1000
FEW_VALIDATION_PHOTOS = 50
UNEVEN = 3  # times as many photos of the largest class as of the smallest
CPU_HOURS = 4.0
# Photos a second at 224 pixels on two cores: the whole network trained, or its heads only.
CPU_RATE, CPU_RATE_FROZEN = 7.0, 15.0

DEFAULTS = TrainConfig()


@dataclass(frozen=True)
class Suggestion:
    """A setting, the value that is suggested for it, and why, in one line."""

    setting: str
    value: bool | int | float | str
    reason: str


def suggest(folder: DataFolder, device: "torch.device") -> list[Suggestion]:
    """At most one suggestion a setting, each other than the default; all of them may be taken together."""
    return [
        *_for_few_photos(folder),
        *_batch_size(folder),
        *_length(folder, device),
        *_uneven_classes(folder),
        *_missing_task(folder),
    ]


def _is_small(folder: DataFolder) -> bool:
    return len(folder.train) + len(folder.val) < FEW_PHOTOS


def _for_few_photos(folder: DataFolder) -> Iterator[Suggestion]:
    if _is_small(folder):
        yield Suggestion(
            "freeze_backbone",
            True,
            f"{len(folder.train):,} training photos are few for the encoder's 4 million weights: it would learn them "
            "by heart",
        )
        yield Suggestion("lr", 0.0001, "with few photos, small steps: each batch says little of the others")


def _batch_size(folder: DataFolder) -> Iterator[Suggestion]:
    """A power of two that leaves eight steps an epoch, as far as there are photos for it."""
    photos = len(folder.train)
    size = DEFAULTS.batch_size
    while size > 1 and (size > photos or (size > 4 and size * 8 > photos)):
        size //= 2
    if size < DEFAULTS.batch_size:
        yield Suggestion("batch_size", size, f"{photos} training photos make few steps an epoch otherwise")


def _length(folder: DataFolder, device: "torch.device") -> Iterator[Suggestion]:
    """Fewer epochs where they would take too long, and a patience that fits them and the validation photos."""
    hours = _hours(folder) if device.type == "cpu" else 0.0
    if hours > CPU_HOURS:
        epochs = max(5, int(DEFAULTS.epochs * CPU_HOURS / hours))
        shorter = hours * epochs / DEFAULTS.epochs
        yield Suggestion(
            "epochs",
            epochs,
            f"{DEFAULTS.epochs} epochs take about {hours:.0f} h on a CPU, {epochs} about {shorter:.0f} h",
        )
        yield Suggestion("early_stopping_patience", max(2, epochs // 5), f"in step with {epochs} epochs")
        if shorter > CPU_HOURS:
            yield Suggestion("image_size", 160, "half the time a photo on a CPU; the smallest lesions get coarser")
    elif len(folder.val) < FEW_VALIDATION_PHOTOS:
        yield Suggestion(
            "early_stopping_patience",
            20,
            f"measured on only {len(folder.val)} validation photos, the loss jumps: wait longer before stopping",
        )


def _hours(folder: DataFolder) -> float:
    """What the default number of epochs takes on a CPU, about."""
    rate = CPU_RATE_FROZEN if _is_small(folder) else CPU_RATE
    return DEFAULTS.epochs * len(folder.train) / rate / 3600


def _uneven_classes(folder: DataFolder) -> Iterator[Suggestion]:
    counts = {count: name for name, count in zip(folder.classes.names, folder.class_counts(), strict=True) if count}
    if counts and max(counts) > UNEVEN * min(counts):
        few, many = min(counts), max(counts)
        yield Suggestion(
            "class_weighting", "sqrt", f"uneven classes: {few:,} training photos of {counts[few]}, {many:,} of "
            f"{counts[many]}"
        )  # fmt: skip


def _missing_task(folder: DataFolder) -> Iterator[Suggestion]:
    """Weight 0 for the one task that these photos cannot teach, where they can teach the other."""
    teaches_masks = any(sample.mask for sample in folder.train)
    shown = sum(count > 0 for count in folder.class_counts())
    if teaches_masks and shown < 2:
        reason = "all labelled training photos show one class" if shown else "no training photo shows a class"
        yield Suggestion("classification_weight", 0.0, f"{reason}: there is nothing to tell apart")
    if shown >= 2 and not teaches_masks:
        yield Suggestion("segmentation_weight", 0.0, "no training photo has a mask: there is no lesion to learn")
