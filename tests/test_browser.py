"""The page as a person meets it, in a real Chromium: skipped where there is none."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from mtl.config import TrainConfig
from mtl.data.demo import write_demo_data
from mtl.training.run import Run, list_runs

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
# Notes when Stop was pressed and when it first read otherwise.
WATCH_STOP = """() => {
  const button = document.querySelector("#mtl-stop");
  button.addEventListener("click", () => (window.clicked = Date.now()));
  new MutationObserver((_, watcher) => { window.told = Date.now(); watcher.disconnect(); })
    .observe(button, { childList: true, characterData: true, subtree: true });
}"""
PATIENCE_MS = 90_000  # for what a loaded machine may take; a test that passes does not wait for it
sync_api.expect.set_options(timeout=PATIENCE_MS)


class App:
    """`app.py` as its users start it, in a process of its own."""

    def __init__(self, folder: Path):
        self.folder, self.runs_dir, self.data_root = folder, folder / "runs", folder / "data"
        self._start()

    def _start(self) -> None:
        folder = self.folder
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
        self._end()

    def kill_and_restart(self) -> None:
        """As after a crash: nothing is told to the process, and another one starts on the same folders."""
        self.process.kill()
        self.process.wait()
        self._end()
        self._start()

    def _end(self) -> None:
        self._log.close()
        calls = self.connections.read_text(encoding="utf-8").splitlines()[1:]
        assert calls == [], "the application called other computers"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("app")
    write_demo_data(folder / "data" / "tiny", photos=60, size=64)
    (folder / "data" / "broken" / "images").mkdir(parents=True)
    app = App(folder)
    yield app
    app.close()


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(app: App, browser: "sync_api.Browser", width: int = 1280) -> Iterator["sync_api.Page"]:
    """A page of a visitor of its own; what goes wrong in it, or in the server meanwhile, fails the test."""
    context = browser.new_context(viewport={"width": width, "height": 900})
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


@pytest.fixture
def page(app: App, browser: "sync_api.Browser") -> Iterator["sync_api.Page"]:
    with opened(app, browser) as page:
        yield page


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
        sync_api.expect(answer).to_contain_text(name)
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
    sync_api.expect(answer).to_contain_text("soon-gone.jpg")
    for kept in (app.runs_dir.parent / "gradio").rglob("soon-gone.jpg"):
        kept.unlink()
    page.locator("#mtl-strip .thumbnail-item").first.click()
    sync_api.expect(answer).to_contain_text("add it again")


def test_example_shows_bars_of_its_group(page: "sync_api.Page") -> None:
    page.locator("#mtl-examples .thumbnail-item").first.click()
    answer = page.locator("#mtl-answer")
    sync_api.expect(answer.locator("h2")).to_contain_text(re.compile("hair", re.IGNORECASE))
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
    sync_api.expect(page.locator("#mtl-train-notice")).not_to_contain_text("lr")  # it is mended
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


# ---- training


def set_up(page: "sync_api.Page", folder: str = "tiny") -> None:
    """The Train tab with small photos and more epochs than anybody waits for."""
    page.get_by_role("tab", name="Train").click()
    choose(page, "#mtl-data", folder)
    sync_api.expect(page.locator("#mtl-data-card")).to_contain_text("training and")
    page.locator("#setting-epochs input").fill("200")
    page.locator("#setting-batch_size input").fill("8")
    page.get_by_role("button", name="Image size and generated masks").click()
    page.locator("#setting-image_size input").fill("64")


def live_runs(app: App) -> list[Run]:
    return [run for run in list_runs(app.runs_dir) if run.status().live]


def shorten(run: Run) -> int:
    """Let a run that was stopped end soon after its resume; the number of its last epoch."""
    settings, epochs = run.settings, run.status().epoch + 2
    run.write_config(settings | {"train": settings["train"] | {"epochs": epochs}})
    return epochs


def test_start_reload_second_browser_stop_resume_finish_and_use(
    app: App, page: "sync_api.Page", browser: "sync_api.Browser"
) -> None:
    set_up(page)
    page.locator("#mtl-start").click()
    card = page.locator("#mtl-run-card")
    sync_api.expect(card).to_contain_text(re.compile("Training|Validating"))
    wait_until(lambda: curve_points(page, 0) > 1, "a loss curve with more than one point")

    page.reload()
    page.get_by_role("tab", name="Train").click()
    sync_api.expect(card).to_contain_text(re.compile("epoch \\d+ of 200"))
    sync_api.expect(page.locator("#setting-epochs input")).to_have_value("200")
    sync_api.expect(page.locator("#mtl-data input")).to_have_value("tiny")
    wait_until(lambda: curve_points(page, 0) > 1, "the curve after a reload")
    sync_api.expect(page.locator("#mtl-start")).to_be_disabled()
    sync_api.expect(page.locator("#mtl-sample-picture img")).to_be_visible()

    run = live_runs(app)[0]
    with opened(app, browser) as other:
        other.get_by_role("tab", name="Train").click()
        sync_api.expect(other.locator("#mtl-run-card")).to_contain_text(re.compile("epoch \\d+ of 200"))
        sync_api.expect(other.locator("#mtl-start")).to_be_disabled()
        other.evaluate(WATCH_STOP)
        other.locator("#mtl-stop").click()
        sync_api.expect(other.locator("#mtl-run-card")).to_contain_text("Stopped")
        assert other.evaluate("window.told - window.clicked") < 300
    sync_api.expect(card).to_contain_text("Stopped")
    sync_api.expect(page.locator("#mtl-start")).to_be_enabled()
    sync_api.expect(page.locator("#mtl-stop")).to_be_disabled()

    epochs, step = shorten(run), run.status().step
    page.locator("#mtl-resume").click()
    sync_api.expect(card).to_contain_text("Finished")
    sync_api.expect(card).to_contain_text(f"{epochs} of {epochs} epochs")
    assert run.status().step > step
    assert [event["epoch"] for event in run.events() if event["event"] == "epoch"] == list(range(1, epochs + 1))
    assert len(list_runs(app.runs_dir)) == 1

    with page.expect_download() as download:
        page.locator("#mtl-download").click()
    assert download.value.path().read_bytes() == run.best_file.read_bytes()
    assert download.value.suggested_filename == f"{run.name}.pth"

    page.locator("#mtl-use").click()
    page.locator("#mtl-examples .thumbnail-item").first.click()
    sync_api.expect(page.locator("#mtl-answer h2")).to_be_visible()
    assert page.locator("#mtl-model input").input_value() == run.name


def test_of_two_starts_at_once_one_runs_and_the_other_is_told_which(
    app: App, page: "sync_api.Page", browser: "sync_api.Browser"
) -> None:
    before = len(list_runs(app.runs_dir))
    with opened(app, browser) as other:
        for visitor in (page, other):
            set_up(visitor)
        for visitor in (page, other):
            visitor.evaluate("setTimeout(() => document.querySelector('#mtl-start').click(), 200)")
        notices = [visitor.locator("#mtl-train-notice") for visitor in (page, other)]
        wait_until(lambda: any("Training cannot start" in notice.inner_text() for notice in notices), "a refusal")
        (run,) = live_runs(app)
        assert [run.name in notice.inner_text() for notice in notices].count(True) == 1
        assert len(list_runs(app.runs_dir)) == before + 1
        for visitor in (page, other):
            sync_api.expect(visitor.locator("#mtl-run-card")).to_contain_text(run.name)
            sync_api.expect(visitor.locator("#mtl-start")).to_be_disabled()
            sync_api.expect(visitor.locator("#mtl-start")).to_have_text("Start")
        other.locator("#mtl-stop").click()
        sync_api.expect(page.locator("#mtl-run-card")).to_contain_text("Stopped")


def test_a_failed_run_says_why_and_shows_the_end_of_its_log(app: App, page: "sync_api.Page") -> None:
    folder = shutil.copytree(app.data_root / "tiny", app.data_root / "soon broken")
    set_up(page, "soon broken")
    sync_api.expect(page.locator("#mtl-data-card")).to_contain_text(re.compile("Worth a look|can be read"))
    broken = sorted((folder / "images").rglob("*.jpg"))[0]
    broken.write_text("no photo")  # after the page has looked at it
    page.locator("#mtl-start").click()
    card = page.locator("#mtl-run-card")
    sync_api.expect(card).to_contain_text("Failed")
    sync_api.expect(card).to_contain_text(broken.name)
    card.get_by_text("End of the log").click()
    sync_api.expect(card.locator("pre")).to_contain_text(broken.name)
    sync_api.expect(page.locator("#mtl-start")).to_be_enabled()
    sync_api.expect(page.locator("#mtl-resume")).to_be_disabled()


def test_a_killed_server_leaves_a_run_that_reads_as_interrupted_and_can_be_resumed(
    app: App, browser: "sync_api.Browser"
) -> None:
    with opened(app, browser) as page:
        set_up(page)
        page.locator("#mtl-start").click()
        wait_until(lambda: live_runs(app) and (live_runs(app)[0].status().best_epoch or 0) >= 1, "a first epoch")
        run = live_runs(app)[0]
        app.kill_and_restart()
    with opened(app, browser) as page:
        page.get_by_role("tab", name="Train").click()
        card = page.locator("#mtl-run-card")
        sync_api.expect(card).to_contain_text(f"Interrupted: {run.name}")
        sync_api.expect(page.locator("#mtl-start")).to_be_enabled()
        sync_api.expect(page.locator("#mtl-stop")).to_be_disabled()
        epochs = shorten(run)
        page.locator("#mtl-resume").click()
        sync_api.expect(card).to_contain_text(f"Finished: {run.name}")
        assert [event["epoch"] for event in run.events() if event["event"] == "epoch"] == list(range(1, epochs + 1))


# ---- runs that are over


def write_run(app: App, name: str, epochs: int = 4) -> Run:
    """A run that is over, with curves and sample predictions, without a training."""
    run = Run.create(TrainConfig(output_dir=str(app.runs_dir), name=name, epochs=epochs))
    run.write_config({"train": TrainConfig(name=name, epochs=epochs).model_dump(mode="json")})
    for epoch in range(1, epochs + 1):
        add_epoch(run, epoch)
        Image.new("RGB", (60, 80), (40 * epoch, 80, 90)).save(run.path / "samples" / f"epoch_{epoch:04}.png")
    run.update(state="stopped", epoch=epochs, best_epoch=epochs, best={"val_loss": 0.5, "val_dice": 0.9})
    return run


def add_epoch(run: Run, epoch: int) -> None:
    """Ten steps and the validation after them."""
    for step in range(10):
        done = epoch - 1 + (step + 1) / 10
        losses = {"loss": 2 / (1 + done), "classification_loss": 1.0, "segmentation_loss": 0.5}
        run.append_event({"event": "step", "step": round(10 * done), "epoch": epoch, "epochs_done": done, **losses})
    run.append_event({"event": "epoch", "epoch": epoch, "step": 10 * epoch, "val_loss": 1 / epoch, "val_dice": 0.9})


def shown_epochs(page: "sync_api.Page", plot: int) -> float:
    """The right end of a plot's x axis, as it tells screen readers."""
    axis = page.locator(f"#mtl-plot-{plot} svg.marks [aria-label^='X-axis']")
    label = axis.get_attribute("aria-label") or "" if axis.count() else ""
    found = re.search(r"values from \S+ to ([\d.]+)", label)
    return float(found[1]) if found else 0.0


