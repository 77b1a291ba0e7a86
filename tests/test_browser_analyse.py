"""The analysis desk as a person meets it, in a real Chromium: skipped where there is none."""

import csv
import json
import re
import zipfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pypdfium2
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import ROOT, App, choose, needs_chromium, opened, sync_api
from PIL import ExifTags, Image
from test_browser import write_run
from test_dicom import dicom

from mtl.analysis.words import disclaimer, untranslated
from mtl.data.made.photo import LESION, make_photo

pytestmark = needs_chromium

EXAMPLES = sorted((ROOT / "assets" / "examples").glob("*.jpg"))
LESION_EXAMPLE = next(number for number, path in enumerate(EXAMPLES) if path.stem == "lesion-light-skin")
WIDTH, HEIGHT = 360, 270
PILLOW_FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tif": "TIFF", "bmp": "BMP", "gif": "GIF",
                  "avif": "AVIF"}  # fmt: skip


# ---- photos


def encoded(photo: np.ndarray, suffix: str) -> bytes:
    """A photo (H, W, 3) as a file of that kind; a `.turned.jpg` lies on its side and says so."""
    image, file = Image.fromarray(photo), BytesIO()
    if suffix == "dcm":
        return dicom(photo, photo.shape, PixelSpacing=[0.1, 0.1])
    if suffix == "heic":
        pillow_heif.from_pillow(image).save(file, quality=90)
    elif suffix == "turned.jpg":
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", exif=exif)
    else:
        image.save(file, PILLOW_FORMATS[suffix])
    return file.getvalue()


@pytest.fixture(scope="module")
def lesion_photo() -> np.ndarray:
    return make_photo(LESION, 1, (WIDTH, HEIGHT)).image


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory, lesion_photo: np.ndarray) -> list[Path]:
    """Eighteen photos of all formats, and two files that are broken in two ways."""
    folder = tmp_path_factory.mktemp("twenty")
    kinds = [*PILLOW_FORMATS, "heic", "dcm", "turned.jpg"]
    for number in range(18):
        suffix = kinds[number % len(kinds)]
        photo = lesion_photo if number < len(kinds) else make_photo("curly", number, (WIDTH, HEIGHT)).image
        (folder / f"{number:02} arm.{suffix}").write_bytes(encoded(photo, suffix))
    (folder / "18 notes.jpg").write_text("no photo")
    (folder / "19 cut.png").write_bytes(encoded(lesion_photo, "png")[:20_000])
    return sorted(folder.iterdir())


# ---- what a person does and sees


def upload(page: "sync_api.Page", files: list[Path]) -> None:
    page.set_input_files("#mtl-upload input[type=file]", files)


def strip(page: "sync_api.Page", state: str = "") -> "sync_api.Locator":
    return page.locator(f"#mtl-strip button{state and '.' + state}")


def answer_of(page: "sync_api.Page") -> "sync_api.Locator":
    return page.locator("#mtl-answer")


def tool(page: "sync_api.Page", name: str) -> "sync_api.Locator":
    return page.locator(f"#mtl-viewer [name={name}]")


def wait_for_photo(page: "sync_api.Page") -> None:
    """Until the photo itself is painted."""
    page.wait_for_function(
        "(i => i.naturalWidth && i.style.visibility == 'visible')(document.querySelector('#mtl-viewer img'))"
    )


def try_example(page: "sync_api.Page", number: int = LESION_EXAMPLE) -> None:
    before = strip(page, "done").count()
    page.locator("#mtl-examples button").nth(number).click()
    sync_api.expect(strip(page, "done")).to_have_count(before + 1)
    sync_api.expect(answer_of(page)).to_contain_text(EXAMPLES[number].name)
    wait_for_photo(page)


def slide(page: "sync_api.Page", name: str, value: int) -> None:
    """Drag a slider and let it go."""
    slider = tool(page, name)
    slider.evaluate("(slider, value) => (slider.value = value)", value)
    for event in ("input", "change"):
        slider.dispatch_event(event)


