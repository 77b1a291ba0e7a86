"""Names made safe, and the table of answers as CSV, as JSON and on the page: read back, with hostile names."""

import csv
import json
import re
import unicodedata
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from builders import law
from hypothesis import assume, example, given
from hypothesis import strategies as st
from records import HAIR, SKIN, SKIN_UNNAMED, record

from mtl.analysis.lesion import MaskMeasures
from mtl.analysis.names import MAX_STEM_CHARACTERS, RESERVED, printable, safe_names
from mtl.analysis.predict import GroupAnswer
from mtl.analysis.quality import Quality, QualityIssue
from mtl.analysis.record import Record, Scale
from mtl.analysis.table import (
    Failure,
    Outcome,
    record_to_dict,
    table_columns,
    table_rows,
    write_csv,
    write_json,
)

# Lone surrogates too, which stand for the bytes of a name that is no UTF-8.
anything = st.text(st.characters())
HOSTILE = {
    "../../etc/passwd": "passwd",
    "C:\\photos\\mole.jpg": "mole",
    "CON.jpg": "photo-CON",
    "com¹.tar.png": "photo-com¹.tar",
    "nul": "photo-nul",
    "": "photo",
    "...": "photo",
    ".jpg": "photo",
    "-rf.png": "rf",
    "left arm (2).JPG": "left arm (2)",
    "Müller, 3. März.jpeg": "Müller- 3. März",
    "Mu\u0308ller.jpg": "Müller",
    "काला तिल.jpg": "काला तिल",
    "母斑 写真.heic": "母斑 写真",
    "mole\u202egpj.exe": "molegpj",
    "a\r\nb\x00c.png": "a-b-c",
    "<img src=x onerror=alert(1)>.png": "img src-x onerror-alert(1)",
    "=cmd|'/C calc'!A1.jpg": "C calc-A1",
    "trailing . .jpg": "trailing",
    "\udcff\udcfe.jpg": "photo",
}


# ---- names


@pytest.mark.parametrize(("name", "stem"), HOSTILE.items(), ids=ascii)
def test_a_name_is_made_safe_and_stays_recognisable(name: str, stem: str) -> None:
    assert safe_names([name]) == [stem]


@law
@given(st.lists(anything | st.sampled_from([*HOSTILE, "a.jpg", "A.png", "ａ.gif", "a-2.jpg", "ß.jpg", "SS.jpg"])))
def test_every_computer_takes_the_names(names: list[str]) -> None:
    stems = safe_names(names)
    assert len(stems) == len(names)
    assert len({unicodedata.normalize("NFKC", stem).casefold() for stem in stems}) == len(stems)
    for stem in stems:
        assert len(f"{stem}_overlay.jpg".encode()) <= 255
        assert unicodedata.is_normalized("NFC", stem)
        assert not set(stem) & set("<>:\"/\\|?*&;'`$%!=@")
        assert not {unicodedata.category(character)[0] for character in stem} & {"C"}
        assert stem == stem.strip(" .-") != ""
        assert not re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)", stem.split(".")[0].strip(), re.IGNORECASE)


@law
@given(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=18))
def test_letters_of_all_scripts_stay(text: str) -> None:
    assume(not RESERVED.fullmatch(text))
    assert safe_names([f"{text}.jpg"]) == [unicodedata.normalize("NFC", text)]


def test_names_of_a_long_series_keep_what_they_differ_in() -> None:
    series = [f"{'dermatoscopy of the left lower arm, ' * 3}{side}.jpg" for side in ("before", "after")]
    before, after = safe_names(series)
    assert before.startswith("dermatoscopy of the left lower arm")
    assert (before[-6:], after[-5:]) == ("before", "after")
    assert len(before) <= MAX_STEM_CHARACTERS


def test_equal_names_are_numbered() -> None:
    assert safe_names(["a.jpg", "A.png", "a-2.jpg", "a.gif"]) == ["a", "A-2", "a-2-2", "a-3"]


def test_the_disk_takes_hostile_names(tmp_path: Path) -> None:
    stems = safe_names([*HOSTILE, *HOSTILE, "x" * 5000, "写" * 5000, "😀" * 500])
    for stem in stems:
        (tmp_path / f"{stem}_overlay.jpg").touch()
    assert len(list(tmp_path.iterdir())) == len(stems)


# ---- CSV


def read_back(text: str) -> list[dict[str, str]]:
    """As a reader of UTF-8 with a byte order mark has it."""
    return list(csv.DictReader(StringIO(text.encode("utf-8").decode("utf-8-sig"), newline="")))