def test_runs_are_compared_and_deleted(app: App, page: "sync_api.Page") -> None:
    kept, gone = write_run(app, "kept"), write_run(app, "gone", epochs=3)
    page.get_by_role("tab", name="Train").click()
    table = page.locator("#mtl-runs")
    for run in (kept, gone):
        table.get_by_label(f"tick {run.name}").check()
    compared = page.locator("#mtl-compare")
    for run in (kept, gone):
        sync_api.expect(compared.locator(".mtl-legend")).to_contain_text(run.name)
    wait_until(lambda: compared.locator("svg.marks .mark-line path[d*=L]").count() == 2, "two curves")
    table.get_by_label(f"tick {kept.name}").uncheck()
    sync_api.expect(compared.locator(".mtl-legend")).not_to_contain_text(kept.name)

    with page.expect_download() as download:
        page.locator("#mtl-runs-download").click()
    assert f"{gone.name}/metrics.jsonl" in zipfile.ZipFile(download.value.path()).namelist()

    page.locator("#mtl-runs-delete").click()
    question = page.locator("#mtl-confirm")
    sync_api.expect(question).to_contain_text(re.compile(rf"{gone.name}, \d+ kB"))
    page.locator("#mtl-confirm-no").click()
    sync_api.expect(question).to_be_hidden()
    assert gone.path.is_dir()
    page.locator("#mtl-runs-delete").click()
    page.locator("#mtl-confirm-yes").click()
    sync_api.expect(table.get_by_label(f"tick {gone.name}")).to_have_count(0)
    assert not gone.path.exists()
    sync_api.expect(table.get_by_label(f"tick {kept.name}")).not_to_be_checked()
    assert kept.path.is_dir()


