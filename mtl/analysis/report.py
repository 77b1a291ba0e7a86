"""One photo's answer as one A4 page: PDF, for the record of who asked."""

from collections.abc import Sequence

import numpy as np

from mtl.analysis.lesion import Lesion
from mtl.analysis.page import ACCENT, ACCENT_PAPER, INK, PAPER, QUIET, ROW, WHITE, Colour, Page
from mtl.analysis.predict import GroupAnswer
from mtl.analysis.record import Record, Scale
from mtl.analysis.table import area_mm2, has_mask
from mtl.analysis.turned import VIEWS
from mtl.analysis.words import (
    Translate,
    capitalised,
    disclaimer,
    group_words,
    mask_is_unsure,
    never_named,
    number,
    percent,
    quality_words,
    skin_tone_caveat,
    skin_tone_words,
    untranslated,
)

MAX_LESIONS = 8
MAX_GROUPS = 6

# Millimetres on the page.
LEFT, WIDTH = 15.0, 180.0
GAP = 8.0
COLUMN = (WIDTH - GAP) / 2
SECOND = LEFT + COLUMN + GAP  # where the right column begins
NOTICE = 7.4
PICTURES_TOP, PICTURES_HEIGHT = 34.0, 86.0  # they give way to notices below them
COLUMNS_BOTTOM, FOOT_TOP, DISCLAIMER_TOP = 222.0, 260.0, 280.0
GROUP_GAP = 1.6
BAR_NAME, BAR_VALUE = 28.0, 12.0
LESION_COLUMNS = (8.0, 19.0, 19.0, 14.0, 12.0, 14.0)


def write_report(record: Record, photo: np.ndarray, overlay: np.ndarray, t: Translate = untranslated) -> bytes:
    """The page as PDF. photo, overlay: (H, W, 3) uint8 of any size. `t` translates an English text.

    Long names are shortened, and of many lesions, classes and groups the first are listed, so that one page holds it.
    What the font has no letter for prints as a box. The file names nobody and nothing but the photo.
    """
    page = Page(t("Skin photo report"), record.at)
    notices = _notices(record, t)
    _heading(page, record, t)
    height = min(max(COLUMN * record.height / record.width, 20.0), PICTURES_HEIGHT - NOTICE * len(notices))
    page.picture(LEFT, PICTURES_TOP, COLUMN, height, photo, t("Photo"))
    page.picture(SECOND, PICTURES_TOP, COLUMN, height, overlay, _overlay_title(record, t))
    y = PICTURES_TOP + height + ROW + 3
    for notice in notices:
        y = _notice(page, y, notice)
    bottom = max(_classes(page, record, y + 3, t), _lesions(page, record, y + 3, t))
    _trust(page, record, bottom + 4, t)
    _foot(page, record, t)
    return page.to_bytes()


# ---- what it is about


def _heading(page: Page, record: Record, t: Translate) -> None:
    size = t("{width} × {height} pixels").format(width=record.width, height=record.height)
    page.box(0, 0, 210, 3, ACCENT)
    page.text(LEFT, 12, COLUMN, t("Skin photo report"), size_pt=17, bold=True)
    page.text(SECOND, 12.6, COLUMN, f"{record.at:%Y-%m-%d %H:%M %Z}", colour=QUIET, align="R")
    page.text(LEFT, 20.5, WIDTH, record.name, size_pt=10)
    page.text(LEFT, 25.5, WIDTH, size, colour=QUIET)


def _overlay_title(record: Record, t: Translate) -> str:
    return t("Lesion outlined") if record.measures.area_px else t("No lesion outlined")


def _notices(record: Record, t: Translate) -> list[str]:
    """What limits the answer, to be read before it."""
    notices = []
    if record.familiarity is not None and record.familiarity.unlike:
        notices.append(t("Unlike the training photos: the answers may not hold for this photo."))
    if quality := quality_words(record.quality, t):
        notices.append(t("Photo: {reasons}.").format(reasons=", ".join(quality)))
    if mask_is_unsure(record):
        notices.append(t("The mask is unsure: check its outline."))
    if record.corrected:
        notices.append(t("The mask was corrected by hand."))
    return notices


def _notice(page: Page, y: float, text: str) -> float:
    page.box(LEFT, y, WIDTH, NOTICE - 1, ACCENT_PAPER)
    page.box(LEFT, y, 1, NOTICE - 1, ACCENT)
    page.text(LEFT + 3.5, y + 0.5, WIDTH - 5, text)
    return y + NOTICE


# ---- left column; each part returns where it ends


