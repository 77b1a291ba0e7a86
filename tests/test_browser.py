"""The Train tab as a person meets it, in a real Chromium: skipped where there is none."""

import re
import shutil
import zipfile

import pytest
from browser import App, choose, needs_chromium, opened, sync_api, wait_until
from PIL import Image

from mtl.config import TrainConfig
from mtl.training.run import Run, list_runs

pytestmark = needs_chromium

TRAINING_MS = 300_000  # for two epochs beside other tests

# Notes when Stop was pressed and when it first read otherwise.
WATCH_STOP = """() => {
  const button = document.querySelector("#mtl-stop");
  button.addEventListener("click", () => (window.clicked = Date.now()));
  new MutationObserver((_, watcher) => { window.told = Date.now(); watcher.disconnect(); })
    .observe(button, { childList: true, characterData: true, subtree: true });
}"""


def curve_points(page: "sync_api.Page", plot: int) -> int:
    """Points of the longest line that is drawn, as its SVG path has them."""
    paths = page.locator(f"#mtl-plot-{plot} svg .mark-line path").evaluate_all(
        "all => all.map(p => p.getAttribute('d'))"
    )
    return max((len(re.findall("[ML]", path or "")) for path in paths), default=0)


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
    sync_api.expect(card).to_contain_text("Finished", timeout=TRAINING_MS)
    # On a slow machine the run was stopped late, and may end early: no more improvement.
    done = run.status().epoch
    sync_api.expect(card).to_contain_text(f"{done} of {epochs} epochs")
    assert run.status().step > step
    assert [event["epoch"] for event in run.events() if event["event"] == "epoch"] == list(range(1, done + 1))
    assert len(list_runs(app.runs_dir)) == 1

    with page.expect_download() as download:
        page.locator("#mtl-download").click()
    assert download.value.path().read_bytes() == run.best_file.read_bytes()
    assert download.value.suggested_filename == f"{run.name}.pth"

    page.locator("#mtl-use").click()
    page.locator("#mtl-examples button").first.click()
    sync_api.expect(page.locator("#mtl-answer h2")).to_be_visible()
    sync_api.expect(page.locator("#mtl-answer details").last).to_contain_text(f"{run.name}, revision")


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
    shutil.rmtree(folder)


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
        sync_api.expect(card).to_contain_text(f"Finished: {run.name}", timeout=TRAINING_MS)
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