def test_zoom_and_an_earlier_sample_stay_while_the_run_goes_on(app: App, page: "sync_api.Page") -> None:
    run = write_run(app, "long")
    page.get_by_role("tab", name="Train").click()
    page.locator("#mtl-runs").get_by_role("button", name=run.name).click()
    sync_api.expect(page.locator("#mtl-run-card")).to_contain_text(f"Stopped: {run.name}")
    wait_until(lambda: shown_epochs(page, 0) >= 3.5, "the whole curve")
    page.wait_for_timeout(1500)  # the page rolls to the run, and its plots are laid out
    plot = page.locator("#mtl-plot-0 svg.marks")
    plot.hover(position={"x": 120, "y": 60})
    box = plot.bounding_box()
    assert box is not None
    page.mouse.down()
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 60, steps=4)
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 60, steps=4)
    page.mouse.up()
    for number in (0, 1):
        wait_until(lambda number=number: 1 < shown_epochs(page, number) < 3, "the zoom, in every plot")

    picture, slider = page.locator("#mtl-sample-picture img"), page.locator("#mtl-sample-epoch input[type=number]")
    newest = picture.get_attribute("src")
    slider.fill("2")
    wait_until(lambda: picture.get_attribute("src") != newest, "the earlier sample")
    earlier = picture.get_attribute("src")

    drawn = curve_points(page, 0)
    add_epoch(run, 5)
    Image.new("RGB", (60, 80)).save(run.path / "samples" / "epoch_0005.png")
    sync_api.expect(page.locator("#mtl-sample-epoch")).to_contain_text("5")
    page.wait_for_timeout(1500)
    assert 1 < shown_epochs(page, 0) < 3
    assert curve_points(page, 0) == drawn
    assert picture.get_attribute("src") == earlier

    plot.dblclick(position={"x": 120, "y": 60})
    wait_until(lambda: shown_epochs(page, 0) >= 4.5, "the whole curve again, with what came meanwhile")