def _classes(page: Page, record: Record, top: float, t: Translate) -> float:
    y = page.title(LEFT, top, COLUMN, t("Classes"))
    shown, more = record.groups[:MAX_GROUPS], record.groups[MAX_GROUPS:]
    room = COLUMNS_BOTTOM - y - (ROW + GROUP_GAP) * len(record.groups[: MAX_GROUPS + 1])
    room -= ROW * sum(group.applies and not group.named for group in shown)
    rows_each = int(room / ROW / max(sum(group.applies for group in shown), 1))
    for group in shown:
        y = _group_title(page, group, record.name_confidence, y, t)
        y = _bars(page, group, y, rows_each if group.applies else 0, t) + GROUP_GAP
    if more:
        page.text(LEFT, y, COLUMN, t("and {n} more groups").format(n=len(more)), colour=QUIET)
        y += ROW
    return y


def _group_title(page: Page, group: GroupAnswer, name_confidence: float, y: float, t: Translate) -> float:
    answer = group_words(group, name_confidence, t)
    page.text(LEFT, y, COLUMN, f"{capitalised(t(group.group))}: {answer}", bold=True)
    if group.named or not group.applies:
        return y + ROW
    page.text(LEFT, y + ROW, COLUMN, never_named(t), colour=QUIET)
    return y + 2 * ROW


def _bars(page: Page, group: GroupAnswer, y: float, rows: int, t: Translate) -> float:
    """The likeliest classes as bars, in at most `rows` lines."""
    if not rows:
        return y
    order = sorted(range(len(group.names)), key=lambda i: (not group.trained[i], -group.probabilities[i]))
    shown = order if len(order) <= rows else order[: max(rows - 1, 1)]
    for index in shown:
        _bar(page, group, index, y, t)
        y += ROW
    if len(shown) < min(len(order), rows):
        page.text(LEFT, y, COLUMN, t("and {n} more").format(n=len(order) - len(shown)), colour=QUIET)
        y += ROW
    return y


def _bar(page: Page, group: GroupAnswer, index: int, y: float, t: Translate) -> None:
    name, probability = t(group.names[index]), group.probabilities[index]
    track = COLUMN - BAR_NAME - BAR_VALUE
    if not group.trained[index]:
        page.text(LEFT, y, BAR_NAME - 1, name, colour=QUIET)
        page.text(LEFT + BAR_NAME, y, track, t("not trained"), colour=QUIET)
        return
    best = probability == group.confidence
    page.text(LEFT, y, BAR_NAME - 1, name)
    page.box(LEFT + BAR_NAME, y + 1.3, track, 2.8, PAPER)
    page.box(LEFT + BAR_NAME, y + 1.3, track * probability, 2.8, ACCENT if best else QUIET)
    page.text(LEFT + BAR_NAME + track, y, BAR_VALUE, percent(probability, 0, t), bold=best, align="R")


# ---- right column; each part returns where it ends


def _lesions(page: Page, record: Record, top: float, t: Translate) -> float:
    y = page.title(SECOND, top, COLUMN, t("Lesions"))
    page.text(SECOND, y, COLUMN, _lesion_count(record, t), bold=True)
    y += ROW
    if not has_mask(record) or not record.measures.area_px:
        return y
    for label, value in _totals(record, t):
        page.text(SECOND, y, 29, label, colour=QUIET)
        page.text(SECOND + 30, y, COLUMN - 30, value)
        y += ROW
    return _lesion_table(page, y + 2, record, t) if record.measures.lesions else y


def _lesion_count(record: Record, t: Translate) -> str:
    count = len(record.measures.lesions)
    if not has_mask(record):
        return t("Mask not trained")
    if count == 0:
        return t("No lesion found, only specks") if record.measures.area_px else t("No lesion found")
    if count > MAX_LESIONS:
        return t("{n} lesions, the largest {shown} listed").format(n=count, shown=MAX_LESIONS)
    return t("1 lesion") if count == 1 else t("{n} lesions").format(n=count)


def _totals(record: Record, t: Translate) -> list[tuple[str, str]]:
    """(label, value) of all lesions together."""
    measures, scale = record.measures, record.scale
    percent_per_px = 100 / (record.height * record.width)
    interval = _interval(record, percent_per_px, t)
    rows = [(t("Share of the photo"), f"{percent(measures.area_ratio, 1, t)}{interval}")]
    if scale:
        area = f"{number(area_mm2(measures.area_px, scale), 1, t)} mm²"
        sources = {"ruler": t("ruler in the photo"), "DICOM": t("DICOM")}
        rows.append((t("Area"), f"{area}{_interval(record, area_mm2(1, scale), t)}"))
        rows.append((t("Scale"), f"{scale.mm_per_px:.4g} mm/px, {sources[scale.source]}"))
    else:
        rows.append((t("Area"), f"{number(measures.area_px, 0, t)} px"))
    if measures.certainty is not None:
        rows.append((t("Mask certainty"), percent(measures.certainty, 0, t)))
    return rows


