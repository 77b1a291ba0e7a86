"""What findings are called in plain words, so that table, report and page say the same.

Each text is an English literal in `t("...")`, and `t` gives it in the reader's language. Names of classes and groups
are settings: they pass through `t` too, and stay as they are where it does not know them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mtl.analysis.predict import GroupAnswer
from mtl.analysis.record import Record

if TYPE_CHECKING:
    from mtl.analysis.quality import Quality, QualityIssue
    from mtl.analysis.skin_tone import SkinTone

Translate = Callable[[str], str]

# Below it a mask is called unsure. With the shipped model, on every second of the 249 validation photos of lesions,
# 11 % are, and 7 of the 8 masks whose Jaccard is below 0.5; mean Jaccard 0.50 of these masks, 0.84 of the others.
MIN_CERTAINTY = 0.6


def untranslated(text: str) -> str:
    return text


def number(value: float, digits: int, t: Translate) -> str:
    """1234.5 with one digit -> "1,234.5"; the separators are those of what `t` gives for that text."""
    sample = t("1,234.5")
    return f"{value:,.{digits}f}".translate(str.maketrans(",.", sample[1] + sample[5]))


def percent(share: float, digits: int, t: Translate) -> str:
    """0.042 with one digit -> "4.2 %"."""
    return f"{number(100 * share, digits, t)} %"


def disclaimer(t: Translate) -> str:
    return t("Research use only. Not a diagnosis, not a medical device.")


def skin_tone_caveat(t: Translate) -> str:
    return t("of the photo, not of the person: light and camera move it")


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def group_words(group: GroupAnswer, name_confidence: float, t: Translate) -> str:
    """A group's answer: "oily", "uncertain: oily or normal", "not seen", "not trained"; "uncertain" if never named."""
    if not any(group.trained):
        return t("not trained")
    if not group.applies:
        return t("not seen")
    if group.is_named_at(name_confidence):
        return t(group.predicted_class)
    if not group.named:
        return t("uncertain")
    first, second = sorted(zip(group.probabilities, group.names, strict=True), reverse=True)[:2]
    return t("uncertain: {first} or {second}").format(first=t(first[1]), second=t(second[1]))


def never_named(t: Translate) -> str:
    """Why a group's answer is uncertain whatever its probability."""
    return t("not named: wrong too often on test photos")


def quality_words(quality: "Quality", t: Translate) -> list[str]:
    """Each reason to doubt the photo; none where there is none."""
    return [words for issue in quality.issues for words in _issue_words(issue, t)]


def _issue_words(issue: "QualityIssue", t: Translate) -> list[str]:
    if issue.kind == "lesion cut off":
        edges = {
            "top": t("lesion cut off at the top edge"),
            "left": t("lesion cut off at the left edge"),
            "bottom": t("lesion cut off at the bottom edge"),
            "right": t("lesion cut off at the right edge"),
        }
        return [edges[edge] for edge in issue.edges]
    kinds = {
        "blurred": t("blurred"),
        "dark": t("too dark"),
        "overexposed": t("overexposed"),
        "uneven light": t("unevenly lit"),
        "glare": t("glare"),
        "too small": t("too small"),
    }
    return [kinds[issue.kind]]


def mask_is_unsure(record: Record) -> bool:
    """Whether the probability map itself expects little overlap of this mask with the truth."""
    certainty = record.measures.certainty
    return certainty is not None and record.measures.area_px > 0 and certainty < MIN_CERTAINTY


def doubts(record: Record, t: Translate) -> list[str]:
    """Why not to trust an answer, in a few words each."""
    unlike = record.familiarity is not None and record.familiarity.unlike
    found = {t("unlike the training photos"): unlike, t("mask unsure"): mask_is_unsure(record)}
    return quality_words(record.quality, t) + [words for words, holds in found.items() if holds]


def skin_tone_words(tone: "SkinTone", t: Translate) -> str:
    """ "light (ITA 47°)"."""
    categories = {
        "very light": t("very light"),
        "light": t("light"),
        "intermediate": t("intermediate"),
        "tan": t("tan"),
        "brown": t("brown"),
        "dark": t("dark"),
    }
    return t("{category} (ITA {degrees}°)").format(
        category=categories[tone.category], degrees=f"{tone.ita_degrees:.0f}"
    )
