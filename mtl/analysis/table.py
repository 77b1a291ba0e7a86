"""Many answers as one table: JSON with everything, CSV with a row a photo, and the short table that the page shows."""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

from mtl.analysis.names import printable, safe_names
from mtl.analysis.predict import GroupAnswer
from mtl.analysis.record import Record, Scale
from mtl.analysis.words import (
    Translate,
    capitalised,
    disclaimer,
    group_words,
    mask_is_unsure,
    quality_words,
    skin_tone_caveat,
    untranslated,
)

if TYPE_CHECKING:
    from mtl.analysis.lesion import Lesion

Cell = str | float | int | bool | None
# Programs for tables run a cell that begins with one of these. Behind a separator too: one that takes semicolons for
# the separator sees a cell begin there.
FORMULA = re.compile(r"""(^|[;,\t|])([\s"]*)([=+\-@＝＋－＠])""")
BYTE_ORDER_MARK = "\ufeff"  # without it Excel takes UTF-8 for the computer's old code page


@dataclass(frozen=True)
class Failure:
    """A photo without an answer."""

    name: str  # the file's name as it came
    reason: str  # one line


Outcome = Record | Failure


# ---- JSON


def record_to_dict(record: Record) -> dict[str, Any]:
    """Everything in a record, JSON-able: shares and probabilities 0..1, lengths in pixels, and in mm with a scale."""
    return {
        "photo": printable(record.name),
        "height": record.height,
        "width": record.width,
        "classification": {
            "name_confidence": record.name_confidence,
            "groups": {group.group: _group_dict(group, record.name_confidence) for group in record.groups},
        },
        "segmentation": _segmentation_dict(record),
        "scale": asdict(record.scale) if record.scale else None,
        "quality": asdict(record.quality),
        "skin_tone": {**asdict(record.skin_tone), "caveat": skin_tone_caveat(untranslated)}
        if record.skin_tone
        else None,
        "familiarity": {**asdict(record.familiarity), "unlike": record.familiarity.unlike}
        if record.familiarity
        else None,
        "model": asdict(record.model),
        "tta": record.tta,
        "seconds": record.seconds,
        "at": record.at.isoformat(timespec="seconds"),
        "disclaimer": disclaimer(untranslated),
    }


def _group_dict(group: GroupAnswer, name_confidence: float) -> dict[str, Any]:
    return {
        "answer": group.answer_at(name_confidence),
        "predicted_class": group.predicted_class,
        "confidence": group.confidence,
        "probabilities": dict(zip(group.names, group.probabilities, strict=True)),
        "trained": dict(zip(group.names, group.trained, strict=True)),
        "share": group.share,
        "applies": group.applies,
        "named": group.named,
    }


def _segmentation_dict(record: Record) -> dict[str, Any]:
    measures = asdict(record.measures)
    measures["lesions"] = [_lesion_dict(lesion, record.scale) for lesion in record.measures.lesions]
    answer = {
        "trained": record.mask_trained,
        "threshold": record.threshold,
        "corrected": record.corrected,
        **measures,
    }
    if record.scale:
        interval = record.measures.area_interval_px
        answer["area_mm2"] = area_mm2(record.measures.area_px, record.scale)
        answer["area_interval_mm2"] = [area_mm2(end, record.scale) for end in interval] if interval else None
    return answer


def _lesion_dict(lesion: "Lesion", scale: Scale | None) -> dict[str, Any]:
    if not scale:
        return asdict(lesion)
    return {
        **asdict(lesion),
        "area_mm2": area_mm2(lesion.area_px, scale),
        "equivalent_diameter_mm": lesion.equivalent_diameter_px * scale.mm_per_px,
        "perimeter_mm": lesion.perimeter_px * scale.mm_per_px,
    }


def area_mm2(area_px: float, scale: Scale) -> float:
    return area_px * scale.mm_per_px**2


def write_json(outcomes: Sequence[Outcome]) -> str:
    """{"photos": [...]}, a photo without an answer as {"photo", "error"}; "files" is its name in the zip."""
    photos = []
    for outcome, stem in zip(outcomes, _stems(outcomes), strict=True):
        if isinstance(outcome, Failure):
            photos.append({"photo": printable(outcome.name), "error": printable(outcome.reason)})
        else:
            photos.append({"files": stem, **record_to_dict(outcome)})
    document = {"disclaimer": disclaimer(untranslated), "photos": photos}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)