def _interval(record: Record, per_px: float, t: Translate) -> str:
    """ " (likely 3.8–4.7)", in a unit of which a pixel counts `per_px`; empty where there is none."""
    if record.measures.area_interval_px is None:
        return ""
    low, high = (number(end * per_px, 1, t) for end in record.measures.area_interval_px)
    return t(" (likely {low}–{high})").format(low=low, high=high)


def _lesion_table(page: Page, y: float, record: Record, t: Translate) -> float:
    lesions, scale = record.measures.lesions, record.scale
    header = [
        t("No."),
        t("Area, mm²") if scale else t("Area, %"),
        t("Diam., mm") if scale else t("Diam., px"),
        t("Asymm."),
        t("Border"),
        t("Colour"),
    ]
    _table_row(page, y, header, size_pt=7.0, colour=QUIET)
    for lesion in lesions[:MAX_LESIONS]:
        y += ROW
        page.rule(SECOND, y, COLUMN)
        _table_row(page, y, _lesion_cells(lesion, scale, t))
    meaning = t("Asymmetry 0 to 1; border 1 for a disc; colour in ΔE.")
    page.text(SECOND, y + ROW + 0.5, COLUMN, meaning, size_pt=7.0, colour=QUIET)
    return y + 2 * ROW


def _lesion_cells(lesion: Lesion, scale: Scale | None, t: Translate) -> list[str]:
    colour, diameter_px = lesion.colour_variegation, lesion.equivalent_diameter_px
    return [
        str(lesion.number),
        number(area_mm2(lesion.area_px, scale), 1, t) if scale else number(100 * lesion.area_ratio, 2, t),
        number(diameter_px * scale.mm_per_px, 1, t) if scale else number(diameter_px, 0, t),
        number(lesion.asymmetry, 2, t),
        number(lesion.border_irregularity, 2, t),
        "" if colour is None else number(colour, 1, t),
    ]


def _table_row(page: Page, y: float, cells: Sequence[str], size_pt: float = 8.5, colour: Colour = INK) -> None:
    x = SECOND
    for place, (cell, width) in enumerate(zip(cells, LESION_COLUMNS, strict=True)):
        page.text(x, y, width - 1, cell, size_pt=size_pt, colour=colour, align="R" if place else "L")
        x += width


# ---- how far it holds, and what made it


def _trust(page: Page, record: Record, top: float, t: Translate) -> None:
    y = page.title(LEFT, top, WIDTH, t("How far to trust this"))
    quality = ", ".join(quality_words(record.quality, t)) or t("sharp and well lit")
    y = _value(page, y, t("Photo quality"), quality)
    if record.familiarity is not None:
        unlike = record.familiarity.unlike
        words = t("unlike the training photos") if unlike else t("like the training photos")
        y = _value(page, y, t("Kind of photo"), words)
    if record.skin_tone is not None:
        tone = f"{skin_tone_words(record.skin_tone, t)}, {skin_tone_caveat(t)}"
        _value(page, y, t("Apparent skin tone"), tone)


def _foot(page: Page, record: Record, t: Translate) -> None:
    model = record.model
    calibrated = t("probabilities calibrated") if model.calibrated else t("probabilities not calibrated")
    views = len(VIEWS[record.tta])
    settings = (
        t("mask cut at {threshold}").format(threshold=percent(record.threshold, 0, t)),
        t("classes named from {confidence}").format(confidence=percent(record.name_confidence, 0, t)),
        *([t("{n} views").format(n=views)] if views > 1 else []),
        t("answered in {seconds} s").format(seconds=number(record.seconds, 1, t)),
    )
    page.rule(LEFT, FOOT_TOP, WIDTH)
    for row, (label, value) in enumerate(
        (
            (t("Model"), model.name),
            (t("Revision"), f"{model.revision}, {calibrated}"),
            (t("Settings"), ", ".join(settings)),
        )
    ):
        _value(page, FOOT_TOP + 2 + row * ROW, label, value, lines=1)
    page.box(LEFT, DISCLAIMER_TOP, WIDTH, 8, ACCENT)
    page.text(LEFT + 3.5, DISCLAIMER_TOP + 1.3, WIDTH - 7, disclaimer(t), bold=True, colour=WHITE)


def _value(page: Page, y: float, label: str, value: str, lines: int = 2) -> float:
    """A label and its value over the whole width; returns where the next row begins."""
    page.text(LEFT, y, 43, label, colour=QUIET)
    return page.lines(LEFT + 44, y, WIDTH - 44, value, lines)