def drawing(page: "sync_api.Page") -> str:
    """What is drawn over the photo, once it is painted."""
    return page.evaluate(
        """() => new Promise((tell) => requestAnimationFrame(() => requestAnimationFrame(
             () => tell(document.querySelector("#mtl-viewer canvas").toDataURL()))))"""
    )


def area_px(page: "sync_api.Page") -> int:
    found = re.search(r"Area ([\d,]+) px²", answer_of(page).inner_text())
    return int(found[1].replace(",", "")) if found else 0


def saved(page: "sync_api.Page", button: str) -> Path:
    """What a button gives, under the name that the browser suggests."""
    with page.expect_download() as download:
        page.locator(f"#mtl-{button}").click()
    path = download.value.path().with_name(download.value.suggested_filename)
    download.value.save_as(path)
    return path


def requests_of(page: "sync_api.Page") -> list[str]:
    """Addresses and bodies of what the page asks for from now on."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(f"{request.url} {request.post_data}"))
    return asked


# ---- twenty photos at once


@pytest.fixture(scope="module")
def full_page(app: App, browser: "sync_api.Browser", twenty: list[Path]) -> "Iterator[sync_api.Page]":
    """A page with the answers of all twenty; tests that use it leave them as they are."""
    with opened(app, browser) as page:
        upload(page, twenty)
        sync_api.expect(strip(page, "waiting")).not_to_have_count(0)
        sync_api.expect(page.locator("#mtl-progress")).to_contain_text("of 20 photos")
        sync_api.expect(strip(page, "done")).to_have_count(18)
        sync_api.expect(page.locator("#mtl-progress .mtl-progress")).to_have_count(0)
        yield page


def test_each_of_twenty_photos_gets_its_answer_or_its_own_reason(
    full_page: "sync_api.Page", twenty: list[Path]
) -> None:
    sync_api.expect(strip(full_page, "failed")).to_have_count(2)
    sync_api.expect(strip(full_page, "waiting")).to_have_count(0)
    table = full_page.locator("#mtl-table")
    for name in ("00 arm.jpg", "19 cut.png"):
        sync_api.expect(table).to_contain_text(name)
    for number, reason in ((18, "no picture that can be read"), (19, "cut short")):
        strip(full_page).nth(number).click()
        sync_api.expect(answer_of(full_page)).to_contain_text(reason)
        sync_api.expect(answer_of(full_page)).to_contain_text(twenty[number].name)


def test_every_format_shows_the_same_photo_upright(full_page: "sync_api.Page", twenty: list[Path]) -> None:
    areas = []
    for number in range(10):
        strip(full_page).nth(number).click()
        sync_api.expect(answer_of(full_page)).to_contain_text(twenty[number].name)
        sync_api.expect(answer_of(full_page)).to_contain_text(f"{WIDTH} × {HEIGHT} px")
        text = answer_of(full_page).inner_text()
        found = re.search(r"([\d.]+) % of the photo", text)
        areas.append(float(found[1]) if found else 0.0)
        assert ("(DICOM)" in text) == (twenty[number].suffix == ".dcm")
    assert min(areas) > 1
    assert max(areas) - min(areas) < 0.05 * max(areas)


def test_the_saved_table_and_zip_read_back(full_page: "sync_api.Page", twenty: list[Path]) -> None:
    rows = list(csv.DictReader(StringIO(saved(full_page, "csv").read_text(encoding="utf-8-sig"))))
    assert [row["photo"] for row in rows] == [path.name for path in twenty]
    assert [bool(row["error"]) for row in rows] == [False] * 18 + [True] * 2
    assert "cut short" in rows[19]["error"]
    document = json.loads(saved(full_page, "json").read_text(encoding="utf-8"))
    assert [photo["photo"] for photo in document["photos"]] == [path.name for path in twenty]
    assert document["disclaimer"] == disclaimer(untranslated)
    with zipfile.ZipFile(saved(full_page, "zip")) as bundle:
        names = bundle.namelist()
        for row in rows[:18]:
            stem = row["files"]
            assert stem.startswith(row["photo"][:2])  # a name that a person recognises
            with bundle.open(f"masks/{stem}_mask.png") as file, Image.open(file) as mask:
                assert mask.size == (WIDTH, HEIGHT)
                assert np.count_nonzero(mask) == int(row["area_px"])
            assert {f"overlays/{stem}_overlay.jpg", f"reports/{stem}.pdf"} <= set(names)
        assert sum(name.startswith("masks/") for name in names) == 18
        assert {"results.csv", "results.json"} <= set(names)


def test_the_report_of_a_photo_is_a_page_with_its_answer(full_page: "sync_api.Page") -> None:
    strip(full_page).first.click()
    sync_api.expect(answer_of(full_page)).to_contain_text("00 arm.jpg")
    path = saved(full_page, "report")
    assert path.suffix == ".pdf"
    with pypdfium2.PdfDocument(path) as report:
        text = report[0].get_textpage().get_text_bounded()
        picture = report[0].render(scale=1).to_numpy()
    for words in ("00 arm.jpg", "default", disclaimer(untranslated)):
        assert words in " ".join(text.split())
    assert 0.01 < (picture.min(axis=2) < 200).mean() < 0.9  # neither blank nor black
    # The lesion is outlined in cyan, which nothing in a photo of skin is.
    blue, green, red = (picture[..., channel].astype(int) for channel in range(3))
    assert ((np.minimum(blue, green) - red) > 60).sum() > 50


def test_another_visitor_sees_none_of_the_photos(
    app: App, full_page: "sync_api.Page", browser: "sync_api.Browser"
) -> None:
    """Nor with a number that they have not, nor with a token that they make up."""
    with opened(app, browser) as other:
        sync_api.expect(answer_of(other)).to_contain_text("Add a photo")
        sync_api.expect(strip(other)).to_have_count(0)
        calls: list[dict[str, Any]] = []
        other.on("request", lambda r: calls.append(r.post_data_json) if "component_server" in r.url else None)
        try_example(other)
        own = next(call for call in calls if call["fn_name"] == "photo")
        asked = own["data"]
        assert fetched(other, own)["url"].startswith("data:image/jpeg")
        for number in (0, 2, 3):
            assert fetched(other, own | {"data": asked | {"number": number}})["url"] == ""
        for token in ("", "x" * len(asked["token"])):
            assert fetched(other, own | {"data": asked | {"token": token}})["url"] == ""
        with other.expect_download() as download:
            other.locator("#mtl-csv").click()
        assert "arm" not in download.value.path().read_text(encoding="utf-8-sig")


def fetched(page: "sync_api.Page", call: dict[str, Any]) -> dict[str, Any]:
    """The server's answer to a call that the page itself might make."""
    return page.evaluate(
        """(call) => fetch("gradio_api/component_server", { method: "POST", body: JSON.stringify(call),
             headers: { "Content-Type": "application/json" } }).then((answer) => answer.json())""",
        call,
    )