def test_a_page_whose_run_was_deleted_says_so_and_goes_on(app: App, page: "sync_api.Page") -> None:
    kept, run = write_run(app, "kept"), write_run(app, "soon-deleted")
    page.get_by_role("tab", name="Train").click()
    page.locator("#mtl-runs").get_by_role("button", name=run.name).click()
    card, shown = page.locator("#mtl-run-card"), page.locator("#mtl-run input")
    sync_api.expect(shown).to_have_value(run.name)
    sync_api.expect(card).to_contain_text(run.name)
    run.delete()
    sync_api.expect(card).to_contain_text("This run is gone")
    shown.click()  # asks for the runs that there are now
    sync_api.expect(page.get_by_role("option", name=f"{run.name} (gone)")).to_be_visible()
    page.wait_for_timeout(2500)
    sync_api.expect(page.locator(".toast-body")).to_have_count(0)
    page.get_by_role("option", name="Latest run").click()
    sync_api.expect(card).not_to_contain_text("This run is gone")
    kept.delete()


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(app: App, browser: "sync_api.Browser", width: int) -> None:
    run = write_run(app, "wide-" + "name-" * 10)
    with opened(app, browser, width) as page:
        for tab in ("Analyse", "About", "Train"):
            page.get_by_role("tab", name=tab).click()
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
        page.locator("#mtl-runs").get_by_label(f"tick {run.name}").check()
        sync_api.expect(page.locator("#mtl-compare .mtl-legend")).to_be_visible()
        page.locator("#mtl-runs-delete").click()
        sync_api.expect(page.locator("#mtl-confirm")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    run.delete()