def _stems(outcomes: Sequence[Outcome]) -> list[str]:
    return safe_names([outcome.name for outcome in outcomes])


# ---- CSV


def write_csv(outcomes: Sequence[Outcome]) -> str:
    """One row a photo, in English, with a byte order mark; a photo without an answer has its reason under "error"."""
    rows = [_csv_row(outcome, stem) for outcome, stem in zip(outcomes, _stems(outcomes), strict=True)]
    # Photos may have been answered by models with other classes. The keys of the fullest rows stand in their order.
    columns = list(dict.fromkeys(column for row in sorted(rows, key=len, reverse=True) for column in row))
    text = StringIO()
    text.write(BYTE_ORDER_MARK)
    writer = csv.DictWriter(text, columns, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow({column: _inert(column) for column in columns})
    writer.writerows({column: _inert(row.get(column, "")) for column in columns} for row in rows)
    return text.getvalue()


def _csv_row(outcome: Outcome, stem: str) -> dict[str, Cell]:
    if isinstance(outcome, Failure):
        return {"photo": outcome.name, "error": outcome.reason}
    return {
        "photo": outcome.name,
        "error": None,
        "files": stem,
        "width_px": outcome.width,
        "height_px": outcome.height,
        **_group_cells(outcome),
        **_lesion_cells(outcome),
        **_millimetre_cells(outcome),
        **_trust_cells(outcome),
        "model": outcome.model.name,
        "revision": outcome.model.revision,
        "calibrated": _yes(outcome.model.calibrated),
        "name_confidence": outcome.name_confidence,
        "tta": outcome.tta,
        "seconds": round(outcome.seconds, 3),
        "time": outcome.at.isoformat(timespec="seconds"),
        "note": disclaimer(untranslated),
    }


def _group_cells(record: Record) -> dict[str, Cell]:
    cells: dict[str, Cell] = {}
    for group in record.groups:
        cells[group.group] = group_words(group, record.name_confidence, untranslated)
        for name, probability, trained in zip(group.names, group.probabilities, group.trained, strict=True):
            cells[f"{group.group}: {name}"] = round(probability, 4) if trained else None
    return cells


def _lesion_cells(record: Record) -> dict[str, Cell]:
    """Totals, and the measures of the largest lesion; empty where the mask means nothing."""
    measures = record.measures
    low, high = measures.area_interval_px or (None, None)
    totals: dict[str, Cell] = {
        "lesions": len(measures.lesions),
        "area_px": measures.area_px,
        "area_px_low": _rounded(low, 0),
        "area_px_high": _rounded(high, 0),
        "area_percent": round(100 * measures.area_ratio, 3),
        "mask_certainty": _rounded(measures.certainty, 3),
    }
    return {
        "mask_trained": _yes(record.mask_trained),
        "corrected": _yes(record.corrected),
        "threshold": record.threshold,
        **(totals if has_mask(record) else dict.fromkeys(totals)),
        **_largest_cells(measures.lesions[0] if measures.lesions else None),
    }


def _largest_cells(lesion: "Lesion | None") -> dict[str, Cell]:
    return {
        "largest_diameter_px": _rounded(lesion.equivalent_diameter_px if lesion else None, 1),
        "largest_perimeter_px": _rounded(lesion.perimeter_px if lesion else None, 1),
        "largest_asymmetry": _rounded(lesion.asymmetry if lesion else None, 3),
        "largest_border_irregularity": _rounded(lesion.border_irregularity if lesion else None, 3),
        "largest_colour_variegation": _rounded(lesion.colour_variegation if lesion else None, 3),
    }


def has_mask(record: Record) -> bool:
    """Whether the mask means anything: the model was trained for it, or a person drew it."""
    return record.mask_trained or record.corrected


def _millimetre_cells(record: Record) -> dict[str, Cell]:
    scale = record.scale
    if not scale:
        return {}
    low, high = record.measures.area_interval_px or (None, None)
    diameter_px = record.measures.lesions[0].equivalent_diameter_px if record.measures.lesions else None
    return {
        "mm_per_px": scale.mm_per_px,
        "scale_source": scale.source,
        "area_mm2": round(area_mm2(record.measures.area_px, scale), 3),
        "area_mm2_low": _rounded(None if low is None else area_mm2(low, scale), 3),
        "area_mm2_high": _rounded(None if high is None else area_mm2(high, scale), 3),
        "largest_diameter_mm": _rounded(None if diameter_px is None else diameter_px * scale.mm_per_px, 3),
    }


def _trust_cells(record: Record) -> dict[str, Cell]:
    tone, familiarity = record.skin_tone, record.familiarity
    return {
        "photo_quality": ", ".join(quality_words(record.quality, untranslated)) or "sharp and well lit",
        "unlike_training_photos": _yes(familiarity.unlike) if familiarity else None,
        "apparent_skin_tone_ita_degrees": round(tone.ita_degrees, 1) if tone else None,
        "apparent_skin_tone": tone.category if tone else None,
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits or None)


def _inert(cell: Cell) -> Cell:
    """Text that no program for tables takes for a formula; an apostrophe in front marks text there."""
    if not isinstance(cell, str):
        return cell
    return FORMULA.sub(r"\1\2'\3", printable(cell))


# ---- the page's table


def table_columns(outcomes: Sequence[Outcome], t: Translate = untranslated) -> list[str]:
    """Headings of `table_rows`."""
    millimetres = [t("Diameter (mm)")] if _any_scale(outcomes) else []
    return [
        t("Photo"),
        t("Megapixels"),
        *[capitalised(t(group)) for group in _groups(outcomes)],
        t("Lesions"),
        t("Area (%)"),
        t("Diameter (px)"),
        *millimetres,
        t("Photo quality"),
        t("Notes"),
    ]


def table_rows(outcomes: Sequence[Outcome], t: Translate = untranslated) -> list[list[Cell]]:
    """One short row a photo, in the order given; numbers stay numbers, so that columns sort. None: nothing to say."""
    groups, scaled = _groups(outcomes), _any_scale(outcomes)
    width = len(table_columns(outcomes))
    return [
        _failure_row(outcome, width) if isinstance(outcome, Failure) else _table_row(outcome, groups, scaled, t)
        for outcome in outcomes
    ]


def _groups(outcomes: Sequence[Outcome]) -> list[str]:
    names = [group.group for outcome in outcomes if isinstance(outcome, Record) for group in outcome.groups]
    return list(dict.fromkeys(names))


def _any_scale(outcomes: Sequence[Outcome]) -> bool:
    return any(isinstance(outcome, Record) and outcome.scale for outcome in outcomes)


def _failure_row(failure: Failure, width: int) -> list[Cell]:
    return [printable(failure.name), *[None] * (width - 2), printable(failure.reason)]


def _table_row(record: Record, groups: Sequence[str], scaled: bool, t: Translate) -> list[Cell]:
    answers = {group.group: group_words(group, record.name_confidence, t) for group in record.groups}
    largest = record.measures.lesions[0].equivalent_diameter_px if record.measures.lesions else None
    diameter_mm = round(largest * record.scale.mm_per_px, 1) if largest is not None and record.scale else None
    return [
        printable(record.name),
        round(record.height * record.width / 1e6, 2),
        *[answers.get(group) for group in groups],
        len(record.measures.lesions) if has_mask(record) else None,
        round(100 * record.measures.area_ratio, 1) if has_mask(record) else None,
        _rounded(largest, 0),
        *([diameter_mm] if scaled else []),
        ", ".join(quality_words(record.quality, t)) or t("sharp and well lit"),
        ", ".join(_notes(record, t)),
    ]


def _notes(record: Record, t: Translate) -> list[str]:
    notes = {
        t("unlike the training photos"): record.familiarity is not None and record.familiarity.unlike,
        t("mask unsure"): mask_is_unsure(record),
        t("mask corrected by hand"): record.corrected,
        t("mask not trained"): not has_mask(record),
    }
    return [note for note, holds in notes.items() if holds]