def test_keys_step_through_photos_toggle_the_overlay_and_zoom(full_page: "sync_api.Page") -> None:
    page = full_page
    strip(page).nth(1).click()
    sync_api.expect(answer_of(page)).to_contain_text("01 arm")
    page.keyboard.press("ArrowLeft")
    sync_api.expect(answer_of(page)).to_contain_text("00 arm")
    page.keyboard.press("ArrowLeft")  # there is none before the first
    page.keyboard.press("ArrowRight")
    sync_api.expect(answer_of(page)).to_contain_text("01 arm")
    wait_for_photo(page)
    shown = drawing(page)
    page.keyboard.press("o")
    sync_api.expect(tool(page, "overlay")).not_to_be_checked()
    assert drawing(page) != shown
    page.keyboard.press("O")
    assert drawing(page) == shown
    page.keyboard.press("+")
    assert drawing(page) != shown
    page.keyboard.press("-")
    assert drawing(page) == shown
    page.get_by_role("tab", name="Train").click()
    page.locator("#setting-epochs input").press("o")
    page.get_by_role("tab", name="Analyse").click()
    sync_api.expect(tool(page, "overlay")).to_be_checked()


def test_pictures_say_what_they_show(full_page: "sync_api.Page") -> None:
    strip(full_page).first.click()
    image = full_page.locator("#mtl-viewer img")
    sync_api.expect(image).to_have_attribute("alt", re.compile(r"Photo 1: .*lesion.*% of the photo"))
    sync_api.expect(strip(full_page).first).to_have_attribute("aria-current", "true")
    assert strip(full_page).nth(19).inner_text().split() == ["20", "cannot", "be", "read"]