def test_a_row_holds_the_answer() -> None:
    [row] = read_back(write_csv([record("left arm.jpg", 2, Scale(0.1, "ruler"))]))
    assert (row["photo"], row["error"], row["files"]) == ("left arm.jpg", "", "left arm")
    assert (row["skin type"], row["hair type"]) == ("oily", "not seen")
    assert (float(row["skin type: oily"]), row["skin type: sensitive"]) == (0.81, "")
    assert (int(row["lesions"]), int(row["area_px"]), float(row["area_percent"])) == (2, 80_000, 0.667)
    assert (float(row["area_mm2"]), float(row["area_mm2_low"]), float(row["area_mm2_high"])) == (800, 720, 960)
    assert float(row["largest_diameter_mm"]) == pytest.approx(22.568, abs=0.001)
    assert (row["model"], row["revision"], row["calibrated"]) == ("default", "3f2a99b01c77", "yes")
    assert (row["time"], row["corrected"]) == ("2025-03-04T10:22:00+00:00", "no")
    assert float(row["apparent_skin_tone_ita_degrees"]) == -12.3
    assert "Not a diagnosis" in row["note"]


def test_bad_photos_are_rows_with_their_reasons() -> None:
    good, bad = read_back(write_csv([record(), Failure("broken.jpg", "the file is cut short")]))
    assert (good["error"], bad["error"]) == ("", "the file is cut short")
    assert {value for key, value in bad.items() if key not in ("photo", "error")} == {""}


def test_only_bad_photos_make_a_table_too() -> None:
    assert read_back(write_csv([Failure("a", "b")])) == [{"photo": "a", "error": "b"}]


def test_models_with_other_classes_share_a_table() -> None:
    other = replace(record("b.jpg"), groups=(GroupAnswer("tone", ("warm", "cool"), (0.7, 0.3), (True, True), 1, True),))
    first, second = read_back(write_csv([record(), other]))
    assert (first["skin type"], first["tone"]) == ("oily", "")
    assert (second["skin type"], second["tone"]) == ("", "warm")


def test_a_mask_that_means_nothing_has_no_figures() -> None:
    untrained = replace(record(), mask_trained=False, measures=MaskMeasures((), 0, 0.0))
    [row] = read_back(write_csv([untrained]))
    assert (row["mask_trained"], row["lesions"], row["area_px"]) == ("no", "", "")
    [drawn] = read_back(write_csv([replace(untrained, corrected=True)]))
    assert (drawn["lesions"], drawn["area_px"]) == ("0", "0")


dangerous = st.text('=+-@＝\t\r\n;," |a')


@law
@given(dangerous | anything, dangerous | anything)
@example("=cmd|'/C calc'!A1.jpg", "a;=1")
@example("\t@SUM(1)", 'a;"=1')
@example(" -1", "a\n+1")
def test_no_cell_is_a_formula(name: str, reason: str) -> None:
    text = write_csv([record(name), Failure(name, reason)])
    assert [row["photo"].replace("'", "") for row in read_back(text)] == [printable(name).replace("'", "")] * 2
    # However a program splits it.
    for cell in re.split(r"[,;\t\r\n]", text.removeprefix("\ufeff")):
        bare = cell.strip(' "')
        assert not bare.startswith(tuple("=+@＝＋－＠"))
        assert not bare.startswith("-") or float(bare) < 0


# ---- JSON


def test_json_is_complete() -> None:
    whole = record("left arm.jpg", 2, Scale(0.1, "DICOM"))
    [photo] = json.loads(write_json([whole]))["photos"]
    assert photo == {"files": "left arm", **json.loads(json.dumps(record_to_dict(whole)))}
    assert photo["classification"]["groups"]["skin type"]["probabilities"] == dict(
        zip(SKIN.names, SKIN.probabilities, strict=True)
    )
    assert photo["classification"]["groups"]["hair type"]["applies"] is False
    segmentation = photo["segmentation"]
    assert (segmentation["area_px"], segmentation["area_interval_px"]) == (80_000, [72_000, 96_000])
    assert segmentation["area_mm2"] == pytest.approx(800)
    assert [lesion["area_mm2"] for lesion in segmentation["lesions"]] == pytest.approx([400, 400])
    assert segmentation["lesions"][0]["perimeter_mm"] == pytest.approx(70.9)
    assert photo["scale"] == {"mm_per_px": 0.1, "source": "DICOM"}
    assert "not of the person" in photo["skin_tone"]["caveat"]
    assert photo["familiarity"] == {"distance": 1.2, "limit": 2.0, "unlike": False}
    assert photo["model"]["untrained"] == ["sensitive"]
    assert (photo["at"], photo["seconds"]) == ("2025-03-04T10:22:00+00:00", 0.84)
    assert "Not a diagnosis" in photo["disclaimer"]


