"""How answers and runs read: plain data in, HTML and tables out. Everything a person typed is escaped."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from mtl.analysis.lesion import Lesion
from mtl.analysis.predict import NAME_CONFIDENCE, Analysis, GroupAnswer
from mtl.data.folder import SPLITS, DataFolder
from mtl.training.run import Run, RunStatus

CURVE_POINTS = 300  # of a training curve: more than a screen shows
# Title: the keys of a step's and of an epoch's event.
CURVES = {
    "Total loss": ("loss", "val_loss"),
    "Class loss": ("classification_loss", "val_classification_loss"),
    "Mask loss": ("segmentation_loss", "val_segmentation_loss"),
}
LOSS_LABELS = ("training", "validation")
SCORES = {"val_dice": "Dice", "val_jaccard": "Jaccard", "val_balanced_accuracy": "balanced accuracy"}
STATE_WORDS = {
    "preparing": "Preparing",
    "training": "Training",
    "validating": "Validating",
    "saving": "Saving",
    "stopping": "Stopping",
    "finished": "Finished",
    "stopped": "Stopped",
    "failed": "Failed",
    "interrupted": "Interrupted",
}


def message(kind: str, headline: str, text: str = "") -> str:
    """A banner; kind is error, good or quiet."""
    return f'<div class="mtl-message {kind}" role="status"><b>{escape(headline)}</b>{escape(text)}</div>'


def empty(headline: str, text: str) -> str:
    return f'<div class="mtl-empty"><b>{escape(headline)}</b>{escape(text)}</div>'


def quiet(text: str) -> str:
    return f'<div class="mtl-card"><p class="mtl-quiet">{escape(text)}</p></div>'


# ---- analysis


def answer_card(name: str, analysis: Analysis, lesions: Sequence[Lesion]) -> str:
    """The answer for one photo: what it shows, the bars of each group, the lesions."""
    parts = [f"<h2>{escape(headline(analysis))}</h2>", f'<p class="mtl-quiet">{escape(name)}</p>']
    parts += [_group(group) for group in analysis.groups]
    parts += ["<h3>Lesion</h3>", _lesions(analysis, lesions)]
    return f'<div class="mtl-card">{"".join(parts)}</div>'


def headline(analysis: Analysis) -> str:
    """ "Oily skin 81 %, curly hair 64 %", "Uncertain skin type: ...", or that nothing is seen."""
    seen = [_group_words(group) for group in analysis.groups if group.applies]
    words = ", ".join(seen) or "no skin or hair type seen"
    return words[0].upper() + words[1:]


def _group_words(group: GroupAnswer) -> str:
    what = group.group.removesuffix(" type")
    if group.answer != "uncertain":
        return f"{group.predicted_class} {what} {_percent(group.confidence)}"
    leading = sorted(zip(group.probabilities, group.names, strict=True), reverse=True)[:2]
    return f"{what} type uncertain: {' or '.join(name for _, name in leading)}"


def _group(group: GroupAnswer) -> str:
    title = escape(group.group[0].upper() + group.group[1:])
    if not group.applies:
        return f'<h3>{title}</h3><p class="mtl-quiet">not seen in this photo</p>'
    note = "" if group.confidence >= NAME_CONFIDENCE else f" · uncertain, below {_percent(NAME_CONFIDENCE)}"
    order = sorted(range(len(group.names)), key=lambda i: (not group.trained[i], -group.probabilities[i]))
    return f"<h3>{title}{note}</h3>" + "".join(_bar(group, i, best=i == order[0]) for i in order)


def _bar(group: GroupAnswer, index: int, *, best: bool) -> str:
    name, share = escape(group.names[index]), group.probabilities[index]
    if not group.trained[index]:
        return f'<div class="mtl-bar untrained"><span>{name}</span><span>not trained, no photos</span></div>'
    return (
        f'<div class="mtl-bar{" best" if best else ""}"><span>{name}</span>'
        f'<div class="track"><div class="fill" style="width:{100 * share:.1f}%"></div></div>'
        f'<span class="value">{_percent(share)}</span></div>'
    )


def _lesions(analysis: Analysis, lesions: Sequence[Lesion]) -> str:
    if not analysis.mask.any():
        return "<p>no lesion found</p>"
    many = f"{len(lesions)} lesions" if len(lesions) != 1 else "1 lesion"
    total = f"<p><b>{many}, {_area(analysis.lesion_area_ratio)} of the photo</b></p>"
    rows = "".join(
        f"<tr><td>{lesion.number}</td><td>{_area(lesion.area_ratio)}</td><td>{lesion.area_px:,} px</td>"
        f"<td>{lesion.equivalent_diameter_px:,.0f} px</td></tr>"
        for lesion in lesions[:8]
    )
    more = f'<p class="mtl-quiet">and {len(lesions) - 8} smaller ones</p>' if len(lesions) > 8 else ""
    header = "<tr><th>No.</th><th>of photo</th><th>area</th><th>diameter</th></tr>"
    return f'{total}<div class="mtl-scroll"><table class="mtl-table">{header}{rows}</table></div>{more}'


def alt_text(number: int, analysis: Analysis, lesions: Sequence[Lesion]) -> str:
    """What a screen reader says of a photo with its overlay."""
    count = f"{len(lesions)} lesion{'s' if len(lesions) != 1 else ''}"
    return f"Photo {number}: {headline(analysis)}; {count}, {_area(analysis.lesion_area_ratio)} of the photo"


def caption(number: int, analysis: Analysis | None, lesions: Sequence[Lesion]) -> str:
    """Under a thumbnail: number and answer in a word or two."""
    if analysis is None:
        return f"{number} unreadable"
    words = [group.answer for group in analysis.groups if group.applies]
    lesion = f"lesion {_area(sum(lesion.area_ratio for lesion in lesions))}" if lesions else "nothing seen"
    return f"{number} {', '.join(words) or lesion}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _area(share: float) -> str:
    return f"{100 * share:.1f} %"


# ---- training


def data_card(folder: DataFolder) -> str:
    """What a data folder holds, side by side for training and validation."""
    rows: list[tuple[object, ...]] = [("photos", len(folder.train), len(folder.val))]
    rows.append(("with a mask", *(sum(s.mask is not None for s in folder.split(side)) for side in SPLITS)))
    counts = zip(folder.classes.names, folder.class_counts("train"), folder.class_counts("val"), strict=True)
    body = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{train}</td><td>{val}</td></tr>" for name, train, val in [*rows, *counts]
    )
    header = "<tr><th></th><th>training</th><th>validation</th></tr>"
    return (
        f'<div class="mtl-card"><details><summary>{len(folder.train)} training and {len(folder.val)} validation photos'
        f'</summary><table class="mtl-table">{header}{body}</table></details></div>'
    )


def run_card(run: Run, status: RunStatus) -> str:
    """State, progress and outcome of a run."""
    words = STATE_WORDS[status.state]
    if not status.live:
        kind = {"finished": "good", "failed": "error"}.get(status.state, "quiet")
        return message(kind, f"{words}: {run.name}", _outcome(run, status))
    share = status.step / status.steps if status.steps else 0.0
    current = status.epoch + (status.state in ("training", "validating"))
    epoch = f"epoch {min(max(current, 1), status.epochs)} of {status.epochs}" if status.steps else status.message
    return (
        f'<div class="mtl-progress"><div class="line"><span><b>{words}</b> · {escape(epoch)}</span>'
        f"<span>{escape(_pace(status))}</span></div>"
        f'<div class="track" role="progressbar" aria-valuenow="{100 * share:.0f}" aria-valuemin="0"'
        f' aria-valuemax="100"><div class="fill" style="width:{100 * share:.1f}%"></div></div>'
        f'<p class="mtl-quiet">{escape(run.name)}</p></div>'
    )


def _pace(status: RunStatus) -> str:
    parts = [f"step {status.step} of {status.steps}"] if status.steps else []
    if status.images_per_second:
        parts.append(f"{status.images_per_second:.1f} photos/s")
    if status.seconds_left is not None:
        parts.append(f"{duration(status.seconds_left)} left")
    return " · ".join(parts)


def _outcome(run: Run, status: RunStatus) -> str:
    if status.best_epoch is None:
        return status.message or "no epoch was finished"
    scores = ", ".join(f"{label} {status.best[key]:.3f}" for key, label in SCORES.items() if key in status.best)
    took = f"{status.epoch} of {status.epochs} epochs in {duration(status.train_seconds)}"
    parts = [
        status.message,
        took,
        f"best is epoch {status.best_epoch}" + (f" ({scores})" if scores else ""),
        str(run.best_file),
    ]
    return "; ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "3 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def empty_curves() -> list[pd.DataFrame]:
    """The frames of a run that has no events yet."""
    return curves([])


def curves(events: Iterable[dict[str, Any]]) -> list[pd.DataFrame]:
    """One frame (epoch, value, curve) for each of CURVES, then the scores."""
    events = list(events)
    steps = [event for event in events if event["event"] == "step"]
    epochs = [event for event in events if event["event"] == "epoch"]
    frames = [_loss_curve(steps, epochs, *keys) for keys in CURVES.values()]
    scores = [(e["epoch"], e[key], label) for e in epochs for key, label in SCORES.items() if key in e]
    return [*frames, _frame(scores, SCORES.values())]


def _loss_curve(steps: list[dict[str, Any]], epochs: list[dict[str, Any]], step_key: str, val_key: str) -> pd.DataFrame:
    """Training by steps, averaged to CURVE_POINTS; validation by epochs."""
    parts = np.array_split(np.arange(len(steps)), min(CURVE_POINTS, len(steps))) if steps else []
    train = [
        (
            float(np.mean([steps[i]["epochs_done"] for i in part])),
            float(np.mean([steps[i][step_key] for i in part])),
            LOSS_LABELS[0],
        )
        for part in parts
    ]
    return _frame(train + [(event["epoch"], event[val_key], LOSS_LABELS[1]) for event in epochs], LOSS_LABELS)


def _frame(points: list[tuple[float, float, str]], labels: Iterable[str]) -> pd.DataFrame:
    # The plot takes its colours and types from the first frame it sees and keeps them: so every frame, the empty one
    # too, names each curve once, without a point.
    named = [(math.nan, math.nan, label) for label in labels]
    return pd.DataFrame(named + points, columns=["epoch", "value", "curve"]).astype({"epoch": float, "value": float})