def test_two_photos_are_compared(full_page: "sync_api.Page", twenty: list[Path]) -> None:
    full_page.locator("#mtl-pair button").first.click()
    choose(full_page, "#mtl-pair-first", f"1 {twenty[0].name}")
    choose(full_page, "#mtl-pair-second", f"2 {twenty[1].name}")
    full_page.locator("#mtl-pair-compare").click()
    card = full_page.locator("#mtl-pair-card")
    sync_api.expect(card.locator("img")).to_have_count(2)
    for name in (twenty[0].name, twenty[1].name):
        sync_api.expect(card).to_contain_text(name)
    sync_api.expect(card).to_contain_text(re.compile("area", re.IGNORECASE))


# ---- one photo: threshold, opacity, brush, scale


@pytest.fixture(scope="module")
def shared_page(app: App, browser: "sync_api.Browser") -> "Iterator[sync_api.Page]":
    """For tests that add a photo of their own and look at that one only."""
    with opened(app, browser) as page:
        yield page


def test_opacity_and_style_are_drawn_without_a_question_to_the_server(shared_page: "sync_api.Page") -> None:
    page = shared_page
    try_example(page)
    page.wait_for_timeout(500)
    before, asked = drawing(page), requests_of(page)
    slide(page, "opacity", 90)
    strong = drawing(page)
    tool(page, "style").select_option("contour")
    contour = drawing(page)
    assert len({before, strong, contour}) == 3
    page.wait_for_timeout(500)
    assert asked == []


def test_another_threshold_changes_mask_and_measurements_without_the_network(shared_page: "sync_api.Page") -> None:
    page = shared_page
    try_example(page)
    area, before, asked = area_px(page), drawing(page), requests_of(page)
    taken, areas = time_of(page), [area]
    for percent in (85, 15):
        slide(page, "threshold", percent)
        sync_api.expect(answer_of(page)).not_to_contain_text(f"Area {areas[-1]:,} px²")
        areas.append(area_px(page))
        assert drawing(page) != before
    assert areas[1] < areas[0] < areas[2]
    # One event each; the answer is the one that was given then, by the network, in those seconds.
    assert sum("queue/join" in each for each in asked) == 2
    assert time_of(page) == taken


def time_of(page: "sync_api.Page") -> str:
    """When the network answered and how long it took, as the folded part of the card says."""
    found = re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d, [\d.]+ s", answer_of(page).text_content() or "")
    assert found
    return found.group()