def test_what_is_not_known_is_null() -> None:
    bare = replace(record(), skin_tone=None, familiarity=None, scale=None)
    [photo] = json.loads(write_json([bare]))["photos"]
    assert [photo[key] for key in ("skin_tone", "familiarity", "scale")] == [None] * 3
    assert "area_mm2" not in photo["segmentation"]


@law
@given(st.lists(anything))
def test_any_names_make_json_that_can_be_stored(names: list[str]) -> None:
    outcomes: list[Outcome] = [Failure(name, name) for name in names]
    photos = json.loads(write_json(outcomes).encode("utf-8"))["photos"]
    assert [photo["photo"] for photo in photos] == [printable(name) for name in names]


# ---- the page's table


def test_a_row_of_the_page() -> None:
    issues = Quality((QualityIssue("blurred"), QualityIssue("lesion cut off", ("left",))))
    first = replace(record(lesions=2), quality=issues, corrected=True)
    outcomes = [first, Failure("b.jpg", "the file is damaged")]
    columns = table_columns(outcomes)
    answered, failed = (dict(zip(columns, row, strict=True)) for row in table_rows(outcomes))
    assert answered == {
        "Photo": "left arm.jpg", "Megapixels": 12.0, "Skin type": "oily", "Hair type": "not seen", "Lesions": 2,
        "Area (%)": 0.7, "Diameter (px)": 226.0, "Photo quality": "blurred, lesion cut off at the left edge",
        "Notes": "mask corrected by hand",
    }  # fmt: skip
    assert (failed["Photo"], failed["Notes"], failed["Lesions"]) == ("b.jpg", "the file is damaged", None)


def test_below_the_set_confidence_no_class_is_named() -> None:
    outcomes = [replace(record(), name_confidence=0.9)]
    [row] = table_rows(outcomes)
    assert row[table_columns(outcomes).index("Skin type")] == "uncertain: oily or normal"


def test_a_group_that_is_never_named_has_its_figures_only() -> None:
    answer = replace(record(), groups=(SKIN_UNNAMED, HAIR), tta="flips")
    [row] = read_back(write_csv([answer]))
    assert (row["skin type"], float(row["skin type: oily"]), row["tta"]) == ("uncertain", 0.81, "flips")
    told = record_to_dict(answer)
    assert told["tta"] == "flips"
    skin, hair = told["classification"]["groups"].values()
    assert (skin["answer"], skin["named"], hair["named"]) == ("uncertain", False, True)
    assert table_rows([answer])[0][table_columns([answer]).index("Skin type")] == "uncertain"


def changed(base: Record, scaled: bool, lesions: int, groups: tuple[GroupAnswer, ...]) -> Record:
    return replace(record(base.name, lesions, Scale(0.1, "ruler") if scaled else None), groups=groups)


some_records = st.builds(
    changed, st.builds(record, anything), st.booleans(), st.integers(0, 3), st.sampled_from([(), (SKIN,), (SKIN, HAIR)])
)


@law
@given(st.lists(some_records | st.builds(Failure, anything, anything)))
def test_all_rows_fit_their_columns_and_sort(outcomes: list[Outcome]) -> None:
    columns, rows = table_columns(outcomes), table_rows(outcomes)
    assert {len(row) for row in rows} <= {len(columns)}
    assert ("Diameter (mm)" in columns) == any(isinstance(o, Record) and o.scale is not None for o in outcomes)
    for row in rows:
        for column, cell in zip(columns, row, strict=True):
            words = column in ("Photo", "Photo quality", "Notes", "Skin type", "Hair type")
            assert cell is None or isinstance(cell, str if words else int | float), column


def test_the_pages_table_is_translated_and_the_files_are_not() -> None:
    outcomes = [record()]
    assert all(column.startswith("¡") for column in table_columns(outcomes, "¡{}".format))
    [row] = table_rows(outcomes, "¡{}".format)
    assert {"¡oily", "¡not seen", "¡sharp and well lit"} <= set(row)
    assert "oily" in write_csv(outcomes)
