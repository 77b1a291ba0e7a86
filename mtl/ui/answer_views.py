"""How answers read on the page: a record in, HTML or words out. Everything a person typed is escaped."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from mtl.analysis.predict import GroupAnswer
from mtl.analysis.record import Record
from mtl.analysis.table import has_mask
from mtl.analysis.turned import VIEWS
from mtl.analysis.words import (
    capitalised,
    doubts,
    group_words,
    never_named,
    quality_words,
    skin_tone_caveat,
    skin_tone_words,
)
from mtl.ui.desk import DeskPhoto
from mtl.ui.texts import Words
from mtl.ui.views import message

if TYPE_CHECKING:
    from mtl.analysis.compare import Comparison
    from mtl.analysis.lesion import Lesion, MaskMeasures

MAX_LESIONS = 8


def answer_card(photo: DeskPhoto, t: Words) -> str:
    """The answer for one photo: what it shows, the bars, the lesions, how far to trust it, which model said it."""
    record = photo.record
    if record is None:
        return _no_answer(photo, t)
    parts = [
        f"<h2>{escape(headline(record, t))}</h2>",
        f'<p class="mtl-quiet">{escape(record.name)}</p>',
        _notices(record, t),
        *[_group(group, record.name_confidence, t) for group in record.groups if group.applies],
        f"<h3>{t('Lesion')}</h3>",
        _lesions(record, t),
        _trust(record, t),
        _about(record, t),
    ]
    return f'<div class="mtl-card">{"".join(parts)}</div>'


def _no_answer(photo: DeskPhoto, t: Words) -> str:
    name = f'<p class="mtl-quiet">{escape(photo.name)}</p>'
    if photo.error:
        return message("error", t("This photo cannot be analysed"), photo.error) + name
    return message("quiet", t("Waiting"), t("Its turn comes after the photos before it.")) + name


# ---- the answer in words


def headline(record: Record, t: Words) -> str:
    """What the classes say; where the model has none, the lesions."""
    return capitalised(class_words(record, t) or lesion_words(record, t))


def class_words(record: Record, t: Words) -> str:
    """ "skin type: oily 81 %, hair type: curly 64 %", or that nothing is seen; empty where nothing is trained."""
    trained = [group for group in record.groups if any(group.trained)]
    seen = [f"{t(g.group)}: {_named(g, record.name_confidence, t)}" for g in trained if g.applies]
    if seen or not trained:
        return ", ".join(seen)
    if {group.group for group in trained} == {"skin type", "hair type"}:
        return t("no skin or hair type seen")
    return t("nothing of {groups} seen", groups=", ".join(t(group.group) for group in trained))


def _named(group: GroupAnswer, name_confidence: float, t: Words) -> str:
    words = group_words(group, name_confidence, t)
    return f"{words} {t.percent(group.confidence)}" if group.is_named_at(name_confidence) else words


def lesion_words(record: Record, t: Words) -> str:
    """ "2 lesions, 4.2 % of the photo", or why there is none."""
    from mtl.analysis.lesion import MIN_AREA_RATIO

    measures = record.measures
    if not has_mask(record):
        return t("mask not trained")
    area = t.percent(measures.area_ratio, 1)
    if len(measures.lesions) == 1:
        return t("1 lesion, {area} of the photo", area=area)
    if measures.lesions:
        return t("{n} lesions, {area} of the photo", n=len(measures.lesions), area=area)
    if measures.area_ratio >= MIN_AREA_RATIO:
        return t("no lesion found, only specks, together {area} of the photo", area=area)
    return t("no lesion found")


def alt_text(number: int, photo: DeskPhoto, t: Words) -> str:
    """What a screen reader says of a photo with its overlay."""
    if photo.record is None:
        said = [photo.error or t("waiting")]
    else:
        said = [class_words(photo.record, t), lesion_words(photo.record, t), *doubts(photo.record, t)]
    return f"{t('Photo {n}', n=number)}: {'; '.join(part for part in said if part)}"


def caption(photo: DeskPhoto, t: Words) -> str:
    """Beside a thumbnail: the answer in a word or two."""
    record = photo.record
    if record is None:
        return t("cannot be read") if photo.error else t("waiting")
    words = [t(g.predicted_class) if g.is_named_at(record.name_confidence) else t("uncertain") for g in _seen(record)]
    if record.measures.lesions:
        words.append(t("lesion {area}", area=t.percent(record.measures.area_ratio, 1)))
    return ", ".join(words) or t("nothing seen")


def _seen(record: Record) -> list[GroupAnswer]:
    return [group for group in record.groups if group.applies and any(group.trained)]


# ---- the parts of the card


def _notices(record: Record, t: Words) -> str:
    found = doubts(record, t)
    if not found:
        return ""
    return message("warning", t("Look twice: {reasons}", reasons=", ".join(found)))


def _group(group: GroupAnswer, name_confidence: float, t: Words) -> str:
    title = escape(capitalised(t(group.group)))
    note = "" if group.is_named_at(name_confidence) else f" · {_why_unnamed(group, name_confidence, t)}"
    order = sorted(range(len(group.names)), key=lambda i: (not group.trained[i], -group.probabilities[i]))
    bars = "".join(_bar(group, i, best=i == order[0], t=t) for i in order)
    return f'<h3>{title}{note}</h3><div role="list">{bars}</div>'


def _why_unnamed(group: GroupAnswer, name_confidence: float, t: Words) -> str:
    return t("uncertain, below {percent}", percent=t.percent(name_confidence)) if group.named else never_named(t)


def _bar(group: GroupAnswer, index: int, *, best: bool, t: Words) -> str:
    name, share = escape(t(group.names[index])), group.probabilities[index]
    if not group.trained[index]:
        words = t("not trained, no photos")
        return f'<div class="mtl-bar untrained" role="listitem"><span>{name}</span><span>{words}</span></div>'
    return (
        f'<div class="mtl-bar{" best" if best else ""}" role="listitem"><span>{name}</span>'
        f'<div class="track"><div class="fill" style="width:{100 * share:.1f}%"></div></div>'
        f'<span class="value">{t.percent(share)}</span></div>'
    )


def _lesions(record: Record, t: Words) -> str:
    measures = record.measures
    parts = [f"<p><b>{lesion_words(record, t)}</b></p>"]
    if not measures.lesions:
        return "".join(parts)
    corrected = [t("Corrected by hand.")] if record.corrected else []
    parts.append(f'<p class="mtl-quiet">{" ".join([*_totals(record, t), *corrected])}</p>')
    rows = "".join(_lesion_row(lesion, record, t) for lesion in measures.lesions[:MAX_LESIONS])
    unit = "mm" if record.scale else "px"
    names = [t("No."), t("area ({unit}²)", unit=unit), t("diameter ({unit})", unit=unit)]
    names += [t("perimeter ({unit})", unit=unit), t("asymmetry"), t("border"), t("colour")]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    parts.append(f'<div class="mtl-scroll" tabindex="0"><table class="mtl-table"><tr>{head}</tr>{rows}</table></div>')
    if len(measures.lesions) > MAX_LESIONS:
        parts.append(f'<p class="mtl-quiet">{t("and {n} smaller ones", n=len(measures.lesions) - MAX_LESIONS)}</p>')
    return "".join(parts) + _definitions(t)


def _totals(record: Record, t: Words) -> list[str]:
    """The area with its interval, and how sure the mask is."""
    measures, per_px, digits, unit = record.measures, 1.0, 0, "px²"
    if record.scale:
        per_px, digits, unit = record.scale.mm_per_px**2, 1, "mm²"
    said = [t("Area {area} {unit}", area=t.number(measures.area_px * per_px, digits), unit=unit)]
    if measures.area_interval_px:
        low, high = (t.number(end * per_px, digits) for end in measures.area_interval_px)
        said.append(t("(between {low} and {high})", low=low, high=high))
    said[-1] += "."
    if measures.certainty is not None:
        said.append(t("Mask certainty {percent}.", percent=t.percent(measures.certainty)))
    return said


def _lesion_row(lesion: "Lesion", record: Record, t: Words) -> str:
    mm = record.scale.mm_per_px if record.scale else 1.0
    digits = 1 if record.scale else 0
    cells = [
        str(lesion.number),
        t.number(lesion.area_px * mm**2, digits),
        t.number(lesion.equivalent_diameter_px * mm, digits),
        t.number(lesion.perimeter_px * mm, digits),
        t.number(lesion.asymmetry, 2),
        t.number(lesion.border_irregularity, 2),
        "" if lesion.colour_variegation is None else t.number(lesion.colour_variegation, 1),
    ]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _definitions(t: Words) -> str:
    lines = [
        t("Area between: from what is surely lesion to what may be; people who draw masks differ by 10 to 20 %."),
        t("Diameter: of the disc with the same area."),
        t("Asymmetry: the share that does not match when the lesion is folded along its two axes, 0 to 1."),
        t("Border: perimeter against that of the disc with the same area; 1 is a disc."),
        t("Colour: how far the colours within the lesion lie apart, in CIELAB units."),
        t("Mask certainty: the overlap that the probability map itself expects."),
    ]
    items = "".join(f"<li>{line}</li>" for line in lines)
    return f"<details><summary>{t('What these mean')}</summary><ul>{items}</ul></details>"


def _trust(record: Record, t: Words) -> str:
    quality = ", ".join(quality_words(record.quality, t)) or t("sharp and well lit")
    rows = [(t("Photo"), f"{capitalised(quality)}, {record.width} × {record.height} px")]
    if record.familiarity is not None:
        like = t("unlike them") if record.familiarity.unlike else t("alike")
        rows.append((t("Training photos"), like))
    if record.skin_tone is not None:
        rows.append((t("Apparent skin tone"), f"{skin_tone_words(record.skin_tone, t)}, {skin_tone_caveat(t)}"))
    if record.scale is not None:
        source = t("ruler") if record.scale.source == "ruler" else record.scale.source
        rows.append((t("Scale"), f"{t.number(record.scale.mm_per_px, 4)} mm/px ({source})"))
    return f"<h3>{t('Trust')}</h3>{_facts(rows)}"


def _about(record: Record, t: Words) -> str:
    model, views = record.model, len(VIEWS[record.tta])
    rows = [
        (t("Model"), f"{model.name}, {t('revision')} {model.revision}"),
        (t("Probabilities"), t("calibrated") if model.calibrated else t("not calibrated")),
        (t("Mask threshold"), t.percent(record.threshold)),
        *([(t("Views averaged"), str(views))] if views > 1 else []),
        (t("Time"), f"{record.at:%Y-%m-%d %H:%M}, {t.number(record.seconds, 2)} s"),
    ]
    if model.untrained:
        rows.append((t("Not trained"), ", ".join(t(name) for name in model.untrained)))
    return f"<details><summary>{t('Model and time')}</summary>{_facts(rows)}</details>"


def _facts(rows: list[tuple[str, str]]) -> str:
    pairs = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in rows)
    return f'<dl class="mtl-pairs">{pairs}</dl>'


# ---- two photos


def comparison_card(result: "Comparison", photos: Sequence[tuple[str, str]], t: Words) -> str:
    """Two photos, (name, data URL) each, side by side, and what has changed from the first to the second."""
    figures = "".join(
        f'<figure><img alt="{escape(name)}" src="{url}"><figcaption>{escape(name)}</figcaption></figure>'
        for name, url in photos
    )
    reasons = [_hindrance(kind, t) for kind in result.not_comparable]
    notice = message("warning", t("Not comparable: {reasons}", reasons=", ".join(reasons))) if reasons else ""
    return (
        f'<div class="mtl-card"><div class="mtl-pair-photos">{figures}</div>{notice}{_facts(_changes(result, t))}</div>'
    )


def _changes(result: "Comparison", t: Words) -> list[tuple[str, str]]:
    rows = []
    if result.areas and result.diameters:
        areas = [f"{t.number(a, 1)} mm²" if result.in_mm else t.percent(a, 1) for a in result.areas]
        rows.append((t("Area"), f"{areas[0]} → {areas[1]} ({_change(result.areas, t)})"))
        widths = [f"{t.number(d, 1)} mm" if result.in_mm else t.number(d, 3) for d in result.diameters]
        rows.append((t("Diameter"), f"{widths[0]} → {widths[1]} ({_change(result.diameters, t)})"))
        if not result.in_mm:
            rows.append((t("Lengths"), t("in shares of the photo; set a scale in both photos for mm")))
    if result.colour_change is not None:
        rows.append((t("Colour"), f"ΔE {t.number(result.colour_change, 1)}, {t('against the skin around')}"))
    return rows


def _change(pair: tuple[float, float], t: Words) -> str:
    percent = 100 * (pair[1] / pair[0] - 1)
    return f"{'+' if percent >= 0 else '−'}{t.number(abs(percent))} %"


def _hindrance(kind: str, t: Words) -> str:
    kinds = {
        "no lesion": t("no lesion in one of them"),
        "framing": t("taken from another distance or cut otherwise"),
        "light": t("light or colours differ"),
        "skin not seen": t("too little skin around the lesion"),
        "lesion cut off": t("the lesion is cut off"),
    }
    return kinds[kind]


# ---- all photos


def progress(done: int, total: int, seconds_left: float | None, t: Words) -> str:
    """How far the analysis is; empty when it is over."""
    if done >= total:
        return ""
    left = t("about {s} s left", s=max(1, round(seconds_left))) if seconds_left is not None else ""
    far = t("{done} of {total} photos", done=done, total=total)
    return (
        f'<div class="mtl-progress" role="status"><div class="line"><b>{far}</b><span>{left}</span></div>'
        f'<div class="track"><div class="fill" style="width:{100 * done / total:.0f}%">'
        "</div></div></div>"
    )


def lesion_marks(measures: "MaskMeasures") -> list[dict[str, int]]:
    """Where the page writes the lesions' numbers, in pixels of the photo."""
    return [
        {"number": lesion.number, "top": lesion.box[0], "left": lesion.box[1], "right": lesion.box[3]}
        for lesion in measures.lesions[:MAX_LESIONS]
    ]