def drag(page: "sync_api.Page", points: list[tuple[float, float]]) -> None:
    """Over the stage; points as shares of its width and height."""
    stage = page.locator("#mtl-viewer .stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box is not None
    (x, y), *others = [(box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in points]
    page.mouse.move(x, y)
    page.mouse.down()
    for place in others:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


def test_a_corrected_mask_is_measured_and_marked_and_can_be_taken_back(page: "sync_api.Page") -> None:
    try_example(page)
    area, card = area_px(page), answer_of(page)
    tool(page, "brush").click()
    slide(page, "size", 60)
    drag(page, [(0.3, 0.1), (0.7, 0.1)])
    sync_api.expect(card).to_contain_text("Corrected by hand")
    added = area_px(page)
    assert added > area
    sync_api.expect(card).not_to_contain_text("(between")
    tool(page, "paint").nth(1).check()
    drag(page, [(0.3, 0.1), (0.7, 0.1)])
    sync_api.expect(card).not_to_contain_text(f"Area {added:,} px²")
    assert area_px(page) == pytest.approx(area, rel=0.1)
    tool(page, "undo").click()
    sync_api.expect(card).to_contain_text(f"Area {added:,} px²")
    rows = list(csv.DictReader(StringIO(saved(page, "csv").read_text(encoding="utf-8-sig"))))
    assert (rows[0]["corrected"], rows[0]["area_px"]) == ("yes", str(added))
    tool(page, "reset").click()
    sync_api.expect(card).not_to_contain_text("Corrected by hand")
    assert area_px(page) == area


def test_a_corrected_mask_is_there_again_when_its_photo_is_chosen_again(page: "sync_api.Page") -> None:
    try_example(page)
    tool(page, "brush").click()
    drag(page, [(0.3, 0.1), (0.7, 0.1)])
    sync_api.expect(answer_of(page)).to_contain_text("Corrected by hand")
    area = area_px(page)
    try_example(page, 0)
    strip(page).first.click()
    sync_api.expect(answer_of(page)).to_contain_text(f"Area {area:,} px²")
    tool(page, "brush").click()
    wait_for_photo(page)
    page.wait_for_timeout(500)
    drag(page, [(0.3, 0.95), (0.7, 0.95)])  # adds to what was drawn before
    sync_api.expect(answer_of(page)).not_to_contain_text(f"Area {area:,} px²")
    assert area_px(page) > area


def test_two_marks_and_their_distance_give_millimetres(shared_page: "sync_api.Page") -> None:
    page = shared_page
    try_example(page)
    card = answer_of(page)
    tool(page, "ruler").click()
    sync_api.expect(tool(page, "take")).to_be_disabled()
    for place in (0.3, 0.6):
        drag(page, [(place, 0.5)])
    tool(page, "mm").fill("10")
    tool(page, "take").click()
    sync_api.expect(card).to_contain_text("(ruler)")
    sync_api.expect(card).to_contain_text("mm²")
    box = page.locator("#mtl-viewer .stage").bounding_box()
    with Image.open(EXAMPLES[LESION_EXAMPLE]) as photo:
        width, height = photo.size
    assert box is not None
    px = 0.3 * box["width"] / min(box["width"] / width, box["height"] / height)
    found = re.search(r"([\d.]+) mm/px", card.inner_text())
    assert found
    assert float(found[1]) == pytest.approx(10 / px, rel=0.02)
    tool(page, "ruler").click()
    tool(page, "drop").click()
    sync_api.expect(card).not_to_contain_text("(ruler)")


def test_where_the_model_looked_and_before_and_after(shared_page: "sync_api.Page") -> None:
    page = shared_page
    try_example(page, 0)
    plain = drawing(page)
    tool(page, "heat").click()
    sync_api.expect(page.locator("#mtl-viewer [data-mode=heat] .hint")).to_contain_text("Grad-CAM")
    assert drawing(page) != plain
    tool(page, "split").click()
    canvas = page.locator("#mtl-viewer canvas")
    slide(page, "edge", 30)
    drawing(page)
    low = canvas.evaluate("e => e.style.clipPath")
    slide(page, "edge", 80)
    drawing(page)
    assert canvas.evaluate("e => e.style.clipPath") != low


# ---- photos come and go


def test_an_example_shows_the_bars_of_its_group(shared_page: "sync_api.Page") -> None:
    page = shared_page
    try_example(page, 0)
    card = answer_of(page)
    sync_api.expect(card.locator("h2")).to_contain_text(re.compile("hair", re.IGNORECASE))
    shares = [float(text.removesuffix(" %")) for text in card.locator(".mtl-bar .value").all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    assert 97 <= sum(shares[:5]) <= 103


def test_other_views_analyse_the_photos_anew(page: "sync_api.Page") -> None:
    try_example(page)
    alone = answer_of(page).text_content() or ""
    page.get_by_role("button", name="Camera and settings").click()
    page.locator("#mtl-views input").wait_for()
    page.wait_for_timeout(300)  # gradio mounts what was folded late
    for views in ("4", "8"):
        choose(page, "#mtl-views", views)
        sync_api.expect(answer_of(page)).to_contain_text(f"Views averaged{views}")
    assert "Views averaged" not in alone
    sync_api.expect(strip(page, "done")).to_have_count(1)
    choose(page, "#mtl-views", "1")
    sync_api.expect(answer_of(page)).to_contain_text("Area")
    sync_api.expect(answer_of(page)).not_to_contain_text("Views averaged")


def test_a_class_is_named_from_the_chosen_probability_on(page: "sync_api.Page") -> None:
    try_example(page, 1)
    heading = answer_of(page).locator("h2")
    sync_api.expect(heading).not_to_contain_text("uncertain")
    page.get_by_role("button", name="Camera and settings").click()
    number = page.locator("#mtl-confidence input[type=number]")
    number.wait_for()
    page.wait_for_timeout(300)  # gradio mounts what was folded late
    number.fill("1")
    number.press("Enter")
    number.blur()
    sync_api.expect(heading).to_contain_text("uncertain")


def test_stop_keeps_the_rest_waiting_and_the_rest_can_be_analysed_or_removed(
    page: "sync_api.Page", tmp_path: Path
) -> None:
    photos = [tmp_path / f"large {number}.jpg" for number in range(6)]
    with Image.open(EXAMPLES[LESION_EXAMPLE]) as example:
        large = example.resize((3000, 3000))
    for photo in photos:
        large.save(photo)
    upload(page, photos)
    page.locator("#mtl-stop-analysis").click()
    sync_api.expect(page.locator("#mtl-go-on")).to_be_visible()
    sync_api.expect(page.locator("#mtl-progress .mtl-progress")).to_have_count(0)  # the photo at hand is finished
    waiting = strip(page, "waiting").count()
    assert 0 < waiting < len(photos)
    page.wait_for_timeout(1000)
    assert strip(page, "waiting").count() == waiting
    page.locator("#mtl-go-on").click()
    sync_api.expect(strip(page, "waiting")).not_to_have_count(waiting)
    shown = page.locator("#mtl-viewer img").get_attribute("src")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.locator("#mtl-clear").click()
    page.wait_for_timeout(500)
    sync_api.expect(strip(page)).to_have_count(len(photos))
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("#mtl-clear").click()
    sync_api.expect(answer_of(page)).to_contain_text("Add a photo")
    try_example(page)
    # Another photo under the same number: never the picture of the one before.
    sync_api.expect(page.locator("#mtl-viewer img")).not_to_have_attribute("src", str(shown))
    page.wait_for_timeout(1500)
    sync_api.expect(strip(page)).to_have_count(1)


def test_a_comparison_goes_with_its_photos(page: "sync_api.Page") -> None:
    try_example(page)
    try_example(page, 0)
    sync_api.expect(strip(page, "done")).to_have_count(2)
    page.get_by_role("button", name="Compare two photos of one lesion").click()
    choose(page, "#mtl-pair-first", f"1 {EXAMPLES[LESION_EXAMPLE].name}")
    choose(page, "#mtl-pair-second", f"2 {EXAMPLES[0].name}")
    page.locator("#mtl-pair-compare").click()
    pictures = page.locator("#mtl-pair-card img")
    sync_api.expect(pictures).to_have_count(2)
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("#mtl-clear").click()
    sync_api.expect(answer_of(page)).to_contain_text("Add a photo")
    try_example(page, 1)
    sync_api.expect(strip(page, "done")).to_have_count(1)
    page.wait_for_timeout(1000)
    sync_api.expect(pictures).to_have_count(0)


def test_a_pasted_photo_is_answered(page: "sync_api.Page", lesion_photo: np.ndarray) -> None:
    page.evaluate(
        """(data) => {
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0)), clipboardData = new DataTransfer();
          clipboardData.items.add(new File([bytes], "pasted.png", { type: "image/png" }));
          document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
        }""",
        b64encode(encoded(lesion_photo, "png")).decode("ascii"),
    )
    sync_api.expect(strip(page, "done")).to_have_count(1)
    sync_api.expect(answer_of(page)).to_contain_text("pasted.png")


def test_a_name_is_shown_as_it_is_typed(page: "sync_api.Page", lesion_photo: np.ndarray, tmp_path: Path) -> None:
    photo = tmp_path / "my arm &amp; leg.png"
    photo.write_bytes(encoded(lesion_photo, "png"))
    upload(page, [photo])
    sync_api.expect(answer_of(page)).to_contain_text(photo.name)
    sync_api.expect(strip(page, "done")).to_have_count(1)


def test_a_reloaded_page_starts_empty_and_nothing_of_the_photo_is_in_the_log(
    app: App, page: "sync_api.Page", lesion_photo: np.ndarray, tmp_path: Path
) -> None:
    photo = tmp_path / "secret-canary.png"
    photo.write_bytes(encoded(lesion_photo, "png"))
    upload(page, [photo])
    sync_api.expect(strip(page, "done")).to_have_count(1)
    page.reload()
    sync_api.expect(answer_of(page)).to_contain_text("Add a photo")
    sync_api.expect(strip(page)).to_have_count(0)
    assert "canary" not in app.log()
    assert not [path for path in app.runs_dir.rglob("*") if "canary" in path.name]


def test_on_a_phone_all_stands_in_one_column_and_is_large_enough_to_press(
    app: App, browser: "sync_api.Browser"
) -> None:
    with opened(app, browser, width=390) as page:
        try_example(page)
        try_example(page, 0)
        for mode in ("split", "brush", "ruler", "heat"):
            tool(page, mode).click()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, mode
        parts = [page.locator(part).bounding_box() for part in ("#mtl-viewer .stage", "#mtl-answer", "#mtl-table")]
        tops = [box["y"] for box in parts if box]
        assert tops == sorted(tops)
        assert len(tops) == 3
        buttons = page.locator("#mtl-viewer button:visible, #mtl-strip button, #mtl-bar button:visible")
        sizes = [button.bounding_box() for button in buttons.all()]
        assert min(min(box["width"], box["height"]) for box in sizes if box) >= 44


# ---- accessibility: axe-core finds nothing serious

SERIOUS = ("serious", "critical")


def serious_findings(page: "sync_api.Page") -> list[str]:
    """One line each: what, where."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['target']} {node['html'][:120]}"
        for each in found
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(app: App, browser: "sync_api.Browser", scheme: str) -> None:
    failed, stopped = write_run(app, "failed"), write_run(app, "stopped")
    failed.update(state="failed", message="why")
    with opened(app, browser, scheme=scheme) as page:
        states: dict[str, Callable[[sync_api.Page], None]] = {
            "empty": lambda page: None,
            "answers": show_answers,
            "training": unfold_training,
        }
        for state, reach in states.items():
            reach(page)
            page.wait_for_timeout(400)  # what fades in has its colours then
            assert serious_findings(page) == [], state
    for run in (failed, stopped):
        run.delete()


def show_answers(page: "sync_api.Page") -> None:
    """With all that is folded open: in the answer, and the panels of all tools."""
    try_example(page)
    try_example(page, 0)
    for name in ("Camera and settings", "Compare two photos of one lesion"):
        page.get_by_role("button", name=name).click()
    page.evaluate("""() => {
      document.querySelectorAll("details").forEach((part) => (part.open = true));
      document.querySelectorAll("#mtl-viewer .panel").forEach((part) => (part.hidden = false));
    }""")
    sync_api.expect(page.locator("#mtl-table")).to_contain_text(EXAMPLES[0].name)


def unfold_training(page: "sync_api.Page") -> None:
    """With the curves of a run, and the list of runs."""
    page.get_by_role("tab", name="Train").click()
    sync_api.expect(page.locator("#mtl-run-card")).to_contain_text("stopped")
    page.wait_for_selector("#mtl-plot-0 svg.marks .mark-line path")
    for button in page.locator("#mtl-train button.label-wrap").all():
        if button.is_visible():
            button.click()
