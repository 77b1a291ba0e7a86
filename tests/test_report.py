"""The report of one photo and the zip of many, opened again: PDF rendered and read, pictures, tables, memory."""

import logging
import weakref
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from builders import draw_photo
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from records import HAIR, SKIN_UNNAMED, crowded_record, record

from mtl.analysis.bundle import BundleItem, write_bundle
from mtl.analysis.lesion import MaskMeasures
from mtl.analysis.overlay import draw_overlay
from mtl.analysis.quality import Quality, QualityIssue
from mtl.analysis.record import Record, Scale
from mtl.analysis.report import write_report
from mtl.analysis.table import Failure, write_csv, write_json
from mtl.analysis.words import Translate, untranslated
from mtl.errors import PhotoError, RunError
from mtl.photo import read_mask, read_photo

A4_POINTS = (595, 842)
PHOTO, MASK = draw_photo(2, 200, np.random.default_rng(0))
GREY = np.full((30, 40, 3), 128, np.uint8)


def one_page(pdf: bytes) -> pypdfium2.PdfPage:
    document = pypdfium2.PdfDocument(pdf)
    assert len(document) == 1
    return document[0]


def words(of: Record, t: Translate = untranslated) -> str:
    """What stands on the page of a small grey photo, on one line."""
    page = one_page(write_report(of, GREY, GREY, t))
    return " ".join(page.get_textpage().get_text_range().split())


# ---- the report


def test_the_report_says_it_all() -> None:
    page = words(record(lesions=2))
    for text in (
        "Skin photo report", "left arm.jpg", "4000 × 3000 pixels", "2025-03-04 10:22 UTC",
        "Skin type: oily", "81 %", "sensitive not trained", "Hair type: not seen",
        "2 lesions", "Share of the photo 0.7 % (likely 0.6–0.8)", "80,000 px", "Mask certainty 87 %",
        "2 0.33 226 0.18 1.31 12.3",
        "Photo quality sharp and well lit", "like the training photos", "brown (ITA -12°), of the photo",
        "Model default", "3f2a99b01c77, probabilities calibrated", "mask cut at 50 %", "answered in 0.8 s",
        "Research use only. Not a diagnosis, not a medical device.",
    ):  # fmt: skip
        assert text in page, page
    assert "corrected" not in page


def test_the_report_says_what_limits_it() -> None:
    page = words(crowded_record())
    for text in ("Unlike the training photos", "Photo: blurred, too dark", "corrected by hand", "not calibrated"):
        assert text in page


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name_confidence": 0.9}, "Skin type: uncertain: oily or normal"),
        (
            {"groups": (SKIN_UNNAMED, HAIR)},
            "Skin type: uncertain not named: wrong too often on test photos oily 81 %",
        ),
        ({"groups": (replace(SKIN_UNNAMED, applies=False),)}, "Skin type: not seen Lesions"),
        ({"tta": "flips"}, "classes named from 50 %, 4 views, answered in 0.8 s"),
        ({"mask_trained": False, "measures": MaskMeasures((), 0, 0.0)}, "Mask not trained"),
        ({"measures": MaskMeasures((), 0, 0.0)}, "No lesion found How far"),
        ({"measures": MaskMeasures((), 70, 0.0)}, "No lesion found, only specks"),
        ({"scale": Scale(0.1, "ruler")}, "Area 400.0 mm² (likely 360.0–480.0) Scale 0.1 mm/px, ruler in the photo"),
        ({"scale": Scale(0.1, "ruler")}, "1 400.0 22.6"),
        ({"quality": Quality((QualityIssue("lesion cut off", ("left",)),))}, "lesion cut off at the left edge"),
        ({"name": "Ёлка ß Ω.png"}, "Ёлка ß Ω.png"),
        ({"name": "写a\u202eb.png"}, "□a b.png"),
    ],
)
def test_what_a_report_says_of(change: dict[str, object], text: str) -> None:
    assert text in words(replace(record(), **change))


def test_the_report_is_translated() -> None:
    page = words(record(), "¡{}".format)
    for text in ("¡Skin photo report", "¡skin type: ¡oily", "¡1 lesion", "¡sharp and well lit", "¡Research use only."):
        assert text in page


def test_photo_and_overlay_stand_side_by_side() -> None:
    photo = np.full((300, 400, 3), (200, 150, 130), np.uint8)
    overlay = np.full((300, 400, 3), (0, 229, 255), np.uint8)
    picture = one_page(write_report(record(), photo, overlay)).render(scale=1).to_pil().convert("RGB")
    assert picture.size == pytest.approx(A4_POINTS, abs=1)
    left, right = (np.array(picture.getpixel((x, 180)), int) for x in (150, 440))
    assert np.abs(left - (200, 150, 130)).max() <= 4
    assert np.abs(right - (0, 229, 255)).max() <= 4


def test_the_pdf_tells_no_more_than_the_page() -> None:
    pdf = write_report(record(), GREY, GREY)
    metadata = pypdfium2.PdfDocument(pdf).get_metadata_dict(skip_empty=True)
    assert metadata == {"Title": "Skin photo report", "CreationDate": "D:20250304102200Z"}
    assert str(Path.home()).encode() not in pdf
    assert b"/Users" not in pdf
    assert b"Exif" not in pdf


def char_boxes(page: pypdfium2.PdfPage) -> np.ndarray:
    """(N, 4) left, bottom, right, top in points, of all letters that are seen."""
    text = page.get_textpage()
    letters = text.get_text_range(count=-1)
    boxes = [text.get_charbox(index) for index in range(text.count_chars())]
    assert len(letters) >= 0.9 * len(boxes)
    return np.array([box for box in boxes if box[2] - box[0] > 0.1 and box[3] - box[1] > 0.1])


