"""The evaluation as one page that needs nothing else: figures with their intervals, diagrams, and the worst photos."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from mtl.evaluation.intervals import REPLICATES
from mtl.evaluation.markup import (
    MISSING,
    Write,
    between,
    confusion_table,
    digits,
    figure,
    measured,
    paragraph,
    percent,
    picture_grid,
    reliability_diagram,
    section,
    signed_percent,
    table,
    with_note,
)
from mtl.evaluation.pictures import Picture
from mtl.files import write_text

STYLE_FILE = Path(__file__).with_name("page.css")
SIDES = {"train": "training photos", "val": "validation photos"}
Report = Mapping[str, Any]


class Told(NamedTuple):
    """How a figure is told."""

    name: str
    write: Write
    meaning: str = ""


MASK = {
    "dice": Told("Dice", digits, "Twice what the marked and the true area share, divided by their sum; 1 is perfect."),
    "jaccard": Told("Jaccard", digits, "What both share, divided by all that either covers; 1 is perfect."),
    "threshold_jaccard": Told("Threshold Jaccard", digits, "The same, but a photo below 0.65 counts 0 (ISIC 2018)."),
    "hd95": Told(
        "Boundary distance (HD95)",
        percent,
        "How far apart the two outlines lie, but for the farthest 5 % of their points; of the photo's diagonal.",
    ),
    "area_error": Told("Area error", percent, "By how much the marked area is wrong, as a share of the true one."),
    "area_bias": Told("Area bias", signed_percent, "The same with its sign: above 0, too much is marked."),
    "lesions_found": Told("Lesions found", percent, "True lesions of which at least half is marked."),
    "regions_right": Told("Marked regions that are lesion", percent, "Those of which at least half is true lesion."),
}
LESION_FREE = {
    "false_positive_area": Told("No lesion: area marked", percent, "Wrongly marked where there is none, of the photo."),
    "over_1_percent": Told("No lesion: over 1 % marked", percent, "Share of these photos on which so much is marked."),
}
CLASSES = {
    "accuracy": Told("Accuracy", percent, "Labels whose class is thought the likeliest."),
    "balanced_accuracy": Told("Balanced accuracy", percent, "Mean of the classes' recalls; a rare class counts full."),
    "macro_auroc": Told("AUROC", digits, "How well a class's photos rank before the others; mean; 0.5 is chance."),
    "ece": Told("ECE", digits, "How far probabilities lie from the share that is right; 0 is perfect."),
    "ece_debiased": Told("Debiased ECE", digits, "The same without what few photos alone would make of it."),
    "brier": Told("Brier score", digits, "Squared error of the probabilities; 0 is perfect."),
    "nll": Told("NLL", digits, "Negative log-likelihood of the labels; 0 is perfect."),
    "named": Told("Named by default", percent, "Photos whose class the page tells, and not only its bars."),
    "named_right": Told("Named and right", percent, "Of these, those that are right."),
}
ONE_CLASS = {
    "recall": Told("recall", percent),
    "precision": Told("precision", percent),
    "auroc": Told("AUROC", digits),
}
CALIBRATION = ("ece", "ece_debiased", "brier", "nll")
# Of the groups' tables; "GROUP, accuracy" stands there too.
BY_GROUP = {
    "jaccard": Told("Jaccard", digits),
    "threshold_jaccard": Told("threshold Jaccard", digits),
    "false_positive_area": Told("area marked, no lesion", percent),
}
SKIN_TONE = "skin tone"  # the attribute that is estimated from the photo
MARKED, TRUE = '<span class="key"></span>marked', '<span class="key truth"></span>true lesion'
WORST = {
    "segmentation": ("Lesion mask: least overlap", f"{MARKED} {TRUE}"),
    "lesion_free": ("No lesion: most marked", MARKED),
    "classification": ("Classes: wrong, the true class thought least likely first", ""),
}


def write_report(path: Path, report: Report, pictures: Mapping[str, Sequence[Picture]]) -> None:
    """Write one HTML file, without scripts or anything from elsewhere.

    report: what `evaluate` returns, with `checkpoint`, `weights` (the revision), `data` (the folder's name) and
    `split`. pictures: what `draw_worst` returns.
    """
    write_text(path, _document(report, pictures))


def _document(report: Report, pictures: Mapping[str, Sequence[Picture]]) -> str:
    title = escape(f"Evaluation of {report['checkpoint']}")
    content = (
        *_masks(report), *_classes(report), *_calibration(report),
        *_by_group(report), *_worst(pictures), _how_they_were_made(report),
    )  # fmt: skip
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>\n{STYLE_FILE.read_text(encoding='utf-8')}</style></head>\n"
        f"<body><header><h1>{title}</h1>{_facts(report)}"
        f"{paragraph('For research. Not a medical device.', 'notice')}</header>\n<main>"
        + "\n".join(content)
        + "</main></body></html>\n"
    )


def _facts(report: Report) -> str:
    facts = {
        "revision": report["weights"],
        "data folder": report["data"],
        "photos": f"{report['photos']:,}, {SIDES.get(report['split'], report['split'])}",
        "date": f"{datetime.now():%Y-%m-%d}",
    }
    if report.get("tta", "off") != "off":
        facts["mean over views"] = report["tta"]
    pairs = "".join(f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{pairs}</dl>'


# ---- the sections


def _masks(report: Report) -> Iterator[str]:
    rows = [
        [
            escape(told.name),
            escape(figure(report[part][key], told.write)),
            escape(between(_bounds(report, part, key), told.write)),
            f"{report[part]['images']:,}",
            f"<small>{escape(told.meaning)}</small>",
        ]
        for part, figures in (("segmentation", MASK), ("lesion_free", LESION_FREE))
        for key, told in figures.items()
    ]
    yield section("Lesion mask", table(["figure", "value", "95 % interval", "photos", "what it means"], rows))


def _classes(report: Report) -> Iterator[str]:
    found = report["classification"]
    columns: list[tuple[str, Report, tuple[str, ...]]] = [("all together", found, ("classification",))]
    columns += [(group, part, ("classification", "groups", group)) for group, part in found["groups"].items()]
    rows = [["Photos", *(f"{part['images']:,}" for _, part, _ in columns)]]
    rows += [
        [
            with_note(told.name, told.meaning),
            *(measured(part.get(key), _bounds(report, *path, key), told.write) for _, part, path in columns),
        ]
        for key, told in CLASSES.items()
    ]
    yield section("Classes", table(["figure", *(name for name, _, _ in columns)], rows), _of_none(report))
    yield _each_class(report)
    yield _confusions(report)


def _of_none(report: Report) -> str:
    none = report["classification"]["none"]
    if not none["images"]:
        return paragraph(f"Photos that show no class: {MISSING}.")
    told = figure(none["named"], percent)
    spread = between(_bounds(report, "classification", "none", "named"), percent)
    return paragraph(
        f"Of {none['images']:,} photos that show no class, {told} were given one (95 % interval {spread})."
    )


def _each_class(report: Report) -> str:
    rows = [
        [
            with_note(name, "" if found["trained"] else "not trained"),
            f"{found['images']:,}",
            *(
                measured(found[key], _bounds(report, "classification", "per_class", name, key), told.write)
                for key, told in ONE_CLASS.items()
            ),
        ]
        for name, found in report["classification"]["per_class"].items()
    ]
    header = ["class", "photos", *(told.name for told in ONE_CLASS.values())]
    return f"<h3>Each class among all</h3>{table(header, rows)}"


def _confusions(report: Report) -> str:
    tables = [
        confusion_table(f"{group}, read within the group", found["classes"], found["counts"])
        for group, found in report["confusion"].items()
        if found["classes"]
    ]
    if not tables:
        return ""
    intro = "Rows are labels, columns answers; the stronger the shade, the larger the share of the row."
    return f'<h3>What is taken for what</h3>{paragraph(intro, "quiet")}<div class="matrices">{"".join(tables)}</div>'


def _calibration(report: Report) -> Iterator[str]:
    found = report["calibration"]
    temperature = f"The logits are divided by the temperature {found['temperature']:.4g}. " if found else ""
    parts = [paragraph(f"{temperature}A pixel counts as lesion from a probability of {report['mask_threshold']:g} on.")]
    if report["reliability"]:
        parts.append(reliability_diagram(report["reliability"]))
        parts.append(
            paragraph(
                "Bars: the share that is right, of answers as sure as that; points: at their mean probability; dashed: "
                "where all should lie; below: how many. Above the line, answers are better than they claim.",
                "quiet",
            )
        )
        parts.append(_bins(report))
    parts.append(_temperatures(report) if found else paragraph("Too few labels to tell how well calibrated it is."))
    yield section("Calibration", *parts)


def _bins(report: Report) -> str:
    rows = [
        [
            f"{100 * each['from']:.0f} to {100 * each['to']:.0f} %",
            f"{each['images']:,}",
            figure(each["confidence"], percent),
            figure(each["accuracy"], percent),
        ]
        for each in report["reliability"]
    ]
    numbers = table(["probability", "labels", "mean probability", "right"], rows)
    return f"<details><summary>The diagram's numbers</summary>{numbers}</details>"


def _temperatures(report: Report) -> str:
    found, used = report["calibration"], report["classification"]
    rows = [
        [
            escape(CLASSES[key].name),
            figure(found["uncalibrated"][key], digits),
            measured(used[key], _bounds(report, "classification", key), digits),
            figure(found["cross_fitted"][key], digits),
        ]
        for key in CALIBRATION
    ]
    return table(["all classes together", "uncalibrated", "in use", "cross-fitted"], rows) + paragraph(
        "Uncalibrated: at the temperature 1. In use: at the one stored with the weights. Cross-fitted: each photo at a "
        "temperature that was fitted on the others, which tells what fitting one on such photos is worth.",
        "quiet",
    )


def _by_group(report: Report) -> Iterator[str]:
    tables = [
        f"<h3>{escape(attribute[:1].upper() + attribute[1:])}</h3>{_attribute_table(values)}"
        for attribute, values in report["breakdown"].items()
    ]
    if tables:
        caveat = (
            " Skin tone is that of the photo: light and camera move it." if SKIN_TONE in report["breakdown"] else ""
        )
        yield section("By group", paragraph(f"Values of few photos are left out.{caveat}", "quiet"), *tables)


def _attribute_table(values: Mapping[str, Mapping[str, Any]]) -> str:
    seen = {key for found in values.values() for key in found} - {"photos"}
    order = [*(key for key in BY_GROUP if key in seen), *sorted(seen - BY_GROUP.keys())]
    told = {key: BY_GROUP.get(key, Told(key, percent)) for key in order}
    rows = [
        [escape(value), f"{found['photos']:,}", *(_part(found, key, each.write) for key, each in told.items())]
        for value, found in values.items()
    ]
    return table(["value", "photos", *(each.name for each in told.values())], rows)


def _part(found: Mapping[str, Any], key: str, write: Write) -> str:
    """A figure of the photos with one value; how many of them count for it is told where not all do."""
    if key not in found:
        return MISSING
    part = found[key]
    images = "" if part["images"] == found["photos"] else f'<span class="images">{part["images"]:,} photos</span>'
    return f'<span class="part">{measured(part["value"], part, write)}{images}</span>'


def _worst(pictures: Mapping[str, Sequence[Picture]]) -> Iterator[str]:
    parts = [
        f'<h3>{heading}</h3><p class="quiet">{legend}</p>{picture_grid(pictures[task])}'
        for task, (heading, legend) in WORST.items()
        if pictures.get(task)
    ]
    if parts:
        holds = "This file holds these photos: it may only go where they may."
        yield section("Worst photos", paragraph(holds, "quiet"), *parts)


def _how_they_were_made(report: Report) -> str:
    spread = (
        f"Intervals are 95 % bootstrap intervals: {REPLICATES:,} times, as many photos were drawn from these, with "
        "repeats. They tell what chance alone makes of a figure, not what other cameras, people or labels would; of a "
        "few photos chance makes much."
        if report["intervals"]
        else "No intervals were made."
    )
    return section(
        "How the figures were made",
        paragraph(
            "Figures are means over photos, those of the mask at the mask's own size; a photo with labels in several "
            "groups counts once for each. Classes without photos are left out of the means, and figures without photos "
            f"read {MISSING}."
        ),
        paragraph(spread),
        paragraph(
            "Where the same photos chose the best epoch, the temperature or the mask threshold, expect a little less "
            "on others."
        ),
    )


def _bounds(report: Report, *path: str) -> Mapping[str, float] | None:
    """The interval of the figure that stands at a place of the report; None where it has none."""
    found: Any = report["intervals"]
    for key in path:
        found = (found or {}).get(key)
    return found or None
