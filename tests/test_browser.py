"""The page as a person meets it, in a real Chromium: skipped where there is none."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from mtl.data.demo import write_demo_data
from mtl.training.run import list_runs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the page is not tested")

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the page is not tested")

ROOT = Path(__file__).parent.parent
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 90_000  # for what a loaded machine may take; a test that passes does not wait for it


class App:
    """`app.py` as its users start it, in a process of its own."""

    def __init__(self, folder: Path):
        self.runs_dir, self.data_root = folder / "runs", folder / "data"
        self._log = (folder / "app.log").open("w+", encoding="utf-8")
        command = [sys.executable, "app.py", "--port", "0", "--runs-dir", self.runs_dir, "--data-root", self.data_root]
        self.connections = folder / "connections.txt"
        temporary = {
            "GRADIO_TEMP_DIR": str(folder / "gradio"),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(ROOT / "tests" / "guard"),
            "MTL_CONNECTIONS": str(self.connections),
        }
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=self._log, stderr=subprocess.STDOUT, env=os.environ | temporary
        )
        self.url = self._wait_for_address()

    def log(self) -> str:
        self._log.flush()
        return Path(self._log.name).read_text(encoding="utf-8")

    def _wait_for_address(self) -> str:
        for _ in range(600):
            if found := re.search(r"http://127\.0\.0\.1:\d+", self.log()):
                return found.group()
            assert self.process.poll() is None, self.log()
            time.sleep(0.1)
        raise AssertionError(f"no address after a minute: {self.log()}")

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("app")
    write_demo_data(folder / "data" / "tiny", photos=60, size=64)
    (folder / "data" / "broken" / "images").mkdir(parents=True)
    app = App(folder)
    yield app
    app.close()
    assert app.connections.read_text(encoding="utf-8").splitlines()[1:] == [], "the application called other computers"


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(app: App, browser: "sync_api.Browser") -> Iterator["sync_api.Page"]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(app.url)
    page.wait_for_selector("#mtl-examples img")
    yield page
    context.close()
    assert not errors
    assert "Traceback" not in app.log()


def choose(page: "sync_api.Page", box: str, option: str) -> None:
    page.locator(f"{box} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def curve_points(page: "sync_api.Page", plot: int) -> int:
    """Points of the longest line that is drawn, as its SVG path has them."""
    paths = page.locator(f"#mtl-plot-{plot} svg .mark-line path").evaluate_all(
        "all => all.map(p => p.getAttribute('d'))"
    )
    return max((len(re.findall("[ML]", path or "")) for path in paths), default=0)


def wait_until(condition: "object", what: str, seconds: float = PATIENCE_MS / 1000) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)


def test_upload_shows_class_bars_and_overlay(page: "sync_api.Page", tmp_path: Path) -> None:
    photo, notes = tmp_path / "my <b>lesion.png", tmp_path / "notes.jpg"
    Image.open(ROOT / "assets" / "examples" / "lesion-light-skin.jpg").resize((400, 300)).save(photo)
    notes.write_text("no photo")
    page.set_input_files("#mtl-upload input[type=file]", [photo, notes])

    answer = page.locator("#mtl-answer")
    sync_api.expect(answer.locator("h2")).to_be_visible(timeout=PATIENCE_MS)
    sync_api.expect(answer).to_contain_text("my blesion.png")  # gradio takes "<" out of names
    sync_api.expect(answer).to_contain_text(re.compile(r"\d+ lesion.*% of the photo"))
    sync_api.expect(page.locator("#mtl-strip .thumbnail-item")).to_have_count(2)
    with_lesion = page.locator("#mtl-photo img").get_attribute("src")
    assert re.match(r"Photo 1: .*lesion.*% of the photo", page.locator("#mtl-photo img").get_attribute("alt") or "")

    page.locator("#mtl-overlay input").uncheck()
    wait_until(lambda: page.locator("#mtl-photo img").get_attribute("src") != with_lesion, "the photo without overlay")

    page.locator("#mtl-strip .thumbnail-item").nth(1).click()
    sync_api.expect(answer).to_contain_text("cannot be analysed")
    sync_api.expect(answer).to_contain_text("notes.jpg")

    page.locator("#mtl-clear").click()
    sync_api.expect(answer).to_contain_text("Add a photo")


def test_removed_photos_stay_removed_while_others_were_analysed(page: "sync_api.Page", tmp_path: Path) -> None:
    photos = [tmp_path / f"large {number}.jpg" for number in range(6)]
    with Image.open(ROOT / "assets" / "examples" / "lesion-hairs.jpg") as example:
        large = example.resize((3000, 3000))
    for photo in photos:
        large.save(photo)
    page.set_input_files("#mtl-upload input[type=file]", photos)
    answer, strip = page.locator("#mtl-answer"), page.locator("#mtl-strip .thumbnail-item")
    sync_api.expect(answer.locator("h2")).to_be_visible(timeout=PATIENCE_MS)
    assert strip.count() < 6, "the analysis was over before anything could be removed"
    page.locator("#mtl-clear").click()
    sync_api.expect(answer).to_contain_text("Add a photo")
    page.locator("#mtl-examples .thumbnail-item").first.click()
    sync_api.expect(answer.locator("h2")).to_be_visible(timeout=PATIENCE_MS)
    page.wait_for_timeout(2000)
    sync_api.expect(strip).to_have_count(1)


def test_keys_step_through_photos_and_toggle_the_overlay(page: "sync_api.Page") -> None:
    answer, strip = page.locator("#mtl-answer"), page.locator("#mtl-strip .thumbnail-item")
    first, second = sorted(path.name for path in (ROOT / "assets" / "examples").iterdir())[:2]
    for number, name in enumerate((first, second)):
        page.locator("#mtl-examples .thumbnail-item").nth(number).click()
        sync_api.expect(answer).to_contain_text(name, timeout=PATIENCE_MS)
        sync_api.expect(strip).to_have_count(number + 1)
    page.keyboard.press("ArrowLeft")
    sync_api.expect(answer).to_contain_text(first)
    page.keyboard.press("ArrowLeft")  # there is none before the first
    page.keyboard.press("ArrowRight")
    sync_api.expect(answer).to_contain_text(second)
    overlay = page.locator("#mtl-overlay input")
    page.keyboard.press("o")
    sync_api.expect(overlay).not_to_be_checked()
    page.keyboard.press("O")
    sync_api.expect(overlay).to_be_checked()
    page.get_by_role("tab", name="Train").click()
    page.locator("#setting-epochs input").press("o")
    page.get_by_role("tab", name="Analyse").click()
    sync_api.expect(overlay).to_be_checked()


def test_a_photo_that_is_gone_from_the_server_is_told(app: App, page: "sync_api.Page", tmp_path: Path) -> None:
    photo = tmp_path / "soon-gone.jpg"
    shutil.copy(ROOT / "assets" / "examples" / "lesion-hairs.jpg", photo)
    page.set_input_files("#mtl-upload input[type=file]", photo)
    answer = page.locator("#mtl-answer")
    sync_api.expect(answer).to_contain_text("soon-gone.jpg", timeout=PATIENCE_MS)
    for kept in (app.runs_dir.parent / "gradio").rglob("soon-gone.jpg"):
        kept.unlink()
    page.locator("#mtl-strip .thumbnail-item").first.click()
    sync_api.expect(answer).to_contain_text("add it again")


def test_example_shows_bars_of_its_group(page: "sync_api.Page") -> None:
    page.locator("#mtl-examples .thumbnail-item").first.click()
    answer = page.locator("#mtl-answer")
    sync_api.expect(answer.locator("h2")).to_contain_text(re.compile("hair", re.IGNORECASE), timeout=PATIENCE_MS)
    bars = answer.locator(".mtl-bar")
    sync_api.expect(bars.first).to_be_visible()
    shares = [float(text.removesuffix(" %")) for text in answer.locator(".mtl-bar .value").all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    assert 97 <= sum(shares[:5]) <= 103


def test_bad_folder_and_bad_setting_are_told_before_anything_starts(app: App, page: "sync_api.Page") -> None:
    page.get_by_role("tab", name="Train").click()
    before = len(list_runs(app.runs_dir))
    choose(page, "#mtl-data", "broken")
    sync_api.expect(page.locator("#mtl-data-card")).to_contain_text("no photos; needed images")
    choose(page, "#mtl-data", "tiny")
    sync_api.expect(page.locator("#mtl-data-card")).to_contain_text("training and")
    page.locator("#setting-lr input").fill("-1")
    page.locator("#mtl-start").click()
    sync_api.expect(page.locator("#mtl-train-notice")).to_contain_text("lr: got -1")
    page.locator("#setting-lr input").fill("0.001")
    page.get_by_role("button", name="Data details").click()
    labels = page.locator("#setting-labels").get_by_role("textbox")
    labels.wait_for()
    page.wait_for_timeout(500)  # gradio mounts what was folded late; a text that comes before that is lost
    labels.fill("/etc/hostname")
    page.locator("#mtl-start").click()
    sync_api.expect(page.locator("#mtl-train-notice")).to_contain_text("labels: there is no file /etc/hostname in tiny")
    labels.fill("")
    page.locator("#setting-batch_size input").fill("500")
    page.locator("#mtl-start").click()
    sync_api.expect(page.locator("#mtl-train-notice")).to_contain_text("only")
    assert len(list_runs(app.runs_dir)) == before


def test_train_reload_stop_resume_and_use(app: App, page: "sync_api.Page") -> None:
    page.get_by_role("tab", name="Train").click()
    choose(page, "#mtl-data", "tiny")
    page.locator("#setting-epochs input").fill("200")
    page.locator("#setting-batch_size input").fill("8")
    page.get_by_role("button", name="More settings").click()
    page.locator("#setting-image_size input").fill("64")
    page.locator("#mtl-start").click()
    card = page.locator("#mtl-run-card")
    sync_api.expect(card).to_contain_text(re.compile("Training|Validating"), timeout=PATIENCE_MS)
    wait_until(lambda: curve_points(page, 0) > 1, "a loss curve with more than one point")

    page.reload()
    page.get_by_role("tab", name="Train").click()
    sync_api.expect(card).to_contain_text(re.compile("epoch \\d+ of 200"), timeout=PATIENCE_MS)
    wait_until(lambda: curve_points(page, 0) > 1, "the curve after a reload")
    sync_api.expect(page.locator("#mtl-start")).to_be_disabled()
    wait_until(lambda: (list_runs(app.runs_dir)[0].status().best_epoch or 0) >= 1, "a first epoch")

    page.locator("#mtl-stop").click()
    sync_api.expect(card).to_contain_text("Stopped", timeout=PATIENCE_MS)
    sync_api.expect(page.locator("#mtl-start")).to_be_enabled()
    step = list_runs(app.runs_dir)[0].status().step

    page.locator("#mtl-resume").click()
    wait_until(lambda: list_runs(app.runs_dir)[0].status().step > step, "steps after the resume")
    page.locator("#mtl-stop").click()
    sync_api.expect(card).to_contain_text("Stopped", timeout=PATIENCE_MS)
    assert len(list_runs(app.runs_dir)) == 1

    page.locator("#mtl-use").click()
    page.locator("#mtl-examples .thumbnail-item").first.click()
    sync_api.expect(page.locator("#mtl-answer h2")).to_be_visible(timeout=PATIENCE_MS)
    assert page.locator("#mtl-model input").input_value() == list_runs(app.runs_dir)[0].name


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(app: App, browser: "sync_api.Browser", width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(app.url)
    for tab in ("Analyse", "Train", "About"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
    page.close()