def overlaps(boxes: np.ndarray) -> int:
    """Pairs of letters of which one covers over a third of the other."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    covered = shared > np.minimum(area[:, None], area[None, :]) / 3
    return int(np.triu(covered, 1).sum())


def longer(text: str) -> str:
    """As other languages are."""
    return f"{text} {'in den mei' * (len(text) // 20)}"


@pytest.mark.parametrize("t", [untranslated, longer])
@pytest.mark.parametrize("shape", [(30, 40, 3), (400, 30, 3), (1, 900, 3), (1, 1, 3)])
def test_too_much_of_everything_stays_in_its_place(t: Translate, shape: tuple[int, int, int]) -> None:
    picture = np.zeros(shape, np.uint8)
    crowded = replace(crowded_record(), height=shape[0], width=shape[1])
    page = one_page(write_report(crowded, picture, picture, t))
    boxes = char_boxes(page)
    assert len(boxes) > 500
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= A4_POINTS).all()
    assert boxes[:, 2].max() <= A4_POINTS[0] * 195.5 / 210  # the right margin
    assert overlaps(boxes) == 0


@settings(deadline=None, max_examples=15)
@given(st.text(st.characters(), max_size=80), st.integers(0, 12), st.integers(1, 9), st.integers(1, 9))
def test_any_photo_has_one_page(name: str, lesions: int, height: int, width: int) -> None:
    pixels = np.zeros((height, width, 3), np.uint8)
    sized = replace(record(name, lesions), height=height, width=width)
    text = one_page(write_report(sized, pixels, pixels)).get_textpage().get_text_range()
    assert "Not a diagnosis" in text


def test_no_name_gets_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        write_report(record("写真 😀.jpg"), GREY, GREY)
    assert caplog.records == []


# ---- the zip


def item(of: Record, photo: np.ndarray = PHOTO, mask: np.ndarray = MASK) -> BundleItem:
    return BundleItem(of, lambda: (photo, mask))


def never() -> tuple[np.ndarray, np.ndarray]:
    raise AssertionError("a photo without an answer is not opened")


def gone() -> tuple[np.ndarray, np.ndarray]:
    raise PhotoError("this photo is gone")


def test_the_zip_reads_back(tmp_path: Path) -> None:
    good, twin, bad, lost = record("mole.jpg"), record("MOLE.png"), Failure("bad.jpg", "cut short"), record("lost.jpg")
    items = [item(good), BundleItem(bad, never), item(twin), BundleItem(lost, gone)]
    write_bundle(tmp_path / "all.zip", iter(items))
    told = [good, bad, twin, Failure("lost.jpg", "this photo is gone")]
    with zipfile.ZipFile(tmp_path / "all.zip") as bundle:
        assert bundle.testzip() is None
        kinds = (("masks", "_mask.png"), ("overlays", "_overlay.jpg"), ("reports", ".pdf"))
        pictures = [f"{folder}/{stem}{end}" for stem in ("mole", "MOLE-2") for folder, end in kinds]
        assert bundle.namelist() == [*pictures, "results.csv", "results.json"]
        assert bundle.read("results.csv").decode() == write_csv(told)
        assert bundle.read("results.json").decode() == write_json(told)
        assert (read_mask(bundle.read("masks/mole_mask.png")) == MASK).all()
        overlay = read_photo(bundle.read("overlays/mole_overlay.jpg"))
        assert "mole.jpg" in one_page(bundle.read("reports/mole.pdf")).get_textpage().get_text_range()
        with Image.open(BytesIO(bundle.read("masks/mole_mask.png"))) as mask:
            assert mask.getextrema() == (0, 255)
            assert mask.info == {}
        with Image.open(BytesIO(bundle.read("overlays/mole_overlay.jpg"))) as picture:
            assert not picture.getexif()
    difference = np.abs(overlay.astype(int) - draw_overlay(PHOTO, MASK).astype(int))
    assert overlay.shape == PHOTO.shape
    assert difference.mean() < 8


def test_hostile_names_stay_inside_the_zip(tmp_path: Path) -> None:
    names = ["../../evil.jpg", "/etc/passwd", "C:\\x\\y.jpg", "CON", "a\u202egpj.exe", "\udcff", "<b>.png", "=1+1.jpg"]
    write_bundle(tmp_path / "all.zip", [item(record(name)) for name in names])
    with zipfile.ZipFile(tmp_path / "all.zip") as bundle:
        members = bundle.namelist()
        bundle.extractall(tmp_path / "out")
    assert len({member.casefold() for member in members}) == 3 * len(names) + 2
    found = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".zip"]
    assert {path.relative_to(tmp_path / "out").as_posix() for path in found} == set(members)


def test_stopping_leaves_nothing(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 2:
            raise RunError("stopped")

    with pytest.raises(RunError):
        write_bundle(tmp_path / "all.zip", [item(record()) for _ in range(3)], progress=stop)
    assert seen == [(1, 3), (2, 3)]
    assert list(tmp_path.iterdir()) == []


def test_one_photo_is_open_at_a_time(tmp_path: Path) -> None:
    opened: list[weakref.ref[np.ndarray]] = []
    together = []

    def load() -> tuple[np.ndarray, np.ndarray]:
        together.append(sum(pixels() is not None for pixels in opened))
        photo, mask = PHOTO.copy(), MASK.copy()
        opened.extend((weakref.ref(photo), weakref.ref(mask)))
        return photo, mask

    write_bundle(tmp_path / "all.zip", [BundleItem(record(), load) for _ in range(4)])
    assert together == [0, 0, 0, 0]
