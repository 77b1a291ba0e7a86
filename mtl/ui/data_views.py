"""How data and settings read on the Train tab: plain data in, HTML out. Everything a person typed is escaped."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from typing import Any

from mtl.data.check import DataReport
from mtl.data.folder import SPLITS, DataFolder
from mtl.ui import views
from mtl.ui.checks import Work
from mtl.ui.run_views import duration, size
from mtl.ui.samples import Tile

LISTED = 50  # names in a folded list
SHOWN_LINES = 4  # of a list of problems; the rest is folded


def facts(folder: DataFolder) -> str:
    """What is known of a folder at once, without decoding anything."""
    samples = [*folder.train, *folder.val]
    labelled = sum(any(class_id >= 0 for class_id in sample.target) for sample in samples)
    masks = sum(sample.mask is not None for sample in samples)
    return (
        f'<p class="mtl-holds"><b>{len(folder.train):,} training and {len(folder.val):,} validation photos</b>'
        f"<span>{labelled:,} show a class</span><span>{masks:,} have a mask</span></p>"
    )


def data_card(folder: DataFolder, report: DataReport | None) -> str:
    """Problems first, then the counts, then the details, folded."""
    found = problems(report) if report else ""
    rows = [("photos", [len(folder.split(side)) for side in SPLITS])] if report is None else _report_rows(report)
    classes = list(zip(folder.classes.names, folder.class_counts("train"), folder.class_counts("val"), strict=True))
    tables = _counts_table("In photos", rows) + _class_table(classes)
    tables += _names(report) if report else ""
    details = f'<details><summary>By class and side</summary><div class="mtl-tables">{tables}</div></details>'
    return f'<div class="mtl-card mtl-data">{found}{facts(folder)}{details}</div>'


def problems(report: DataReport) -> str:
    """What a check found: what refuses the training, then what deserves a look; else that all is well."""
    parts = []
    if report.unreadable:
        files = len(report.unreadable)
        headline = f"{files:,} file{'s' * (files > 1)} cannot be read; replace or remove, since training would refuse"
        parts.append(_lines("error", headline, report.unreadable.values()))
    if report.warnings:
        parts.append(_lines("warning", "Worth a look", report.warnings))
    return "".join(parts) or views.message("good", "Every photo and mask can be read; nothing stands out")


def _lines(kind: str, headline: str, lines: Iterable[str]) -> str:
    items = [f"<li>{escape(line)}</li>" for line in lines]
    first, rest = "".join(items[:SHOWN_LINES]), "".join(items[SHOWN_LINES:])
    more = f"<details><summary>{len(items) - SHOWN_LINES:,} more</summary><ul>{rest}</ul></details>" if rest else ""
    return f'<div class="mtl-message {kind}" role="status"><b>{escape(headline)}</b><ul>{first}</ul>{more}</div>'


def _names(report: DataReport) -> str:
    """The photos and masks that the warnings count."""
    lists = {
        "The same photo on both sides": [", ".join(names) for names in report.duplicates_across_splits],
        "Look alike on both sides": [" and ".join(pair) for pair in report.look_alikes_across_splits],
        **{f"Masks that {doubt}": names for doubt, names in report.doubtful_masks.items()},
    }
    return "".join(_list(title, lines) for title, lines in lists.items() if lines)


def _list(title: str, lines: Sequence[str]) -> str:
    more = [f"and {len(lines) - LISTED:,} more; check-data lists all"] if len(lines) > LISTED else []
    items = "".join(f"<li>{escape(line)}</li>" for line in [*lines[:LISTED], *more])
    return f"<div><h3>{escape(title)}</h3><ul>{items}</ul></div>"


def _report_rows(report: DataReport) -> list[tuple[str, list[Any]]]:
    """Each figure of a side's report, whatever it holds, but the counts by class."""
    sides = [asdict(report.splits[side]) for side in SPLITS]
    return [(name.replace("_", " "), [side[name] for side in sides]) for name in sides[0] if name != "classes"]


def _counts_table(title: str, rows: Sequence[tuple[str, Sequence[Any]]]) -> str:
    body = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(f'<td>{_figure(value)}</td>' for value in values)}</tr>"
        for name, values in rows
    )
    return f'<table class="mtl-table"><tr><th>{title}</th><th>training</th><th>validation</th></tr>{body}</table>'


def _figure(value: Any) -> str:
    """A count, or a share of the photo as a percentage."""
    return f"{100 * value:.1f} %" if isinstance(value, float) else f"{value:,}"


def _class_table(classes: Sequence[tuple[str, int, int]]) -> str:
    """The photos of each class, with a bar for the training ones: what is uneven is seen at once."""
    most = max((train for _, train, _ in classes), default=0) or 1
    body = "".join(
        f'<tr{"" if train else " class=missing"}><td>{escape(name)}</td><td class="mtl-count"><span>{train:,}</span>'
        f'<i style="width:{3.5 * train / most:.1f}em"></i></td><td>{val:,}</td></tr>'
        for name, train, val in classes
    )
    return f'<table class="mtl-table"><tr><th>Class</th><th>training</th><th>validation</th></tr>{body}</table>'


def progress(work: Work) -> str:
    """A line and a bar for work that runs; how it ended where it was cancelled or failed."""
    if work.state == "failed":
        return views.message("error", f"{work.title} did not work out", work.error)
    if work.state == "cancelled":
        return views.message("quiet", f"{work.title} was cancelled")
    share = work.done / work.total if work.total else 0.0
    counted = f"{_amount(work.done, work)} of {_amount(work.total, work)}" if work.total else "starting"
    left = "" if work.seconds_left is None else f" · {duration(work.seconds_left)} left"
    return (
        f'<div class="mtl-progress"><div class="line"><span><b>{escape(work.title)}</b></span>'
        f'<span>{counted}{left}</span></div><div class="track" role="progressbar" aria-valuenow="{100 * share:.0f}" '
        f'aria-valuemin="0" aria-valuemax="100"><div class="fill" style="width:{100 * share:.1f}%"></div></div></div>'
    )


def _amount(count: int, work: Work) -> str:
    return size(count) if work.unit == "bytes" else f"{count:,}"


def grid(tiles: Sequence[Tile]) -> str:
    """The sample photos, each with what is known of it."""
    return f'<div class="mtl-tiles">{"".join(map(_tile, tiles))}</div>'


def _tile(tile: Tile) -> str:
    words = f"<b>{escape(tile.label)}</b><span>{escape(tile.mask)}</span><span>{escape(tile.side)}</span>"
    if tile.problem:
        reason = f'<div title="{escape(tile.problem)}"><p>{escape(tile.problem)}</p></div>'
        return f'<figure class="bad">{reason}<figcaption>{words}</figcaption></figure>'
    source = f"data:image/jpeg;base64,{b64encode(tile.jpeg).decode()}"
    alt = escape(f"Sample photo: {tile.label}, {tile.mask}, {tile.side}")
    return f'<figure><img src="{source}" alt="{alt}" loading="lazy"><figcaption>{words}</figcaption></figure>'
