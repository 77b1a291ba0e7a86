"""What a run's curves say is going wrong, in words, with the setting to try. Reads events, changes nothing."""

from collections.abc import Iterable, Iterator
from statistics import median
from typing import Any

Event = dict[str, Any]

PATIENCE = 3  # epochs that something must last
STILL = 0.99  # a training loss that is above this share of its first value has not moved
DROWNED = 0.02  # share of the pull on the encoder below which a task is drowned by the other
VANISHED, EXPLODED = 1e-6, 100.0  # gradient norms
PARTS = ("encoder", "classification_head", "segmentation_head")
TASKS = {"classification": "class", "segmentation": "mask"}


def notices(events: Iterable[Event]) -> list[str]:
    """One line for each trouble that a run's events show at the end of an epoch."""
    events = list(events)
    steps = [event for event in events if event["event"] == "step"]
    epochs = [event for event in events if event["event"] == "epoch"]
    if not epochs:
        return []
    latest = [event for event in steps if event["epoch"] == epochs[-1]["epoch"]]
    return [*_stalled(epochs), *_overfitting(epochs), *_gradients(latest), *_drowned(latest)]


def _stalled(epochs: list[Event]) -> Iterator[str]:
    losses = [event["train_loss"] for event in epochs]
    if len(losses) > PATIENCE and min(losses[-PATIENCE:]) > STILL * losses[0]:
        yield (
            f"the training loss does not move ({losses[0]:.3f}, after {len(losses)} epochs {losses[-1]:.3f}): "
            "try a higher lr, or look whether labels and masks fit the photos"
        )


def _overfitting(epochs: list[Event]) -> Iterator[str]:
    best = min(range(len(epochs)), key=lambda i: epochs[i]["val_loss"])
    since = epochs[best + 1 :]
    learns_on = bool(since) and since[-1]["train_loss"] < epochs[best]["train_loss"]
    if len(since) >= PATIENCE and learns_on and since[-1]["val_loss"] > 1.05 * epochs[best]["val_loss"]:
        yield (
            f"overfitting since epoch {best + 1}: the training loss falls, the validation loss rose from "
            f"{epochs[best]['val_loss']:.3f} to {since[-1]['val_loss']:.3f}; try more photos, stronger augmentation, "
            "weight_decay, or freeze_backbone"
        )


def _gradients(steps: list[Event]) -> Iterator[str]:
    for part in PARTS:
        norms = [event[f"gradient_norm_{part}"] for event in steps if f"gradient_norm_{part}" in event]
        if not norms:
            continue
        typical = median(norms)
        name = part.replace("_", " ")
        if typical < VANISHED:
            yield f"the gradients of the {name} vanish (norm {typical:.1g}): try another init, or a higher loss weight"
        elif typical > EXPLODED:
            yield f"the gradients of the {name} explode (norm {typical:.0f}): try a lower lr, or a lower gradient_clip"


def _drowned(steps: list[Event]) -> Iterator[str]:
    """The pull of a task is the norm of its weighted gradient on the features that both heads share."""
    shares = [
        event["classification_pull"] / total
        for event in steps
        if "classification_pull" in event and "segmentation_pull" in event
        if (total := event["classification_pull"] + event["segmentation_pull"]) > 0
    ]
    if not shares:
        return
    for task, share in zip(TASKS, (median(shares), 1 - median(shares)), strict=True):
        if share < DROWNED:
            yield (
                f"the {TASKS[task]} loss is drowned by the other ({share:.1%} of the pull on the encoder): "
                f"try a higher {task}_weight, or balancing uncertainty"
            )
