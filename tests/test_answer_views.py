"""How answers read on the page: what is said, what is not, and nothing that a person typed counts as HTML."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from builders import law
from hypothesis import given
from hypothesis import strategies as st
from records import HAIR, SKIN, SKIN_UNNAMED, crowded_record, record

from mtl.analysis.lesion import MaskMeasures
from mtl.analysis.predict import GroupAnswer
from mtl.analysis.quality import Quality, QualityIssue
from mtl.analysis.record import Record, Scale
from mtl.analysis.unlike import Familiarity
from mtl.ui.answer_views import (
    MAX_LESIONS,
    alt_text,
    answer_card,
    caption,
    class_words,
    headline,
    lesion_marks,
    lesion_words,
    progress,
)
from mtl.ui.desk import DeskPhoto
from mtl.ui.texts import Words

EN, DE = Words(), Words("de")
UNTRAINED = replace(SKIN, trained=(False,) * 5, probabilities=(0.0,) * 5, applies=False)


def on_desk(answer: Record | None, error: str = "", name: str = "left arm.jpg") -> DeskPhoto:
    return DeskPhoto(name, Path("0123.jpg"), record=answer, error=error)


def card(answer: Record) -> str:
    return answer_card(on_desk(answer), EN)


def text_of(html: str) -> str:
    return " ".join(re.sub("<[^>]*>", " ", html).split())


def without_mask() -> MaskMeasures:
    return MaskMeasures((), 0, 0.0)


# ---- what is said


def test_the_card_states_class_lesion_trust_and_model() -> None:
    text = text_of(card(record()))
    for words in (
        "Skin type: oily 81 %",
        "left arm.jpg",
        "sensitive not trained, no photos",
        "1 lesion, 0.3 % of the photo",
        "Area 40,000 px² (between 36,000 and 48,000).",
        "Mask certainty 87 %.",
        "Sharp and well lit, 4000 × 3000 px",
        "brown (ITA -12°)",
        "default, revision 3f2a99b01c77",
        "Probabilities calibrated",
        "Mask threshold 50 %",
        "2025-03-04 10:22, 0.84 s",
    ):
        assert words in text
    assert "hair" not in text.lower(), "a group that does not apply"
    assert " mm" not in text


def test_bars_stand_from_the_likeliest_to_the_untrained() -> None:
    names = re.findall(r'role="listitem"><span>(\w+)', card(record()))
    assert names == ["oily", "normal", "dry", "combination", "sensitive"]


@pytest.mark.parametrize(("confidence", "named"), [(0.81, True), (0.82, False)])
def test_below_the_set_confidence_no_class_is_named(confidence: float, named: bool) -> None:
    answer = replace(record(), name_confidence=confidence)
    assert (headline(answer, EN) == "Skin type: oily 81 %") == named
    assert ("uncertain: oily or normal" in headline(answer, EN)) != named
    assert ("uncertain, below 82 %" in card(answer)) != named
    assert caption(on_desk(answer), EN).startswith("oily" if named else "uncertain")


def test_a_group_that_is_never_named_says_why_and_keeps_its_bars() -> None:
    answer = replace(record(), groups=(SKIN_UNNAMED, HAIR), name_confidence=0.0)
    assert headline(answer, EN) == "Skin type: uncertain"
    assert caption(on_desk(answer), EN).startswith("uncertain")
    assert "oily" not in alt_text(1, on_desk(answer), EN)
    text = text_of(card(answer))
    assert "Skin type · not named: wrong too often on test photos oily 81 % normal 12 %" in text
    assert "below" not in text
    german = text_of(answer_card(on_desk(answer), DE))
    assert "Hauttyp · nicht genannt: auf Testfotos zu oft falsch" in german


def test_a_close_up_of_a_lesion_has_no_type() -> None:
    answer = replace(record(), groups=(replace(SKIN, applies=False), HAIR))
    assert class_words(answer, EN) == "no skin or hair type seen"
    assert "mtl-bar" not in card(answer)
    assert caption(on_desk(answer), EN) == "lesion 0.3 %"


def test_what_is_not_trained_is_not_answered() -> None:
    no_class = replace(record(), groups=(UNTRAINED,))
    assert headline(no_class, EN) == "1 lesion, 0.3 % of the photo"
    assert "seen" not in card(no_class)
    no_mask = replace(record(), mask_trained=False, measures=without_mask())
    assert lesion_words(no_mask, EN) == "mask not trained"
    assert "no lesion" not in alt_text(1, on_desk(no_mask), EN)
    assert "mask not trained" not in lesion_words(replace(record(), mask_trained=False, corrected=True), EN)


def test_a_model_with_groups_of_its_own_says_which_it_saw_nothing_of() -> None:
    nails = GroupAnswer("nails", ("smooth", "ridged"), (0.5, 0.5), (True, True), 1.0, applies=False)
    assert class_words(replace(record(), groups=(nails,)), EN) == "nothing of nails seen"


def test_specks_are_no_lesion_and_get_no_table() -> None:
    specks = replace(record(), measures=replace(without_mask(), area_px=36_000, area_ratio=0.003))
    assert lesion_words(specks, EN) == "no lesion found, only specks, together 0.3 % of the photo"
    assert lesion_words(replace(record(), measures=without_mask()), EN) == "no lesion found"
    assert "<table" not in card(specks)


@law
@given(count=st.integers(1, 40))
def test_each_shown_lesion_has_a_row_and_a_mark_and_the_others_are_counted(count: int) -> None:
    answer = record(lesions=count)
    rows = re.findall(r"<tr><td>(\d+)</td>", card(answer))
    shown = min(count, MAX_LESIONS)
    assert rows == [str(number) for number in range(1, shown + 1)]
    assert [mark["number"] for mark in lesion_marks(answer.measures)] == list(range(1, shown + 1))
    assert (f"and {count - shown} smaller ones" in card(answer)) == (count > shown)
    assert lesion_words(answer, EN).startswith(f"{count} lesion")


def test_with_a_scale_lengths_are_in_millimetres_and_areas_in_their_square() -> None:
    text = text_of(card(record(scale=Scale(0.05, "ruler"))))
    assert "Area 100.0 mm² (between 90.0 and 120.0)." in text
    assert "area (mm²) diameter (mm)" in text
    assert "1 100.0 11.3 35.5 0.18 1.31 12.3" in text
    assert "0.0500 mm/px (ruler)" in text
    assert "px²" not in text


def test_a_corrected_mask_is_marked_and_has_no_interval() -> None:
    answer = record()
    measures = replace(answer.measures, area_interval_px=None, certainty=None)
    text = text_of(card(replace(answer, corrected=True, measures=measures)))
    assert "Corrected by hand." in text
    assert "between 36" not in text
    assert "Mask certainty 8" not in text


def test_every_doubt_is_told_in_the_card_and_to_screen_readers() -> None:
    issues = (QualityIssue("blurred"), QualityIssue("lesion cut off", ("left",)))
    answer = replace(record(), quality=Quality(issues), familiarity=Familiarity(9.0, 2.0))
    doubts = "blurred, lesion cut off at the left edge, unlike the training photos"
    assert f"Look twice: {doubts}" in text_of(card(answer))
    assert alt_text(3, on_desk(answer), EN).endswith(doubts.replace(", ", "; "))
    assert "Look twice" not in card(record())


def test_the_views_that_were_averaged_are_told() -> None:
    assert "Views averaged 8" in text_of(card(replace(record(), tta="turns")))
    assert "views" not in text_of(card(record())).lower()


def test_alt_texts_state_the_result() -> None:
    assert alt_text(3, on_desk(record()), EN) == "Photo 3: skin type: oily 81 %; 1 lesion, 0.3 % of the photo"
    assert alt_text(4, on_desk(None, "cut short"), EN) == "Photo 4: cut short"
    assert alt_text(5, on_desk(None), EN) == "Photo 5: waiting"


def test_a_photo_without_an_answer_says_why() -> None:
    bad, waiting = on_desk(None, "the file is cut short"), on_desk(None)
    assert "This photo cannot be analysed the file is cut short left arm.jpg" in text_of(answer_card(bad, EN))
    assert "Waiting" in answer_card(waiting, EN)
    assert [caption(photo, EN) for photo in (bad, waiting)] == ["cannot be read", "waiting"]


def test_progress_is_there_until_all_is_done() -> None:
    assert "3 of 20 photos" in progress(3, 20, 12.4, EN)
    assert "about 12 s left" in progress(3, 20, 12.4, EN)
    assert "left" not in progress(0, 20, None, EN)
    assert progress(20, 20, 0.0, EN) == ""


# ---- what a person typed, and what they must never read

TYPED = '<img src=x onerror=alert(1)>"&'


def test_nothing_that_a_person_typed_counts_as_html() -> None:
    odd = replace(SKIN, group=TYPED, names=(TYPED, "dry", "oily", "normal", "other"))
    plain = record()
    answer = replace(plain, name=TYPED, groups=(odd,), model=replace(plain.model, name=TYPED, untrained=(TYPED,)))
    html = [
        card(answer),
        answer_card(on_desk(None, error=TYPED, name=TYPED), EN),
        answer_card(on_desk(None, name=TYPED), EN),
    ]
    assert all("<img" not in part and "&lt;img" in part for part in html)


@pytest.mark.parametrize("words", [EN, DE])
@pytest.mark.parametrize("answer", [record(), crowded_record(), record(lesions=0), record(scale=Scale(0.01, "DICOM"))])
def test_no_finding_names_a_disease_or_a_risk(answer: Record, words: Words) -> None:
    said = text_of(answer_card(on_desk(answer), words)) + alt_text(1, on_desk(answer), words)
    assert not re.search(
        r"melanom|cancer|krebs|malign|benign|bösartig|gutartig|risk|disease|krankheit|diagnos", said, re.I
    )


def test_german_says_the_same_with_its_own_numbers() -> None:
    text = text_of(answer_card(on_desk(record()), DE))
    for words in ("40.000 px²", "81 %", "0,3 %", "0,84 s"):
        assert words in text
